//! The server certificate of trustd, on nodes that hold the key of the authority.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use pki::{Algorithm, Subject, Usage, Validity};
use resources::{
    secrets::{CertSans, OsRootSecret, TrustdCertificate},
    time::TimeStatus,
};

use crate::{
    inputs,
    issue::{self, Renewal, SERVER_LIFETIME},
};

/// `secrets.TrustdController`.
#[derive(Debug, Default)]
pub struct TrustdController {
    renewal: Renewal<(OsRootSecret, CertSans, i64)>,
}

#[async_trait]
impl Controller for TrustdController {
    fn name(&self) -> &'static str {
        "secrets.TrustdController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<OsRootSecret>().id(OsRootSecret::ID),
            Input::weak::<CertSans>().id(CertSans::API_ID),
            Input::weak::<TimeStatus>().id(TimeStatus::ID),
            inputs::network_input(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<TrustdCertificate>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let root = ctx.get::<OsRootSecret>(OsRootSecret::ID)?;
        let issuing = root.as_ref().and_then(|root| root.issuing_ca.as_ref()).filter(|ca| !ca.key.0.is_empty());
        let (Some(root), Some(issuing)) = (&root, issuing) else {
            self.renewal.forget();
            ctx.destroy::<TrustdCertificate>(TrustdCertificate::ID)?;
            return Ok(());
        };
        let Some(names) = ctx.get::<CertSans>(CertSans::API_ID)? else { return Ok(()) };
        if !inputs::network_ready(ctx)? {
            return Ok(());
        }
        let epoch = ctx.get::<TimeStatus>(TimeStatus::ID)?.map_or(0, |status| status.epoch);
        let from = ((*root.spec).clone(), (*names.spec).clone(), epoch);
        if self.renewal.is_current(ctx, &from) {
            return Ok(());
        }
        let server = issue::leaf(
            &issue::authority(issuing)?,
            Algorithm::Ed25519,
            Usage::Server,
            Subject::common_name(&names.fqdn),
            issue::sans(&names),
            Validity::starting(ctx.clock().now(), SERVER_LIFETIME),
        )?;
        let spec = TrustdCertificate { accepted_cas: root.accepted_cas.clone(), server: Some(server.pair) };
        ctx.put(TrustdCertificate::ID, spec)?;
        self.renewal.issued(ctx, from, server.renew_at);
        Ok(())
    }
}
