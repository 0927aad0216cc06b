//! Keeps the discovery server of a cluster alive: starts it, waits for its end, starts it again.
//!
//! It runs on a thread of its own: the kernel ends a child with the *thread* that started it, and a runtime's threads
//! come and go.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stdx::Backoff;

use crate::command::{self, SETPRIV};
use crate::plan::{DISCOVERY_PORT, Plan};
use crate::process::Identity;
use crate::state::{Folder, write_private};

/// A server that ran this long started well.
const GOOD_RUN: Duration = Duration::from_secs(30);

/// The thread that has the server as its child; the server ends with the agent's process.
#[derive(Debug)]
pub(super) struct Keeper {
    _thread: Option<std::thread::JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(program: &Path, plan: &Plan, folder: &Folder) -> Self {
        let server = Server {
            program: program.to_path_buf(),
            listen: format!("{}:{DISCOVERY_PORT}", plan.gateway),
            log: folder.log("discoveryd"),
            card: folder.discoveryd(),
        };
        let thread = std::thread::Builder::new().name("discoveryd keeper".to_owned()).spawn(move || server.keep());
        if let Err(error) = &thread {
            tracing::error!(%error, "discovery server cannot be kept");
        }
        Self { _thread: thread.ok() }
    }
}

struct Server {
    program: PathBuf,
    listen: String,
    log: PathBuf,
    card: PathBuf,
}

impl Server {
    fn keep(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            let started = tokio::time::Instant::now();
            match self.run() {
                Ok(status) => tracing::warn!(%status, "discovery server ended"),
                Err(error) => tracing::error!(%error, program = %self.program.display(), "discovery server cannot run"),
            }
            if started.elapsed() > GOOD_RUN {
                backoff.reset();
            }
            std::thread::park_timeout(backoff.next_delay(1.0));
        }
    }

    fn run(&self) -> std::io::Result<std::process::ExitStatus> {
        let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "setpriv is not installed");
        let setpriv = SETPRIV.find().ok_or_else(missing)?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let arguments: [&OsStr; 6] = [
            "--pdeathsig".as_ref(),
            "KILL".as_ref(),
            "--".as_ref(),
            self.program.as_ref(),
            "--listen".as_ref(),
            self.listen.as_ref(),
        ];
        let mut child = command::start(&setpriv, arguments, &log)?;
        let identity = i32::try_from(child.id()).ok().and_then(Identity::of);
        if let Some(text) = identity.and_then(|identity| serde_json::to_vec(&identity).ok())
            && let Err(error) = write_private(&self.card, &text)
        {
            tracing::warn!(%error, "discovery server cannot be noted");
        }
        tracing::info!(pid = child.id(), listen = self.listen, "discovery server started");
        child.wait()
    }
}
