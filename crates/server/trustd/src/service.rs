//! The one call of `trustd`.

use std::sync::Arc;
use std::time::Duration;

use pki::{Authority, CertificateRequest, Subject, Template, Usage, Validity};
use stdx::{Clock, Secret};
use tonic::{Request, Response, Status};
use transport::{PeerInfo, Slot};
use wire::securityapi::security_service_server::SecurityService;
use wire::securityapi::{CertificateRequest as WireRequest, CertificateResponse};

use crate::TOKEN;
use crate::names::{Reserved, grant};

/// How long a certificate of a worker lives.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Authority and token of `trustd`.
#[derive(Debug)]
pub struct Trust {
    /// Signs.
    pub authority: Authority,
    /// Authorities that workers should accept, PEM.
    pub accepted: Vec<String>,
    /// The token that workers must present.
    pub token: Secret<String>,
}

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub struct Security {
    trust: Slot<Trust>,
    reserved: Slot<Reserved>,
    clock: Arc<dyn Clock>,
}

impl Security {
    /// A service that signs with what `trust` holds at each call, for names that are not `reserved` then.
    #[must_use]
    pub fn new(trust: Slot<Trust>, reserved: Slot<Reserved>, clock: Arc<dyn Clock>) -> Self {
        Self { trust, reserved, clock }
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
        let granted = grant(asked.subject(), asked.sans(), &self.reserved.get()).map_err(|why| malformed(&why))?;
        let peer = request.extensions().get::<PeerInfo>().map(|peer| tracing::field::display(peer.address));
        if !granted.left_out.is_empty() {
            tracing::warn!(peer, names = ?granted.left_out, "left names out of a certificate that a joining node cannot have");
        }
        // Of the request nothing counts but the key and these names: no organization, no extension.
        let template = Template {
            subject: Subject { common_name: granted.common_name, organizations: Vec::new() },
            sans: granted.sans,
            usage: Usage::Server,
            validity: Validity::starting(self.clock.now(), LIFETIME),
        };
        let signed = trust.authority.sign_request(&asked, &template).map_err(|error| {
            tracing::error!(error = %stdx::error_chain(&error), "could not sign a certificate request");
            Status::internal("could not sign the certificate request")
        })?;
        tracing::info!(
            peer,
            subject = %template.subject,
            sans = ?template.sans,
            key = signed.fingerprint(),
            "signed a server certificate",
        );
        let mut ca = trust.authority.certificate().to_pem();
        let own = ca.trim().to_owned();
        for accepted in trust.accepted.iter().filter(|accepted| accepted.trim() != own) {
            ca.push_str(accepted);
        }
        Ok(Response::new(CertificateResponse { ca: ca.into(), crt: signed.to_pem().into() }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pki::{Algorithm, CaProfile, Certificate, PrivateKey, Sans};
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
        let reserved = Reserved { names: ["cp-1".to_owned()].into(), ..Reserved::default() };
        (Security::new(Slot::new(trust), Slot::new(reserved), Arc::new(Fixed(noon()))), authority)
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
    async fn names_of_control_planes_and_wildcards_are_not_signed_and_impossible_ones_refuse_the_request() {
        let (service, _) = service("right");
        let subject = Subject::common_name("cp-1");
        let asked = csr_for(&subject, &Sans::parse(["cp-1", "*.example.org", "*", "worker-1"]));
        let status = service.certificate(request(&asked, Some("right"))).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let asked = csr_for(&subject, &Sans::parse(["cp-1", "*.example.org", "worker-1"]));
        let answer = service.certificate(request(&asked, Some("right"))).await.unwrap().into_inner();
        let signed = Certificate::from_pem(std::str::from_utf8(&answer.crt).unwrap()).unwrap();
        assert_eq!((signed.sans(), signed.subject()), (&Sans::parse(["worker-1"]), &Subject::default()));
    }
}
