//! The machine configurations of a local cluster, and the talosconfig that goes with them.
//!
//! Fields that every cluster has alike are left to their defaults; what is written is what this cluster differs in:
//! secrets, images of the bundle, mirrors, discovery on the gateway, the native pod network.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::talosconfig::SecretText;
use client::{ConfigContext, TalosConfig};
use pki::{
    Algorithm, Authority, PkiError, Sans, SecretsBundle, SecretsOptions, Subject, Validity,
    authority::{Template, Usage},
};
use serde_json::{Value, json};
use stdx::{Clock as _, SystemClock};

use super::failure::UpError;
use super::offline::Offline;
use crate::plan::{Plan, Role};

/// Registries whose images a bundle may have.
const MIRRORED: [&str; 5] = ["docker.io", "gcr.io", "ghcr.io", "quay.io", "registry.k8s.io"];
const DEFAULT_KUBERNETES: &str = "1.30.0";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the operator chose.
#[derive(Debug, Clone)]
pub struct ConfigRequest {
    /// With or without `v`; else what the bundle has, else the default.
    pub kubernetes_version: Option<String>,
    pub dns_domain: String,
    pub nameservers: Vec<String>,
    pub control_plane_port: u16,
    /// None switches KubePrism off.
    pub kubeprism_port: Option<u16>,
    /// Registry host and URL of its mirror; these win over the bundle's.
    pub mirrors: Vec<(String, String)>,
    pub discovery: bool,
    /// Manifests of another pod network; empty takes the native one.
    pub custom_cni: Vec<String>,
}

/// The documents of a cluster.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) kubernetes_version: String,
    pub(super) endpoint: String,
    control_plane: Vec<u8>,
    worker: Vec<u8>,
    pub(super) talosconfig: TalosConfig,
}

impl Rendered {
    pub(super) fn of(&self, role: Role) -> &[u8] {
        match role {
            Role::ControlPlane => &self.control_plane,
            Role::Worker => &self.worker,
        }
    }
}

/// Makes new secrets and the documents around them.
pub(super) fn render(
    request: &ConfigRequest,
    plan: &Plan,
    offline: Option<&Offline>,
    registry: Option<&str>,
) -> Result<Rendered, UpError> {
    let wanted = request.kubernetes_version.as_deref();
    offline.map_or(Ok(()), |offline| offline.check_version(wanted))?;
    let version = wanted.or_else(|| offline.and_then(Offline::kubernetes_version)).unwrap_or(DEFAULT_KUBERNETES);
    let version = version.trim_start_matches('v').to_owned();
    let first = plan.first_control_plane().map_or(plan.gateway, |node| node.address);
    let endpoint = format!("https://{first}:{}", request.control_plane_port);

    let now = SystemClock.now();
    let secrets = SecretsBundle::generate(now, SecretsOptions::default()).map_err(generating("secrets"))?;
    let common = Common { request, plan, offline, registry, secrets: &secrets, version: &version, endpoint: &endpoint };
    Ok(Rendered {
        control_plane: checked("control plane configuration", &common.control_plane())?,
        worker: checked("worker configuration", &common.worker())?,
        talosconfig: talosconfig(plan, &secrets, now).map_err(generating("talosconfig"))?,
        kubernetes_version: version,
        endpoint,
    })
}

/// What an operator chose may be wrong; a node must not be the one to say so.
fn checked(subject: &'static str, document: &Value) -> Result<Vec<u8>, UpError> {
    let bytes = document.to_string().into_bytes();
    let refuse = |source: config::ConfigErrors| UpError::Generate { subject, source: Box::new(source) };
    let documents = config::Documents::from_yaml(&bytes).map_err(refuse)?;
    config::validate(&documents, config::Mode::Container).into_result().map_err(refuse)?;
    Ok(bytes)
}

fn generating(subject: &'static str) -> impl FnOnce(PkiError) -> UpError {
    move |source| UpError::Generate { subject, source: Box::new(source) }
}

struct Common<'a> {
    request: &'a ConfigRequest,
    plan: &'a Plan,
    offline: Option<&'a Offline>,
    registry: Option<&'a str>,
    secrets: &'a SecretsBundle,
    version: &'a str,
    endpoint: &'a str,
}

