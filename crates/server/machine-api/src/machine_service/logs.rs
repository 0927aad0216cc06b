//! Logs of services, containers and the kernel.

use std::path::{Path, PathBuf};

use containers::Namespace;
use futures::stream::{self, BoxStream, StreamExt};
use resources::runtime::MountStatus;
use supervisor::logs::Start;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tonic::Status;
use wire::common::{ContainerDriver, Data};
use wire::machine::{DmesgRequest, LogsRequest};

use super::containers::{PodContainer, namespace};
use super::on_thread;
use crate::access::quoted;
use crate::machine::Machine;

/// Bytes in one message of a stream.
pub(super) const CHUNK: usize = 32 << 10;
/// How often a followed file is looked at.
const POLL: std::time::Duration = std::time::Duration::from_millis(250);
/// The kubelet's directory of container logs, below the volume EPHEMERAL.
const POD_LOGS: &str = "log/pods";

pub(super) type DataStream = BoxStream<'static, Result<Data, Status>>;

pub(super) fn data(bytes: impl Into<bytes::Bytes>) -> Data {
    Data { metadata: None, bytes: bytes.into() }
}

pub(super) async fn logs(machine: &Machine, request: LogsRequest) -> Result<DataStream, Status> {
    let kubernetes =
        request.driver() == ContainerDriver::Cri || namespace(&request.namespace)? == Namespace::Kubernetes;
    if kubernetes {
        let file = pod_log(machine, &request.id).await?;
        return follow_file(file, request.tail_lines, request.follow).await;
    }
    // Negative: everything that is kept.
    let start = usize::try_from(request.tail_lines).map_or(Start::Beginning, Start::Tail);
    let mut reader = machine.logs.reader(&request.id, start).ok_or_else(|| {
        let (id, known) = (quoted(&request.id), machine.logs.ids().join(", "));
        Status::not_found(format!("log {id:?} was not registered; there are logs of {known}"))
    })?;
    if request.follow {
        let chunks = stream::unfold(reader, |mut reader| async move {
            let chunk = reader.next().await?;
            Some((Ok(data(chunk)), reader))
        });
        return Ok(chunks.boxed());
    }
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.try_next() {
        chunks.push(Ok(data(chunk)));
    }
    Ok(stream::iter(chunks).boxed())
}

/// The newest log file of a container, named `namespace/pod:container` with or without the id at the end.
async fn pod_log(machine: &Machine, id: &str) -> Result<PathBuf, Status> {
    let listed = machine.containers.containers(Namespace::Kubernetes).await;
    let listed = listed.map_err(|error| Status::unavailable(stdx::error_chain(&error)))?;
    let pods: Vec<_> = listed.iter().filter_map(PodContainer::of).collect();
    let found = pods.iter().find(|pod| pod.display_id() == id).or_else(|| {
        pods.iter().find(|pod| !pod.container.is_empty() && format!("{}:{}", pod.pod_id(), pod.container) == id)
    });
    let Some(pod) = found.filter(|pod| !pod.container.is_empty()) else {
        return Err(Status::not_found(format!("no container {id}; `containers -k` lists them")));
    };
    let volume = machine.store.get_as::<MountStatus>(MountStatus::EPHEMERAL);
    let volume = volume.map_err(|error| Status::internal(stdx::error_chain(&error)))?;
    let volume = volume.ok_or_else(|| Status::unavailable("volume EPHEMERAL, where logs are, is not mounted"))?;
    let logs = Path::new(&volume.target).join(POD_LOGS);
    let directory = logs.join(format!("{}_{}_{}", pod.namespace, pod.pod, pod.uid)).join(pod.container);
    let id = id.to_owned();
    on_thread(move || {
        let missing = |error| Status::not_found(format!("no log of {id} in {}: {error}", directory.display()));
        let file = newest_file(&directory).map_err(missing)?;
        // Pods with write access below /var/log must not redirect a log reader.
        let real = std::fs::canonicalize(&file).map_err(missing)?;
        if !std::fs::canonicalize(&logs).is_ok_and(|logs| real.starts_with(logs)) {
            return Err(Status::permission_denied(format!("the log of {id} leads out of {}", logs.display())));
        }
        Ok(real)
    })
    .await
}

fn newest_file(directory: &Path) -> std::io::Result<PathBuf> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(known, _)| number >= *known)
        {
            newest = Some((number, path));
        }
    }
    newest.map(|(_, path)| path).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
}

