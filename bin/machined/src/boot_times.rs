//! Tells in the log what each part of a machine's boot took: once when its API can be reached, once when its boot has ended.
//!
//! `docs/boot.md` says how to read the lines; `cargo xtask bench` reads them too. It decides nothing.

use std::fmt::Write as _;
use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use sequencer::{LastResult, Lifecycle, PhaseTime, Sequence, Status};
use stdx::tasks::{self, Task};
use sys::root::InitSteps;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

/// Parts that are shorter are left out: they would be 0.00 s.
const SHOWN: Duration = Duration::from_millis(5);

/// What had been before machined.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    /// When machined started.
    pub(crate) machined: Instant,
    /// From the start of the kernel to that of init.
    pub(crate) kernel: Duration,
    /// From the start of init to that of machined.
    pub(crate) init: Duration,
    /// Parts of that.
    pub(crate) init_steps: InitSteps,
}

/// What there is to tell, since init started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reached {
    api: Option<Duration>,
    boot: Option<Duration>,
}

/// Tells it of this machine, as soon as each is known.
pub(crate) fn tell(before: Before, lifecycle: &Lifecycle) -> Task<()> {
    let status = lifecycle.status();
    tasks::spawn("boot times", follow(before, status, api_listens(), |line| tracing::info!("{line}")))
}

/// Ends when both are told, or a boot failed.
async fn follow(
    before: Before,
    mut status: watch::Receiver<Status>,
    api: impl Future<Output = ()>,
    say: impl Fn(&str),
) {
    let since_init = || before.machined.elapsed() + before.init;
    let mut reached = Reached::default();
    tokio::pin!(api);
    while reached.api.is_none() || reached.boot.is_none() {
        // Both arms are cancel-safe: the first is pinned outside, a change that is not taken is still there.
        tokio::select! {
            () = &mut api, if reached.api.is_none() => reached.api = Some(since_init()),
            ended = status.wait_for(boot_ended), if reached.boot.is_none() => match ended.as_deref().map(boot_result) {
                Ok(Some(LastResult::Done)) => reached.boot = Some(since_init()),
                _ => return,
            },
        }
        say(&line(&before, &status.borrow().phases, reached, Instant::now()));
    }
}

fn boot_ended(status: &Status) -> bool {
    boot_result(status).is_some()
}

fn boot_result(status: &Status) -> Option<&LastResult> {
    status.last.as_ref().filter(|last| last.sequence == Sequence::Boot).map(|last| &last.result)
}

/// Returns when the API's port takes connections, of which it makes none that stay. The longer that takes the less often it
/// asks, so that the answer is late by a fiftieth.
async fn api_listens() {
    let started = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, apid::PORT)).await.is_err() {
        tokio::time::sleep((started.elapsed() / 50).max(Duration::from_millis(50))).await;
    }
}

/// The line: parts before the first phase, the phases of each sequence, and what is reached.
fn line(before: &Before, phases: &[PhaseTime], reached: Reached, now: Instant) -> String {
    let steps = listed(before.init_steps.iter().map(|(step, took)| (step, took, "")));
    let steps = if steps.is_empty() { steps } else { format!(" ({steps})") };
    let first = phases.first().map_or(now, |phase| phase.started);
    let own = first.saturating_duration_since(before.machined);
    let mut text = format!(
        "boot phases: kernel {}, init {}{steps}, machined {}",
        seconds(before.kernel),
        seconds(before.init),
        seconds(own)
    );
    for phases in phases.chunk_by(|a, b| a.sequence == b.sequence) {
        let sequence = phases.first().map_or("", |phase| phase.sequence.name());
        let listed = listed(phases.iter().map(|phase| match phase.took {
            Some(took) => (phase.phase, took, ""),
            None => (phase.phase, now.saturating_duration_since(phase.started), " so far"),
        }));
        if !listed.is_empty() {
            let _ = write!(text, "; {sequence}: {listed}");
        }
    }
    for (what, after) in [("API", reached.api), ("boot", reached.boot)] {
        if let Some(after) = after {
            let _ = write!(text, "; {what} {} after init", seconds(after));
        }
    }
    text
}

