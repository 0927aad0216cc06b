//! `k8s.KubeletServiceController`: the files that the kubelet starts from, and the spec that lets it start.
//!
//! The kubelet's container is the supervisor's work.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::{kubeconfig, paths, yaml};
use resources::block::UserDiskStatus;
use resources::k8s::{KubeletIdentityStatus, KubeletLifecycle, KubeletSpec, NodeIp, NodeIpConfig};
use resources::lifecycle::ServiceSpec;
use resources::runtime::MountStatus;
use resources::secrets::KubeletSecrets;
use resources::time::TimeStatus;
use serde_json::Value;
use sys::files::{self, Access};

use crate::Root;

/// The service's id.
const SERVICE: &str = "kubelet";

/// The kubelet's service spec, once its files are in place; before that, the unmet condition.
#[derive(Debug)]
pub struct KubeletServiceController {
    root: Root,
    /// Counts changes of files that the spec does not show, such as the authority.
    revision: u64,
}

impl KubeletServiceController {
    #[must_use]
    pub const fn new(root: Root) -> Self {
        Self { root, revision: 0 }
    }
}

#[async_trait]
impl Controller for KubeletServiceController {
    fn name(&self) -> &'static str {
        "k8s.KubeletServiceController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<KubeletSpec>().id(KubeletSpec::ID),
            Input::weak::<KubeletSecrets>().id(KubeletSecrets::ID),
            Input::weak::<KubeletIdentityStatus>().id(KubeletIdentityStatus::ID),
            Input::weak::<TimeStatus>().id(TimeStatus::ID),
            Input::weak::<UserDiskStatus>(),
            // Conditions of a missing spec.
            Input::weak::<NodeIp>().id(NodeIp::ID),
            Input::weak::<NodeIpConfig>().id(NodeIpConfig::ID),
            Input::weak::<MountStatus>().id(MountStatus::EPHEMERAL),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubeletLifecycle>(), Output::shared::<ServiceSpec>()]
    }

    fn resync(&self) -> Option<Duration> {
        // Restores removed files.
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (Some(spec), Some(secrets), Some(volume)) = (
            ctx.get::<KubeletSpec>(KubeletSpec::ID)?,
            ctx.get::<KubeletSecrets>(KubeletSecrets::ID)?,
            ctx.get::<MountStatus>(MountStatus::EPHEMERAL)?,
        ) else {
            // It is required from the start; a briefly missing input does not stop it.
            let waits_for = missing_spec(ctx)?;
            ctx.modify(SERVICE, |service: &mut ServiceSpec| {
                service.required = true;
                service.waits_for = waits_for;
            })?;
            return Ok(());
        };
        if self.write(&spec, &secrets)? {
            self.revision += 1;
        }
        // A missing renewal must not stop a running kubelet.
        let identity = ctx.get::<KubeletIdentityStatus>(KubeletIdentityStatus::ID)?;
        let identity = identity.map(|identity| (*identity.spec).clone()).unwrap_or_default();
        // It relies on the clock.
        let has_time = ctx.get::<TimeStatus>(TimeStatus::ID)?.is_some_and(|time| time.synced);
        let waits_for = if !has_time {
            "time sync".to_owned()
        } else if identity.nodename != spec.expected_nodename {
            // One of both is of a former name: a kubelet that is started now makes a certificate for the wrong one.
            format!("the certificate of the kubelet for the name {}", spec.expected_nodename)
        } else if identity.ready {
            String::new()
        } else {
            format!("the certificate of the kubelet: {}", identity.waits_for)
        };
        let service = ServiceSpec {
            required: true,
            waits_for,
            revision: (self.revision + identity.revision + remounts(ctx, &spec)?).to_string(),
            image: spec.image.clone(),
            args: spec.args.clone(),
            mounts: spec.extra_mounts.clone(),
            volume: volume.target.clone(),
            ..ServiceSpec::default()
        };
        ctx.put(KubeletLifecycle::ID, KubeletLifecycle {})?;
        ctx.put(SERVICE, service)?;
        Ok(())
    }
}

/// How often disks were mounted again that the kubelet's container has mounts of: what it has of the former mount is dead.
fn remounts(ctx: &Ctx, spec: &KubeletSpec) -> Result<u64, ReconcileError> {
    let is_used = |disk: &str| spec.extra_mounts.iter().any(|mount| Path::new(&mount.source).starts_with(disk));
    let disks = ctx.list::<UserDiskStatus>()?;
    Ok(disks.iter().filter(|disk| is_used(disk.id())).map(|disk| disk.remounts).sum())
}

/// The unmet condition of a kubelet without a spec.
fn missing_spec(ctx: &Ctx) -> Result<String, ReconcileError> {
    let config = ctx.get::<NodeIpConfig>(NodeIpConfig::ID)?;
    let has_address = ctx.get::<NodeIp>(NodeIp::ID)?.is_some();
    Ok(match config.filter(|_| !has_address) {
        Some(config) => format!("an address of the node in {}", config.valid_subnets.join(", ")),
        None => "the configuration of the kubelet".to_owned(),
    })
}

impl KubeletServiceController {
    /// Whether a file changed that does not follow from the spec.
    fn write(&self, spec: &KubeletSpec, secrets: &KubeletSecrets) -> Result<bool, ReconcileError> {
        let ca: Vec<u8> = secrets.accepted_cas.iter().flat_map(|ca| ca.crt.as_bytes().to_vec()).collect();
        let ca_text = String::from_utf8_lossy(&ca);
        let token = secrets.bootstrap_token();
        let bootstrap = kubeconfig::kubelet_bootstrap(secrets.endpoint.0.trim_end_matches('/'), &ca_text, &token)?;
        let config = yaml::to_string(&Value::Object(spec.config.clone()))?;

        let ca_changed = files::write_atomic(&self.root.at(paths::KUBERNETES_CA), &ca, Access::PUBLIC)?;
        let bootstrap_file = self.root.at(paths::KUBELET_BOOTSTRAP_KUBECONFIG);
        let bootstrap_changed = files::write_atomic(&bootstrap_file, bootstrap.as_bytes(), Access::SECRET)?;
        let config_file = self.root.at(paths::KUBELET_CONFIG);
        let config_changed = files::write_atomic(&config_file, config.as_bytes(), Access::SECRET)?;
        if !spec.credential_provider_config.is_empty() {
            let provider = yaml::to_string(&Value::Object(spec.credential_provider_config.clone()))?;
            let file = self.root.at(paths::KUBELET_CREDENTIAL_PROVIDER_CONFIG);
            files::write_atomic(&file, provider.as_bytes(), Access::SECRET)?;
        }
        Ok(ca_changed || bootstrap_changed || config_changed)
    }
}