async fn follow_file(path: PathBuf, tail: i32, follow: bool) -> Result<DataStream, Status> {
    let failed = |error: std::io::Error| Status::not_found(format!("reading {}: {error}", path.display()));
    let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
    if let Ok(lines) = usize::try_from(tail) {
        let offset = tail_offset(&mut file, lines).await.map_err(failed)?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(failed)?;
    }
    let chunks = stream::unfold(Some((file, path)), move |open| async move {
        let (mut file, path) = open?;
        let mut buffer = vec![0; CHUNK];
        loop {
            // Looked at before the end is read: a file that was put aside by then is written to no more.
            let next = if follow { successor(&file, &path).await } else { None };
            match (file.read(&mut buffer).await, next) {
                (Ok(0), Some(next)) => file = next,
                (Ok(0), None) if follow => tokio::time::sleep(POLL).await,
                (Ok(0), None) => return None,
                (Ok(length), _) => {
                    buffer.truncate(length);
                    return Some((Ok(data(buffer)), Some((file, path))));
                }
                (Err(error), _) => return Some((Err(Status::internal(error.to_string())), None)),
            }
        }
    });
    Ok(chunks.boxed())
}

/// The file that is at `path` now, if that is another one: the kubelet rotates logs by renaming.
async fn successor(file: &tokio::fs::File, path: &Path) -> Option<tokio::fs::File> {
    use std::os::unix::fs::MetadataExt as _;
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let open = file.metadata().await.ok()?;
    let there = tokio::fs::symlink_metadata(path).await.ok()?;
    if same(&open, &there) || !there.is_file() {
        return None;
    }
    tokio::fs::File::open(path).await.ok()
}

/// Where the last `lines` lines of a file begin. It is read from its end, in blocks, as far as that takes. A line end at the
/// very end closes the last line.
async fn tail_offset(file: &mut tokio::fs::File, lines: usize) -> std::io::Result<u64> {
    let end = file.seek(std::io::SeekFrom::End(0)).await?;
    if lines == 0 || end == 0 {
        return Ok(end);
    }
    let (mut at, mut found) = (end - 1, 0);
    let mut block = vec![0; CHUNK];
    while at > 0 {
        let length = at.min(CHUNK as u64);
        let start = at - length;
        // At most the size of a block.
        let part = &mut block[..usize::try_from(length).unwrap_or(CHUNK)];
        file.seek(std::io::SeekFrom::Start(start)).await?;
        file.read_exact(part).await?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            found += 1;
            if found == lines {
                return Ok(start + index as u64 + 1);
            }
        }
        at = start;
    }
    Ok(0)
}

pub(super) fn dmesg(machine: &Machine, request: DmesgRequest) -> Result<DataStream, Status> {
    let reader = sys::kmsg::Reader::open(request.tail).map_err(|error| {
        Status::failed_precondition(format!("the kernel log cannot be read on this machine: {error}"))
    })?;
    let boot = sys::kmsg::boot_time(machine.clock.now());
    let lines = stream::unfold(Some(reader), move |reader| async move {
        let mut reader = reader?;
        match reader.next(request.follow).await {
            Ok(Some(record)) => Some((Ok(data(kmsg_line(&record, boot))), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(Status::internal(error.to_string())), None)),
        }
    });
    Ok(lines.boxed())
}

fn kmsg_line(record: &sys::kmsg::Record, boot: jiff::Timestamp) -> String {
    let (facility, priority, at) = (record.facility_name(), record.priority_name(), record.time(boot));
    format!("{facility}: {priority:>7}: [{at}]: {}\n", record.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(stream: &mut DataStream) -> String {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(10), stream.next()).await;
        String::from_utf8(chunk.expect("nothing comes").unwrap().unwrap().bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_in_the_file_that_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let mut stream = follow_file(path.clone(), 1, true).await.unwrap();
        assert_eq!(next(&mut stream).await, "two\n");
        let aside = directory.path().join("0.log.20240101-000000");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::write(&aside, "one\ntwo\nlast\n").unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(next(&mut stream).await, "last\n");
        assert_eq!(next(&mut stream).await, "new\n");
    }

    /// The whole of a log was held in memory to find its last line.
    #[tokio::test]
    async fn a_tail_is_found_from_the_end_across_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let long = "x".repeat(CHUNK);
        for (text, lines, expected) in [
            ("one\ntwo\nthree\n".to_owned(), 2, "two\nthree\n".len()),
            ("one\ntwo\nthree".to_owned(), 2, "two\nthree".len()),
            ("one\ntwo\n".to_owned(), 9, 8),
            ("one\n".to_owned(), 0, 0),
            (String::new(), 3, 0),
            ("\n".to_owned(), 1, 1),
            (format!("first\n{long}\n{long}\n"), 1, CHUNK + 1),
            (format!("first\n{long}\n{long}\n"), 2, 2 * (CHUNK + 1)),
            (format!("first\n{long}{long}{long}"), 1, 3 * CHUNK),
        ] {
            std::fs::write(&path, &text).unwrap();
            let mut file = tokio::fs::File::open(&path).await.unwrap();
            let offset = tail_offset(&mut file, lines).await.unwrap();
            assert_eq!(text.len() as u64 - offset, expected as u64, "{lines} of {} bytes", text.len());
        }
    }

    #[tokio::test]
    async fn a_log_that_is_not_followed_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, "one\n").unwrap();
        let mut stream = follow_file(path, -1, false).await.unwrap();
        assert_eq!(next(&mut stream).await, "one\n");
        assert!(stream.next().await.is_none());
    }
}
