//! The steps of `cluster create` as lines: each with its duration, and the unmet condition of a slow one.

use std::time::Duration;

use provision::up::{Progress, Timings};
use tokio::time::Instant;

use crate::output::table::Table;
use crate::output::{Colour, Output};

/// A step that takes longer than this shows its unmet condition.
const PATIENCE: Duration = Duration::from_secs(3);
/// And again this often, when that has changed.
const PACE: Duration = Duration::from_secs(5);

/// Prints steps to standard error.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    out: &'a Output,
    now: std::cell::RefCell<Step>,
    timings: ShowTimings,
}

/// Whether to print the timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShowTimings {
    No,
    AtTheEnd,
}

#[derive(Debug)]
struct Step {
    began: Instant,
    said: Instant,
    detail: String,
}

impl<'a> Steps<'a> {
    pub(super) fn new(out: &'a Output, timings: ShowTimings) -> Self {
        let now = Instant::now();
        Self { out, now: Step { began: now, said: now, detail: String::new() }.into(), timings }
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

    fn wants_timings(&self) -> bool {
        self.timings == ShowTimings::AtTheEnd
    }

    fn timings(&self, timings: &Timings) {
        if self.wants_timings() {
            // With the steps, so that a failed creation tells them beside its error.
            self.out.note(format!("\n{}\n", tables(timings)));
        }
    }
}

/// When each condition was reached, and who waited for it.
fn tables(timings: &Timings) -> String {
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let mut reached = Table::new(["SECONDS", "SEEN BY", "NODE", "REACHED"]);
    for step in &timings.reached {
        let node = step.node.as_deref().unwrap_or("-");
        reached.row([&seconds(step.after), step.witness.as_str(), node, &step.what]);
    }
    let mut waits = Table::new(["NODE", "SERVICE", "FROM", "SECONDS", "WAITED FOR"]);
    for wait in &timings.waits {
        let took = wait.took.map_or_else(|| "still".to_owned(), seconds);
        waits.row([&wait.node, &wait.service, &seconds(wait.from), &took, &wait.waited_for]);
    }
    let mut text = reached.take();
    if waits.has_rows() {
        text = format!("{text}\n\n{}", waits.take());
    }
    text
}

#[cfg(test)]
mod tests {
    use provision::up::{Reached, ServiceWait, Witness};

    use super::*;

    #[test]
    fn timings_are_two_tables_of_seconds_since_the_start() {
        let reached = |millis, witness, node: Option<&str>, what: &str| Reached {
            after: Duration::from_millis(millis),
            what: what.to_owned(),
            node: node.map(str::to_owned),
            witness,
        };
        let wait = |took| ServiceWait {
            node: "a".to_owned(),
            service: "kubelet".to_owned(),
            from: Duration::from_millis(500),
            took,
            waited_for: "time sync".to_owned(),
        };
        let timings = Timings {
            reached: vec![
                reached(412, Witness::Create, None, "machine API"),
                reached(9000, Witness::Kubernetes, Some("a"), "Ready"),
            ],
            waits: vec![wait(Some(Duration::from_millis(1250))), wait(None)],
        };
        let wanted = "SECONDS   SEEN BY      NODE   REACHED\n\
                      0.41      create       -      machine API\n\
                      9.00      kubernetes   a      Ready\n\
                      \n\
                      NODE   SERVICE   FROM   SECONDS   WAITED FOR\n\
                      a      kubelet   0.50   1.25      time sync\n\
                      a      kubelet   0.50   still     time sync";
        assert_eq!(tables(&timings), wanted);
        assert_eq!(tables(&Timings::default()), "SECONDS   SEEN BY   NODE   REACHED");
    }
}
