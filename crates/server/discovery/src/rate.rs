//! A token bucket per client address, with time passed in. It decides; it does not wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How many requests an address may make.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    /// Requests that are earned each second.
    pub per_second: f64,
    /// Requests that may be made at once after a pause.
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

/// One bucket for each address that asked lately.
#[derive(Debug)]
pub struct RateLimiter {
    limit: RateLimit,
    buckets: HashMap<IpAddr, Bucket>,
}

impl RateLimiter {
    /// A limiter with all buckets full.
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, buckets: HashMap::new() }
    }

    /// Takes one request from the bucket of `from`; false when it is empty.
    pub fn allow(&mut self, now: Instant, from: IpAddr) -> bool {
        let limit = self.limit;
        let bucket = self.buckets.entry(from).or_insert(Bucket { tokens: limit.burst, filled: now });
        bucket.tokens = refilled(limit, *bucket, now);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Forgets the addresses whose bucket is full again.
    pub fn collect(&mut self, now: Instant) {
        let limit = self.limit;
        self.buckets.retain(|_, bucket| refilled(limit, *bucket, now) < limit.burst);
    }

    /// How many addresses are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no address is remembered.
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
