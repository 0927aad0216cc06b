//! Whether the kubelet's serving certificate is the one that it would make now.
//!
//! A kubelet without a configured certificate makes one for its name when it starts, valid for a year, and keeps it whatever
//! happens to name and time. One that does not fit is removed, and the kubelet started again, which makes the next.

use std::time::{Duration, SystemTime};

use pki::Certificate;

/// A certificate is replaced this long before its end.
const MARGIN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Its defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("it cannot be read")]
    Unreadable,
    #[error("it is for another name")]
    OtherName,
    #[error("it ends soon")]
    Expires,
}

/// `now` is absent while the clock is not synchronized.
pub(super) fn check(pem: &str, nodename: &str, now: Option<SystemTime>) -> Result<(), Flaw> {
    let certificate = Certificate::from_pem(pem).map_err(|_| Flaw::Unreadable)?;
    let names = certificate.sans();
    let has_name = match nodename.parse() {
        Ok(ip) => names.ips.contains(&ip),
        Err(_) => names.dns.iter().any(|name| name.eq_ignore_ascii_case(nodename)),
    };
    if !has_name {
        return Err(Flaw::OtherName);
    }
    if now.is_some_and(|now| certificate.not_after() < now + MARGIN) {
        return Err(Flaw::Expires);
    }
    Ok(())
}
