//! Certificate signing requests: how a node that holds no authority gets the kubelet's client certificate.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use kube::api::{Api, ObjectMeta, PostParams};

use crate::call::within;
use crate::error::KubeError;

/// The request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    /// The server adds random letters to it.
    pub name_prefix: String,
    /// PEM.
    pub request: String,
    /// Such as `kubernetes.io/kube-apiserver-client-kubelet`.
    pub signer: String,
    /// Such as `client auth`.
    pub usages: Vec<String>,
}

/// State of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    Pending,
    /// The certificate, PEM.
    Issued(String),
    /// Denied or failed; it stays so.
    Refused {
        reason: String,
    },
    /// The server has no such request (any more).
    Unknown,
}

/// Creates the request; returns its name.
pub(crate) async fn create(client: &kube::Client, request: &SigningRequest) -> Result<String, KubeError> {
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some(request.name_prefix.clone()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.request.clone().into_bytes()),
            signer_name: request.signer.clone(),
            usages: Some(request.usages.clone()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let created = within("creating", "a signing request", api.create(&PostParams::default(), &object)).await?;
    Ok(created.metadata.name.unwrap_or_default())
}

/// The state of the request of that name.
pub(crate) async fn state(client: &kube::Client, name: &str) -> Result<Signing, KubeError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let found = within("getting", &format!("signing request {name}"), api.get_opt(name)).await?;
    Ok(found.map_or(Signing::Unknown, |request| outcome(request.status.unwrap_or_default())))
}

fn outcome(status: CertificateSigningRequestStatus) -> Signing {
    let conditions = status.conditions.unwrap_or_default();
    if let Some(refusal) = conditions.into_iter().find(|condition| matches!(&*condition.type_, "Denied" | "Failed")) {
        let said = refusal.message.or(refusal.reason).unwrap_or_default();
        return Signing::Refused { reason: format!("{}: {said}", refusal.type_) };
    }
    match status.certificate {
        Some(ByteString(pem)) if !pem.is_empty() => Signing::Issued(String::from_utf8_lossy(&pem).into_owned()),
        _ => Signing::Pending,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition;

    use super::*;

    #[test]
    fn approval_alone_is_still_pending_and_a_denial_outweighs_a_certificate() {
        let condition = |kind: &str| CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            message: Some("because".to_owned()),
            ..CertificateSigningRequestCondition::default()
        };
        let status = |kind: &str, certificate: Option<&str>| CertificateSigningRequestStatus {
            conditions: Some(vec![condition(kind)]),
            certificate: certificate.map(|text| ByteString(text.as_bytes().to_vec())),
        };
        assert_eq!(outcome(status("Approved", None)), Signing::Pending);
        assert_eq!(outcome(status("Approved", Some(""))), Signing::Pending);
        assert_eq!(outcome(status("Approved", Some("PEM"))), Signing::Issued("PEM".to_owned()));
        let refused = Signing::Refused { reason: "Denied: because".to_owned() };
        assert_eq!(outcome(status("Denied", Some("PEM"))), refused);
    }
}
