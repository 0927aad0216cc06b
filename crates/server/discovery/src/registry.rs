//! What the service knows: affiliates by cluster, each with an end of life. A state machine without I/O: every
//! operation takes the time and appends what changed to `changes`, in the order in which watchers must hear of it.
//!
//! An operation on a cluster first drops what has run out there, so nothing is ever shown after its time. That is
//! reported even when the operation itself is refused.
//!
//! Everything is bounded: each field, each cluster, all clusters together, and what one source may leave, so that one
//! source cannot take the room of the others. A source is an address, or a /64 of IPv6; the caller says which.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Bounds on what clients may leave here. Those of ids, data, endpoints, affiliates and life are the public discovery
/// service's.
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
    /// Maximum time to live.
    pub ttl: Duration,
    /// Clusters, all together.
    pub clusters: usize,
    /// Bytes of all clusters together, including overhead.
    pub bytes: usize,
    /// Bytes left by one source: three clusters of 1,000 nodes with 4 endpoints each.
    pub bytes_per_source: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            id: 256,
            data: 2048,
            endpoint: 32,
            endpoints: 64,
            affiliates: 1024,
            ttl: Duration::from_secs(30 * 60),
            clusters: 65_536,
            bytes: 128 << 20,
            bytes_per_source: 12 << 20,
        }
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
    /// Too many endpoints for the affiliate.
    #[error("affiliate has more than {limit} endpoints")]
    TooManyEndpoints {
        /// The most that are kept.
        limit: usize,
    },
    /// Too many affiliates in the cluster.
    #[error("cluster has more than {limit} affiliates")]
    TooManyAffiliates {
        /// The most that are kept.
        limit: usize,
    },
    /// Too many clusters.
    #[error("there are {limit} clusters already")]
    TooManyClusters {
        /// The most that are kept.
        limit: usize,
    },
    /// All clusters together take too much.
    #[error("the service is full: it keeps at most {limit} bytes")]
    Full {
        /// The most that are kept.
        limit: usize,
    },
    /// The source has left too many bytes.
    #[error("affiliates from this address take more than {limit} bytes")]
    SourceFull {
        /// The most that are kept.
        limit: usize,
    },
}

/// A client's description of an affiliate.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Who says it, for the count of bytes; `None` is nobody in particular.
    pub source: Option<IpAddr>,
    /// The sealed description; `None` leaves the known one and its end of life alone: endpoints of an affiliate may come
    /// from others, who cannot know whether it still lives.
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
    /// Sealed endpoints in the order of arrival.
    pub endpoints: Vec<Bytes>,
}

/// A change for watchers of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The affiliate is new or looks different.
    Updated(AffiliateView),
    /// The affiliate was deleted.
    Deleted(String),
}

/// Overhead of an affiliate and an endpoint: entries of maps and lists, and pointers. Rounded up.
const AFFILIATE_OVERHEAD: usize = 512;
const ENDPOINT_OVERHEAD: usize = 96;

#[derive(Debug, Clone)]
struct Affiliate {
    data: Bytes,
    endpoints: Vec<(Bytes, Instant)>,
    /// The end of the description, where there is one: the affiliate ends with it, whatever endpoints it has.
    described_until: Option<Instant>,
    /// Whom its bytes are counted for: who said something about it last.
    source: Option<IpAddr>,
}

impl Affiliate {
    fn expires(&self) -> Option<Instant> {
        self.described_until.or_else(|| self.endpoints.iter().map(|(_, end)| *end).max())
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.expires().is_none_or(|end| end <= now)
    }

    fn bytes(&self, cluster: &str, id: &str) -> usize {
        let endpoints: usize = self.endpoints.iter().map(|(endpoint, _)| endpoint.len() + ENDPOINT_OVERHEAD).sum();
        AFFILIATE_OVERHEAD + cluster.len() + id.len() + self.data.len() + endpoints
    }

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
    fn expire(&mut self, name: &str, now: Instant, usage: &mut Usage, changes: &mut Vec<Change>) {
        self.affiliates.retain(|id, affiliate| {
            let before = affiliate.bytes(name, id);
            if affiliate.is_expired(now) {
                usage.give_back(affiliate.source, before);
                changes.push(Change::Deleted(id.clone()));
                return false;
            }
            let endpoints = affiliate.endpoints.len();
            affiliate.endpoints.retain(|(_, expires)| *expires > now);
            if affiliate.endpoints.len() != endpoints {
                usage.give_back(affiliate.source, before - affiliate.bytes(name, id));
                changes.push(Change::Updated(affiliate.view(id)));
            }
            true
        });
    }
}

/// Bytes kept, by source.
#[derive(Debug, Default)]
struct Usage {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl Usage {
    fn of(&self, source: Option<IpAddr>) -> usize {
        source.and_then(|source| self.by_source.get(&source)).copied().unwrap_or_default()
    }

