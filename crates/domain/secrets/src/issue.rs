//! Issuing leaf certificates, and knowing when to do it again.

use std::time::{Duration, SystemTime};

use controller::Ctx;
use pki::{Algorithm, Authority, PemPair, PkiError, PrivateKey, Sans, Subject, Template, Usage, Validity};
use resources::{
    secrets::CertSans,
    values::{Certificate, CertificateAndKey},
};

/// Certificates of our own API.
pub(crate) const SERVER_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Certificates of Kubernetes and etcd.
pub(crate) const KUBERNETES_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate and when it is to be renewed.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) pair: CertificateAndKey,
    pub(crate) renew_at: SystemTime,
}

/// Issues one leaf with a new key.
pub(crate) fn leaf(
    authority: &Authority,
    algorithm: Algorithm,
    usage: Usage,
    subject: Subject,
    sans: Sans,
    validity: Validity,
) -> Result<Leaf, PkiError> {
    let key = PrivateKey::generate(algorithm)?;
    let certificate = authority.issue(&key, &Template { subject, sans, usage, validity })?;
    Ok(Leaf { pair: pair(&certificate, &key), renew_at: certificate.renew_at() })
}

/// Both as PEM; the key in the form that every TLS stack reads.
pub(crate) fn pair(certificate: &pki::Certificate, key: &PrivateKey) -> CertificateAndKey {
    CertificateAndKey::new(certificate.to_pem(), key.to_pkcs8_pem())
}

/// The authority in a resource.
pub(crate) fn authority(ca: &CertificateAndKey) -> Result<Authority, PkiError> {
    let text = |pem: &resources::values::Pem| String::from_utf8_lossy(pem.as_bytes()).into_owned();
    Authority::from_pair(&PemPair::new(text(&ca.crt), text(&ca.key)))
}

/// A pair of the configuration as a resource holds it.
pub(crate) fn from_config(pair: &PemPair) -> CertificateAndKey {
    CertificateAndKey::new(pair.crt.as_str(), pair.key.as_str())
}

/// Certificates of the configuration as a resource holds them.
pub(crate) fn certificates(texts: Vec<&str>) -> Vec<Certificate> {
    texts.into_iter().map(Certificate::new).collect()
}

/// The names of a resource as a certificate has them.
pub(crate) fn sans(names: &CertSans) -> Sans {
    Sans { ips: names.ips.clone(), dns: names.dns_names.clone() }
}

/// The inputs of a certificate and its renewal time. It lives in the controller, so a restart of `machined` reissues
/// it.
#[derive(Debug)]
pub(crate) struct Renewal<K> {
    issued: Option<(K, SystemTime)>,
}

impl<K> Default for Renewal<K> {
    fn default() -> Self {
        Self { issued: None }
    }
}

impl<K: PartialEq> Renewal<K> {
    /// Whether the issued certificate still matches `from` and is not due. Requests a pass at its renewal time.
    pub(crate) fn is_current(&self, ctx: &mut Ctx, from: &K) -> bool {
        let now = ctx.clock().now();
        match &self.issued {
            Some((known, renew_at)) if known == from && now < *renew_at => {
                Self::wake_at(ctx, now, *renew_at);
                true
            }
            _ => false,
        }
    }

    /// Records the issued certificate and requests a pass when it is due.
    pub(crate) fn issued(&mut self, ctx: &mut Ctx, from: K, renew_at: SystemTime) {
        Self::wake_at(ctx, ctx.clock().now(), renew_at);
        self.issued = Some((from, renew_at));
    }

    /// Nothing is issued any more.
    pub(crate) fn forget(&mut self) {
        self.issued = None;
    }

    fn wake_at(ctx: &mut Ctx, now: SystemTime, at: SystemTime) {
        // The wall clock may be set meanwhile, so the look is repeated at least every hour.
        let after = at.duration_since(now).unwrap_or_default();
        ctx.requeue_after(after.clamp(Duration::from_secs(1), Duration::from_secs(3600)));
    }
}

/// One certificate with what it was made from: it stays while that does and while it is young enough, whatever happens to
/// others beside it. Whoever uses it need not start again for their sake.
#[derive(Debug)]
pub(crate) struct CachedPair<K> {
    renewal: Renewal<K>,
    pair: Option<CertificateAndKey>,
}

impl<K> Default for CachedPair<K> {
    fn default() -> Self {
        Self { renewal: Renewal::default(), pair: None }
    }
}

impl<K: PartialEq> CachedPair<K> {
    /// The certificate made from `from`; a new one by `issue` when there is none, or none that is current.
    pub(crate) fn get(
        &mut self,
        ctx: &mut Ctx,
        from: K,
        issue: impl FnOnce() -> Result<Leaf, PkiError>,
    ) -> Result<CertificateAndKey, PkiError> {
        if let Some(pair) = &self.pair
            && self.renewal.is_current(ctx, &from)
        {
            return Ok(pair.clone());
        }
        let leaf = issue()?;
        self.renewal.issued(ctx, from, leaf.renew_at);
        self.pair = Some(leaf.pair.clone());
        Ok(leaf.pair)
    }
}
