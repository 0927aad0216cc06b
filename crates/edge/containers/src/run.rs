//! Running one container of the node: made afresh, started, waited for, and cleared away.
//!
//! A container outlives containerd (its shim holds it): after a lost connection the wait is retried.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tonic::Code;

use crate::containerd::{Containerd, ContainerdError};
use crate::generated::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, container::Runtime,
};
use crate::generated::containerd::services::snapshots::v1::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use crate::generated::containerd::services::tasks::v1::{
    CloseIoRequest, CreateTaskRequest, DeleteTaskRequest, KillRequest, StartRequest, WaitRequest,
};
use crate::pull::{PulledImage, SNAPSHOTTER};

const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const RUNTIME: &str = "io.containerd.runc.v2";
const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;

/// How long containerd may be away before a container is given up.
const RECONNECT: Duration = Duration::from_secs(60);

/// A call that lasted this long was accepted by containerd.
const WAITED: Duration = Duration::from_secs(10);

/// Receives the output of a container's first process.
pub type OutputSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// A container to run.
#[derive(Clone)]
pub struct ContainerSpec {
    pub id: String,
    pub image: PulledImage,
    /// The OCI runtime specification; its root is filled in by containerd.
    pub spec: serde_json::Value,
    /// Directory for the pipes of its input and output.
    pub pipes: PathBuf,
    pub output: OutputSink,
    /// What its first process reads; without it there is no standard input.
    pub input: Option<Arc<[u8]>>,
    /// Time between SIGTERM and SIGKILL on a stop.
    pub stop_grace: Duration,
}

impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("id", &self.id)
            .field("image", &self.image.reference)
            .finish_non_exhaustive()
    }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code (128 + the signal for a signal).
    Code(u32),
    /// By a stop request.
    Stopped,
}

/// Removes the remains of an earlier run with the same id: task, container, snapshot.
///
/// # Errors
/// `Call` for any error except not found.
pub async fn clear(containerd: &Containerd, id: &str) -> Result<(), ContainerdError> {
    let mut tasks = containerd.tasks_client();
    let kill = KillRequest { container_id: id.to_owned(), exec_id: String::new(), signal: SIGKILL, all: true };
    if tasks.kill(kill).await.is_ok() {
        let wait = tasks.wait(WaitRequest { container_id: id.to_owned(), exec_id: String::new() });
        // A missed deadline shows in the deletion below.
        drop(tokio::time::timeout(Duration::from_secs(10), wait).await);
    }
    absent_is_fine(tasks.delete(DeleteTaskRequest { container_id: id.to_owned() }).await, "deleting task", id)?;
    let delete = containerd.containers_client().delete(DeleteContainerRequest { id: id.to_owned() }).await;
    absent_is_fine(delete, "deleting container", id)?;
    let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: id.to_owned() };
    absent_is_fine(containerd.snapshots().remove(remove).await, "removing snapshot", id)
}

fn absent_is_fine<T>(
    result: Result<tonic::Response<T>, tonic::Status>,
    operation: &'static str,
    id: &str,
) -> Result<(), ContainerdError> {
    match result {
        Err(status) if status.code() != Code::NotFound => Err(ContainerdError::call(operation, id)(status)),
        _ => Ok(()),
    }
}

