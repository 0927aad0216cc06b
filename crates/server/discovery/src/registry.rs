//! What the service knows: affiliates by cluster, each with an end of life. A state machine without I/O: every
//! operation takes the time and appends what changed to `changes`, in the order in which watchers must hear of it.
//!
//! An operation on a cluster first drops what has run out there, so nothing is ever shown after its time. That is
//! reported even when the operation itself is refused.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Bounds on what clients may leave here. The defaults are those of the public discovery service.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Length of a cluster or affiliate id in bytes.
    pub id: usize,
    /// Length of the sealed description in bytes.
    pub data: usize,
    /// Length of one sealed endpoint in bytes.
    pub endpoint: usize,
    /// Endpoints of one affiliate.
    pub endpoints: usize,
    /// Affiliates of one cluster.
    pub affiliates: usize,
    /// Longest life that may be asked for.
    pub ttl: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { id: 256, data: 2048, endpoint: 32, endpoints: 64, affiliates: 1024, ttl: Duration::from_secs(30 * 60) }
    }
}

/// Why an operation was refused; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedError {
    /// An id is missing.
    #[error("{0} is empty")]
    EmptyId(&'static str),
    /// A field is longer than allowed.
    #[error("{field} is longer than {limit} bytes")]
    TooLong {
        /// The field of the request.
        field: &'static str,
        /// The longest that is taken, in bytes.
        limit: usize,
    },
    /// The time to live is absent, not positive, or too long.
    #[error("time to live must be more than zero and at most {} s", .limit.as_secs())]
    BadTtl {
        /// The longest that is taken.
        limit: Duration,
    },
    /// The affiliate would have too many endpoints.
    #[error("affiliate has more than {limit} endpoints")]
    TooManyEndpoints {
        /// The most that are kept.
        limit: usize,
    },
    /// The cluster has too many affiliates.
    #[error("cluster has more than {limit} affiliates")]
    TooManyAffiliates {
        /// The most that are kept.
        limit: usize,
    },
}

/// What a client says about an affiliate.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// The sealed description; `None` leaves the known one alone.
    pub data: Option<Bytes>,
    /// Sealed endpoints to add to the known ones; equal ones are one.
    pub endpoints: Vec<Bytes>,
    /// How long the description and these endpoints live.
    pub ttl: Duration,
}

/// An affiliate as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffiliateView {
    /// The affiliate's id.
    pub id: String,
    /// The sealed description, empty when only endpoints are known.
    pub data: Bytes,
    /// Sealed endpoints in the order in which they were first heard of.
    pub endpoints: Vec<Bytes>,
}

/// What watchers of a cluster hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The affiliate is new or looks different.
    Updated(AffiliateView),
    /// The affiliate is gone.
    Deleted(String),
}

#[derive(Debug)]
struct Affiliate {
    data: Bytes,
    endpoints: Vec<(Bytes, Instant)>,
    expires: Instant,
}

impl Affiliate {
    fn view(&self, id: &str) -> AffiliateView {
        AffiliateView {
            id: id.to_owned(),
            data: self.data.clone(),
            endpoints: self.endpoints.iter().map(|(endpoint, _)| endpoint.clone()).collect(),
        }
    }
}

#[derive(Debug, Default)]
struct Cluster {
    affiliates: BTreeMap<String, Affiliate>,
}

impl Cluster {
    fn expire(&mut self, now: Instant, changes: &mut Vec<Change>) {
        self.affiliates.retain(|id, affiliate| {
            if affiliate.expires <= now {
                changes.push(Change::Deleted(id.clone()));
                return false;
            }
            let before = affiliate.endpoints.len();
            affiliate.endpoints.retain(|(_, expires)| *expires > now);
            if affiliate.endpoints.len() != before {
                changes.push(Change::Updated(affiliate.view(id)));
            }
            true
        });
    }
}

/// All clusters.
#[derive(Debug, Default)]
pub struct Registry {
    limits: Limits,
    clusters: HashMap<String, Cluster>,
}

impl Registry {
    /// An empty registry.
    pub fn new(limits: Limits) -> Self {
        Self { limits, clusters: HashMap::new() }
    }

    /// Checks a cluster id as every operation does.
    pub fn check_cluster(&self, cluster: &str) -> Result<(), RefusedError> {
        self.check_id("cluster id", cluster)
    }

