//! The steps of `cluster create` as lines: each with its duration, and what a slow one waits for.

use std::time::Duration;

use provision::up::Progress;
use tokio::time::Instant;

use crate::output::{Colour, Output};

/// A step that takes longer than this says what it waits for.
const PATIENCE: Duration = Duration::from_secs(3);
/// And again this often, when that has changed.
const PACE: Duration = Duration::from_secs(5);

/// Prints steps to standard error.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    out: &'a Output,
    now: std::cell::RefCell<Step>,
}

#[derive(Debug)]
struct Step {
    began: Instant,
    said: Instant,
    detail: String,
}

impl<'a> Steps<'a> {
    pub(super) fn new(out: &'a Output) -> Self {
        let now = Instant::now();
        Self { out, now: Step { began: now, said: now, detail: String::new() }.into() }
    }
}

impl Progress for Steps<'_> {
    fn begin(&self, _step: &str) {
        let now = Instant::now();
        *self.now.borrow_mut() = Step { began: now, said: now, detail: String::new() };
    }

    fn detail(&self, text: &str) {
        let mut step = self.now.borrow_mut();
        let pace = if step.detail.is_empty() { PATIENCE } else { PACE };
        if step.said.elapsed() < pace || step.detail == text {
            return;
        }
        let took = stdx::duration::format(Duration::from_secs(step.began.elapsed().as_secs()));
        self.out.note(format!("      {took}: {text}"));
        step.said = Instant::now();
        text.clone_into(&mut step.detail);
    }

    fn end(&self, step: &str, took: Duration) {
        let done = self.out.painted(Colour::Green, "done");
        self.out.note(format!("{done}  {step:<44} {:>7.2} s", took.as_secs_f64()));
    }

    fn notice(&self, text: &str) {
        self.out.note(format!("note  {text}"));
    }
}
