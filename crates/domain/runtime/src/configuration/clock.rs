//! A clock that was lost: a board without a battery starts in 1970, or on the day that it was made. No certificate of the
//! cluster is valid then, and the machine cannot be reached until a server of the time answers. The authorities of its configuration say
//! what day it is at least. Not a second more: what this machine signs is valid for clients from its own time on.

use std::time::{Duration, SystemTime};

use config::Documents;
use pki::Certificate;

/// How far a clock is to be set forward that shows a time at which an authority of the configuration did not exist yet.
pub(super) fn behind(documents: &Documents, now: SystemTime) -> Option<Duration> {
    let root = documents.v1alpha1()?;
    let chain = |text| Certificate::chain_from_pem(text).unwrap_or_default();
    let accepted = root.machine().accepted_ca_certificates();
    let valid_since = accepted.into_iter().flat_map(chain).map(|certificate| certificate.not_before()).max()?;
    valid_since.duration_since(now).ok().filter(|behind| !behind.is_zero())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use pki::authority::BACKDATE;
    use pki::{Authority, CaProfile};

    use super::*;

    /// A configuration with these authorities, the first one its own.
    fn configuration(made: &[SystemTime]) -> Documents {
        let authority = |made: &SystemTime| {
            let authority = Authority::generate(CaProfile::Os, *made).unwrap();
            serde_json::json!({ "crt": BASE64_STANDARD.encode(authority.certificate().to_pem()) })
        };
        let authorities: Vec<_> = made.iter().map(authority).collect();
        let (own, accepted) = authorities.split_first().unwrap();
        let machine = serde_json::json!({ "type": "worker", "ca": own, "acceptedCAs": accepted });
        let text = serde_json::json!({ "version": "v1alpha1", "machine": machine }).to_string();
        Documents::unjudged(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_clock_is_set_to_the_youngest_authority() {
        let [second, year] = [1, 365 * 24 * 60 * 60].map(Duration::from_secs);
        let made = SystemTime::UNIX_EPOCH + 50 * year;
        let documents = configuration(&[made - year, made + BACKDATE]);
        assert_eq!(behind(&documents, made), None);
        assert_eq!(behind(&documents, made + second), None);
        assert_eq!(behind(&documents, made - second), Some(second));
        let since_1970 = made.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(behind(&documents, SystemTime::UNIX_EPOCH), Some(since_1970));
    }

    #[test]
    fn a_configuration_without_authorities_says_nothing_of_the_time() {
        let documents = Documents::unjudged(b"version: v1alpha1\nmachine: {}\n").unwrap();
        assert_eq!(behind(&documents, SystemTime::UNIX_EPOCH), None);
    }
}
