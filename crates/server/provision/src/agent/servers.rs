//! Keeps the servers of a cluster alive that are programs: starts them, waits for their end, starts them again.
//!
//! Each has a thread of its own: the kernel ends a child with the *thread* that started it, and a runtime's threads
//! come and go.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use stdx::Backoff;

use crate::command::{self, SETPRIV, SH, Tool};
use crate::folder::{Folder, write_private};
use crate::plan::{DISCOVERY_PORT, KEYS_PORT, Plan};
use crate::process::Identity;

/// A server that ran this long started well.
const GOOD_RUN: Duration = Duration::from_secs(30);

/// The thread that has a server as its child; the server ends with the agent's process.
#[derive(Debug)]
pub(super) struct KeptServer {
    _thread: Option<std::thread::JoinHandle<()>>,
}

impl KeptServer {
    /// Keeps the discovery server of a cluster.
    pub(super) fn discovery(program: &Path, plan: &Plan, folder: &Folder) -> Self {
        let listen = format!("{}:{DISCOVERY_PORT}", plan.gateway);
        Self::start(Server {
            name: "discoveryd",
            program: program.to_path_buf(),
            arguments: vec!["--listen".into(), listen.into()],
            log: folder.log("discoveryd"),
            record: folder.discoveryd(),
        })
    }

    /// Keeps the key service of a cluster.
    pub(super) fn keys(program: &Path, plan: &Plan, folder: &Folder) -> Self {
        let listen = format!("{}:{KEYS_PORT}", plan.gateway);
        Self::start(Server {
            name: "kmsd",
            program: program.to_path_buf(),
            arguments: vec!["--listen".into(), listen.into(), "--key".into(), folder.kms_key().into()],
            log: folder.log("kmsd"),
            record: folder.kmsd(),
        })
    }

    fn start(server: Server) -> Self {
        let name = server.name;
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || server.keep());
        if let Err(error) = &thread {
            tracing::error!(%error, server = name, "server cannot be kept");
        }
        Self { _thread: thread.ok() }
    }
}

struct Server {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    record: PathBuf,
}

impl Server {
    fn keep(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            let started = tokio::time::Instant::now();
            match self.run() {
                Ok(status) => tracing::warn!(server = self.name, %status, "server ended"),
                Err(error) => {
                    tracing::error!(server = self.name, %error, program = %self.program.display(), "server cannot run");
                }
            }
            if started.elapsed() > GOOD_RUN {
                backoff.reset();
            }
            std::thread::park_timeout(backoff.next_delay(1.0));
        }
    }

    fn run(&self) -> std::io::Result<std::process::ExitStatus> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = self.start(std::process::id(), &log)?;
        let identity = i32::try_from(child.id()).ok().and_then(Identity::of);
        if let Some(text) = identity.and_then(|identity| serde_json::to_vec(&identity).ok())
            && let Err(error) = write_private(&self.record, &text)
        {
            tracing::warn!(server = self.name, %error, "server cannot be noted");
        }
        tracing::info!(server = self.name, pid = child.id(), "server started");
        child.wait()
    }

    /// Starts the server so that it ends with `parent`, which is this process.
    ///
    /// The kernel tells a child of its parent's end only from the moment that it asks for it. The shell looks whether the
    /// parent is still there after that moment, and is replaced by the server.
    fn start(&self, parent: u32, log: &File) -> std::io::Result<Child> {
        let find = |tool: Tool| {
            let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, format!("{} is missing", tool.program));
            tool.find().ok_or_else(missing)
        };
        let (setpriv, sh, parent) = (find(SETPRIV)?, find(SH)?, parent.to_string());
        let head: [&OsStr; 8] = [
            "--pdeathsig".as_ref(),
            "KILL".as_ref(),
            "--".as_ref(),
            sh.as_ref(),
            "-c".as_ref(),
            r#"[ "$PPID" = "$0" ] && exec "$@""#.as_ref(),
            parent.as_ref(),
            self.program.as_ref(),
        ];
        command::start(&setpriv, head.into_iter().chain(self.arguments.iter().map(OsString::as_os_str)), log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CP;

    #[test]
    fn a_server_whose_agent_ended_meanwhile_does_not_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = File::create(&path).unwrap();
        let server = Server {
            program: CP.find().unwrap().with_file_name("echo"),
            name: "echo",
            arguments: vec!["--listen".into(), "10.5.0.1:3000".into()],
            log: path.clone(),
            record: folder.path().join("record"),
        };
        let mut orphan = server.start(1, &log).unwrap();
        assert!(!orphan.wait().unwrap().success());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        let mut child = server.start(std::process::id(), &log).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "--listen 10.5.0.1:3000\n");
    }
}
