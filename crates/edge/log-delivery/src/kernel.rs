//! The kernel log.

use std::time::Duration;

use stdx::{Clock as _, SystemClock, error_chain};
use sys::kmsg::{self, Reader, Record};
use tokio::sync::mpsc;

use crate::deliver::{Losses, QUEUE, deliver};
use crate::endpoint::Endpoint;
use crate::line;

/// Pause before the device is opened again after it failed.
const REOPEN: Duration = Duration::from_secs(60);

/// Sends the kernel log, from its oldest record on. It does not end.
pub async fn deliver_kernel_log(endpoint: Endpoint) {
    let losses = Losses::default();
    let (sender, mut messages) = mpsc::channel(QUEUE);
    // Neither ends before this is dropped.
    tokio::join!(read(sender, &losses), deliver(&endpoint, &mut messages, &losses, "records"));
}

async fn read(sender: mpsc::Sender<Vec<u8>>, losses: &Losses) {
    let mut last = None;
    loop {
        let error = match Reader::open(false) {
            Ok(mut reader) => loop {
                match reader.next(true).await {
                    Ok(Some(record)) => {
                        if !send(&sender, &record, &mut last, losses).await {
                            return;
                        }
                    }
                    // It waits for the next.
                    Ok(None) => {}
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        tracing::warn!(error = error_chain(&error), "the kernel log cannot be read");
        tokio::time::sleep(REOPEN).await;
    }
}

/// Queues a record unless it was queued before; false once nobody takes any.
async fn send(sender: &mpsc::Sender<Vec<u8>>, record: &Record, last: &mut Option<u64>, losses: &Losses) -> bool {
    if let Some(last) = *last {
        if record.sequence <= last {
            return true;
        }
        losses.add(record.sequence - last - 1);
    }
    *last = Some(record.sequence);
    sender.send(line::of_kernel(record, kmsg::boot_time(SystemClock.now()))).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_is_sent_once_and_missed_ones_are_counted() {
        let (sender, mut messages) = mpsc::channel(QUEUE);
        let (mut last, losses) = (None, Losses::default());
        for sequence in [5, 6, 6, 5, 9] {
            let record = Record { facility: 0, priority: 6, sequence, since_boot_us: 0, message: sequence.to_string() };
            assert!(send(&sender, &record, &mut last, &losses).await);
        }
        drop(sender);
        let mut sent = 0;
        while messages.recv().await.is_some() {
            sent += 1;
        }
        assert_eq!((sent, losses.take()), (3, 2));
    }
}
