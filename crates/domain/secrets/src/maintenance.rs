//! The certificate of the maintenance API, under a temporary authority, while it is requested.

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use pki::{Algorithm, Authority, CaProfile, Subject, Usage, Validity};
use resources::{
    runtime::MaintenanceServiceRequest,
    secrets::{CertSans, MaintenanceRootSecret, MaintenanceServiceCertificate},
    values::CertificateAndKey,
};

use crate::{
    cert_sans::MAINTENANCE_NAME,
    issue::{self, Renewal, SERVER_LIFETIME},
};

/// `secrets.MaintenanceRootController`: a new authority for each time in maintenance.
#[derive(Debug)]
pub struct MaintenanceRootController;

#[async_trait]
impl Controller for MaintenanceRootController {
    fn name(&self) -> &'static str {
        "secrets.MaintenanceRootController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<MaintenanceServiceRequest>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MaintenanceRootSecret>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        if ctx.list::<MaintenanceServiceRequest>()?.is_empty() {
            ctx.destroy::<MaintenanceRootSecret>(MaintenanceRootSecret::ID)?;
        } else if ctx.get::<MaintenanceRootSecret>(MaintenanceRootSecret::ID)?.is_none() {
            let pair = Authority::generate(CaProfile::Maintenance, ctx.clock().now())?.pair();
            let ca = Some(CertificateAndKey::new(pair.crt, pair.key));
            ctx.put(MaintenanceRootSecret::ID, MaintenanceRootSecret { ca })?;
        }
        Ok(())
    }
}

/// `secrets.MaintenanceController`: the server certificate.
#[derive(Debug, Default)]
pub struct MaintenanceController {
    renewal: Renewal<(MaintenanceRootSecret, CertSans)>,
}

#[async_trait]
impl Controller for MaintenanceController {
    fn name(&self) -> &'static str {
        "secrets.MaintenanceController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<MaintenanceRootSecret>().id(MaintenanceRootSecret::ID),
            Input::weak::<CertSans>().id(CertSans::MAINTENANCE_ID),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<MaintenanceServiceCertificate>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let root = ctx.get::<MaintenanceRootSecret>(MaintenanceRootSecret::ID)?;
        let names = ctx.get::<CertSans>(CertSans::MAINTENANCE_ID)?;
        let (Some(root), Some(names)) = (root, names) else {
            self.renewal.forget();
            ctx.destroy::<MaintenanceServiceCertificate>(MaintenanceServiceCertificate::ID)?;
            return Ok(());
        };
        let Some(ca) = &root.ca else { return Ok(()) };
        let from = ((*root.spec).clone(), (*names.spec).clone());
        if self.renewal.is_current(ctx, &from) {
            return Ok(());
        }
        let server = issue::leaf(
            &issue::authority(ca)?,
            Algorithm::Ed25519,
            Usage::Server,
            Subject::common_name(MAINTENANCE_NAME),
            issue::sans(&names),
            Validity::starting(ctx.clock().now(), SERVER_LIFETIME),
        )?;
        // Readers need the authority's certificate, not its key.
        let ca = CertificateAndKey::new(ca.crt.0.clone(), Vec::new());
        let spec = MaintenanceServiceCertificate { ca: Some(ca), server: Some(server.pair) };
        ctx.put(MaintenanceServiceCertificate::ID, spec)?;
        self.renewal.issued(ctx, from, server.renew_at);
        Ok(())
    }
}
