//! Runs checks in a fixed order and counts them. A check that fails does not keep the later ones from running.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::support::{Clock, filters, say};

/// The result so far.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: Vec<&'static str>,
}

impl Tally {
    /// Runs one check and says how it went; a panic is a failure like any other.
    pub fn run<T>(&mut self, name: &'static str, check: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        let clock = Clock::start();
        let result = attempt(check);
        self.record(name, clock, result)
    }

    /// Runs checks that need nothing of each other, `at_once` at a time, in their order.
    pub fn run_together(
        &mut self,
        at_once: usize,
        checks: &[(&'static str, &(dyn Fn() -> anyhow::Result<()> + Sync))],
    ) {
        let next = AtomicUsize::new(0);
        let tally = Mutex::new(self);
        let worker = || {
            while let Some((name, check)) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let clock = Clock::start();
                let result = attempt(check);
                tally.lock().record(name, clock, result);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(worker);
            }
        });
    }

    fn record<T>(&mut self, name: &'static str, clock: Clock, result: anyhow::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                say(&format!("test {name} ... ok ({clock})"));
                self.passed += 1;
                Some(value)
            }
            Err(error) => {
                say(&format!("test {name} ... FAILED ({clock})\n    {error:#}"));
                self.failed.push(name);
                None
            }
        }
    }

    /// Prints the closing line, and gives the exit status.
    #[must_use]
    pub fn close(self) -> ExitCode {
        let failed = self.failed.len();
        if failed > 0 {
            say(&format!("failed: {}", self.failed.join(", ")));
        }
        say(&format!("{} passed, {failed} failed", self.passed));
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn attempt<T>(check: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))
}

/// The checks that the program's arguments name, by parts of their names; all without arguments.
#[derive(Debug)]
pub struct Wanted(Vec<String>);

impl Wanted {
    /// Reads the arguments.
    #[must_use]
    pub fn from_arguments() -> Self {
        Self(filters(std::env::args().skip(1)))
    }

    /// Whether the check of this name is wanted.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.is_empty() || self.names(name)
    }

    /// Whether an argument names the check.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.0.iter().any(|filter| name.contains(filter.as_str()))
    }
}
