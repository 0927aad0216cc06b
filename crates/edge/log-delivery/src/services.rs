//! The logs of services.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use stdx::tasks::TaskSet;
use stdx::{Clock as _, SystemClock};
use supervisor::LogStore;
use supervisor::logs::{LogReader, Start};
use tokio::sync::mpsc;

use crate::deliver::{Losses, QUEUE, deliver};
use crate::endpoint::{Endpoint, Protocol};
use crate::line;
use crate::lines::Lines;

/// The longest line, in bytes; the rest is cut off. Written as JSON, a line of a packet has to fit into 64 KiB.
const fn longest(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 64 << 10,
        Protocol::Udp => 8 << 10,
    }
}

/// A receiver of the logs of all services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceLogs {
    pub endpoint: Endpoint,
    /// Fields that each line gets.
    pub tags: BTreeMap<String, String>,
}

/// Sends the logs of all services, also of those that start later, from the oldest line that is kept on. It does not end.
pub async fn deliver_service_logs(logs: LogStore, to: ServiceLogs) {
    let losses = Losses::default();
    let (sender, mut messages) = mpsc::channel(QUEUE);
    // Neither ends before this is dropped.
    tokio::join!(read_all(logs, &to, sender, &losses), deliver(&to.endpoint, &mut messages, &losses, "bytes"));
}

async fn read_all(logs: LogStore, to: &ServiceLogs, sender: mpsc::Sender<Vec<u8>>, losses: &Losses) {
    let readers = TaskSet::new("log readers");
    let mut known = BTreeSet::new();
    let mut added = logs.added();
    loop {
        added.borrow_and_update();
        for id in logs.ids() {
            if known.contains(&id) {
                continue;
            }
            let Some(reader) = logs.reader(&id, Start::Beginning) else { continue };
            let service = Service { id: id.clone(), tags: to.tags.clone(), longest: longest(to.endpoint.protocol) };
            readers.spawn("log reader", read(reader, service, sender.clone(), losses.clone()));
            known.insert(id);
        }
        // The sender lives as long as the store of logs.
        if added.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

struct Service {
    id: String,
    tags: BTreeMap<String, String>,
    longest: usize,
}

async fn read(mut reader: LogReader, service: Service, sender: mpsc::Sender<Vec<u8>>, losses: Losses) {
    let mut lines = Lines::new(service.longest);
    while let Some(chunk) = reader.next().await {
        losses.add(reader.take_skipped());
        for line in lines.split(&chunk) {
            let now = Timestamp::try_from(SystemClock.now()).unwrap_or_default();
            let message = line::of_service(&service.id, &line, &service.tags, now);
            if sender.send(message).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
