//! `k8s.NodeLabelSpecController` and `k8s.NodeTaintSpecController`: labels and taints that the node is to carry.

use config::v1alpha1::Config;
use controller::{Controller, Projection};
use kube_edge::CONTROL_PLANE_LABEL;
use resources::k8s::{NodeLabelSpec, NodeTaintSpec};

const NO_SCHEDULE: &str = "NoSchedule";

pub(crate) fn label_controller() -> Box<dyn Controller> {
    Projection::boxed("k8s.NodeLabelSpecController", labels)
}

pub(crate) fn taint_controller() -> Box<dyn Controller> {
    Projection::boxed("k8s.NodeTaintSpecController", taints)
}

fn labels(config: &Config) -> Vec<(String, NodeLabelSpec)> {
    let role = config.is_control_plane().then(|| (CONTROL_PLANE_LABEL.to_owned(), String::new()));
    let configured = config.machine().node_labels.clone();
    role.into_iter().chain(configured).map(|(key, value)| (key.clone(), NodeLabelSpec { key, value })).collect()
}

fn taints(config: &Config) -> Vec<(String, NodeTaintSpec)> {
    let reserved = config.is_control_plane() && !config.cluster().schedules_on_control_planes();
    let role = reserved.then(|| (CONTROL_PLANE_LABEL.to_owned(), NO_SCHEDULE.to_owned()));
    let configured = config.machine().node_taints.clone();
    role.into_iter()
        .chain(configured)
        .map(|(key, text)| {
            // `value:effect`, or the effect alone.
            let (value, effect) = text.split_once(':').unwrap_or(("", &text));
            (key.clone(), NodeTaintSpec { key, effect: effect.to_owned(), value: value.to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Documents;

    fn config(text: &str) -> Documents {
        Documents::from_yaml(text.as_bytes()).unwrap()
    }

    #[test]
    fn control_plane_is_reserved_unless_the_configuration_lets_others_in() {
        let reserved = config("version: v1alpha1\nmachine:\n  type: controlplane\n  nodeLabels:\n    a: b\n");
        let reserved = reserved.v1alpha1().unwrap();
        let keys: Vec<_> = labels(reserved).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [CONTROL_PLANE_LABEL, "a"]);
        assert_eq!(taints(reserved)[0].1.effect, NO_SCHEDULE);

        let text =
            "version: v1alpha1\nmachine:\n  type: controlplane\ncluster:\n  allowSchedulingOnControlPlanes: true\n";
        assert!(taints(config(text).v1alpha1().unwrap()).is_empty());
    }

    #[test]
    fn taint_of_a_worker_is_effect_with_or_without_value() {
        let worker = config(
            "version: v1alpha1\nmachine:\n  type: worker\n  nodeTaints:\n    a: v:NoExecute\n    b: NoSchedule\n",
        );
        let taints = taints(worker.v1alpha1().unwrap());
        assert_eq!((taints[0].1.value.as_str(), taints[0].1.effect.as_str()), ("v", "NoExecute"));
        assert_eq!((taints[1].1.value.as_str(), taints[1].1.effect.as_str()), ("", "NoSchedule"));
    }
}
