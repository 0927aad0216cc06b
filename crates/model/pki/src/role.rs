//! Roles of API clients, from the organizations of their certificates.
//!
//! The mapping of roles to methods is not decided here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `os:admin`: everything.
    Admin,
    /// `os:operator`: reading, and actions that do not change the configuration.
    Operator,
    /// `os:reader`: reading of everything that is not secret.
    Reader,
    /// `os:etcd:backup`: etcd snapshots only.
    EtcdBackup,
    /// `os:impersonator`: a node that forwards a request with its client's roles.
    Impersonator,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Admin, Self::Operator, Self::Reader, Self::EtcdBackup, Self::Impersonator];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "os:admin",
            Self::Operator => "os:operator",
            Self::Reader => "os:reader",
            Self::EtcdBackup => "os:etcd:backup",
            Self::Impersonator => "os:impersonator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown role {0:?}")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A set of roles, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RoleSet(BTreeSet<Role>);

impl RoleSet {
    /// The roles among some texts; others are skipped, as newer peers may know more roles.
    pub fn parse<I: IntoIterator<Item: AsRef<str>>>(texts: I) -> Self {
        Self(texts.into_iter().filter_map(|t| t.as_ref().parse().ok()).collect())
    }

    /// Like [`parse`](Self::parse), and also returns the skipped texts.
    pub fn parse_with_unknown<I: IntoIterator<Item: AsRef<str>>>(texts: I) -> (Self, Vec<String>) {
        let mut roles = Self::default();
        let mut unknown = Vec::new();
        for text in texts {
            match text.as_ref().parse() {
                Ok(role) => drop(roles.0.insert(role)),
                Err(UnknownRole(text)) => unknown.push(text),
            }
        }
        (roles, unknown)
    }

    #[must_use]
    pub fn contains(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether the set contains any of `allowed`.
    #[must_use]
    pub fn intersects(&self, allowed: &[Role]) -> bool {
        allowed.iter().any(|role| self.0.contains(role))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }

    /// The texts, for a certificate's organizations or for metadata.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.iter().map(|role| role.to_string()).collect()
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().collect())
    }
}

impl<const N: usize> From<[Role; N]> for RoleSet {
    fn from(roles: [Role; N]) -> Self {
        roles.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_come_back_from_their_names_and_others_are_skipped() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        let (roles, unknown) = RoleSet::parse_with_unknown(["os:reader", "system:masters", "os:admin", "os:reader"]);
        assert_eq!(roles, RoleSet::from([Role::Admin, Role::Reader]));
        assert_eq!(unknown, ["system:masters"]);
        assert_eq!(roles.to_strings(), ["os:admin", "os:reader"]);
    }
}
