//! `k8s.StaticPodConfigController`: static pods of the configuration (`machine.pods`).

use config::v1alpha1::Config;
use controller::Controller;
use resources::k8s::StaticPod;
use serde_json::Value;

use controller::Projection;

pub(crate) fn controller() -> Box<dyn Controller> {
    Projection::shared("k8s.StaticPodConfigController", pods)
}

fn pods(config: &Config) -> Vec<(String, StaticPod)> {
    let name = |pod: &Value, key: &str| pod["metadata"][key].as_str().map(str::to_owned);
    config
        .machine()
        .pods
        .iter()
        .filter_map(|pod| {
            let value = Value::Object(pod.clone());
            let namespace = name(&value, "namespace").unwrap_or_else(|| "default".to_owned());
            let id = format!("{namespace}-{}", name(&value, "name")?);
            Some((id, StaticPod { pod: pod.clone() }))
        })
        .collect()
}