/// Those that took long enough, each with its remark.
fn listed<'a>(parts: impl Iterator<Item = (&'a str, Duration, &'a str)>) -> String {
    let parts = parts.filter(|(_, took, _)| *took >= SHOWN);
    let parts: Vec<String> = parts.map(|(name, took, remark)| format!("{name} {}{remark}", seconds(took))).collect();
    parts.join(", ")
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use sequencer::{ActorId, Last, SequenceId};

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn before() -> Before {
        let init_steps = InitSteps::parse("modules=120 rootfs=300 switch=2");
        Before { machined: Instant::now(), kernel: ms(2500), init: ms(500), init_steps }
    }

    fn phase(sequence: Sequence, phase: &'static str, started: Instant, took: Option<Duration>) -> PhaseTime {
        PhaseTime { sequence, phase, started, took }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_has_all_parts_that_took_a_while() {
        let before = before();
        let start = before.machined + ms(100);
        let phases = [
            phase(Sequence::Initialize, "systemRequirements", start, Some(ms(400))),
            phase(Sequence::Initialize, "integrity", start + ms(400), Some(ms(1))),
            phase(Sequence::Boot, "mountState", start + ms(401), Some(ms(50))),
            phase(Sequence::Boot, "startEverything", start + ms(451), None),
        ];
        let reached = Reached { api: Some(ms(7900)), boot: None };
        assert_eq!(
            line(&before, &phases, reached, start + ms(951)),
            "boot phases: kernel 2.50 s, init 0.50 s (modules 0.12 s, rootfs 0.30 s), machined 0.10 s; \
             initialize: systemRequirements 0.40 s; boot: mountState 0.05 s, startEverything 0.50 s so far; \
             API 7.90 s after init"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_steps_of_init_has_none_in_its_line() {
        let before = Before { init_steps: InitSteps::default(), ..before() };
        let reached = Reached { api: None, boot: Some(ms(1000)) };
        let text = line(&before, &[], reached, before.machined);
        assert_eq!(text, "boot phases: kernel 2.50 s, init 0.50 s, machined 0.00 s; boot 1.00 s after init");
    }

    struct Told {
        status: watch::Sender<Status>,
        api: Arc<tokio::sync::Notify>,
        lines: Arc<Mutex<Vec<String>>>,
        task: Task<()>,
    }

    fn told() -> Told {
        let (status, api, lines) = (watch::Sender::new(Status::default()), Arc::default(), Arc::default());
        let (listens, said): (Arc<tokio::sync::Notify>, Arc<Mutex<Vec<String>>>) =
            (Arc::clone(&api), Arc::clone(&lines));
        let say = move |line: &str| said.lock().push(line.rsplit_once("machined ").unwrap().1.to_owned());
        let following = follow(before(), status.subscribe(), async move { listens.notified().await }, say);
        Told { status, api, lines, task: tasks::spawn("follow", following) }
    }

    fn ended(sequence: Sequence, result: LastResult) -> Last {
        Last { id: SequenceId(1), sequence, actor: ActorId::machine(), result }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_when_the_api_is_there_and_when_the_boot_has_ended() {
        let told = told();
        tokio::time::sleep(ms(2000)).await;
        assert!(told.lines.lock().is_empty());
        told.api.notify_one();
        tokio::time::sleep(ms(1000)).await;
        assert_eq!(*told.lines.lock(), ["2.00 s; API 2.50 s after init"]);
        // The sequence before the boot is no end.
        told.status.send_modify(|status| status.last = Some(ended(Sequence::Initialize, LastResult::Done)));
        tokio::time::sleep(ms(1000)).await;
        assert_eq!(told.lines.lock().len(), 1);
        told.status.send_modify(|status| status.last = Some(ended(Sequence::Boot, LastResult::Done)));
        told.task.join().await.unwrap();
        assert_eq!(told.lines.lock()[1..], ["4.00 s; API 2.50 s after init; boot 4.50 s after init"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_boot_that_failed_is_not_told() {
        let told = told();
        told.status.send_modify(|status| status.last = Some(ended(Sequence::Boot, LastResult::Canceled)));
        told.task.join().await.unwrap();
        assert!(told.lines.lock().is_empty());
    }
}
