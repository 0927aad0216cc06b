//! Running an installer image on a machine whose disks have no volume yet.
//!
//! Images are unpacked into memory and run by runc: containerd keeps its data on a disk. Which image runs, and with which
//! arguments, is decided elsewhere.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containers::{PullError, Reference, Registries};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sys::mounts::{MountError, MountFlags};
use sys::process::{Command, ProcessError};
use tokio_util::sync::CancellationToken;

use crate::container::grantable;
use crate::oci::{self, Mount, Privilege, Shape};

/// The container, as Talos 1.7 names it.
const CONTAINER: &str = "upgrade";
/// How long a pull may take, with all its attempts: the task has 30 minutes, and the rest of them is for writing the image.
const PULL: Duration = Duration::from_secs(25 * 60);
/// The pause before the second attempt to pull; it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Attempts to pull an image that one endpoint has refused while another one does not answer: it may never, as where a mirror
/// is all that a machine reaches.
const REFUSED_ATTEMPTS: u32 = 4;
/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
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
    #[error("{image} is not a reference of an image")]
    Reference {
        image: String,
        #[source]
        source: containers::ParseReferenceError,
    },
    #[error("pulling the installer image (attempt {attempts})")]
    Pull {
        attempts: u32,
        #[source]
        source: PullError,
    },
    #[error("pulling the installer image {image} has not ended within {} s", PULL.as_secs())]
    Slow { image: String },
    #[error("the installer has failed with {status}: {output}")]
    Failed {
        status: ExitStatus,
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
    /// Runs an image to its end; pulls it unless it was fetched.
    ///
    /// # Errors
    /// See [`InstallationError`]; unless it is `Failed` or `Canceled`, no disk was touched.
    async fn install(
        &self,
        installation: &Installation,
        registries: &Registries,
        output: InstallerOutput,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError>;

    /// Pulls an image into memory, where it waits to be run, and sees that it runs on this machine. Another one goes.
    ///
    /// # Errors
    /// See [`InstallationError`]; no disk was touched.
    async fn fetch(
        &self,
        image: &str,
        registries: &Registries,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError>;

    /// Drops an image that waits.
    fn forget(&self);
}

/// Runs installer images that are unpacked in memory.
#[derive(Debug, Clone)]
pub struct MemoryInstaller {
    /// Where that memory is mounted: `/run/install`.
    pub directory: PathBuf,
    /// runc; without a directory it is looked for in `/usr/sbin`, `/usr/bin`, `/sbin` and `/bin`.
    pub program: PathBuf,
}

impl Default for MemoryInstaller {
    fn default() -> Self {
        Self { directory: "/run/install".into(), program: "runc".into() }
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
        let pulled = match self.fetched(&installation.image) {
            Some(environment) => Ok(environment),
            None => self.pull(&installation.image, registries, &cancel).await,
        };
        let result = match pulled {
            Ok(environment) => self.run_with(installation, &environment, output, cancel).await,
            Err(error) => Err(error),
        };
        self.forget();
        result
    }

    async fn fetch(
        &self,
        image: &str,
        registries: &Registries,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError> {
        let checked = async {
            let environment = self.pull(image, registries, &cancel).await?;
            let arguments = ["/bin/installer", "--help"].map(str::to_owned).to_vec();
            let check = Installation { image: image.to_owned(), arguments, ..Installation::default() };
            self.run_with(&check, &environment, Arc::new(|_: &[u8]| {}), cancel).await?;
            let path = self.mark();
            let fetched = serde_json::to_vec(&Fetched { image: image.to_owned(), environment }).unwrap_or_default();
            std::fs::write(&path, fetched).map_err(|source| InstallationError::Directory { path, source })
        };
        checked.await.inspect_err(|_| self.forget())
    }

    fn forget(&self) {
        // What is still open goes with its user.
        if sys::mounts::is_mounted(&self.directory)
            && let Err(error) = sys::mounts::detach(&self.directory)
        {
            tracing::warn!(error = stdx::error_chain(&error), "the memory of the installation is not free");
        }
    }
}

/// An image that waits in memory to be run.
#[derive(Debug, Serialize, Deserialize)]
struct Fetched {
    image: String,
    /// Its variables.
    environment: Vec<String>,
}

impl MemoryInstaller {
    fn mark(&self) -> PathBuf {
        self.directory.join("fetched.json")
    }

    /// The variables of this image, if it waits in memory.
    fn fetched(&self, image: &str) -> Option<Vec<String>> {
        let text = sys::mounts::is_mounted(&self.directory).then(|| std::fs::read(self.mark()).ok())??;
        let fetched: Fetched = serde_json::from_slice(&text).ok()?;
        (fetched.image == image).then_some(fetched.environment)
    }

    /// Has an image in memory, and nothing else; its variables.
    async fn pull(
        &self,
        image: &str,
        registries: &Registries,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, InstallationError> {
        self.prepare()?;
        let root = self.root();
        // Cancel-safe: what is left of an image goes with its memory.
        tokio::select! {
            pulled = pull(image, registries, &root) => pulled,
            () = cancel.cancelled() => Err(InstallationError::Canceled),
        }
    }

    async fn run_with(
        &self,
        installation: &Installation,
        environment: &[String],
        output: InstallerOutput,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError> {
        self.specify(installation, environment)?;
        self.run(installation, output, cancel).await
    }

    /// Mounts the memory that images are unpacked in.
    fn prepare(&self) -> Result<(), InstallationError> {
        let error = |path: &Path, source| InstallationError::Directory { path: path.to_owned(), source };
        std::fs::create_dir_all(&self.directory).map_err(|source| error(&self.directory, source))?;
        if sys::mounts::is_mounted(&self.directory) {
            sys::mounts::detach(&self.directory)?;
        }
        sys::mounts::mount("tmpfs", &self.directory, "tmpfs", MountFlags::empty(), "mode=0700,size=80%")?;
        for path in [self.bundle(), self.directory.join("scratch")] {
            std::fs::create_dir(&path).map_err(|source| error(&path, source))?;
        }
        Ok(())
    }

    /// Says what is run of an image with these variables.
    fn specify(&self, installation: &Installation, image: &[String]) -> Result<(), InstallationError> {
        let specification = oci::specification(&self.shape(installation, image), &grantable());
        let path = self.bundle().join("config.json");
        std::fs::write(&path, specification.to_string()).map_err(|source| InstallationError::Directory { path, source })
    }

    /// What runc runs: a specification, and the root beside it that it names.
    fn bundle(&self) -> PathBuf {
        self.directory.join("bundle")
    }

    fn root(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    fn runc(&self) -> Command {
        let path = |name: &str| self.directory.join(name).display().to_string();
        // What it says of itself is not part of the installer's output, but for the reason why it cannot run it.
        let own = ["--root".to_owned(), path("state"), "--log".to_owned(), path("runc.log")];
        Command::new(&self.program).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(own)
    }

    async fn run(
        &self,
        installation: &Installation,
        output: InstallerOutput,
        cancel: CancellationToken,
    ) -> Result<(), InstallationError> {
        let tail = Arc::new(Mutex::new(Tail::default()));
        let kept = Arc::clone(&tail);
        let sink = Arc::new(move |bytes: &[u8]| {
            kept.lock().push(bytes);
            output(bytes);
        });
        let bundle = self.bundle().display().to_string();
        let command = self.runc().args(["run", "--bundle", &bundle, CONTAINER]).output(sink);
        let mut container = command.input(Arc::clone(&installation.configuration)).spawn()?;
        // Cancel-safe: waiting takes nothing away. runc hands signals on, and gives the container's status as its own.
        let ended = tokio::select! {
            ended = container.wait() => Some(ended?),
            () = cancel.cancelled() => None,
        };
        let Some(status) = ended else {
            container.stop(GRACE).await?;
            // A runc that had to be killed has left the container behind.
            drop(self.runc().args(["delete", "--force", CONTAINER]).run().await);
            return Err(InstallationError::Canceled);
        };
        container.drain().await;
        let output = tail.lock().text();
        if status.success() { Ok(()) } else { Err(InstallationError::Failed { status, output }) }
    }

    fn shape(&self, installation: &Installation, image: &[String]) -> Shape {
        let scratch = Mount {
            source: self.directory.join("scratch").display().to_string(),
            destination: "/scratch".to_owned(),
            ..Mount::writable("/scratch")
        };
        let environment = over(image, &installation.environment);
        let mut environment = oci::with_path("/usr/sbin:/usr/bin:/sbin:/bin", &environment);
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

/// The variables of an image, and over them the machine's.
fn over(image: &[String], machine: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let replaced = |variable: &&String| machine.iter().any(|own| name(own) == name(variable));
    image.iter().filter(|variable| !replaced(variable)).chain(machine).cloned().collect()
}

/// Pulls an image, and returns its variables; a pull that fails is tried again, as networks and registries come late.
async fn pull(image: &str, registries: &Registries, root: &Path) -> Result<Vec<String>, InstallationError> {
    let parsed: Result<Reference, _> = image.parse();
    let reference = parsed.map_err(|source| InstallationError::Reference { image: image.to_owned(), source })?;
    until_pulled(image, || containers::unpack::unpack(registries, &reference, root)).await
}

/// Attempts to pull until one succeeds. The configuration of a machine that is not installed is in memory: an outage of the
/// network or the registry must not cost it.
async fn until_pulled<T, F>(image: &str, mut attempt: impl FnMut() -> F) -> Result<T, InstallationError>
where
    F: Future<Output = Result<T, PullError>>,
{
    let deadline = tokio::time::Instant::now() + PULL;
    let mut attempts = 0;
    let mut pause = PAUSE;
    let mut failed_before = None;
    loop {
        attempts += 1;
        let source = match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(Ok(pulled)) => return Ok(pulled),
            Ok(Err(error)) => error,
            Err(_) => {
                let slow = InstallationError::Slow { image: image.to_owned() };
                return Err(failed_before.map_or(slow, |source| InstallationError::Pull { attempts, source }));
            }
        };
        let is_given_up = !source.is_retryable() || (source.is_refusal() && attempts >= REFUSED_ATTEMPTS);
        if is_given_up || tokio::time::Instant::now() + pause >= deadline {
            return Err(InstallationError::Pull { attempts, source });
        }
        let (error, retry_after) = (stdx::error_chain(&source), pause.as_secs());
        tracing::warn!(image, attempts, retry_after, error, "pulling the installer image; retrying");
        failed_before = Some(source);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
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
    use containers::LayerError;
    use containers::registry::{RegistryError, StatusCode};
    use containers::testing::{Registry, in_time};

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
        let shape = MemoryInstaller::default().shape(&installation, &[]);
        let seen: Vec<_> =
            shape.mounts.iter().map(|mount| (mount.source.as_str(), mount.destination.as_str())).collect();
        assert_eq!(seen, [("/dev", "/dev"), ("/sys", "/sys"), ("/run/install/scratch", "/scratch")]);
        assert!(shape.environment.contains(&"TMPDIR=/scratch".to_owned()));
        assert_eq!(shape.privilege, Privilege::Host);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reference_that_is_none_is_refused_before_anything_is_pulled() {
        let result = pull("no reference", &Registries::default(), Path::new("/nonexistent")).await;
        assert!(matches!(result, Err(InstallationError::Reference { .. })), "{result:?}");
    }

    fn registry(source: RegistryError) -> PullError {
        PullError::Registry { reference: "a/b:1".to_owned(), source }
    }

    fn status(status: StatusCode) -> RegistryError {
        RegistryError::Status { url: "http://a/v2".to_owned(), status }
    }

    fn unpack(kind: std::io::ErrorKind) -> PullError {
        let source = LayerError::Archive(kind.into());
        PullError::Layer { reference: "a/b:1".to_owned(), layer: "sha256:1".to_owned(), source }
    }

    /// Pulls that fail with these errors, and then succeed; and how long it took.
    async fn pulled(mut failures: impl Iterator<Item = PullError>) -> (Result<(), InstallationError>, Duration) {
        let begun = tokio::time::Instant::now();
        let result = until_pulled("a/b:1", || {
            let answer = failures.next();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                answer.map_or(Ok(()), Err)
            }
        })
        .await;
        (result, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_the_registry_is_outlasted_up_to_the_time_that_a_pull_has() {
        let outage = || {
            std::iter::repeat_with(|| {
                [
                    registry(status(StatusCode::SERVICE_UNAVAILABLE)),
                    registry(status(StatusCode::TOO_MANY_REQUESTS)),
                    unpack(std::io::ErrorKind::UnexpectedEof),
                ]
            })
            .flatten()
        };
        let (result, took) = pulled(outage().take(12)).await;
        result.unwrap();
        assert!(took > Duration::from_secs(8 * 60), "{took:?}");
        let (result, took) = pulled(outage()).await;
        assert!(matches!(result, Err(InstallationError::Pull { attempts: 24..30, .. })), "{result:?}");
        assert!(took <= PULL && took + LONGEST_PAUSE + Duration::from_secs(1) >= PULL, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_ends_a_pull_at_once() {
        let failures = [
            PullError::Platform { reference: "a/b:1".to_owned(), architecture: "amd64" },
            registry(status(StatusCode::NOT_FOUND)),
            registry(status(StatusCode::UNAUTHORIZED)),
            registry(status(StatusCode::FORBIDDEN)),
            unpack(std::io::ErrorKind::StorageFull),
        ];
        for failure in failures {
            let (result, _) = pulled([failure].into_iter()).await;
            assert!(matches!(result, Err(InstallationError::Pull { attempts: 1, .. })), "{result:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_that_one_endpoint_does_not_have_is_given_up_soon() {
        let failures = |refused| {
            std::iter::repeat_with(move || {
                let attempts = vec!["404".to_owned(), "no route".to_owned()];
                registry(RegistryError::Exhausted { reference: "a/b:1".to_owned(), attempts, passes: true, refused })
            })
        };
        let (result, took) = pulled(failures(true)).await;
        assert!(matches!(result, Err(InstallationError::Pull { attempts: REFUSED_ATTEMPTS, .. })), "{result:?}");
        assert!(took < Duration::from_secs(60), "{took:?}");
        pulled(failures(false).take(9)).await.0.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_that_stands_still_says_what_failed_before() {
        let still = async |fails: bool| {
            let mut attempts = 0;
            until_pulled("a/b:1", || {
                attempts += 1;
                let fails = fails && attempts == 1;
                async move {
                    if fails {
                        Err::<(), _>(registry(status(StatusCode::BAD_GATEWAY)))
                    } else {
                        std::future::pending().await
                    }
                }
            })
            .await
        };
        let error = still(true).await.unwrap_err();
        assert!(matches!(error, InstallationError::Pull { attempts: 2, .. }), "{error}");
        let error = still(false).await.unwrap_err();
        assert!(matches!(error, InstallationError::Slow { .. }), "{error}");
    }

    /// A machine has one installation at a time, and one group for it.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// An installer that runs `script`, and what it wrote.
    async fn install(script: &str, cancel: CancellationToken) -> (Result<(), InstallationError>, String) {
        let _alone = ALONE.lock().await;
        let registry = Registry::start().await;
        let directory = tempfile::tempdir().unwrap();
        let installer = MemoryInstaller { directory: directory.path().join("install"), ..MemoryInstaller::default() };
        let arguments = ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec();
        let configuration = b"the configuration\n".as_slice().into();
        let installation =
            Installation { image: registry.reference(), arguments, environment: vec!["A=1".to_owned()], configuration };
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let output: InstallerOutput = Arc::new(move |bytes: &[u8]| sink.lock().extend_from_slice(bytes));
        let result = in_time("install", installer.install(&installation, &Registries::default(), output, cancel)).await;
        assert!(!sys::mounts::is_mounted(&installer.directory), "its memory stays mounted");
        let written = String::from_utf8(written.lock().clone()).unwrap();
        (result, written)
    }

    #[tokio::test]
    async fn an_installer_gets_the_configuration_and_says_how_it_ended() {
        let script = "busybox cat; echo $A $B $TMPDIR; busybox touch /scratch/x /x; busybox test -b /dev/loop0; exit 0";
        let (result, written) = install(script, CancellationToken::new()).await;
        result.unwrap();
        assert_eq!(written, "the configuration\n1 image /scratch\n");
        let (failed, written) = install("echo no room >&2; exit 3", CancellationToken::new()).await;
        let error = failed.unwrap_err();
        assert!(
            matches!(&error, InstallationError::Failed { status, output } if status.code() == Some(3) && output == "no room"),
            "{error}"
        );
        assert_eq!(written, "no room\n");
    }

    #[tokio::test]
    async fn an_installer_that_ignores_its_end_is_killed() {
        let cancel = CancellationToken::new();
        let canceled = cancel.clone();
        let script = "trap '' TERM; echo started; while :; do busybox sleep 1; done";
        let waiting = stdx::tasks::spawn("cancel", async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            canceled.cancel();
        });
        let (result, written) = install(script, cancel).await;
        assert!(matches!(result, Err(InstallationError::Canceled)), "{result:?}");
        assert_eq!(written, "started\n");
        waiting.join().await.unwrap();
    }
}