impl Common<'_> {
    fn control_plane(&self) -> Value {
        let Self { secrets, version, .. } = self;
        let mut cluster = self.cluster();
        cluster["ca"] = pair(&secrets.certs.k8s.crt, &secrets.certs.k8s.key);
        cluster["aggregatorCA"] = pair(&secrets.certs.k8s_aggregator.crt, &secrets.certs.k8s_aggregator.key);
        cluster["serviceAccount"] = json!({ "key": STANDARD.encode(&secrets.certs.k8s_service_account.key) });
        cluster["secretboxEncryptionSecret"] = json!(secrets.secrets.secretbox_encryption_secret);
        cluster["apiServer"] = json!({
            "image": format!("registry.k8s.io/kube-apiserver:v{version}"),
            "disablePodSecurityPolicy": true,
        });
        cluster["controllerManager"] =
            json!({ "image": format!("registry.k8s.io/kube-controller-manager:v{version}") });
        cluster["scheduler"] = json!({ "image": format!("registry.k8s.io/kube-scheduler:v{version}") });
        cluster["proxy"] = json!({ "image": format!("registry.k8s.io/kube-proxy:v{version}") });
        cluster["etcd"] = json!({ "ca": pair(&secrets.certs.etcd.crt, &secrets.certs.etcd.key) });
        if let Some(etcd) = self.offline.and_then(Offline::etcd) {
            cluster["etcd"]["image"] = json!(etcd);
        }
        if self.offline.is_some_and(|offline| !offline.has_coredns()) {
            cluster["coreDNS"] = json!({ "disabled": true });
        }
        let mut machine = self.machine(Role::ControlPlane);
        machine["ca"] = pair(&secrets.certs.os.crt, &secrets.certs.os.key);
        document(&machine, &cluster)
    }

    fn worker(&self) -> Value {
        let mut cluster = self.cluster();
        cluster["ca"] = pair(&self.secrets.certs.k8s.crt, "");
        let mut machine = self.machine(Role::Worker);
        machine["ca"] = pair(&self.secrets.certs.os.crt, "");
        document(&machine, &cluster)
    }

    fn machine(&self, role: Role) -> Value {
        let mut machine = json!({
            "type": role.as_str(),
            "token": self.secrets.trustd.token,
            "certSANs": [],
            "kubelet": {
                "image": format!("ghcr.io/siderolabs/kubelet:v{}", self.version),
                "defaultRuntimeSeccompProfileEnabled": true,
                "disableManifestsDirectory": true,
            },
            "network": { "nameservers": self.request.nameservers },
            "features": {
                "rbac": true,
                "stableHostname": true,
                "apidCheckExtKeyUsage": true,
                "diskQuotaSupport": true,
            },
        });
        machine["features"]["kubePrism"] = match self.request.kubeprism_port {
            Some(port) => json!({ "enabled": true, "port": port }),
            None => json!({ "enabled": false }),
        };
        let mirrors = self.mirrors();
        if !mirrors.is_empty() {
            machine["registries"] = json!({ "mirrors": mirrors });
        }
        machine
    }

    fn mirrors(&self) -> serde_json::Map<String, Value> {
        let bundled = self.registry.iter().flat_map(|url| MIRRORED.map(|host| (host.to_owned(), (*url).to_owned())));
        let mut mirrors = serde_json::Map::new();
        for (host, url) in bundled {
            mirrors.insert(host, json!({ "endpoints": [url] }));
        }
        for (host, _) in &self.request.mirrors {
            let own = self.request.mirrors.iter().filter(|(other, _)| other == host).map(|(_, url)| url);
            mirrors.insert(host.clone(), json!({ "endpoints": own.collect::<Vec<_>>() }));
        }
        mirrors
    }

    fn cluster(&self) -> Value {
        let Self { request, plan, secrets, .. } = self;
        let cni = if request.custom_cni.is_empty() {
            json!({ "name": "native" })
        } else {
            json!({ "name": "custom", "urls": request.custom_cni })
        };
        json!({
            "id": secrets.cluster.id,
            "secret": secrets.cluster.secret,
            "controlPlane": { "endpoint": self.endpoint, "localAPIServerPort": request.control_plane_port },
            "clusterName": plan.name,
            "network": {
                "cni": cni,
                "dnsDomain": request.dns_domain,
                "podSubnets": ["10.244.0.0/16"],
                "serviceSubnets": ["10.96.0.0/12"],
            },
            "token": secrets.secrets.bootstrap_token,
            "discovery": {
                "enabled": request.discovery,
                "registries": {
                    "kubernetes": { "disabled": true },
                    "service": { "endpoint": plan.discovery_endpoint() },
                },
            },
        })
    }
}

