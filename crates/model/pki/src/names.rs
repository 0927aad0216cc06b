//! Names in certificates: subjects and subject alternative names.

use std::net::IpAddr;

use crate::der;
use crate::error::PkiError;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// A subject: each organization as an entry of its own, then the common name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    pub common_name: Option<String>,
    pub organizations: Vec<String>,
}

impl Subject {
    #[must_use]
    pub fn common_name(name: impl Into<String>) -> Self {
        Self { common_name: Some(name.into()), organizations: Vec::new() }
    }

    #[must_use]
    pub fn organization(name: impl Into<String>) -> Self {
        Self { common_name: None, organizations: vec![name.into()] }
    }

    /// Adds an organization.
    #[must_use]
    pub fn with_organization(mut self, name: impl Into<String>) -> Self {
        self.organizations.push(name.into());
        self
    }

    pub(crate) fn to_der(&self) -> Result<Vec<u8>, PkiError> {
        let mut entries = Vec::new();
        for organization in &self.organizations {
            entries.extend(entry(ORGANIZATION, organization)?);
        }
        if let Some(name) = &self.common_name {
            entries.extend(entry(COMMON_NAME, name)?);
        }
        Ok(der::tlv(der::SEQUENCE, &entries))
    }
}

fn entry(kind: &[u8], value: &str) -> Result<Vec<u8>, PkiError> {
    if value.is_empty() || value.contains('\0') {
        return Err(PkiError::Name { name: value.to_owned() });
    }
    Ok(der::set(&[&der::sequence(&[&der::oid(kind), &der::utf8(value)])]))
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let organizations = self.organizations.iter().map(|o| format!("O={o}"));
        let names = self.common_name.iter().map(|n| format!("CN={n}"));
        let parts: Vec<_> = organizations.chain(names).collect();
        if parts.is_empty() { f.write_str("an empty subject") } else { f.write_str(&parts.join(",")) }
    }
}

/// Subject alternative names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sans {
    pub ips: Vec<IpAddr>,
    pub dns: Vec<String>,
}

impl Sans {
    /// Sorts texts into addresses and DNS names without duplicates, in order.
    pub fn parse<I: IntoIterator<Item: AsRef<str>>>(names: I) -> Self {
        let mut sans = Self::default();
        for name in names {
            sans.push(name.as_ref());
        }
        sans
    }

    /// Adds an address or a DNS name, unless present. The dot at the end of an absolute name is dropped: names in certificates
    /// have none, and Go's TLS since 1.25 refuses a certificate with such a name.
    pub fn push(&mut self, name: &str) {
        let name = name.strip_suffix('.').unwrap_or(name);
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            if !self.ips.contains(&ip) {
                self.ips.push(ip);
            }
        } else if !name.is_empty() && !self.dns.iter().any(|d| d == name) {
            self.dns.push(name.to_owned());
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ips.is_empty() && self.dns.is_empty()
    }

    /// The content of the extension: a sequence of general names.
    pub(crate) fn to_der(&self) -> Result<Vec<u8>, PkiError> {
        let mut names = Vec::new();
        for dns in &self.dns {
            if !dns.is_ascii() || dns.is_empty() || dns.bytes().any(|b| b.is_ascii_control() || b == b' ') {
                return Err(PkiError::Name { name: dns.clone() });
            }
            names.extend(der::tlv(0x82, dns.as_bytes()));
        }
        for ip in &self.ips {
            names.extend(match ip {
                IpAddr::V4(ip) => der::tlv(0x87, &ip.octets()),
                IpAddr::V6(ip) => der::tlv(0x87, &ip.octets()),
            });
        }
        Ok(der::tlv(der::SEQUENCE, &names))
    }
}