/// Runs a container until it ends, or until `cancel` fires and it has been stopped. `started` gets its process id.
///
/// # Errors
/// `Call` with the step that failed.
pub async fn run(
    containerd: &Containerd,
    spec: &ContainerSpec,
    cancel: impl Future<Output = ()> + Send,
    started: impl FnOnce(u32) + Send,
) -> Result<Ended, ContainerdError> {
    clear(containerd, &spec.id).await?;
    let mut pipes = Pipes::make(spec)?;
    let stdin = pipes.stdin.take();
    create(containerd, spec, &pipes).await?;
    let id = spec.id.as_str();
    let mut tasks = containerd.tasks_client();
    let start = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
    let pid = tasks.start(start).await.map_err(ContainerdError::call("starting", id))?.into_inner().pid;
    started(pid);
    let end = async {
        // Both arms are cancel-safe: waiting takes nothing away, and a request to stop is not taken back.
        tokio::select! {
            ended = wait(containerd, id) => ended,
            () = cancel => stop(containerd, spec).await.map(|()| Ended::Stopped),
        }
    };
    // Output is read until the end, also while the container stops: it would wait for a reader of a full pipe and not end.
    // Copying is cancel-safe: it loses at most what a dead reader would, and `drain` takes what is left. Nobody reads the input
    // of a container that has ended.
    let ended = tokio::select! {
        ended = end => ended?,
        never = pipes.copy(&spec.output) => match never {},
        never = feed(containerd, spec, stdin) => match never {},
    };
    pipes.drain(&spec.output);
    clear(containerd, id).await?;
    Ok(ended)
}

async fn create(containerd: &Containerd, spec: &ContainerSpec, pipes: &Pipes) -> Result<(), ContainerdError> {
    let id = spec.id.as_str();
    let value = serde_json::to_vec(&spec.spec).map_err(|e| ContainerdError::Unexpected {
        operation: "encoding the specification of",
        subject: id.to_owned(),
        reason: e.to_string(),
    })?;
    let container = Container {
        id: id.to_owned(),
        image: spec.image.reference.clone(),
        runtime: Some(Runtime { name: RUNTIME.to_owned(), options: None }),
        spec: Some(prost_types::Any { type_url: SPEC_TYPE.to_owned(), value }),
        snapshotter: SNAPSHOTTER.to_owned(),
        snapshot_key: id.to_owned(),
        ..Container::default()
    };
    let request = CreateContainerRequest { container: Some(container) };
    containerd.containers_client().create(request).await.map_err(ContainerdError::call("creating container", id))?;
    // After the container: a snapshot that nothing refers to is garbage, and containerd collects at any time.
    let prepare = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: id.to_owned(),
        parent: spec.image.snapshot.clone(),
        labels: std::collections::HashMap::new(),
    };
    let mounts =
        containerd.snapshots().prepare(prepare).await.map_err(ContainerdError::call("preparing the root of", id))?;
    let task = CreateTaskRequest {
        container_id: id.to_owned(),
        rootfs: mounts.into_inner().mounts,
        stdin: spec.input.as_ref().map_or_else(String::new, |_| pipes.path("stdin")),
        stdout: pipes.path("stdout"),
        stderr: pipes.path("stderr"),
        ..CreateTaskRequest::default()
    };
    containerd.tasks_client().create(task).await.map_err(ContainerdError::call("creating task", id))?;
    Ok(())
}

