//! Signals that a process of ours listens to. Dispositions are process-wide: nothing else in the tree touches them.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request to the whole process by an operator or the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM, SIGPWR, SIGRTMIN+3 or +4: power off.
    Shutdown,
    /// SIGINT: what Ctrl-Alt-Del sends to process 1 of a machine.
    Interrupt,
    /// SIGRTMIN+5: reboot.
    Reboot,
}

/// The first real-time signal as the host's tools count them (glibc, systemd, container managers). The C library that this
/// program is linked with may keep more of them to itself and count from another.
const RTMIN: libc::c_int = 34;

/// A stream of [`Request`]s.
#[derive(Debug)]
pub struct Requests {
    shutdown: Vec<Signal>,
    interrupt: Signal,
    reboot: Signal,
}

impl Requests {
    /// Takes over the signals of [`Request`].
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub fn listen() -> io::Result<Self> {
        let rt = RTMIN;
        let kinds = [
            SignalKind::terminate(),
            SignalKind::from_raw(libc::SIGPWR),
            SignalKind::from_raw(rt + 3),
            SignalKind::from_raw(rt + 4),
        ];
        let shutdown = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            shutdown,
            interrupt: signal(SignalKind::interrupt())?,
            reboot: signal(SignalKind::from_raw(rt + 5))?,
        })
    }

    /// The next request. Cancel-safe.
    pub async fn next(&mut self) -> Request {
        let shutdown = self.shutdown.iter_mut().map(|s| Box::pin(s.recv()));
        // All arms are cancel-safe: `Signal::recv` loses nothing when it is dropped.
        tokio::select! {
            _ = futures::future::select_all(shutdown) => Request::Shutdown,
            _ = self.interrupt.recv() => Request::Interrupt,
            _ = self.reboot.recv() => Request::Reboot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a program linked with musl, which counts from 35, the signal to reboot was one to power off.
    #[tokio::test]
    async fn signals_have_the_numbers_that_hosts_send() {
        let mut requests = Requests::listen().unwrap();
        for (number, expected) in
            [(2, Request::Interrupt), (37, Request::Shutdown), (38, Request::Shutdown), (39, Request::Reboot)]
        {
            raise(number);
            assert_eq!(requests.next().await, expected, "signal {number}");
        }
    }

    #[expect(unsafe_code, reason = "a signal to this process itself, whose handler is tokio's")]
    fn raise(number: libc::c_int) {
        // SAFETY: no memory is passed; a handler for the signal is installed.
        let result = unsafe { libc::raise(number) };
        assert_eq!(result, 0);
    }
}
