//! Each of an agent's two processes keeps the other: it waits until there is none, and starts one.
//!
//! It ends when the cluster is gone or being removed, or when it is told that the agent stops.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use stdx::Backoff;
use stdx::tasks::CancellationToken;

use super::AgentProcess;
use super::role::{Role, RoleLock};
use crate::error::HostError;

/// A process that ran this long started well.
const GOOD_RUN: Duration = Duration::from_secs(30);
/// Before a process is started in place of one that was killed. Until then one process is all there is of the agent, so it
/// is short; it is there for two processes that end as soon as each has started the other, of which neither would pause.
const MOMENT: Duration = Duration::from_millis(20);

/// How the other process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerExit {
    /// It was killed: this says nothing about the next one.
    Killed,
    /// It could not go on, or not even start: the next one is likely to end the same way.
    ByItself { after: Duration },
}

/// The other process, as one of the two sees it.
trait Peer {
    /// Returns when there is none.
    fn until_missing(&mut self) -> Result<(), HostError>;
    /// Whether there should be one.
    fn is_wanted(&self) -> bool;
    /// Starts one and waits for its end.
    fn run(&mut self) -> PeerExit;
    fn pause(&mut self, time: Duration);
}

/// Keeps the other process until it is not wanted any more.
fn keep(peer: &mut impl Peer) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut pause = MOMENT;
    loop {
        let missing = peer.until_missing();
        if !peer.is_wanted() {
            return;
        }
        peer.pause(pause);
        if let Err(error) = missing {
            tracing::error!(error = %stdx::error_chain(&error), "cannot tell whether the other process runs");
            pause = backoff.next_delay(1.0);
            continue;
        }
        if !peer.is_wanted() {
            return;
        }
        pause = match peer.run() {
            PeerExit::Killed => MOMENT,
            PeerExit::ByItself { after } => {
                if after > GOOD_RUN {
                    backoff.reset();
                }
                backoff.next_delay(1.0)
            }
        };
    }
}

/// How one of the two starts and watches the other.
#[derive(Debug)]
pub(super) struct Respawner {
    own: Arc<AgentProcess>,
    other: Role,
    stopping: CancellationToken,
}

impl Respawner {
    /// `stopping` is cancelled when the agent stops and the other process must not come back.
    pub(super) fn new(own: Arc<AgentProcess>, stopping: CancellationToken) -> Self {
        let other = match own.role {
            Role::Server => Role::Guard,
            Role::Guard => Role::Server,
        };
        Self { own, other, stopping }
    }

    /// Keeps the other process running, on this thread, until the cluster is removed or the agent stops.
    pub(super) fn keep(mut self) {
        keep(&mut self);
    }

    fn start(&self) -> std::io::Result<ExitStatus> {
        let log = File::options().create(true).append(true).open(self.own.folder.log("agent"))?;
        let mut child = self.own.launcher.start(self.other.duty(), &log)?;
        tracing::info!(process = self.other.as_str(), pid = child.id(), "the other process was started");
        child.wait()
    }
}

impl Peer for Respawner {
    fn until_missing(&mut self) -> Result<(), HostError> {
        RoleLock::until_free(&self.own.folder, self.other)
    }

    fn is_wanted(&self) -> bool {
        !self.stopping.is_cancelled() && self.own.is_wanted()
    }

    fn run(&mut self) -> PeerExit {
        let started = tokio::time::Instant::now();
        let ended = self.start();
        let process = self.other.as_str();
        match &ended {
            Ok(status) => tracing::warn!(process, %status, "the other process ended"),
            Err(error) => tracing::error!(process, %error, "the other process cannot be started"),
        }
        end(ended.ok(), started.elapsed())
    }

    fn pause(&mut self, time: Duration) {
        std::thread::park_timeout(time);
    }
}

/// The exit status as text; none if it could not be started.
fn end(status: Option<ExitStatus>, after: Duration) -> PeerExit {
    let from_outside = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw);
    match status.and_then(|status| status.signal()) {
        Some(signal) if from_outside.contains(&signal) => PeerExit::Killed,
        _ => PeerExit::ByItself { after },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const AT_ONCE: PeerExit = PeerExit::ByItself { after: Duration::ZERO };

    /// An other process that ends as it is told, and is wanted as long as there is something to tell.
    #[derive(Default)]
    struct Fake {
        ends: VecDeque<PeerExit>,
        unreadable: usize,
        pauses: Vec<u128>,
        started: usize,
        /// The cluster goes during the pause of this number.
        gone_in_pause: Option<usize>,
    }

    impl Peer for Fake {
        fn until_missing(&mut self) -> Result<(), HostError> {
            if self.unreadable == 0 {
                return Ok(());
            }
            self.unreadable -= 1;
            let error = std::io::Error::from(std::io::ErrorKind::Other);
            Err(HostError::io("opening", "lock".as_ref())(error))
        }

        fn is_wanted(&self) -> bool {
            !self.ends.is_empty() && self.gone_in_pause.is_none_or(|pause| self.pauses.len() < pause)
        }

        fn run(&mut self) -> PeerExit {
            self.started += 1;
            self.ends.pop_front().unwrap()
        }

        fn pause(&mut self, time: Duration) {
            self.pauses.push(time.as_millis());
        }
    }

    fn kept(mut fake: Fake) -> Fake {
        keep(&mut fake);
        fake
    }

    #[test]
    fn one_that_keeps_ending_is_started_ever_more_rarely_and_one_that_ran_well_soon() {
        let mut ends = VecDeque::from([AT_ONCE; 9]);
        ends.extend([PeerExit::ByItself { after: GOOD_RUN * 2 }, AT_ONCE, AT_ONCE]);
        let fake = kept(Fake { ends, ..Fake::default() });
        assert_eq!(fake.started, 12);
        assert_eq!(fake.pauses, [20, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 100, 200]);
    }

    #[test]
    fn one_that_is_killed_is_started_at_once_however_often() {
        let mut ends = VecDeque::from([PeerExit::Killed; 20]);
        ends.extend([AT_ONCE, PeerExit::Killed]);
        let fake = kept(Fake { ends, ..Fake::default() });
        assert_eq!(fake.pauses[..21], [20; 21]);
        assert_eq!(fake.pauses[21..], [100]);
    }

    #[test]
    fn only_signals_that_others_send_are_a_kill() {
        let after = Duration::from_secs(1);
        for (raw, expected) in [
            (9, PeerExit::Killed),
            (15, PeerExit::Killed),
            (6, PeerExit::ByItself { after }),
            (11, PeerExit::ByItself { after }),
            (0, PeerExit::ByItself { after }),
            (9 << 8, PeerExit::ByItself { after }),
        ] {
            assert_eq!(end(Some(ExitStatus::from_raw(raw)), after), expected, "{raw}");
        }
        assert_eq!(end(None, after), PeerExit::ByItself { after });
    }

    #[test]
    fn none_is_started_where_it_cannot_be_told_whether_one_runs() {
        let fake = kept(Fake { ends: [AT_ONCE].into(), unreadable: 2, ..Fake::default() });
        assert_eq!((fake.started, fake.pauses.as_slice()), (1, [20, 100, 200].as_slice()));
    }

    #[test]
    fn none_is_started_for_a_cluster_that_is_gone_or_goes_during_the_pause() {
        assert_eq!(kept(Fake::default()).started, 0);
        let fake = kept(Fake { ends: [AT_ONCE; 3].into(), gone_in_pause: Some(2), ..Fake::default() });
        assert_eq!((fake.started, fake.pauses.len()), (1, 2));
    }
}