    /// Adds to what is known about an affiliate and prolongs its life.
    ///
    /// # Errors
    /// A limit is exceeded; nothing but expiry has happened then.
    pub fn update(
        &mut self,
        now: Instant,
        cluster: &str,
        affiliate: &str,
        update: Update,
        changes: &mut Vec<Change>,
    ) -> Result<(), RefusedError> {
        self.check_update(cluster, affiliate, &update)?;
        let limits = self.limits;
        let entry = self.clusters.entry(cluster.to_owned()).or_default();
        entry.expire(now, changes);
        if !entry.affiliates.contains_key(affiliate) && entry.affiliates.len() >= limits.affiliates {
            return Err(RefusedError::TooManyAffiliates { limit: limits.affiliates });
        }
        let expires = now + update.ttl;
        let known = entry.affiliates.get(affiliate);
        let mut next = Affiliate {
            data: update.data.unwrap_or_else(|| known.map(|a| a.data.clone()).unwrap_or_default()),
            endpoints: known.map(|a| a.endpoints.clone()).unwrap_or_default(),
            expires: known.map_or(expires, |a| a.expires.max(expires)),
        };
        for endpoint in update.endpoints {
            match next.endpoints.iter_mut().find(|(known, _)| *known == endpoint) {
                Some((_, end)) => *end = expires.max(*end),
                None => next.endpoints.push((endpoint, expires)),
            }
        }
        if next.endpoints.len() > limits.endpoints {
            return Err(RefusedError::TooManyEndpoints { limit: limits.endpoints });
        }
        let view = next.view(affiliate);
        if known.is_none_or(|known| known.view(affiliate) != view) {
            changes.push(Change::Updated(view));
        }
        entry.affiliates.insert(affiliate.to_owned(), next);
        Ok(())
    }

    /// Forgets an affiliate; one that is not known is no error.
    ///
    /// # Errors
    /// An id is malformed.
    pub fn delete(
        &mut self,
        now: Instant,
        cluster: &str,
        affiliate: &str,
        changes: &mut Vec<Change>,
    ) -> Result<(), RefusedError> {
        self.check_cluster(cluster)?;
        self.check_id("affiliate id", affiliate)?;
        let Some(entry) = self.clusters.get_mut(cluster) else { return Ok(()) };
        entry.expire(now, changes);
        if entry.affiliates.remove(affiliate).is_some() {
            changes.push(Change::Deleted(affiliate.to_owned()));
        }
        Ok(())
    }

    /// All affiliates of a cluster by id.
    ///
    /// # Errors
    /// The cluster id is malformed.
    pub fn list(
        &mut self,
        now: Instant,
        cluster: &str,
        changes: &mut Vec<Change>,
    ) -> Result<Vec<AffiliateView>, RefusedError> {
        self.check_cluster(cluster)?;
        let Some(entry) = self.clusters.get_mut(cluster) else { return Ok(Vec::new()) };
        entry.expire(now, changes);
        Ok(entry.affiliates.iter().map(|(id, affiliate)| affiliate.view(id)).collect())
    }

    /// Drops everything that has run out, and clusters that became empty. Returns the changes by cluster.
    pub fn collect(&mut self, now: Instant) -> Vec<(String, Vec<Change>)> {
        let mut all = Vec::new();
        self.clusters.retain(|id, cluster| {
            let mut changes = Vec::new();
            cluster.expire(now, &mut changes);
            if !changes.is_empty() {
                all.push((id.clone(), changes));
            }
            !cluster.affiliates.is_empty()
        });
        all
    }

    /// How many clusters are kept.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }

    fn check_update(&self, cluster: &str, affiliate: &str, update: &Update) -> Result<(), RefusedError> {
        let limits = self.limits;
        self.check_cluster(cluster)?;
        self.check_id("affiliate id", affiliate)?;
        if update.data.as_ref().is_some_and(|data| data.len() > limits.data) {
            return Err(RefusedError::TooLong { field: "affiliate data", limit: limits.data });
        }
        if update.endpoints.iter().any(|endpoint| endpoint.len() > limits.endpoint) {
            return Err(RefusedError::TooLong { field: "affiliate endpoint", limit: limits.endpoint });
        }
        if update.ttl.is_zero() || update.ttl > limits.ttl {
            return Err(RefusedError::BadTtl { limit: limits.ttl });
        }
        Ok(())
    }

    fn check_id(&self, field: &'static str, id: &str) -> Result<(), RefusedError> {
        if id.is_empty() {
            return Err(RefusedError::EmptyId(field));
        }
        if id.len() > self.limits.id {
            return Err(RefusedError::TooLong { field, limit: self.limits.id });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
