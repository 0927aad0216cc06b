//! The queue to one receiver, which is tried until it takes a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stdx::{Backoff, error_chain};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::connection::{Connection, SendError};
use crate::endpoint::{Endpoint, Protocol};

/// Messages that wait for a receiver; more wait in the rings that they are read from.
pub(crate) const QUEUE: usize = 64;
/// Between two tries (Talos 1.7): what a receiver misses is overwritten in the meantime.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(1));

/// How long messages are sent without a failure before an outage has ended: a packet that nobody receives fails only the next
/// one, or none. Longer than a pause.
const fn settled(protocol: Protocol) -> Duration {
    match protocol {
        Protocol::Tcp => Duration::ZERO,
        Protocol::Udp => Duration::from_secs(60),
    }
}

/// Counts lost bytes or records of a delivery. Cheap to clone; clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Losses(Arc<AtomicU64>);

impl Losses {
    pub(crate) fn add(&self, lost: u64) {
        self.0.fetch_add(lost, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Sends messages in their order until their senders are gone. An outage is logged when it begins, and what it cost when it
/// ends; `unit` is that of the losses.
pub(crate) async fn deliver(
    endpoint: &Endpoint,
    messages: &mut mpsc::Receiver<Vec<u8>>,
    losses: &Losses,
    unit: &'static str,
) {
    let mut connection = Connection::new(endpoint.clone());
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut last_failure: Option<Instant> = None;
    while let Some(message) = messages.recv().await {
        loop {
            match connection.send(&message).await {
                Ok(()) => break,
                Err(error @ SendError::TooLarge { .. }) => {
                    tracing::debug!(error = error_chain(&error), "log message dropped");
                    losses.add(1);
                    break;
                }
                Err(error) => {
                    if last_failure.replace(Instant::now()).is_none() {
                        tracing::warn!(error = error_chain(&error), "logs are not delivered; retrying");
                    }
                    tokio::time::sleep(backoff.next_delay(stdx::backoff::random_jitter())).await;
                }
            }
        }
        if last_failure.is_some_and(|at| at.elapsed() >= settled(endpoint.protocol)) {
            last_failure = None;
            tracing::info!(%endpoint, lost = losses.take(), unit, "logs are delivered again");
            backoff.reset();
        } else if last_failure.is_none()
            && let lost @ 1.. = losses.take()
        {
            tracing::warn!(%endpoint, lost, unit, "log receiver is too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    /// Every other packet to a port that nobody has is sent without an error: each would be an outage of its own, whose log
    /// lines are delivered in turn.
    #[tokio::test(start_paused = true)]
    async fn an_outage_of_a_receiver_by_udp_is_said_once() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        drop(socket);
        let endpoint = Endpoint { protocol: Protocol::Udp, host: "127.0.0.1".to_owned(), port };
        let (sender, mut messages) = mpsc::channel(QUEUE);
        for _ in 0..20 {
            sender.send(b"{}".to_vec()).await.unwrap();
        }
        drop(sender);
        let logs = supervisor::LogStore::default();
        let sink = logs.sink("own");
        let lines = move || LineSink(sink.clone());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(lines).finish();
        let losses = Losses::default();
        let delivered = deliver(&endpoint, &mut messages, &losses, "bytes");
        tracing::instrument::WithSubscriber::with_subscriber(delivered, subscriber).await;
        let lines = logs.tail("own", 100);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("logs are not delivered; retrying"), "{lines:?}");
    }

    struct LineSink(supervisor::logs::Sink);

    impl std::io::Write for LineSink {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            (self.0)(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
