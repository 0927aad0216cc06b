//! The one call of `trustd`.

use std::sync::Arc;
use std::time::Duration;

use pki::{Authority, CertificateRequest, Sans, Subject, Validity};
use stdx::{Clock, Secret};
use tonic::{Request, Response, Status};
use transport::Slot;
use wire::securityapi::security_service_server::SecurityService;
use wire::securityapi::{CertificateRequest as WireRequest, CertificateResponse};

use crate::TOKEN;

/// How many names a certificate may be for. A node has a handful, an operator may add some.
const MAX_NAMES: usize = 256;
/// The longest name of DNS.
const MAX_NAME: usize = 253;
/// How long a certificate of a worker lives.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Whom `trustd` trusts and with what it signs.
#[derive(Debug)]
pub struct Trust {
    /// Signs.
    pub authority: Authority,
    /// Authorities that workers should accept, PEM.
    pub accepted: Vec<String>,
    /// What a worker must know.
    pub token: Secret<String>,
}

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub struct Security {
    trust: Slot<Trust>,
    clock: Arc<dyn Clock>,
}

impl Security {
    /// A service that signs with what `trust` holds at each call.
    #[must_use]
    pub fn new(trust: Slot<Trust>, clock: Arc<dyn Clock>) -> Self {
        Self { trust, clock }
    }
}

#[tonic::async_trait]
impl SecurityService for Security {
    async fn certificate(&self, request: Request<WireRequest>) -> Result<Response<CertificateResponse>, Status> {
        let trust = self.trust.get();
        let token = request.metadata().get(TOKEN).and_then(|token| token.to_str().ok()).unwrap_or_default();
        // An empty token on our side is no token that could be known.
        if trust.token.expose().is_empty() || !trust.token.matches(token) {
            return Err(Status::unauthenticated("the machine token is missing or wrong"));
        }
        let malformed = |why: &str| Status::invalid_argument(format!("certificate request: {why}"));
        let text = std::str::from_utf8(&request.get_ref().csr).map_err(|_| malformed("not a PEM text"))?;
        let asked = CertificateRequest::from_pem(text).map_err(|error| malformed(&stdx::error_chain(&error)))?;
        check_names(asked.subject(), asked.sans()).map_err(|why| malformed(&why))?;
        let validity = Validity::starting(self.clock.now(), LIFETIME);
        let signed = trust.authority.sign_server_request(&asked, validity).map_err(|error| {
            tracing::error!(error = %stdx::error_chain(&error), "could not sign a certificate request");
            Status::internal("could not sign the certificate request")
        })?;
        tracing::info!(subject = %asked.subject(), sans = ?asked.sans(), "signed a server certificate");
        let mut ca = trust.authority.certificate().to_pem();
        let own = ca.trim().to_owned();
        for accepted in trust.accepted.iter().filter(|accepted| accepted.trim() != own) {
            ca.push_str(accepted);
        }
        Ok(Response::new(CertificateResponse { ca: ca.into(), crt: signed.to_pem().into() }))
    }
}

/// Refuses names that no node can have.
fn check_names(subject: &Subject, sans: &Sans) -> Result<(), String> {
    if sans.ips.len() + sans.dns.len() > MAX_NAMES {
        return Err(format!("more than {MAX_NAMES} alternative names"));
    }
    if let Some(ip) = sans.ips.iter().find(|ip| ip.is_unspecified() || ip.is_multicast()) {
        return Err(format!("{ip} is the address of no node"));
    }
    let is_name = |name: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-._*".contains(c);
        !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(known)
    };
    match sans.dns.iter().chain(&subject.common_name).find(|name| !is_name(name)) {
        Some(name) => Err(format!("{name:?} is the name of no node")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pki::{Algorithm, CaProfile, Certificate, PrivateKey};
    use tonic::Code;

    use super::*;

    #[derive(Debug)]
    struct Fixed(SystemTime);

    impl Clock for Fixed {
        fn now(&self) -> SystemTime {
            self.0
        }
    }

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn service(token: &str) -> (Security, Authority) {
        let authority = Authority::generate(CaProfile::Os, noon()).unwrap();
        let accepted = vec![authority.certificate().to_pem()];
        let trust = Trust { authority: authority.clone(), accepted, token: Secret::new(token.to_owned()) };
        (Security::new(Slot::new(trust), Arc::new(Fixed(noon()))), authority)
    }

    fn request(csr: &str, token: Option<&str>) -> Request<WireRequest> {
        let mut request = Request::new(WireRequest { csr: csr.to_owned().into() });
        if let Some(token) = token {
            request.metadata_mut().insert(TOKEN, token.parse().unwrap());
        }
        request
    }

    fn csr(organizations: &[&str]) -> String {
        let organizations = organizations.iter().map(|o| (*o).to_owned()).collect();
        let subject = Subject { common_name: Some("worker-1".into()), organizations };
        csr_for(&subject, &Sans::parse(["10.5.0.3", "worker-1"]))
    }

    fn csr_for(subject: &Subject, sans: &Sans) -> String {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        CertificateRequest::create(&key, subject, sans).unwrap().to_pem()
    }

    #[tokio::test]
    async fn a_request_for_admin_gets_a_server_certificate_without_organizations() {
        let (service, authority) = service("abcdef.0123456789abcdef");
        let asked = request(&csr(&["os:admin", "os:impersonator"]), Some("abcdef.0123456789abcdef"));
        let answer = service.certificate(asked).await.unwrap().into_inner();
        let signed = Certificate::from_pem(std::str::from_utf8(&answer.crt).unwrap()).unwrap();
        assert!(signed.roles().is_empty());
        assert_eq!(signed.subject(), &Subject::common_name("worker-1"));
        assert!(signed.allows_server() && !signed.allows_client() && !signed.is_ca());
        assert_eq!(signed.sans(), &Sans::parse(["10.5.0.3", "worker-1"]));
        assert_eq!(signed.not_after(), noon() + LIFETIME);
        assert_eq!(answer.ca, authority.certificate().to_pem().as_bytes());
    }

    #[tokio::test]
    async fn a_wrong_missing_or_empty_token_is_refused() {
        let (service, _) = service("right");
        for token in [Some("wrong"), Some(""), Some("right "), None] {
            let status = service.certificate(request(&csr(&[]), token)).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{token:?}");
        }
        let (unset, _) = self::service("");
        let status = unset.certificate(request(&csr(&[]), Some(""))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let (service, authority) = service("right");
        let certificate = authority.certificate().to_pem();
        for text in ["", "hello", certificate.as_str()] {
            let status = service.certificate(request(text, Some("right"))).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{text:?}");
        }
    }

    #[tokio::test]
    async fn names_that_no_node_has_are_refused() {
        let (service, _) = service("right");
        let own = Subject::common_name("worker-1");
        let many: Vec<String> = (0..300).map(|n| format!("n{n}")).collect();
        let long = "n".repeat(254);
        for (subject, sans, why) in [
            (&own, Sans::parse(["0.0.0.0"]), "0.0.0.0"),
            (&own, Sans::parse(["::"]), "::"),
            (&own, Sans::parse(["224.0.0.1"]), "224.0.0.1"),
            (&own, Sans::parse([&long]), "nnn"),
            (&own, Sans::parse(["a/b"]), "a/b"),
            (&own, Sans::parse(&many), "256"),
            (&Subject::common_name("a\nb"), Sans::default(), "a\\nb"),
        ] {
            let asked = request(&csr_for(subject, &sans), Some("right"));
            let status = service.certificate(asked).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{sans:?}");
            assert!(status.message().contains(why), "{status:?}");
        }
    }
}
