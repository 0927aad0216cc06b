//! The queue to one receiver, which is tried until it takes a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stdx::{Backoff, error_chain};
use tokio::sync::mpsc;

use crate::connection::{Connection, SendError};
use crate::endpoint::Endpoint;

/// Messages that wait for a receiver; more wait in the rings that they are read from.
pub(crate) const QUEUE: usize = 64;
/// Pauses between two tries: the first one is that of Talos 1.7.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

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
                    if backoff.attempts() == 0 {
                        tracing::warn!(error = error_chain(&error), "logs are not delivered; retrying");
                    }
                    tokio::time::sleep(backoff.next_delay(stdx::backoff::random_jitter())).await;
                }
            }
        }
        let lost = losses.take();
        if backoff.attempts() > 0 {
            tracing::info!(%endpoint, lost, unit, "logs are delivered again");
            backoff.reset();
        } else if lost > 0 {
            tracing::warn!(%endpoint, lost, unit, "log receiver is too slow");
        }
    }
}
