//! Which upstreams there are and how they do. No I/O.

use std::time::Duration;

use super::Upstream;

/// Upper bounds of the latency classes.
const CLASSES: &[Duration] =
    &[Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    /// Latency class, 0 is best.
    Good(usize),
    Unknown,
    Bad,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<(Upstream, Health)>,
    /// Moves on with every choice, so that equals take turns.
    turn: usize,
}

impl Table {
    /// Returns whether the set changed. The state of remaining members is kept.
    pub(super) fn set(&mut self, upstreams: impl IntoIterator<Item = Upstream>) -> bool {
        let mut wanted: Vec<Upstream> = upstreams.into_iter().collect();
        wanted.sort();
        wanted.dedup();
        if self.entries.iter().map(|(upstream, _)| upstream).eq(wanted.iter()) {
            return false;
        }
        self.entries = wanted
            .into_iter()
            .map(|upstream| {
                let health = self.health(&upstream).unwrap_or(Health::Unknown);
                (upstream, health)
            })
            .collect();
        true
    }

    pub(super) fn all(&self) -> Vec<Upstream> {
        self.entries.iter().map(|(upstream, _)| upstream.clone()).collect()
    }

    pub(super) fn any_healthy(&self) -> bool {
        self.entries.iter().any(|(_, health)| matches!(health, Health::Good(_)))
    }

    pub(super) fn passed(&mut self, upstream: &Upstream, latency: Duration) {
        let class = CLASSES.iter().position(|bound| latency <= *bound).unwrap_or(CLASSES.len());
        self.note(upstream, Health::Good(class));
    }

    pub(super) fn failed(&mut self, upstream: &Upstream) {
        self.note(upstream, Health::Bad);
    }

    /// All upstreams, best first; equals take turns. Bad ones are last: they may have come back since.
    pub(super) fn candidates(&mut self) -> Vec<Upstream> {
        self.turn = self.turn.wrapping_add(1);
        let mut entries = self.entries.clone();
        if !entries.is_empty() {
            let shift = self.turn % entries.len();
            entries.rotate_left(shift);
        }
        entries.sort_by_key(|(_, health)| *health);
        entries.into_iter().map(|(upstream, _)| upstream).collect()
    }

    fn health(&self, upstream: &Upstream) -> Option<Health> {
        self.entries.iter().find(|(known, _)| known == upstream).map(|(_, health)| *health)
    }

    fn note(&mut self, upstream: &Upstream, health: Health) {
        if let Some(entry) = self.entries.iter_mut().find(|(known, _)| known == upstream) {
            entry.1 = health;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(host: &str) -> Upstream {
        Upstream { host: host.to_owned(), port: 6443 }
    }

    fn hosts(table: &mut Table) -> Vec<String> {
        table.candidates().into_iter().map(|upstream| upstream.host).collect()
    }

    #[test]
    fn nearer_comes_before_farther_before_unknown_before_bad() {
        let mut table = Table::default();
        assert!(table.set(["bad", "far", "near", "new"].map(upstream)));
        table.failed(&upstream("bad"));
        table.passed(&upstream("far"), Duration::from_millis(50));
        table.passed(&upstream("near"), Duration::from_micros(300));
        for _ in 0..5 {
            assert_eq!(hosts(&mut table), ["near", "far", "new", "bad"]);
        }
        assert!(table.any_healthy());
    }

    #[test]
    fn equals_take_turns() {
        let mut table = Table::default();
        table.set(["a", "b"].map(upstream));
        for host in ["a", "b"] {
            table.passed(&upstream(host), Duration::from_millis(5));
        }
        let first = hosts(&mut table);
        assert_ne!(first, hosts(&mut table));
    }

    #[test]
    fn same_set_is_no_change_and_known_health_is_kept() {
        let mut table = Table::default();
        table.set(["a", "b"].map(upstream));
        table.passed(&upstream("b"), Duration::from_millis(5));
        assert!(!table.set(["b", "a"].map(upstream)));
        assert!(table.set(["b", "c"].map(upstream)));
        assert!(table.any_healthy());
        assert!(table.set(["c"].map(upstream)));
        assert!(!table.any_healthy());
        table.passed(&upstream("gone"), Duration::ZERO);
        assert_eq!(hosts(&mut table), ["c"]);
    }
}
