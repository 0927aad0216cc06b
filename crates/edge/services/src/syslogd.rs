//! syslogd: messages of programs that know no other log, as lines of JSON in the log of this service.
//!
//! It is a task of this process. Its socket takes packets alone; a sender that is faster than this waits.

mod message;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use stdx::{Clock as _, SystemClock};
use supervisor::{HealthCheck, HealthSettings, LogStore, RunContext, Service, ServiceError};
use sys::files;
use tokio::net::UnixDatagram;

/// The service, and its log.
const ID: &str = "syslogd";
/// Where programs send messages to (Talos 1.7).
const SOCKET: &str = "/dev/log";
/// The longest message; the rest is cut off. Receivers of RFC 5424 should take 2 KiB.
const LONGEST: usize = 8 << 10;

/// Receives messages.
#[derive(Debug)]
pub struct SyslogdService {
    socket: PathBuf,
    logs: LogStore,
}

impl SyslogdService {
    /// `logs`: where lines go.
    #[must_use]
    pub fn new(logs: LogStore) -> Self {
        Self { socket: PathBuf::from(SOCKET), logs }
    }
}

/// Everybody on the machine may send.
fn bind(path: &Path) -> Result<UnixDatagram, ServiceError> {
    files::remove(path)?;
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(socket)
}

#[async_trait]
impl Service for SyslogdService {
    fn id(&self) -> &'static str {
        ID
    }

    async fn run(&self, run: RunContext) -> Result<(), ServiceError> {
        let socket = bind(&self.socket)?;
        let log = self.logs.sink(ID);
        run.running(&format!("listening on {}", self.socket.display()));
        let mut message = vec![0; LONGEST];
        loop {
            // Both arms are cancel-safe: a message is taken only when the arm completes.
            let length = tokio::select! {
                received = socket.recv(&mut message) => received?,
                () = run.cancel.cancelled() => return Ok(files::remove(&self.socket)?),
            };
            let now = Timestamp::try_from(SystemClock.now()).unwrap_or_default();
            let mut line = message::line(message.get(..length).unwrap_or_default(), now);
            line.push(b'\n');
            log(&line);
        }
    }

    fn health(&self) -> Option<HealthCheck> {
        let socket = self.socket.clone();
        Some(HealthCheck::new(HealthSettings::default(), move || {
            let socket = socket.clone();
            async move {
                let connected = UnixDatagram::unbound().and_then(|sender| sender.connect(&socket));
                connected.map_err(|error| format!("connecting to {}: {error}", socket.display()))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use supervisor::Supervisor;

    use super::*;

    async fn has(condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it does not come");
    }

    #[tokio::test]
    async fn messages_are_lines_of_its_log_and_the_socket_is_anew_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("log");
        // Left by a killed one.
        drop(UnixDatagram::bind(&socket).unwrap());
        let logs = LogStore::default();
        let service = Arc::new(SyslogdService { socket: socket.clone(), logs: logs.clone() });
        let supervisor = Supervisor::new(Arc::new(SystemClock));
        supervisor.ensure(service);
        let sender = UnixDatagram::unbound().unwrap();
        has(|| sender.connect(&socket).is_ok()).await;
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o666);
        sender.send(b"<30>iscsid[8]: one\ntwo").await.unwrap();
        sender.send(&[b'x'; 2 * LONGEST]).await.unwrap();
        sender.send(b"").await.unwrap();
        has(|| logs.tail(ID, 10).len() == 3).await;
        let lines = logs.tail(ID, 10);
        assert!(lines[0].starts_with(r#"{"content":"one\ntwo","facility":3,"#), "{lines:?}");
        assert!(lines[1].len() > LONGEST && lines[1].len() < LONGEST + 200, "{}", lines[1].len());
        supervisor.stop(ID).await.unwrap();
        assert!(!socket.exists());
    }
}
