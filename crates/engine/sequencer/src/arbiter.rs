//! Decides which sequence runs. No I/O, no clock: time is passed in as the time since the machine started.
//!
//! Guarantees: at most one sequence runs; an accepted request starts, or is superseded by one that may take over from it
//! before it could; ids are unique and count up; once the outcome is decided nothing starts any more.
//!
//! Assumptions: the caller carries out the effects in their order, reports each end of a started run once, and calls
//! [`Arbiter::tick`] at [`Arbiter::next_deadline`].

use std::time::Duration;

use crate::plan::Then;
use crate::sequence::{Outcome, Request, Sequence, SequenceId, Takeover};

/// How long a sequence that is taken over may take to end (Talos 1.7).
pub const GRACE_OF_TAKEOVER: Duration = Duration::from_secs(60);

/// Time between a failed sequence and the reboot, for reading the reason (Talos 1.7).
pub const REBOOT_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Another sequence runs, and does not yield to the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked} cannot start while {holder} runs")]
pub struct Locked {
    pub asked: Sequence,
    /// The running sequence, or the end of the machine.
    pub holder: &'static str,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    Done(Then),
    Failed,
    /// It ended before it changed anything.
    Refused,
    /// It noticed that it was canceled.
    Canceled,
}

/// The effects for the caller to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Start(SequenceId, Request),
    /// Tell it to end.
    Cancel(SequenceId),
    /// It did not end in time: abandon it. No end is reported for it any more.
    Drop(SequenceId),
    /// It was accepted and will not start: another request took its place.
    Superseded(SequenceId, Request),
    /// The machine ends.
    End(Outcome),
}

#[derive(Debug, Clone)]
struct Run {
    id: SequenceId,
    request: Request,
    /// It was accepted while another one ran, which has not done all of its work.
    took_over: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    Running(Run),
    /// `old` was told to end; `next` starts when it has, or at `until`.
    HandingOver {
        old: Run,
        next: Run,
        until: Duration,
    },
    /// A sequence failed; the machine reboots then.
    Failed {
        until: Duration,
    },
    Ended(Outcome),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Arbiter {
    next_id: u64,
    state: State,
}

impl Default for Arbiter {
    fn default() -> Self {
        Self { next_id: 1, state: State::Idle }
    }
}

impl Arbiter {
    /// Takes a request in. The effects have to be carried out also when it is refused: there are none then.
    ///
    /// # Errors
    /// [`Locked`].
    pub fn request(&mut self, now: Duration, request: Request) -> Result<(SequenceId, Vec<Effect>), Locked> {
        if let Some(holder) = self.holder_against(&request) {
            return Err(Locked { asked: request.sequence, holder });
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let took_over = !matches!(self.state, State::Idle);
        let new = Run { id, request, took_over };
        let (state, effects) = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle | State::Failed { .. } => begin(new),
            State::Running(old) => {
                let effects = vec![Effect::Cancel(old.id)];
                (State::HandingOver { old, next: new, until: now + GRACE_OF_TAKEOVER }, effects)
            }
            // The takeover's deadline is kept: consecutive requests do not prolong the old sequence.
            State::HandingOver { old, next, until } => {
                let effects = vec![Effect::Superseded(next.id, next.request)];
                (State::HandingOver { old, next: new, until }, effects)
            }
            State::Ended(outcome) => (State::Ended(outcome), Vec::new()),
        };
        self.state = state;
        Ok((id, effects))
    }

    /// The sequence that blocks `request`.
    fn holder_against(&self, request: &Request) -> Option<&'static str> {
        let held_by = match &self.state {
            State::Idle => return None,
            State::Running(run) => run,
            // A takeover must be allowed against the pending sequence as well.
            State::HandingOver { next, .. } => next,
            State::Failed { .. } => {
                let ends = matches!(request.sequence, Sequence::Reboot | Sequence::Shutdown);
                return (!ends && request.options.takeover == Takeover::ByTable).then_some("the failure of a sequence");
            }
            State::Ended(_) => return Some("the end of the machine"),
        };
        let running = &held_by.request;
        // Stopping twice is stopping: a second signal does not make the first start over.
        let repeated = running.sequence == request.sequence
            && running.options == request.options
            && request.sequence == Sequence::Shutdown;
        let forced = request.options.takeover == Takeover::Always;
        let yields = (forced || running.sequence.yields_to(request.sequence)) && !repeated;
        (!yields).then(|| running.sequence.name())
    }

    /// Whether the machine runs on as before the run `id`, if that ended this way now.
    #[must_use]
    pub fn runs_on_after(&self, id: SequenceId, finish: Finish) -> bool {
        matches!(&self.state, State::Running(run) if run.id == id && finish == Finish::Refused && !run.took_over)
    }

    /// Takes in that the run `id` ended. One that was dropped before has no say any more.
    pub fn finished(&mut self, now: Duration, id: SequenceId, finish: Finish) -> Vec<Effect> {
        let runs_on = self.runs_on_after(id, finish);
        let (state, effects) = match std::mem::replace(&mut self.state, State::Idle) {
            State::Running(run) if run.id == id => match finish {
                Finish::Done(Then::Idle) => (State::Idle, Vec::new()),
                Finish::Done(Then::End(outcome)) => (State::Ended(outcome), vec![Effect::End(outcome)]),
                Finish::Done(Then::Follow(sequence)) => {
                    let id = SequenceId(self.next_id);
                    self.next_id += 1;
                    begin(Run { id, request: Request::new(sequence, run.request.actor), took_over: false })
                }
                Finish::Refused if runs_on => (State::Idle, Vec::new()),
                // It was not cancelled: it ended without completing. Or it is refused, but what it took over from is not done.
                Finish::Failed | Finish::Refused | Finish::Canceled => {
                    (State::Failed { until: now + REBOOT_AFTER_FAILURE }, Vec::new())
                }
            },
            // However it ended, the next one was promised the machine. One that decided to end the machine at that moment
            // has not: `Then::End` takes effect only through this function.
            State::HandingOver { old, next, .. } if old.id == id => begin(next),
            other => (other, Vec::new()),
        };
        self.state = state;
        effects
    }

    /// Takes in that time has passed.
    pub fn tick(&mut self, now: Duration) -> Vec<Effect> {
        let (state, effects) = match std::mem::replace(&mut self.state, State::Idle) {
            State::HandingOver { old, next, until } if now >= until => {
                let (state, mut effects) = begin(next);
                effects.insert(0, Effect::Drop(old.id));
                (state, effects)
            }
            State::Failed { until } if now >= until => {
                (State::Ended(Outcome::Reboot), vec![Effect::End(Outcome::Reboot)])
            }
            other => (other, Vec::new()),
        };
        self.state = state;
        effects
    }

    /// When [`tick`](Self::tick) has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        match self.state {
            State::HandingOver { until, .. } | State::Failed { until } => Some(until),
            State::Idle | State::Running(_) | State::Ended(_) => None,
        }
    }
}

fn begin(run: Run) -> (State, Vec<Effect>) {
    let effect = Effect::Start(run.id, run.request.clone());
    (State::Running(run), vec![effect])
}

#[cfg(test)]
mod tests;
