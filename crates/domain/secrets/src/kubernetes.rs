//! Kubeconfigs of the control plane's components and of the administrator, on control planes.

use std::time::Duration;

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::kubeconfig;
use pki::{Algorithm, Sans, Subject, Usage, Validity};
use resources::{
    config::MachineConfig,
    secrets::{KubernetesRootSecret, KubernetesSecrets},
    time::TimeStatus,
    values::{CertificateAndKey, Pem},
};

use crate::issue::{self, CachedPair, KUBERNETES_LIFETIME};

const SCHEDULER: &str = "system:kube-scheduler";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const LOCALHOST_ADMIN: &str = "talos:admin";
const MASTERS: &str = "system:masters";

/// What a client certificate follows from: the authority, the epoch of the clock, its lifetime.
type Origin = (CertificateAndKey, i64, Duration);

/// `secrets.KubernetesController`. Each certificate is renewed on its own: an administrator's of an hour does not renew those of
/// the components.
#[derive(Debug, Default)]
pub struct KubernetesController {
    scheduler: CachedPair<Origin>,
    controller_manager: CachedPair<Origin>,
    localhost_admin: CachedPair<Origin>,
    admin: CachedPair<Origin>,
}

#[async_trait]
impl Controller for KubernetesController {
    fn name(&self) -> &'static str {
        "secrets.KubernetesController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<KubernetesRootSecret>().id(KubernetesRootSecret::ID),
            // The lifetime of the administrator's certificate.
            Input::weak::<MachineConfig>().id(MachineConfig::ACTIVE_ID),
            Input::weak::<TimeStatus>().id(TimeStatus::ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubernetesSecrets>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let root = ctx.get::<KubernetesRootSecret>(KubernetesRootSecret::ID)?;
        let ca = root.as_ref().and_then(|root| root.issuing_ca.as_ref());
        let (Some(root), Some(ca)) = (&root, ca) else {
            *self = Self::default();
            ctx.destroy::<KubernetesSecrets>(KubernetesSecrets::ID)?;
            return Ok(());
        };
        let Some(time) = ctx.get::<TimeStatus>(TimeStatus::ID)?.filter(|status| status.synced) else { return Ok(()) };
        let active = ctx.get::<MachineConfig>(MachineConfig::ACTIVE_ID)?;
        let Some(config) = MachineConfig::root_of(active.as_deref())? else { return Ok(()) };
        let admin_lifetime = config.cluster().admin_kubeconfig_lifetime();

        let now = ctx.clock().now();
        let mut client = |cached: &mut CachedPair<Origin>, user: &str, organization: &str, lifetime: Duration| {
            cached.get(ctx, (ca.clone(), time.epoch, lifetime), || {
                let subject = Subject::common_name(user).with_organization(organization);
                let validity = Validity::starting(now, lifetime);
                let authority = issue::authority(ca)?;
                issue::leaf(&authority, Algorithm::EcdsaP256, Usage::Client, subject, Sans::default(), validity)
            })
        };
        let scheduler = client(&mut self.scheduler, SCHEDULER, SCHEDULER, KUBERNETES_LIFETIME)?;
        let controller_manager =
            client(&mut self.controller_manager, CONTROLLER_MANAGER, CONTROLLER_MANAGER, KUBERNETES_LIFETIME)?;
        let localhost_admin = client(&mut self.localhost_admin, LOCALHOST_ADMIN, MASTERS, KUBERNETES_LIFETIME)?;
        let admin = client(&mut self.admin, "admin", MASTERS, admin_lifetime)?;

        let accepted = accepted(root);
        let component = |user: &str, pair: &CertificateAndKey| {
            let (crt, key) = (text(&pair.crt), text(&pair.key));
            kubeconfig::component(&root.name, user, &root.local_endpoint.0, &accepted, &crt, &key)
        };
        let (crt, key) = (text(&admin.crt), text(&admin.key));
        let spec = KubernetesSecrets {
            scheduler_kubeconfig: component(SCHEDULER, &scheduler)?,
            controller_manager_kubeconfig: component(CONTROLLER_MANAGER, &controller_manager)?,
            localhost_admin_kubeconfig: component(LOCALHOST_ADMIN, &localhost_admin)?,
            admin_kubeconfig: kubeconfig::admin(&root.name, &root.endpoint.0, &accepted, &crt, &key)?,
        };
        ctx.put(KubernetesSecrets::ID, spec)?;
        Ok(())
    }
}

fn text(pem: &Pem) -> String {
    String::from_utf8_lossy(pem.as_bytes()).into_owned()
}

/// All accepted authorities, one after the other, as clients trust them.
fn accepted(root: &KubernetesRootSecret) -> String {
    root.accepted_cas.iter().map(|ca| text(&ca.crt)).collect()
}

#[cfg(test)]
mod tests;
