//! Parsers return for any input.

use std::sync::LazyLock;
use std::time::SystemTime;

use proptest::prelude::*;

use crate::{Authority, CaProfile, Certificate, CertificateRequest, PrivateKey, Sans, SecretsBundle, Subject, pem};

static SAMPLES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let ca = Authority::generate(CaProfile::Etcd, SystemTime::UNIX_EPOCH).unwrap();
    let names = Sans::parse(["10.0.0.1", "fd00::1", "a.example"]);
    let request = CertificateRequest::create(ca.key(), &Subject::common_name("a"), &names).unwrap();
    [ca.certificate().der().to_vec(), request.der().to_vec(), ca.key().pkcs8_der().to_vec()]
});

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_der_is_read_or_refused(
        which in 0..3usize,
        at in any::<prop::sample::Index>(),
        with in prop::collection::vec(any::<u8>(), 0..6),
        cut in any::<bool>(),
    ) {
        let mut bytes = SAMPLES[which].clone();
        let at = at.index(bytes.len());
        let end = (at + with.len()).min(bytes.len());
        bytes.splice(at..end, with);
        if cut {
            bytes.truncate(at);
        }
        if let Ok(certificate) = Certificate::from_der(&bytes) {
            prop_assert_eq!(Certificate::from_pem(&certificate.to_pem()).unwrap(), certificate);
        }
        let damaged = bytes != SAMPLES[1];
        prop_assert!(CertificateRequest::from_der(&bytes).is_err() || !damaged);
        let _ = PrivateKey::from_der(&bytes);
    }

    #[test]
    fn any_text_is_read_or_refused_as_pem(text in "(-----(BEGIN|END) [A-Z ]{0,12}(PRIVATE KEY|CERTIFICATE)-----\n|[A-Za-z0-9+/=]{0,64}\n|\\PC{0,20}\n){0,8}") {
        let _ = pem::decode(&text);
        let _ = PrivateKey::from_pem(&text);
        let _ = Certificate::from_pem(&text);
        let _ = SecretsBundle::from_yaml(&text);
    }

    #[test]
    fn blocks_come_back_from_their_text(der in prop::collection::vec(any::<u8>(), 0..300)) {
        let blocks = pem::decode(&pem::encode("X Y", &der)).unwrap();
        prop_assert_eq!(blocks.len(), 1);
        prop_assert_eq!(&blocks[0].der, &der);
    }
}
