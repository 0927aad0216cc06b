//! The certificates of the machine API: issued here where the node holds the authority's key, else by trustd.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use pki::{Algorithm, CertificateRequest, PrivateKey, Role, Sans, Subject, Usage, Validity};
use resources::{
    k8s::Endpoint,
    secrets::{ApiCertificate, CertSans, OsRootSecret},
    time::TimeStatus,
    values::CertificateAndKey,
};
use stdx::Secret;
use trustd_client::{SignRequest, Signer};

use crate::{
    inputs,
    issue::{self, Leaf, Renewal, SERVER_LIFETIME},
};

/// `secrets.APIController`.
#[derive(Debug)]
pub struct ApiController {
    signer: Arc<dyn Signer>,
    renewal: Renewal<CertificateInputs>,
}

/// Inputs of the certificates. A jump of the clock (`epoch`) invalidates validity periods.
#[derive(Clone, Debug, PartialEq)]
struct CertificateInputs {
    root: OsRootSecret,
    names: CertSans,
    epoch: i64,
}

/// Trustd returned a certificate other than requested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate from trustd is for another key")]
struct ForeignKeyError;

impl ApiController {
    /// A controller that uses `signer` if the node cannot sign itself.
    #[must_use]
    pub fn new(signer: Arc<dyn Signer>) -> Self {
        Self { signer, renewal: Renewal::default() }
    }

    /// Server and client certificate under the node's own authority.
    fn issue(
        origin: &CertificateInputs,
        ca: &CertificateAndKey,
        now: SystemTime,
    ) -> Result<(ApiCertificate, SystemTime), ReconcileError> {
        let authority = issue::authority(ca)?;
        let subject = Subject::common_name(&origin.names.fqdn);
        let leaf = |usage, subject, sans| {
            issue::leaf(&authority, Algorithm::Ed25519, usage, subject, sans, Validity::starting(now, SERVER_LIFETIME))
        };
        let server = leaf(Usage::Server, subject.clone(), issue::sans(&origin.names))?;
        let impersonator = subject.with_organization(Role::Impersonator.as_str());
        let client = leaf(Usage::Client, impersonator, Sans::default())?;
        let spec = ApiCertificate {
            accepted_cas: origin.root.accepted_cas.clone(),
            client: Some(client.pair),
            server: Some(server.pair),
        };
        Ok((spec, server.renew_at.min(client.renew_at)))
    }

    /// A server certificate from trustd on one of `endpoints`.
    async fn request(
        &self,
        origin: &CertificateInputs,
        endpoints: Vec<IpAddr>,
    ) -> Result<(ApiCertificate, SystemTime), ReconcileError> {
        let key = PrivateKey::generate(Algorithm::Ed25519)?;
        let subject = Subject::common_name(&origin.names.fqdn);
        let csr = CertificateRequest::create(&key, &subject, &issue::sans(&origin.names))?;
        let request = SignRequest {
            endpoints,
            accepted_cas: origin.root.accepted_cas.iter().map(|ca| ca.crt.0.clone()).collect(),
            token: Secret::new(origin.root.token.clone()),
            csr: csr.to_pem().into_bytes(),
        };
        let signed = self.signer.sign(&request).await?;
        let certificate = pki::Certificate::from_pem(&String::from_utf8_lossy(&signed.crt))?;
        if certificate.spki_der() != key.spki_der() {
            return Err(ForeignKeyError.into());
        }
        let server = Leaf { pair: issue::pair(&certificate, &key), renew_at: certificate.renew_at() };
        let accepted_cas = origin.root.accepted_cas.clone();
        Ok((ApiCertificate { accepted_cas, client: None, server: Some(server.pair) }, server.renew_at))
    }
}

#[async_trait]
impl Controller for ApiController {
    fn name(&self) -> &'static str {
        "secrets.APIController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::weak::<OsRootSecret>().id(OsRootSecret::ID),
            Input::weak::<CertSans>().id(CertSans::API_ID),
            Input::weak::<TimeStatus>().id(TimeStatus::ID),
            Input::weak::<Endpoint>(),
            inputs::network_input(),
        ]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<ApiCertificate>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let Some(root) = ctx.get::<OsRootSecret>(OsRootSecret::ID)? else {
            self.renewal.forget();
            ctx.destroy::<ApiCertificate>(ApiCertificate::ID)?;
            return Ok(());
        };
        let Some(names) = ctx.get::<CertSans>(CertSans::API_ID)? else { return Ok(()) };
        if !inputs::network_ready(ctx)? {
            return Ok(());
        }
        let epoch = ctx.get::<TimeStatus>(TimeStatus::ID)?.map_or(0, |status| status.epoch);
        let origin = CertificateInputs { root: (*root.spec).clone(), names: (*names.spec).clone(), epoch };
        if self.renewal.is_current(ctx, &origin) {
            return Ok(());
        }
        let issuing = root.issuing_ca.as_ref().filter(|ca| !ca.key.0.is_empty());
        let (spec, renew_at) = match issuing {
            Some(ca) => Self::issue(&origin, ca, ctx.clock().now())?,
            None => {
                let known = ctx.list::<Endpoint>()?;
                let endpoints: BTreeSet<IpAddr> = known.iter().flat_map(|e| e.addresses.iter().copied()).collect();
                if endpoints.is_empty() {
                    return Ok(());
                }
                self.request(&origin, endpoints.into_iter().collect()).await?
            }
        };
        ctx.put(ApiCertificate::ID, spec)?;
        self.renewal.issued(ctx, origin, renew_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
