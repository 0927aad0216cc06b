//! Whether a client certificate that is kept is good for starting the kubelet with.

use std::time::SystemTime;

use pki::{Certificate, PrivateKey};

/// A node's user in Kubernetes is this and its name.
pub(super) const NAME_PREFIX: &str = "system:node:";
/// The group of all nodes.
pub(super) const GROUP: &str = "system:nodes";

/// Its defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("it cannot be read")]
    Unreadable,
    #[error("its key is another certificate's")]
    OtherKey,
    #[error("it is another node's")]
    OtherNode,
    #[error("it is not a node's")]
    NotANode,
    #[error("it was not signed with the key of an authority of this cluster")]
    OtherAuthority,
    #[error("it has expired")]
    Expired,
}

/// `pair` is the PEM of certificate and key, `authorities` that of all authorities that the cluster accepts.
pub(super) fn check(pair: &str, nodename: &str, authorities: &str, now: SystemTime) -> Result<(), Flaw> {
    let certificate = Certificate::from_pem(pair).map_err(|_| Flaw::Unreadable)?;
    let key = PrivateKey::from_pem(pair).map_err(|_| Flaw::Unreadable)?;
    if key.spki_der() != certificate.spki_der() {
        return Err(Flaw::OtherKey);
    }
    let subject = certificate.subject();
    if subject.common_name.as_deref().and_then(|name| name.strip_prefix(NAME_PREFIX)) != Some(nodename) {
        return Err(Flaw::OtherNode);
    }
    if !subject.organizations.iter().any(|organization| organization == GROUP) {
        return Err(Flaw::NotANode);
    }
    let authorities = Certificate::chain_from_pem(authorities).unwrap_or_default();
    // Authorities of different clusters have the same name.
    if !authorities.iter().any(|authority| certificate.is_signed_by(authority)) {
        return Err(Flaw::OtherAuthority);
    }
    if certificate.not_after() <= now {
        return Err(Flaw::Expired);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pki::{Algorithm, Authority, CaProfile, PemPair, Sans, Subject, Template, Usage, Validity};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn authority() -> Authority {
        Authority::generate(CaProfile::Kubernetes, now()).unwrap()
    }

    fn pair(authority: &Authority, subject: Subject) -> PemPair {
        let validity = Validity::starting(now(), DAY);
        let template = Template { subject, sans: Sans::default(), usage: Usage::Client, validity };
        authority.issue_pair(Algorithm::EcdsaP256, &template).unwrap()
    }

    fn node(name: &str) -> Subject {
        Subject::common_name(format!("{NAME_PREFIX}{name}")).with_organization(GROUP)
    }

    fn joined(pair: &PemPair) -> String {
        format!("{}{}", pair.crt, pair.key)
    }

    #[test]
    fn certificate_of_another_cluster_with_an_authority_of_the_same_name_is_refused() {
        let (own, other) = (authority(), authority());
        assert_eq!(own.certificate().subject(), other.certificate().subject());
        let kept = joined(&pair(&other, node("one")));
        let check = |authorities: &str| check(&kept, "one", authorities, now());
        assert_eq!(check(&own.certificate().to_pem()), Err(Flaw::OtherAuthority));
        assert_eq!(check(&format!("{}{}", own.certificate().to_pem(), other.certificate().to_pem())), Ok(()));
        assert_eq!(check(""), Err(Flaw::OtherAuthority));
    }

    #[test]
    fn certificate_must_be_this_nodes_and_of_the_group_of_nodes() {
        let authority = authority();
        let ca = authority.certificate().to_pem();
        let check = |subject: Subject| check(&joined(&pair(&authority, subject)), "one", &ca, now());
        assert_eq!(check(node("one")), Ok(()));
        assert_eq!(check(node("another-one")), Err(Flaw::OtherNode));
        assert_eq!(check(Subject::common_name("one").with_organization(GROUP)), Err(Flaw::OtherNode));
        assert_eq!(check(Subject::common_name("system:node:one")), Err(Flaw::NotANode));
    }

    #[test]
    fn key_and_time_must_fit() {
        let authority = authority();
        let ca = authority.certificate().to_pem();
        let (first, second) = (pair(&authority, node("one")), pair(&authority, node("one")));
        let mixed = format!("{}{}", first.crt, second.key);
        assert_eq!(check(&mixed, "one", &ca, now()), Err(Flaw::OtherKey));
        assert_eq!(check(&first.crt, "one", &ca, now()), Err(Flaw::Unreadable));
        assert_eq!(check(&joined(&first), "one", &ca, now() + DAY), Err(Flaw::Expired));
    }
}
