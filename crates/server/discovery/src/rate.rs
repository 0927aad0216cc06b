//! A token bucket per source, with time passed in. It decides; it does not wait.
//!
//! A source is an address, or a /64 of IPv6, which one host can have as a whole; [`transport::source`] says which.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How many requests a source may make.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    /// Requests that are earned each second.
    pub per_second: f64,
    /// Burst size.
    pub burst: f64,
}

impl Default for RateLimit {
    /// 15 requests a second, bursts of 60.
    fn default() -> Self {
        Self { per_second: 15.0, burst: 60.0 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// Sources that are remembered at the same time. A bucket is full, and forgotten, four seconds after its last request.
const MAX_SOURCES: usize = 65_536;

/// One bucket per recent source.
#[derive(Debug)]
pub struct RateLimiter {
    limit: RateLimit,
    buckets: HashMap<IpAddr, Bucket>,
    /// Last cleanup of the buckets.
    searched: Option<Instant>,
}

/// How often room is looked for among all buckets: each search costs as much as there are buckets.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

impl RateLimiter {
    /// A limiter with all buckets full.
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, buckets: HashMap::new(), searched: None }
    }

    /// Takes one request from the bucket of `from`; false if it is empty or there are too many buckets.
    pub fn allow(&mut self, now: Instant, from: IpAddr) -> bool {
        let limit = self.limit;
        if self.buckets.len() >= MAX_SOURCES && !self.buckets.contains_key(&from) {
            if self.searched.is_none_or(|at| now.saturating_duration_since(at) >= SEARCH_EVERY) {
                self.searched = Some(now);
                self.collect(now);
            }
            if self.buckets.len() >= MAX_SOURCES {
                return false;
            }
        }
        let bucket = self.buckets.entry(from).or_insert(Bucket { tokens: limit.burst, filled: now });
        bucket.tokens = refilled(limit, *bucket, now);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Forgets the sources whose bucket is full again.
    pub fn collect(&mut self, now: Instant) {
        let limit = self.limit;
        self.buckets.retain(|_, bucket| refilled(limit, *bucket, now) < limit.burst);
    }

    /// How many sources are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no source is remembered.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

fn refilled(limit: RateLimit, bucket: Bucket, now: Instant) -> f64 {
    let elapsed: Duration = now.saturating_duration_since(bucket.filled);
    (bucket.tokens + elapsed.as_secs_f64() * limit.per_second).min(limit.burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 5, 0, last])
    }

    #[test]
    fn a_burst_of_sixty_passes_and_the_next_is_refused() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(RateLimit::default());
        assert_eq!((0..100).filter(|_| limiter.allow(now, ip(2))).count(), 60);
        assert!(limiter.allow(now, ip(3)), "another address has its own bucket");
    }

    #[test]
    fn fifteen_requests_are_earned_each_second() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(RateLimit::default());
        while limiter.allow(start, ip(2)) {}
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| limiter.allow(later, ip(2))).count(), 15);
    }

    #[test]
    fn the_number_of_sources_is_bounded() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(RateLimit::default());
        let source = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(n));
        for n in 0..u32::try_from(MAX_SOURCES).unwrap() {
            assert!(limiter.allow(now, source(n)));
        }
        assert!(!limiter.allow(now, source(u32::MAX)));
        assert!(limiter.allow(now, source(0)), "a known source continues");
        assert!(limiter.allow(now + Duration::from_secs(1), source(u32::MAX)), "full buckets make room");
    }

    #[test]
    fn an_address_with_a_full_bucket_is_forgotten() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(RateLimit::default());
        limiter.allow(start, ip(2));
        limiter.collect(start);
        assert_eq!(limiter.len(), 1);
        limiter.collect(start + Duration::from_secs(1));
        assert!(limiter.is_empty());
    }
}
