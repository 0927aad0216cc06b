//! The certificates of the API server, which follow the node's names and addresses; on control planes.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use pki::{Algorithm, Sans, Subject, Usage, Validity};
use resources::{
    secrets::{CertSans, KubernetesDynamicCerts, KubernetesRootSecret},
    time::TimeStatus,
    values::CertificateAndKey,
};

use crate::{
    inputs,
    issue::{self, CachedPair, KUBERNETES_LIFETIME},
};

/// `secrets.KubernetesDynamicCertsController`.
#[derive(Debug, Default)]
pub struct KubernetesDynamicCertsController {
    api_server: CachedPair<(CertificateAndKey, CertSans, i64)>,
    kubelet_client: CachedPair<(CertificateAndKey, i64)>,
    front_proxy: CachedPair<(CertificateAndKey, i64)>,
}

#[async_trait]
impl Controller for KubernetesDynamicCertsController {
    fn name(&self) -> &'static str {
        "secrets.KubernetesDynamicCertsController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<KubernetesRootSecret>().id(KubernetesRootSecret::ID),
            Input::weak::<CertSans>().id(CertSans::K8S_ID),
            Input::weak::<TimeStatus>().id(TimeStatus::ID),
            inputs::network_input(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<KubernetesDynamicCerts>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let root = ctx.get::<KubernetesRootSecret>(KubernetesRootSecret::ID)?;
        let cas = root.as_ref().and_then(|root| root.issuing_ca.as_ref().zip(root.aggregator_ca.as_ref()));
        let Some((ca, aggregator)) = cas else {
            *self = Self::default();
            ctx.destroy::<KubernetesDynamicCerts>(KubernetesDynamicCerts::ID)?;
            return Ok(());
        };
        let names = ctx.get::<CertSans>(CertSans::K8S_ID)?;
        let time = ctx.get::<TimeStatus>(TimeStatus::ID)?.filter(|status| status.synced);
        let (Some(names), Some(time), true) = (names, time, inputs::network_ready(ctx)?) else { return Ok(()) };

        let validity = Validity::starting(ctx.clock().now(), KUBERNETES_LIFETIME);
        let leaf = |ca, usage, subject, sans| {
            issue::leaf(&issue::authority(ca)?, Algorithm::EcdsaP256, usage, subject, sans, validity)
        };
        let api_server = self.api_server.get(ctx, (ca.clone(), (*names.spec).clone(), time.epoch), || {
            let subject = Subject::common_name("kube-apiserver").with_organization("kube-master");
            leaf(ca, Usage::Server, subject, issue::sans(&names))
        })?;
        let kubelet_client = self.kubelet_client.get(ctx, (ca.clone(), time.epoch), || {
            let subject = Subject::common_name("apiserver-kubelet-client").with_organization("system:masters");
            leaf(ca, Usage::Client, subject, Sans::default())
        })?;
        let front_proxy = self.front_proxy.get(ctx, (aggregator.clone(), time.epoch), || {
            leaf(aggregator, Usage::Client, Subject::common_name("front-proxy-client"), Sans::default())
        })?;
        let spec = KubernetesDynamicCerts {
            api_server: Some(api_server),
            api_server_kubelet_client: Some(kubelet_client),
            front_proxy: Some(front_proxy),
        };
        ctx.put(KubernetesDynamicCerts::ID, spec)?;
        Ok(())
    }
}