async fn wait(containerd: &Containerd, id: &str) -> Result<Ended, ContainerdError> {
    let mut away_since: Option<Instant> = None;
    loop {
        let request = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
        let asked = Instant::now();
        match containerd.tasks_client().wait(request).await {
            Ok(answer) => return Ok(Ended::Code(answer.into_inner().exit_status)),
            Err(status) if is_connection_loss(&status) => {
                // A long wait shows that containerd was present until now.
                let since = away_since.filter(|_| asked.elapsed() < WAITED).unwrap_or_else(Instant::now);
                if since.elapsed() > RECONNECT {
                    return Err(ContainerdError::call("waiting for", id)(status));
                }
                away_since = Some(since);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(status) => return Err(ContainerdError::call("waiting for", id)(status)),
        }
    }
}

/// Writes the input of a container and closes it.
async fn feed(containerd: &Containerd, spec: &ContainerSpec, stdin: Option<pipe::Sender>) -> std::convert::Infallible {
    if let (Some(mut stdin), Some(input)) = (stdin, &spec.input) {
        let written = stdin.write_all(input).await;
        // The shim is the other one that has it open for writing.
        drop(stdin);
        let request = CloseIoRequest { container_id: spec.id.clone(), exec_id: String::new(), stdin: true };
        let closed = containerd.tasks_client().close_io(request).await;
        let closed = absent_is_fine(closed, "closing the input of", &spec.id);
        if let Err(error) = written {
            tracing::warn!(id = spec.id, %error, "the input of a container is not whole");
        }
        if let Err(error) = closed {
            tracing::warn!(id = spec.id, error = stdx::error_chain(&error), "the input of a container stays open");
        }
    }
    std::future::pending().await
}

/// Status codes of a call during which containerd went away.
fn is_connection_loss(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

async fn stop(containerd: &Containerd, spec: &ContainerSpec) -> Result<(), ContainerdError> {
    let id = spec.id.as_str();
    let signal = |signal, all| KillRequest { container_id: id.to_owned(), exec_id: String::new(), signal, all };
    let mut tasks = containerd.tasks_client();
    absent_is_fine(tasks.kill(signal(SIGTERM, false)).await, "sending SIGTERM to", id)?;
    if tokio::time::timeout(spec.stop_grace, wait(containerd, id)).await.is_err() {
        absent_is_fine(tasks.kill(signal(SIGKILL, true)).await, "sending SIGKILL to", id)?;
        wait(containerd, id).await?;
    }
    Ok(())
}

/// The named pipes for standard input, output and error. Those for output stay open for reading and writing here, so that the
/// shim never blocks on opening and never sees them closed.
struct Pipes {
    directory: PathBuf,
    id: String,
    stdin: Option<pipe::Sender>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Pipes {
    fn make(spec: &ContainerSpec) -> Result<Self, ContainerdError> {
        let failed =
            |reason| ContainerdError::Unexpected { operation: "making pipes for", subject: spec.id.clone(), reason };
        let open = |stream: &str| {
            // One of an earlier run is replaced.
            let pipe = sys::files::make_pipe(&pipe_path(&spec.pipes, &spec.id, stream), 0o600);
            pipe.map_err(|error| failed(stdx::error_chain(&error)))
        };
        let receiver = |stream| pipe::Receiver::from_file(open(stream)?).map_err(|error| failed(error.to_string()));
        let stdin = match spec.input {
            Some(_) => Some(pipe::Sender::from_file(open("stdin")?).map_err(|error| failed(error.to_string()))?),
            None => None,
        };
        let (stdout, stderr) = (receiver("stdout")?, receiver("stderr")?);
        Ok(Self { directory: spec.pipes.clone(), id: spec.id.clone(), stdin, stdout, stderr })
    }

    fn path(&self, stream: &str) -> String {
        pipe_path(&self.directory, &self.id, stream).display().to_string()
    }

    async fn copy(&self, to: &OutputSink) -> std::convert::Infallible {
        let (never, _) = tokio::join!(copy(&self.stdout, to), copy(&self.stderr, to));
        never
    }

    fn drain(&self, to: &OutputSink) {
        let mut buffer = vec![0; 4096];
        for stream in [&self.stdout, &self.stderr] {
            while let Ok(n @ 1..) = stream.try_read(&mut buffer) {
                to(&buffer[..n]);
            }
        }
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        for stream in ["stdin", "stdout", "stderr"] {
            // On tmpfs below /run; a remaining file is replaced by the next run.
            drop(sys::files::remove(&pipe_path(&self.directory, &self.id, stream)));
        }
    }
}

async fn copy(from: &pipe::Receiver, to: &OutputSink) -> std::convert::Infallible {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.readable().await.and_then(|()| from.try_read(&mut buffer)) {
            Ok(n) if n > 0 => to(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            // Neither happens while both ends are held open here.
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn pipe_path(directory: &Path, id: &str, stream: &str) -> PathBuf {
    directory.join(format!("{id}.{stream}"))
}
