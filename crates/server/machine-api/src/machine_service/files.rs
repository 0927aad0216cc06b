//! Directories and files of the node, read only.

use std::fs::{FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::AsyncReadExt;
use tonic::Status;
use wire::machine::{FileInfo, ListRequest, list_request::Type};

use super::logs::{CHUNK, DataStream, data};

/// Entries that are looked at in one go.
const BATCH: usize = 256;

fn absolute(path: &str) -> Result<PathBuf, Status> {
    let path = if path.is_empty() { "/" } else { path };
    if !path.starts_with('/') {
        return Err(Status::invalid_argument(format!("path {path:?} is not absolute")));
    }
    Ok(PathBuf::from(path))
}

fn failed(path: &Path, error: &std::io::Error) -> Status {
    let message = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::NotFound => Status::not_found(message),
        std::io::ErrorKind::PermissionDenied => Status::permission_denied(message),
        _ => Status::failed_precondition(message),
    }
}

/// The contents of a regular file.
pub(super) async fn read(path: &str) -> Result<DataStream, Status> {
    let path = absolute(path)?;
    let metadata = tokio::fs::metadata(&path).await.map_err(|error| failed(&path, &error))?;
    if !metadata.is_file() {
        return Err(Status::invalid_argument(format!("{}: not a regular file", path.display())));
    }
    let file = tokio::fs::File::open(&path).await.map_err(|error| failed(&path, &error))?;
    let chunks = stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let mut buffer = vec![0; CHUNK];
        match file.read(&mut buffer).await {
            Ok(0) => None,
            Ok(length) => {
                buffer.truncate(length);
                Some((Ok(data(buffer)), Some(file)))
            }
            Err(error) => Some((Err(Status::internal(error.to_string())), None)),
        }
    });
    Ok(chunks.boxed())
}

/// A file or a directory and what is in it, parents first, siblings by name. The walk goes on as the reader reads.
pub(super) async fn list(request: ListRequest) -> Result<BoxStream<'static, Result<FileInfo, Status>>, Status> {
    let asked = absolute(&request.root)?;
    let root = tokio::fs::canonicalize(&asked).await.map_err(|error| failed(&asked, &error))?;
    let depth = match (request.recurse, request.recursion_depth) {
        (false, _) => 1,
        (true, ..=0) => usize::MAX,
        (true, depth) => usize::try_from(depth).unwrap_or(usize::MAX),
    };
    let walk =
        Walk { pending: vec![(root.clone(), depth)], root, name: name(&asked), types: request.types().collect() };
    let batches = stream::unfold(walk, |mut walk| async move {
        if walk.pending.is_empty() {
            return None;
        }
        // The file system may block, so it has a thread, but only for as long as a batch takes: a reader that stands
        // still holds none.
        let visited = tokio::task::spawn_blocking(move || {
            let batch = walk.batch();
            (batch, walk)
        });
        match visited.await {
            Ok((batch, walk)) => Some((batch.into_iter().map(Ok).collect(), walk)),
            Err(error) => {
                let failed = Status::internal(format!("listing failed: {error}"));
                let ended = Walk { root: PathBuf::new(), name: String::new(), types: Vec::new(), pending: Vec::new() };
                Some((vec![Err(failed)], ended))
            }
        }
    });
    Ok(batches.flat_map(stream::iter).boxed())
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| ".".to_owned(), |name| name.to_string_lossy().into_owned())
}

struct Walk {
    root: PathBuf,
    /// The last part of the path that was asked for: a file is listed by it.
    name: String,
    types: Vec<Type>,
    /// Entries to visit, the next last, with the number of levels below each.
    pending: Vec<(PathBuf, usize)>,
}

impl Walk {
    /// Visits the next batch of entries and returns the matching ones.
    fn batch(&mut self) -> Vec<FileInfo> {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            let Some((path, depth)) = self.pending.pop() else { break };
            batch.extend(self.visit(&path, depth));
        }
        batch
    }

    fn visit(&mut self, path: &Path, depth: usize) -> Option<FileInfo> {
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return Some(self.broken(path, &error)),
        };
        let mut info = self.describe(path, &metadata);
        if metadata.is_dir() && depth > 0 {
            match children(path) {
                Ok(children) => self.pending.extend(children.into_iter().rev().map(|child| (child, depth - 1))),
                Err(error) => info.error = error.to_string(),
            }
        }
        self.wants(metadata.file_type()).then_some(info)
    }

    fn wants(&self, kind: FileType) -> bool {
        self.types.is_empty()
            || self.types.iter().any(|wanted| match wanted {
                Type::Regular => kind.is_file(),
                Type::Directory => kind.is_dir(),
                Type::Symlink => kind.is_symlink(),
            })
    }

    fn relative(&self, path: &Path, is_dir: bool) -> String {
        match path.strip_prefix(&self.root) {
            Ok(relative) if relative.as_os_str().is_empty() && is_dir => ".".to_owned(),
            Ok(relative) if relative.as_os_str().is_empty() => self.name.clone(),
            Ok(relative) => relative.display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }

    fn broken(&self, path: &Path, error: &std::io::Error) -> FileInfo {
        FileInfo {
            name: path.display().to_string(),
            relative_name: self.relative(path, false),
            error: error.to_string(),
            ..FileInfo::default()
        }
    }

    fn describe(&self, path: &Path, metadata: &Metadata) -> FileInfo {
        let link = if metadata.is_symlink() { std::fs::read_link(path).ok() } else { None };
        FileInfo {
            metadata: None,
            name: path.display().to_string(),
            size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
            mode: wire_mode(metadata),
            modified: metadata.mtime(),
            is_dir: metadata.is_dir(),
            error: String::new(),
            link: link.map(|link| link.display().to_string()).unwrap_or_default(),
            relative_name: self.relative(path, metadata.is_dir()),
            uid: metadata.uid(),
            gid: metadata.gid(),
        }
    }
}

