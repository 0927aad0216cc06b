//! Runs of other programs: to their end, with the end of what they print, and not for ever.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sys::process::{Command, ProcessError};

/// Tools are in one of these.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A tool has not ended by itself.
pub(crate) enum Failure {
    Process(ProcessError),
    /// It was killed.
    Slow,
}

/// Runs a tool; one that takes longer than `at_most` is killed. Returns the last `kept` bytes that it printed as well.
pub(crate) async fn run(command: Command, kept: usize, at_most: Duration) -> (Vec<u8>, Result<ExitStatus, Failure>) {
    let output = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&output);
    let keep = move |bytes: &[u8]| {
        let mut output = sink.lock();
        output.extend_from_slice(bytes);
        let excess = output.len().saturating_sub(kept);
        output.drain(..excess);
    };
    let ended = to_its_end(command.env("PATH", PATH).output(Arc::new(keep)), at_most).await;
    let output = std::mem::take(&mut *output.lock());
    (output, ended)
}

async fn to_its_end(command: Command, at_most: Duration) -> Result<ExitStatus, Failure> {
    let mut child = command.spawn().map_err(Failure::Process)?;
    let Ok(ended) = tokio::time::timeout(at_most, child.wait()).await else {
        child.signal(sys::process::ProcessSignal::KILL).ok();
        return Err(Failure::Slow);
    };
    let status = ended.map_err(Failure::Process)?;
    child.drain().await;
    Ok(status)
}

/// Output as one line.
pub(crate) fn line(output: &[u8]) -> String {
    String::from_utf8_lossy(output).split_whitespace().collect::<Vec<_>>().join(" ")
}
