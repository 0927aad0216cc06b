use super::*;
use crate::role::{Role, RoleSet};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn day() -> Validity {
    Validity::starting(now(), Duration::from_secs(86_400))
}

fn authority(profile: CaProfile) -> Authority {
    Authority::generate(profile, now()).unwrap()
}

#[test]
fn authorities_have_the_names_and_lifetimes_of_a_cluster() {
    for (profile, name) in [
        (CaProfile::Os, "O=talos"),
        (CaProfile::Etcd, "O=etcd"),
        (CaProfile::Kubernetes, "O=kubernetes"),
        (CaProfile::Aggregator, "CN=front-proxy"),
    ] {
        let ca = authority(profile);
        assert_eq!(ca.certificate().subject().to_string(), name);
        assert_eq!(ca.certificate().issuer(), ca.certificate().subject());
        assert!(ca.certificate().is_ca());
        assert_eq!(ca.certificate().not_after(), now() + CA_LIFETIME);
        let again = Authority::from_pair(&ca.pair()).unwrap();
        assert_eq!(again.certificate(), ca.certificate());
    }
}

#[test]
fn a_common_name_of_an_authority_has_at_most_64_characters() {
    let named = |length: usize| {
        Authority::self_signed(&Subject::common_name("\u{e9}".repeat(length)), Algorithm::Ed25519, day())
    };
    assert_eq!(named(64).unwrap().certificate().subject().common_name.as_ref().unwrap().chars().count(), 64);
    let error = named(65).unwrap_err();
    assert!(matches!(error, PkiError::LongName { length: 65 }), "{error}");
    assert_eq!(error.to_string(), "a common name has at most 64 characters, this one has 65");
}

#[test]
fn a_server_certificate_carries_what_was_asked_for() {
    let ca = authority(CaProfile::Os);
    let sans = Sans::parse(["10.5.0.2", "fd00::1", "node-1", "10.5.0.2"]);
    let template =
        Template { subject: Subject::common_name("node-1"), sans: sans.clone(), usage: Usage::Server, validity: day() };
    let pair = ca.issue_pair(Algorithm::Ed25519, &template).unwrap();
    let certificate = Certificate::from_pem(&pair.crt).unwrap();
    assert_eq!(certificate.sans(), &sans);
    assert_eq!(certificate.sans().ips.len(), 2);
    assert!(certificate.allows_server() && !certificate.allows_client() && !certificate.is_ca());
    assert_eq!(certificate.not_before(), now() - BACKDATE);
    assert_eq!(certificate.not_after(), now() + Duration::from_secs(86_400));
    assert_eq!(certificate.renew_at(), now() + Duration::from_secs(43_200 - 30));
    assert_eq!(certificate.serial().len(), 16);
    assert_eq!(PrivateKey::from_pem(&pair.key).unwrap().spki_der(), certificate.spki_der());
    verify(&certificate, &ca);
}

#[test]
fn each_role_is_its_own_organization() {
    let ca = authority(CaProfile::Os);
    let roles = RoleSet::from([Role::Reader, Role::EtcdBackup, Role::Operator]);
    let subject = Subject { common_name: None, organizations: roles.to_strings() };
    let template = Template { subject, sans: Sans::default(), usage: Usage::Client, validity: day() };
    let certificate = Certificate::from_pem(&ca.issue_pair(Algorithm::Ed25519, &template).unwrap().crt).unwrap();
    assert_eq!(certificate.roles(), roles);
    assert_eq!(certificate.subject().organizations.len(), 3);
    assert!(certificate.allows_client() && !certificate.allows_server());
    verify(&certificate, &ca);
}

#[test]
fn every_kind_of_authority_signs_verifiably() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256, Algorithm::Rsa2048] {
        let ca = Authority::self_signed(&Subject::organization("x"), algorithm, day()).unwrap();
        let template =
            Template { subject: Subject::common_name("y"), sans: Sans::default(), usage: Usage::Peer, validity: day() };
        let pair = ca.issue_pair(Algorithm::EcdsaP256, &template).unwrap();
        verify(&Certificate::from_pem(&pair.crt).unwrap(), &ca);
        verify(ca.certificate(), &ca);
    }
}