fn children(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut children = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    children.sort();
    Ok(children)
}

/// A mode as clients read it: permissions in the low nine bits, the kind of file and the special bits high up.
fn wire_mode(metadata: &Metadata) -> u32 {
    let kind = metadata.file_type();
    let unix = metadata.mode();
    let bits = [
        (31, kind.is_dir()),
        (27, kind.is_symlink()),
        (26, kind.is_block_device() || kind.is_char_device()),
        (25, kind.is_fifo()),
        (24, kind.is_socket()),
        (23, unix & 0o4000 != 0),
        (22, unix & 0o2000 != 0),
        (21, kind.is_char_device()),
        (20, unix & 0o1000 != 0),
    ];
    bits.iter().filter(|(_, set)| *set).fold(unix & 0o777, |mode, (bit, _)| mode | 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn listed(request: ListRequest) -> Vec<FileInfo> {
        list(request).await.unwrap().map(|info| info.unwrap()).collect().await
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("b/c")).unwrap();
        std::fs::write(root.path().join("a"), "hello").unwrap();
        std::fs::write(root.path().join("b/c/d"), "").unwrap();
        std::os::unix::fs::symlink("a", root.path().join("z")).unwrap();
        root
    }

    #[tokio::test]
    async fn a_directory_is_listed_to_its_depth() {
        let root = tree();
        let request = ListRequest { root: root.path().display().to_string(), ..Default::default() };
        let names = |list: Vec<FileInfo>| list.into_iter().map(|info| info.relative_name).collect::<Vec<_>>();
        assert_eq!(names(listed(request.clone()).await), [".", "a", "b", "z"]);
        let deeper = ListRequest { recurse: true, recursion_depth: 2, ..request.clone() };
        assert_eq!(names(listed(deeper).await), [".", "a", "b", "b/c", "z"]);
        let all = ListRequest { recurse: true, types: vec![Type::Regular.into()], ..request };
        assert_eq!(names(listed(all).await), ["a", "b/c/d"]);
    }

    /// It was called `.`, so that a listing of a file said nothing.
    #[tokio::test]
    async fn a_file_is_listed_by_its_name() {
        let root = tree();
        for file in ["a", "z"] {
            let request = ListRequest { root: root.path().join(file).display().to_string(), ..Default::default() };
            let names: Vec<_> = listed(request).await.into_iter().map(|info| info.relative_name).collect();
            assert_eq!(names, [file]);
        }
    }

    #[tokio::test]
    async fn a_tree_of_many_batches_is_listed_in_order() {
        let root = tempfile::tempdir().unwrap();
        for directory in 0..3 {
            let directory = root.path().join(directory.to_string());
            std::fs::create_dir(&directory).unwrap();
            (0..BATCH).for_each(|n| std::fs::write(directory.join(format!("{n:04}")), "").unwrap());
        }
        let request = ListRequest { root: root.path().display().to_string(), recurse: true, ..Default::default() };
        let names: Vec<_> = listed(request).await.into_iter().map(|info| info.relative_name).collect();
        assert_eq!(names.len(), 1 + 3 * (1 + BATCH));
        assert!(names.is_sorted_by_key(|name| if name == "." { "" } else { name }), "{names:?}");
    }

    /// A stream that is not read must hold no thread: there are few, and everything that reads a file needs one.
    #[test]
    fn readers_that_stand_still_hold_no_threads() {
        let root = tempfile::tempdir().unwrap();
        (0..3 * BATCH).for_each(|n| std::fs::write(root.path().join(n.to_string()), "").unwrap());
        let request = ListRequest { root: root.path().display().to_string(), ..Default::default() };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
        runtime.block_on(async {
            let mut still = Vec::new();
            for _ in 0..4 {
                still.push(list(request.clone()).await.unwrap());
            }
            let all = async {
                for stream in &mut still {
                    stream.next().await.unwrap().unwrap();
                }
                listed(request.clone()).await.len()
            };
            let all = tokio::time::timeout(std::time::Duration::from_secs(10), all).await;
            assert_eq!(all.expect("no thread is left"), 1 + 3 * BATCH);
        });
    }

    #[tokio::test]
    async fn kinds_sizes_and_links_are_told() {
        let root = tree();
        let request = ListRequest { root: root.path().display().to_string(), ..Default::default() };
        let list = listed(request).await;
        assert!(list[0].is_dir && list[0].mode & 1 << 31 != 0);
        assert_eq!((list[1].size, list[1].mode & 0xffff_fe00), (5, 0));
        assert_eq!((list[3].link.as_str(), list[3].mode & 1 << 27 != 0), ("a", true));
    }

    #[tokio::test]
    async fn what_cannot_be_read_says_why() {
        let root = tree();
        let code = |result: Result<DataStream, Status>| result.err().map(|status| status.code());
        assert_eq!(code(read("relative").await), Some(tonic::Code::InvalidArgument));
        assert_eq!(code(read("/nowhere/at/all").await), Some(tonic::Code::NotFound));
        let directory = root.path().display().to_string();
        assert_eq!(code(read(&directory).await), Some(tonic::Code::InvalidArgument));
        let mut chunks = read(&format!("{directory}/a")).await.unwrap();
        assert_eq!(chunks.next().await.unwrap().unwrap().bytes, "hello");
        assert!(chunks.next().await.is_none());
    }
}