    fn take(&mut self, source: Option<IpAddr>, bytes: usize) {
        self.total += bytes;
        if let Some(source) = source {
            *self.by_source.entry(source).or_default() += bytes;
        }
    }

    fn give_back(&mut self, source: Option<IpAddr>, bytes: usize) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(source) = source
            && let Some(used) = self.by_source.get_mut(&source)
        {
            *used = used.saturating_sub(bytes);
            if *used == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// All clusters.
#[derive(Debug, Default)]
pub struct Registry {
    limits: Limits,
    clusters: HashMap<String, Cluster>,
    usage: Usage,
}

impl Registry {
    /// An empty registry.
    pub fn new(limits: Limits) -> Self {
        Self { limits, clusters: HashMap::new(), usage: Usage::default() }
    }

    /// Checks a cluster id as every operation does.
    pub fn check_cluster(&self, cluster: &str) -> Result<(), RefusedError> {
        self.check_id("cluster id", cluster)
    }

    /// Adds to what is known about an affiliate. A description prolongs its life.
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
        if let Some(known) = self.clusters.get_mut(cluster) {
            known.expire(cluster, now, &mut self.usage, changes);
        } else if self.clusters.len() >= limits.clusters {
            return Err(RefusedError::TooManyClusters { limit: limits.clusters });
        }
        let affiliates = self.clusters.get(cluster).map(|cluster| &cluster.affiliates);
        let known = affiliates.and_then(|affiliates| affiliates.get(affiliate));
        if known.is_none() && affiliates.is_some_and(|affiliates| affiliates.len() >= limits.affiliates) {
            return Err(RefusedError::TooManyAffiliates { limit: limits.affiliates });
        }
        let next = updated(known, update, now, limits.endpoints)?;
        let (before, after) = (known.map_or(0, |a| a.bytes(cluster, affiliate)), next.bytes(cluster, affiliate));
        // The source's bytes after the operation.
        let own = known.filter(|known| known.source == next.source).map_or(0, |_| before);
        if after > before && self.usage.total - before + after > limits.bytes {
            return Err(RefusedError::Full { limit: limits.bytes });
        }
        if after > own && self.usage.of(next.source).saturating_sub(own) + after > limits.bytes_per_source {
            return Err(RefusedError::SourceFull { limit: limits.bytes_per_source });
        }
        let view = next.view(affiliate);
        if known.is_none_or(|known| known.view(affiliate) != view) {
            changes.push(Change::Updated(view));
        }
        self.usage.give_back(known.and_then(|known| known.source), before);
        self.usage.take(next.source, after);
        self.clusters.entry(cluster.to_owned()).or_default().affiliates.insert(affiliate.to_owned(), next);
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
        entry.expire(cluster, now, &mut self.usage, changes);
        if let Some(gone) = entry.affiliates.remove(affiliate) {
            self.usage.give_back(gone.source, gone.bytes(cluster, affiliate));
            changes.push(Change::Deleted(affiliate.to_owned()));
        }
        if entry.affiliates.is_empty() {
            self.clusters.remove(cluster);
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
        entry.expire(cluster, now, &mut self.usage, changes);
        Ok(entry.affiliates.iter().map(|(id, affiliate)| affiliate.view(id)).collect())
    }

    /// Drops everything that has run out, and clusters that became empty. Returns the changes by cluster.
    pub fn collect(&mut self, now: Instant) -> Vec<(String, Vec<Change>)> {
        let mut all = Vec::new();
        let usage = &mut self.usage;
        self.clusters.retain(|id, cluster| {
            let mut changes = Vec::new();
            cluster.expire(id, now, usage, &mut changes);
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

    /// How many bytes are kept, as the limits count them.
    pub fn bytes(&self) -> usize {
        self.usage.total
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

/// The affiliate after an update.
fn updated(known: Option<&Affiliate>, update: Update, now: Instant, limit: usize) -> Result<Affiliate, RefusedError> {
    let expires = now + update.ttl;
    let mut next = known.cloned().unwrap_or_else(|| Affiliate {
        data: Bytes::new(),
        endpoints: Vec::new(),
        described_until: None,
        source: update.source,
    });
    if let Some(data) = update.data {
        // A copy: the bytes of a request are a part of the whole message, which would stay with them.
        next.data = Bytes::copy_from_slice(&data);
        next.described_until = Some(next.described_until.map_or(expires, |end| end.max(expires)));
        next.source = update.source;
    }
    for endpoint in update.endpoints {
        if let Some((_, end)) = next.endpoints.iter_mut().find(|(known, _)| *known == endpoint) {
            *end = expires.max(*end);
            continue;
        }
        if next.endpoints.len() >= limit {
            return Err(RefusedError::TooManyEndpoints { limit });
        }
        next.endpoints.push((Bytes::copy_from_slice(&endpoint), expires));
    }
    Ok(next)
}

#[cfg(test)]
mod tests;
