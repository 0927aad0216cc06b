//! Kubeconfigs of the control plane's components and of the administrator, on control planes.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use kubernetes::kubeconfig;
use pki::{Algorithm, Authority, Sans, Subject, Usage, Validity};
use resources::{
    secrets::{KubernetesRootSecret, KubernetesSecrets},
    time::TimeStatus,
    values::Pem,
};

use crate::issue::{self, KUBERNETES_LIFETIME, Leaf, Renewal};

const SCHEDULER: &str = "system:kube-scheduler";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const MASTERS: &str = "system:masters";

/// `secrets.KubernetesController`.
#[derive(Debug, Default)]
pub struct KubernetesController {
    renewal: Renewal<(KubernetesRootSecret, i64)>,
}

#[async_trait]
impl Controller for KubernetesController {
    fn name(&self) -> &'static str {
        "secrets.KubernetesController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<KubernetesRootSecret>().id(KubernetesRootSecret::ID),
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
            self.renewal.forget();
            ctx.destroy::<KubernetesSecrets>(KubernetesSecrets::ID)?;
            return Ok(());
        };
        let Some(time) = ctx.get::<TimeStatus>(TimeStatus::ID)?.filter(|status| status.synced) else { return Ok(()) };
        let from = ((*root.spec).clone(), time.epoch);
        if self.renewal.is_current(ctx, &from) {
            return Ok(());
        }
        let kubeconfigs = Kubeconfigs {
            root,
            authority: issue::authority(ca)?,
            accepted: accepted(root),
            validity: Validity::starting(ctx.clock().now(), KUBERNETES_LIFETIME),
        };
        let local = &root.local_endpoint.0;
        let scheduler = kubeconfigs.component(SCHEDULER, SCHEDULER, local)?;
        let controller_manager = kubeconfigs.component(CONTROLLER_MANAGER, CONTROLLER_MANAGER, local)?;
        let localhost_admin = kubeconfigs.component("talos:admin", MASTERS, local)?;
        let admin = kubeconfigs.admin(&root.endpoint.0)?;
        let renew_at = scheduler.1.min(controller_manager.1).min(localhost_admin.1).min(admin.1);
        let spec = KubernetesSecrets {
            scheduler_kubeconfig: scheduler.0,
            controller_manager_kubeconfig: controller_manager.0,
            localhost_admin_kubeconfig: localhost_admin.0,
            admin_kubeconfig: admin.0,
        };
        ctx.put(KubernetesSecrets::ID, spec)?;
        self.renewal.issued(ctx, from, renew_at);
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

struct Kubeconfigs<'a> {
    root: &'a KubernetesRootSecret,
    authority: Authority,
    accepted: String,
    validity: Validity,
}

type Kubeconfig = (String, std::time::SystemTime);

impl Kubeconfigs<'_> {
    fn client(&self, user: &str, organization: &str) -> Result<Leaf, pki::PkiError> {
        let subject = Subject::common_name(user).with_organization(organization);
        issue::leaf(&self.authority, Algorithm::EcdsaP256, Usage::Client, subject, Sans::default(), self.validity)
    }

    fn component(&self, user: &str, organization: &str, server: &str) -> Result<Kubeconfig, ReconcileError> {
        let Leaf { pair, renew_at } = self.client(user, organization)?;
        let (crt, key) = (text(&pair.crt), text(&pair.key));
        Ok((kubeconfig::component(&self.root.name, user, server, &self.accepted, &crt, &key)?, renew_at))
    }

    fn admin(&self, server: &str) -> Result<Kubeconfig, ReconcileError> {
        let Leaf { pair, renew_at } = self.client("admin", MASTERS)?;
        let (crt, key) = (text(&pair.crt), text(&pair.key));
        Ok((kubeconfig::admin(&self.root.name, server, &self.accepted, &crt, &key)?, renew_at))
    }
}

#[cfg(test)]
mod tests;