/// JSON is YAML.
fn document(machine: &Value, cluster: &Value) -> Value {
    json!({ "version": "v1alpha1", "debug": false, "persist": true, "machine": machine, "cluster": cluster })
}

fn pair(crt: &str, key: &str) -> Value {
    json!({ "crt": STANDARD.encode(crt), "key": STANDARD.encode(key) })
}

fn talosconfig(plan: &Plan, secrets: &SecretsBundle, now: SystemTime) -> Result<TalosConfig, PkiError> {
    let authority = Authority::from_pair(&secrets.certs.os)?;
    let template = Template {
        subject: Subject::organization("os:admin"),
        sans: Sans::default(),
        usage: Usage::Client,
        validity: Validity::starting(now, YEAR),
    };
    let client = authority.issue_pair(Algorithm::Ed25519, &template)?;
    let of_role = |role| plan.nodes.iter().filter(move |node| node.role == role).map(|node| node.address.to_string());
    let context = ConfigContext {
        endpoints: of_role(Role::ControlPlane).collect(),
        nodes: of_role(Role::ControlPlane).take(1).collect(),
        ca: STANDARD.encode(&secrets.certs.os.crt),
        crt: STANDARD.encode(&client.crt),
        key: SecretText(STANDARD.encode(&client.key)),
        ..ConfigContext::default()
    };
    let contexts = [(plan.name.clone(), context)].into_iter().collect();
    Ok(TalosConfig { context: plan.name.clone(), contexts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NodeSpec;

    fn request() -> ConfigRequest {
        ConfigRequest {
            kubernetes_version: Some("v1.20.2".to_owned()),
            dns_domain: "cluster.local".to_owned(),
            nameservers: vec!["1.1.1.1".to_owned()],
            control_plane_port: 6443,
            kubeprism_port: Some(7445),
            mirrors: vec![("quay.io".to_owned(), "http://mirror:1".to_owned())],
            discovery: true,
            custom_cni: vec![],
        }
    }

    fn rendered(request: &ConfigRequest) -> Result<Rendered, UpError> {
        let plan = Plan::new("one", "10.6.0.0/24", 1500, &NodeSpec { controlplanes: 1, workers: 1 }).unwrap();
        render(request, &plan, None, Some("http://10.6.0.1:5000"))
    }

    #[test]
    fn the_nodes_are_told_where_images_discovery_and_the_first_control_plane_are() {
        let rendered = rendered(&request()).unwrap();
        for role in [Role::ControlPlane, Role::Worker] {
            let config: Value = serde_json::from_slice(rendered.of(role)).unwrap();
            assert_eq!(config["machine"]["type"], role.as_str());
            let mirrors = &config["machine"]["registries"]["mirrors"];
            assert_eq!(mirrors["registry.k8s.io"]["endpoints"], json!(["http://10.6.0.1:5000"]));
            assert_eq!(mirrors["quay.io"]["endpoints"], json!(["http://mirror:1"]), "the operator's mirror wins");
            let cluster = &config["cluster"];
            assert_eq!(cluster["controlPlane"]["endpoint"], "https://10.6.0.2:6443");
            assert_eq!(cluster["discovery"]["registries"]["service"]["endpoint"], "http://10.6.0.1:3000/");
            assert_eq!(cluster["network"]["cni"]["name"], "native");
        }
        assert_eq!(rendered.kubernetes_version, "1.20.2");
        let context = &rendered.talosconfig.contexts["one"];
        assert_eq!(
            (context.endpoints.as_slice(), context.nodes.as_slice()),
            (["10.6.0.2".to_owned()].as_slice(), ["10.6.0.2".to_owned()].as_slice())
        );
        context.credentials().unwrap();
    }

    #[test]
    fn a_worker_gets_no_key_of_an_authority() {
        let rendered = rendered(&request()).unwrap();
        let config: Value = serde_json::from_slice(rendered.of(Role::Worker)).unwrap();
        assert_eq!((&config["machine"]["ca"]["key"], &config["cluster"]["ca"]["key"]), (&json!(""), &json!("")));
        for secret in ["etcd", "aggregatorCA", "serviceAccount", "secretboxEncryptionSecret"] {
            assert_eq!(config["cluster"].get(secret), None, "{secret}");
        }
    }

    #[test]
    fn a_choice_that_no_node_accepts_is_refused() {
        let refused = rendered(&ConfigRequest { nameservers: vec!["not an address".to_owned()], ..request() });
        assert!(matches!(&refused, Err(UpError::Generate { .. })), "{refused:?}");
    }
}
