//! Log lines of this process: on the console, and beside the logs of the services, where operators read them.
//!
//! Lines of controllers are in `controller-runtime`, all others in `machined`. The console is standard output; on a machine
//! with a kernel of its own it is the kernel's log instead, which the kernel shows on each of its consoles.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use supervisor::{LogStore, logs};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, fmt};

/// The log of everything but controllers.
const MACHINED: &str = "machined";
/// The log of controllers (Talos 1.7).
const CONTROLLERS: &str = "controller-runtime";

/// Whether lines are written into the kernel log. Cheap to clone; clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct KernelLog(Arc<OnceLock<Duration>>);

impl KernelLog {
    /// Writes them there from now on: the kernel is this machine's. `init` is when its first program started: lines have the
    /// time since then.
    pub(crate) fn enable(&self, init: Duration) {
        self.0.set(init).ok();
    }
}

/// What receives the lines of this process.
pub(crate) fn subscriber(
    filter: EnvFilter,
    logs: &LogStore,
    kernel: &KernelLog,
) -> impl Subscriber + Send + Sync + use<> {
    let of_machined = dynamic_filter_fn(|line, context| line.is_span() || !is_of_controller(line, context));
    let of_controllers = dynamic_filter_fn(|line, context| line.is_span() || is_of_controller(line, context));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines(MACHINED, logs, kernel).with_filter(of_machined))
        .with(lines(CONTROLLERS, logs, kernel).with_filter(of_controllers))
}

fn lines<S>(id: &str, logs: &LogStore, kernel: &KernelLog) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (own, kernel) = (logs.sink(id), kernel.clone());
    fmt::layer().with_ansi(false).with_writer(move || Tee { own: own.clone(), kernel: kernel.clone() })
}

/// Whether a line comes from a pass or a task of a controller, or from their runtime.
fn is_of_controller<S: Subscriber + for<'a> LookupSpan<'a>>(line: &Metadata<'_>, context: &Context<'_, S>) -> bool {
    let in_span =
        || context.lookup_current().is_some_and(|span| span.scope().any(|span| span.name() == controller::SPAN));
    line.target().split("::").next() == Some("controller") || in_span()
}

/// Writes a line to each place.
struct Tee {
    own: logs::Sink,
    kernel: KernelLog,
}

impl io::Write for Tee {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.own)(line);
        match self.kernel.0.get() {
            // It may be full or gone; the line is in the other place.
            Some(init) => drop(sys::kmsg::write(&console_line(line, sys::host::since_boot().saturating_sub(*init)))),
            // A closed standard output must not stop the machine.
            None => drop(io::stdout().write_all(line)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// A line as the console shows it: with the time since init instead of the date, which the kernel's log has its own of.
fn console_line(line: &[u8], since_init: Duration) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let is_date = |word: &str| word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('T');
    let rest = text.split_once(' ').filter(|(date, _)| is_date(date)).map_or(text, |(_, rest)| rest.trim_start());
    format!("[talos] {:.3}s {rest}", since_init.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::instrument::WithSubscriber as _;

    #[tokio::test]
    async fn lines_of_controllers_have_a_log_of_their_own() {
        let logs = LogStore::default();
        let lines = async {
            tracing::info!("a phase is done");
            let span = tracing::error_span!(controller::SPAN);
            let inner = span.in_scope(|| tracing::info_span!("inner"));
            inner.in_scope(|| tracing::info!("an address is set"));
            tracing::warn!(target: "controller::run", "controller failed");
            tracing::debug!("filtered");
        };
        let subscriber = subscriber(EnvFilter::new("info"), &logs, &KernelLog::default());
        lines.with_subscriber(subscriber).await;
        let messages = |id: &str| {
            let lines = logs.tail(id, 10);
            lines.iter().map(|line| line.rsplit_once(": ").unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(messages(MACHINED), ["a phase is done"]);
        assert_eq!(messages(CONTROLLERS), ["an address is set", "controller failed"]);
    }

    #[test]
    fn the_console_has_the_time_since_init() {
        let line = b"2026-11-29T21:40:00.123456Z  INFO sequencer::run: phase etc (2/7): 3 tasks\n";
        let shown = console_line(line, Duration::from_millis(1234));
        assert_eq!(shown, "[talos] 1.234s INFO sequencer::run: phase etc (2/7): 3 tasks");
        assert_eq!(console_line(b" a line ", Duration::ZERO), "[talos] 0.000s a line");
    }

    struct Talker;

    #[async_trait::async_trait]
    impl controller::Controller for Talker {
        fn name(&self) -> &'static str {
            "test.Talker"
        }

        fn inputs(&self) -> Vec<controller::Input> {
            Vec::new()
        }

        fn outputs(&self) -> Vec<controller::Output> {
            Vec::new()
        }

        async fn reconcile(&mut self, ctx: &mut controller::Ctx) -> Result<(), controller::ReconcileError> {
            tracing::info!("in a pass");
            ctx.spawn("talk", async { tracing::info!("in a task") });
            Ok(())
        }
    }

    /// Lines had the name of the task that started the controllers instead.
    #[tokio::test]
    async fn a_line_of_a_controller_has_its_name() {
        let logs = LogStore::default();
        let _guard = tracing::subscriber::set_default(subscriber(EnvFilter::new("info"), &logs, &KernelLog::default()));
        let runtime = controller::Runtime::new(state::Store::new());
        runtime.register(Talker).unwrap();
        tracing::info_span!("starter").in_scope(|| runtime.start());
        let complete = async {
            while logs.tail(CONTROLLERS, 10).len() < 2 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), complete).await.expect("no lines");
        for line in logs.tail(CONTROLLERS, 10) {
            assert!(line.contains("test.Talker") && !line.contains("starter"), "{line}");
        }
        assert!(logs.tail(MACHINED, 10).is_empty());
    }
}
