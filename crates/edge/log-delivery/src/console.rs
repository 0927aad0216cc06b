//! Lines of services on the console.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use stdx::tasks::TaskSet;
use supervisor::LogStore;
use supervisor::logs::{LogReader, Start};

use crate::lines::Lines;

/// The longest line that is shown, in bytes: the kernel's log cuts lines near it.
const LONGEST: usize = 900;

/// Shows lines. Cheap to clone.
#[derive(Clone)]
pub struct Console(Arc<dyn Fn(&str) + Send + Sync>);

impl Console {
    /// A console that is written to by `show`, a line at a time.
    pub fn new(show: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(show))
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

/// Shows lines of services from now on, but of those in `except`; of a service that starts later all. It does not end.
///
/// A console that is slower than services misses lines.
pub async fn show_service_logs(logs: LogStore, console: Console, except: &'static [&'static str]) {
    let readers = TaskSet::new("console");
    let mut known: BTreeSet<String> = except.iter().map(|id| (*id).to_owned()).collect();
    let mut added = logs.added();
    let mut start = Start::Tail(0);
    loop {
        added.borrow_and_update();
        for id in logs.ids() {
            if known.contains(&id) {
                continue;
            }
            let Some(reader) = logs.reader(&id, start) else { continue };
            readers.spawn("console", show(reader, id.clone(), console.clone()));
            known.insert(id);
        }
        start = Start::Beginning;
        // The sender lives as long as the store of logs.
        if added.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn show(mut reader: LogReader, id: String, console: Console) {
    let mut lines = Lines::new(LONGEST);
    while let Some(chunk) = reader.next().await {
        for line in lines.split(&chunk) {
            (console.0)(&format!("[{id}] {line}"));
        }
        // Writing may take long on a serial line: others run in between.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stdx::tasks;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn lines_are_shown_with_their_service_from_now_on() {
        let logs = LogStore::default();
        let (etcd, own) = (logs.sink("etcd"), logs.sink("machined"));
        etcd(b"before\n");
        let (sender, mut shown) = mpsc::unbounded_channel();
        let console = Console::new(move |line| drop(sender.send(line.to_owned())));
        let _task = tasks::spawn("shown", show_service_logs(logs.clone(), console, &["machined"]));
        // The task has begun when it shows the first line.
        let mut next = async || tokio::time::timeout(Duration::from_secs(20), shown.recv()).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        own(b"on the console already\n");
        etcd(b"half");
        etcd(b" a line\n\x1b[31mred\n");
        assert_eq!(next().await, "[etcd] half a line");
        assert_eq!(next().await, "[etcd] \u{1b}[31mred");
        logs.sink("kubelet")(b"late\n");
        assert_eq!(next().await, "[kubelet] late");
    }
}