#[test]
fn a_request_for_admin_rights_becomes_a_plain_server_certificate() {
    let ca = authority(CaProfile::Os);
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let subject = Subject::common_name("worker-1").with_organization("os:admin");
    let sans = Sans::parse(["10.5.0.3", "worker-1"]);
    let request = CertificateRequest::create(&key, &subject, &sans).unwrap();
    let request = CertificateRequest::from_pem(&request.to_pem()).unwrap();
    assert_eq!((request.subject(), request.sans()), (&subject, &sans));
    let certificate = ca.sign_server_request(&request, day()).unwrap();
    assert!(certificate.subject().organizations.is_empty());
    assert_eq!(certificate.subject().common_name.as_deref(), Some("worker-1"));
    assert!(certificate.allows_server() && !certificate.allows_client() && !certificate.is_ca());
    assert_eq!(certificate.sans(), &sans);
    assert_eq!(certificate.spki_der(), key.spki_der());
    verify(&certificate, &ca);
}

#[test]
fn a_tampered_request_is_refused() {
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let request = CertificateRequest::create(&key, &Subject::common_name("abcdef"), &Sans::default()).unwrap();
    let mut bytes = request.der().to_vec();
    let at = bytes.windows(6).position(|w| w == b"abcdef").unwrap();
    bytes[at] = b'X';
    let error = CertificateRequest::from_der(&bytes).unwrap_err();
    assert!(matches!(error, PkiError::RequestSignature), "{error:?}");
}

#[test]
fn a_request_with_any_byte_changed_is_refused() {
    let names = Sans::parse(["10.0.0.1", "a.example"]);
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let key = PrivateKey::generate(algorithm).unwrap();
        let request = CertificateRequest::create(&key, &Subject::common_name("a"), &names).unwrap();
        for at in 0..request.der().len() {
            for change in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x60, 0xc0, 0xff] {
                let mut bytes = request.der().to_vec();
                bytes[at] ^= change;
                assert!(CertificateRequest::from_der(&bytes).is_err(), "{algorithm:?}: byte {at} ^ {change:#x}");
            }
        }
    }
}

#[test]
fn a_pair_that_does_not_fit_is_refused() {
    let (one, two) = (authority(CaProfile::Os), authority(CaProfile::Os));
    let error = Authority::from_pair(&PemPair::new(one.pair().crt, two.pair().key)).unwrap_err();
    assert!(matches!(error, PkiError::KeyMismatch { .. }), "{error:?}");
    let template =
        Template { subject: Subject::common_name("y"), sans: Sans::default(), usage: Usage::Client, validity: day() };
    let leaf = one.issue_pair(Algorithm::Ed25519, &template).unwrap();
    let error = Authority::from_pair(&leaf).unwrap_err();
    assert!(matches!(error, PkiError::NotAuthority { .. }), "{error:?}");
}

#[test]
fn the_fingerprint_names_the_key_and_not_the_certificate() {
    let ca = authority(CaProfile::Maintenance);
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let template = |name: &str| Template {
        subject: Subject::common_name(name),
        sans: Sans::default(),
        usage: Usage::Server,
        validity: day(),
    };
    let (one, two) = (ca.issue(&key, &template("a")).unwrap(), ca.issue(&key, &template("b")).unwrap());
    assert_ne!(one, two);
    assert_eq!(one.fingerprint(), two.fingerprint());
    assert_eq!(one.fingerprint().len(), 44);
}

#[test]
fn names_that_would_break_a_certificate_are_refused() {
    let ca = authority(CaProfile::Os);
    for (subject, dns) in [("", "ok"), ("ok", "with space"), ("ok", "ünicode")] {
        let template = Template {
            subject: Subject::common_name(subject),
            sans: Sans::parse([dns]),
            usage: Usage::Server,
            validity: day(),
        };
        let error = ca.issue_pair(Algorithm::Ed25519, &template).unwrap_err();
        assert!(matches!(error, PkiError::Name { .. }), "{error:?}");
    }
}

#[test]
fn lifetimes_beyond_what_a_certificate_can_say_are_refused() {
    let made = |hours: u64| {
        let validity = Validity::starting(now(), Duration::from_secs(hours.saturating_mul(3600)));
        Authority::self_signed(&Subject::organization("a"), Algorithm::Ed25519, validity)
    };
    for hours in [u64::from(u32::MAX), u64::MAX] {
        let error = made(hours).unwrap_err();
        assert!(matches!(error, PkiError::Time { .. }), "{hours}: {error}");
    }
    made(1_000_000).unwrap();
}

fn verify(certificate: &Certificate, ca: &Authority) {
    use x509_parser::prelude::FromDer as _;
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(certificate.der()).unwrap();
    let (_, issuer) = x509_parser::certificate::X509Certificate::from_der(ca.certificate().der()).unwrap();
    assert_eq!(leaf.issuer().as_raw(), issuer.subject().as_raw());
    leaf.verify_signature(Some(issuer.public_key())).unwrap();
}
