//! A containerd for one test in namespaces of its own: when they end, so does everything that it started or mounted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sys::process::{Child, Command, ProcessSignal};

use super::{IN_TIME, eventually, in_time};
use crate::{Containerd, Namespace};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Without the Kubernetes plug-ins and those that create directories in /opt.
const CONFIG: &str =
    "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n";

/// The first process: shims put their sockets below /run regardless of containerd's state directory.
const INIT: &str = "/bin/busybox mount -t tmpfs tmpfs /run && exec /bin/busybox sleep 1000000";

/// The environment of a containerd.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Its configuration file; without one it serves everything but the CRI.
    pub config: Option<PathBuf>,
    /// Its `/etc`.
    pub etc: Option<PathBuf>,
}

/// A containerd that runs until this is dropped.
pub struct Daemon {
    directory: tempfile::TempDir,
    /// The first process of the namespaces is a child of this one, and dies with it.
    holder: Child,
    init: String,
    containerd: Option<Child>,
    config: PathBuf,
    log: Arc<Mutex<Vec<u8>>>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Daemon {
    /// One that serves everything but the CRI.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// # Panics
    /// When it does not come up.
    pub async fn with(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = setup.config.unwrap_or_else(|| {
            let path = directory.path().join("config.toml");
            std::fs::write(&path, CONFIG).unwrap();
            path
        });
        let etc = setup.etc.map(|etc| format!("/bin/busybox mount --bind {} /etc && ", etc.display()));
        let init = etc.unwrap_or_default() + INIT;
        let holder = Command::new("/usr/bin/unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/busybox", "sh", "-c"])
            .args([init])
            .env("PATH", PATH)
            .spawn()
            .unwrap();
        let mut init = String::new();
        eventually("namespaces", async || match child_of(holder.pid()) {
            Some(child) if is_sleeping(&child) => {
                init = child;
                true
            }
            _ => false,
        })
        .await;
        let mut daemon = Self { directory, holder, init, containerd: None, config, log: Arc::default() };
        daemon.restart().await;
        daemon
    }

    /// Its log output.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock()).into_owned()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    /// Starts containerd, which must not run.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn restart(&mut self) {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        let log = Arc::clone(&self.log);
        let containerd = self
            .inside("/usr/bin/containerd")
            .args(["--config".to_owned(), self.config.display().to_string(), "--root".to_owned(), at("root")])
            .args(["--state".to_owned(), at("state"), "--address".to_owned(), at("containerd.sock")])
            .output(Arc::new(move |bytes| log.lock().extend_from_slice(bytes)))
            .spawn()
            .unwrap();
        self.containerd = Some(containerd);
        let client = Containerd::new(&self.socket(), Namespace::System);
        let answers = async {
            while client.version().await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let answered = tokio::time::timeout(IN_TIME, answers).await;
        assert!(answered.is_ok(), "containerd does not answer: {}", self.log());
    }

    /// Kills containerd only; its containers continue.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill(&mut self) {
        let mut entered = self.containerd.take().unwrap();
        let containerd =
            child_of(entered.pid()).expect("containerd is a child of the process that entered its namespaces");
        Command::new("/bin/busybox").args(["kill", "-KILL", &containerd]).run().await.unwrap();
        in_time("the end of containerd", entered.wait()).await.unwrap();
    }

    /// Sends a signal to a process by its number inside.
    ///
    /// # Panics
    /// If there is no such process.
    pub async fn signal_inside(&self, pid: u32, signal: &str) {
        self.inside("/bin/busybox")
            .args(["kill".to_owned(), format!("-{signal}"), pid.to_string()])
            .run()
            .await
            .unwrap();
    }

    fn inside(&self, program: &str) -> Command {
        Command::new("/usr/bin/nsenter").args(["--target", &self.init, "--mount", "--pid", program]).env("PATH", PATH)
    }

    /// Ends the namespaces, and with them all that is in them. Dropping does the same without waiting for it.
    ///
    /// # Panics
    /// When something of them is left.
    pub async fn end(&mut self) {
        self.holder.signal(ProcessSignal::KILL).unwrap();
        in_time("the end of the namespaces", self.holder.wait()).await.unwrap();
        let init = PathBuf::from("/proc").join(&self.init);
        eventually("the end of the first process", async || !init.exists()).await;
        let place = self.directory.path().display().to_string();
        let left: Vec<_> = std::fs::read_to_string("/proc/self/mounts").unwrap().lines().map(str::to_owned).collect();
        assert!(!left.iter().any(|mount| mount.contains(&place)), "{left:?}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        self.holder.signal(ProcessSignal::KILL).ok();
    }
}

/// The one child of a process.
fn child_of(pid: i32) -> Option<String> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

/// Whether the first process of the namespaces has come as far as its program: its mounts are made then.
fn is_sleeping(pid: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"/bin/busybox\0sleep"))
}
