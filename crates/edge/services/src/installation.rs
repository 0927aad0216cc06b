//! Running an installer image on a machine whose disks have no volume yet.
//!
//! Images are unpacked by a containerd whose data is in memory: it starts for the installation and ends with it. Which image
//! runs, and with which arguments, is decided elsewhere.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containers::pull::PullError;
use containers::run::{ContainerSpec, Ended};
use containers::{Containerd, ContainerdError, Namespace, Reference, Registries};
use parking_lot::Mutex;
use sys::mounts::{MountError, MountFlags};
use sys::process::{Command, ProcessError};
use tokio_util::sync::CancellationToken;

use crate::container::grantable;
use crate::oci::{self, Mount, Privilege, Shape};

/// The container, as Talos 1.7 names it.
const CONTAINER: &str = "upgrade";
/// How long containerd may take to answer after its start.
const START: Duration = Duration::from_secs(60);
/// How long a pull may take; a download that stands still ends with it.
const PULL: Duration = Duration::from_secs(15 * 60);
/// Attempts to pull, and the pause before the second one; it doubles.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(5);
/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// Most of the output that an error shows.
const OUTPUT: usize = 1024;

/// An installer image and how it is run.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Installation {
    pub image: String,
    /// All arguments of the container, its program included.
    pub arguments: Vec<String>,
    /// `KEY=value`.
    pub environment: Vec<String>,
    /// The machine's configuration, which the installer reads: it has secrets.
    pub configuration: Arc<[u8]>,
}

impl Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values of META and of the environment may be secrets as well.
        f.debug_struct("Installation").field("image", &self.image).finish_non_exhaustive()
    }
}

/// An installation did not happen, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    #[error("preparing {} for the installation", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("containerd has not answered within {} s: {reason}", START.as_secs())]
    Containerd { reason: String },
    #[error("{image} is not a reference of an image")]
    Reference {
        image: String,
        #[source]
        source: containers::ParseReferenceError,
    },
    #[error("pulling the installer image (attempt {attempts} of {ATTEMPTS})")]
    Pull {
        attempts: u32,
        #[source]
        source: PullError,
    },
    #[error("pulling the installer image {image} has not ended within {} s", PULL.as_secs())]
    Slow { image: String },
    #[error("running the installer")]
    Run(#[source] ContainerdError),
    #[error("the installer has failed with status {code}: {output}")]
    Failed {
        code: u32,
        /// The end of what it wrote.
        output: String,
    },
    #[error("the installation was canceled")]
    Canceled,
}

/// Receives what an installer writes.
pub type InstallerOutput = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Runs installer images.
#[async_trait]
pub trait Installer: Debug + Send + Sync {
    /// Pulls an image and runs it to its end.
    ///
    /// # Errors
    /// See [`InstallationError`]; unless it is `Failed` or `Run`, no disk was touched.
    async fn install(
        &self,
        installation: &Installation,
        registries: &Registries,
        output: InstallerOutput,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError>;
}

/// Runs installer images with a containerd whose data is in memory.
#[derive(Debug, Clone)]
pub struct MemoryInstaller {
    /// Where its data is mounted: `/run/install`.
    pub directory: PathBuf,
    pub program: PathBuf,
}

impl Default for MemoryInstaller {
    fn default() -> Self {
        Self { directory: "/run/install".into(), program: "/usr/bin/containerd".into() }
    }
}

#[async_trait]
impl Installer for MemoryInstaller {
    async fn install(
        &self,
        installation: &Installation,
        registries: &Registries,
        output: InstallerOutput,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError> {
        self.prepare()?;
        let result = self.with_containerd(installation, registries, output, cancel).await;
        // Its memory is needed again; what is still open goes with its user.
        if let Err(error) = sys::mounts::detach(&self.directory) {
            tracing::warn!(error = stdx::error_chain(&error), "the memory of the installation is not free");
        }
        result
    }
}

impl MemoryInstaller {
    /// Mounts the memory that images are unpacked in.
    fn prepare(&self) -> Result<(), InstallationError> {
        let error = |path: &Path, source| InstallationError::Directory { path: path.to_owned(), source };
        std::fs::create_dir_all(&self.directory).map_err(|source| error(&self.directory, source))?;
        if sys::mounts::is_mounted(&self.directory) {
            sys::mounts::detach(&self.directory)?;
        }
        sys::mounts::mount("tmpfs", &self.directory, "tmpfs", MountFlags::empty(), "mode=0700,size=80%")?;
        for name in ["root", "state", "pipes", "scratch"] {
            let path = self.directory.join(name);
            std::fs::create_dir(&path).map_err(|source| error(&path, source))?;
        }
        let path = self.directory.join("containerd.toml");
        std::fs::write(&path, self.configuration()).map_err(|source| error(&path, source))
    }

    /// Without the parts for Kubernetes, which would look for networks and volumes.
    fn configuration(&self) -> String {
        let directory = self.directory.display();
        format!(
            "version = 2\nroot = \"{directory}/root\"\nstate = \"{directory}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\", \
             \"io.containerd.internal.v1.tracing\", \"io.containerd.tracing.processor.v1.otlp\"]\n\
             [grpc]\n  address = \"{directory}/containerd.sock\"\n"
        )
    }

