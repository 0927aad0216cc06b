//! `k8s.KubeletServiceController`: the files that the kubelet starts from, and the word that it may start.
//!
//! The kubelet's container is the supervisor's work.

use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::{kubeconfig, paths, yaml};
use resources::k8s::{KubeletIdentityStatus, KubeletLifecycle, KubeletSpec};
use resources::secrets::KubeletSecrets;
use serde_json::Value;
use sys::files::{self, Access};
use tokio::sync::watch;

use crate::Root;

/// The kubelet's files are in place. A new value means to start it anew.
#[derive(Debug, Clone, PartialEq)]
pub struct KubeletReady {
    pub spec: KubeletSpec,
    /// Counts changes of files that `spec` does not show, such as the authority.
    pub revision: u64,
}

#[derive(Debug)]
pub struct KubeletServiceController {
    root: Root,
    ready: watch::Sender<Option<KubeletReady>>,
    revision: u64,
}

impl KubeletServiceController {
    #[must_use]
    pub fn new(root: Root, ready: watch::Sender<Option<KubeletReady>>) -> Self {
        Self { root, ready, revision: 0 }
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
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubeletLifecycle>()]
    }

    fn resync(&self) -> Option<Duration> {
        // Puts back what somebody removed.
        Some(Duration::from_secs(60))
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let (Some(spec), Some(secrets)) =
            (ctx.get::<KubeletSpec>(KubeletSpec::ID)?, ctx.get::<KubeletSecrets>(KubeletSecrets::ID)?)
        else {
            return Ok(());
        };
        if self.write(&spec, &secrets)? {
            self.revision += 1;
        }
        let Some(identity) = ctx.get::<KubeletIdentityStatus>(KubeletIdentityStatus::ID)? else { return Ok(()) };
        // A kubelet that runs is not stopped because its next certificate is not there yet.
        if !identity.ready {
            return Ok(());
        }
        let revision = self.revision + identity.revision;
        let ready = KubeletReady { spec: (*spec.spec).clone(), revision };
        ctx.put(KubeletLifecycle::ID, KubeletLifecycle {})?;
        self.ready.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&ready);
            if changed {
                *known = Some(ready);
            }
            changed
        });
        Ok(())
    }
}

impl KubeletServiceController {
    /// Whether a file changed that does not follow from the spec.
    fn write(&self, spec: &KubeletSpec, secrets: &KubeletSecrets) -> Result<bool, ReconcileError> {
        let ca: Vec<u8> = secrets.accepted_cas.iter().flat_map(|ca| ca.crt.as_bytes().to_vec()).collect();
        let ca_text = String::from_utf8_lossy(&ca);
        let token = format!("{}.{}", secrets.bootstrap_token_id, secrets.bootstrap_token_secret);
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