    async fn with_containerd(
        &self,
        installation: &Installation,
        registries: &Registries,
        output: InstallerOutput,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError> {
        let log = Arc::new(Mutex::new(Tail::default()));
        let sink = Arc::clone(&log);
        let config = self.directory.join("containerd.toml").display().to_string();
        let command = Command::new(&self.program).args(["--config".to_owned(), config]);
        let command = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut child = command.output(Arc::new(move |bytes: &[u8]| sink.lock().push(bytes))).spawn()?;
        let containerd = Containerd::new(&self.directory.join("containerd.sock"), Namespace::System);
        let work = async {
            ready(&containerd).await.map_err(|reason| InstallationError::Containerd {
                reason: format!("{reason}; its log ends with: {}", log.lock().text()),
            })?;
            self.run(&containerd, installation, registries, output, cancel.clone()).await
        };
        // Cancel-safe: what is left of it ends with containerd.
        let result = tokio::select! {
            result = work => result,
            () = cancel.cancelled() => Err(InstallationError::Canceled),
        };
        child.stop(GRACE).await?;
        result
    }

    async fn run(
        &self,
        containerd: &Containerd,
        installation: &Installation,
        registries: &Registries,
        output: InstallerOutput,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError> {
        let image = pull(containerd, &installation.image, registries).await?;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let kept = Arc::clone(&tail);
        let spec = ContainerSpec {
            id: CONTAINER.to_owned(),
            image,
            spec: oci::specification(&self.shape(installation), &grantable()),
            pipes: self.directory.join("pipes"),
            output: Arc::new(move |bytes: &[u8]| {
                kept.lock().push(bytes);
                output(bytes);
            }),
            input: Some(Arc::clone(&installation.configuration)),
            stop_grace: GRACE,
        };
        let ended = containers::run::run(containerd, &spec, cancel.cancelled_owned(), |_| {}).await;
        match ended.map_err(InstallationError::Run)? {
            Ended::Code(0) => Ok(()),
            Ended::Code(code) => Err(InstallationError::Failed { code, output: tail.lock().text() }),
            Ended::Stopped => Err(InstallationError::Canceled),
        }
    }

    fn shape(&self, installation: &Installation) -> Shape {
        let scratch = Mount {
            source: self.directory.join("scratch").display().to_string(),
            destination: "/scratch".to_owned(),
            ..Mount::writable("/scratch")
        };
        let mut environment = oci::with_path("/usr/sbin:/usr/bin:/sbin:/bin", &installation.environment);
        environment.push("TMPDIR=/scratch".to_owned());
        Shape {
            args: installation.arguments.clone(),
            environment,
            privilege: Privilege::Host,
            mounts: vec![Mount::writable("/dev"), Mount::writable("/sys"), scratch],
            oom_score_adj: None,
            cgroup: format!("/system/{CONTAINER}"),
        }
    }
}

/// Waits until containerd answers.
async fn ready(containerd: &Containerd) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + START;
    loop {
        let error = match containerd.version().await {
            Ok(_) => return Ok(()),
            Err(error) => stdx::error_chain(&error),
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Pulls an image; a pull that fails is tried again, as networks and registries come late.
async fn pull(
    containerd: &Containerd,
    image: &str,
    registries: &Registries,
) -> Result<containers::pull::PulledImage, InstallationError> {
    let parsed: Result<Reference, _> = image.parse();
    let reference = parsed.map_err(|source| InstallationError::Reference { image: image.to_owned(), source })?;
    let slow = || InstallationError::Slow { image: image.to_owned() };
    let deadline = tokio::time::Instant::now() + PULL;
    let mut attempts = 1;
    let mut pause = PAUSE;
    loop {
        let pull = containers::pull::ensure(containerd, registries, &reference);
        let source = match tokio::time::timeout_at(deadline, pull).await.map_err(|_| slow())? {
            Ok(image) => return Ok(image),
            Err(error) => error,
        };
        // An image for other machines stays one.
        if attempts == ATTEMPTS || matches!(source, PullError::Platform { .. }) {
            return Err(InstallationError::Pull { attempts, source });
        }
        tracing::warn!(image, attempts, error = stdx::error_chain(&source), "pulling the installer image; retrying");
        tokio::time::sleep(pause).await;
        attempts += 1;
        pause *= 2;
    }
}

/// The end of an output.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(OUTPUT);
        self.0.drain(..surplus);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().replace('\n', "; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_end_of_the_output_as_one_line() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(b"line\n");
        }
        tail.push(b"nothing more is done: why\n");
        let text = tail.text();
        assert!(text.len() <= OUTPUT * 2 && text.ends_with("line; nothing more is done: why"), "{text}");
    }

    #[test]
    fn the_container_sees_the_devices_and_has_room_for_large_files() {
        let installation =
            Installation { image: "x".into(), arguments: vec!["/bin/installer".into()], ..Installation::default() };
        let shape = MemoryInstaller::default().shape(&installation);
        let seen: Vec<_> =
            shape.mounts.iter().map(|mount| (mount.source.as_str(), mount.destination.as_str())).collect();
        assert_eq!(seen, [("/dev", "/dev"), ("/sys", "/sys"), ("/run/install/scratch", "/scratch")]);
        assert!(shape.environment.contains(&"TMPDIR=/scratch".to_owned()));
        assert_eq!(shape.privilege, Privilege::Host);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reference_that_is_none_is_refused_before_anything_is_pulled() {
        let containerd = Containerd::new(Path::new("/nonexistent"), Namespace::System);
        let result = pull(&containerd, "no reference", &Registries::default()).await;
        assert!(matches!(result, Err(InstallationError::Reference { .. })), "{result:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_containerd_that_does_not_start_is_given_up_with_its_reason() {
        let containerd = Containerd::new(Path::new("/nonexistent/sock"), Namespace::System);
        let reason = ready(&containerd).await.unwrap_err();
        assert!(reason.contains("containerd"), "{reason}");
    }
}
