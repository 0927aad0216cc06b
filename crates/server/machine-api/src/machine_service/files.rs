//! Directories and files of the node, read only.

use std::fs::{FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::machine::{FileInfo, ListRequest, list_request::Type};

use super::logs::{CHUNK, DataStream, data};

/// Entries that may wait for the client: the walk goes on while earlier ones are sent.
const BACKLOG: usize = 256;

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

/// A file or a directory and what is in it, parents first, siblings by name.
pub(super) fn list(request: &ListRequest) -> Result<BoxStream<'static, Result<FileInfo, Status>>, Status> {
    let root = absolute(&request.root)?;
    let root = std::fs::canonicalize(&root).map_err(|error| failed(&root, &error))?;
    let depth = match (request.recurse, request.recursion_depth) {
        (false, _) => 1,
        (true, ..=0) => usize::MAX,
        (true, depth) => usize::try_from(depth).unwrap_or(usize::MAX),
    };
    let types: Vec<Type> = request.types().collect();
    let (sender, receiver) = mpsc::channel(BACKLOG);
    // Ends when the tree or the receiver does; the file system may block, so it has a thread.
    drop(tokio::task::spawn_blocking(move || {
        let walk = Walk { root: &root, types: &types, sender: &sender };
        walk.visit(&root, depth);
    }));
    Ok(ReceiverStream::new(receiver).boxed())
}

struct Walk<'a> {
    root: &'a Path,
    types: &'a [Type],
    sender: &'a mpsc::Sender<Result<FileInfo, Status>>,
}

impl Walk<'_> {
    /// False when nobody listens any more.
    fn visit(&self, path: &Path, depth: usize) -> bool {
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return self.send(self.broken(path, &error)),
        };
        let mut info = self.describe(path, &metadata);
        let children = if metadata.is_dir() && depth > 0 { children(path) } else { Ok(Vec::new()) };
        let children = children.unwrap_or_else(|error| {
            info.error = error.to_string();
            Vec::new()
        });
        if self.wants(metadata.file_type()) && !self.send(info) {
            return false;
        }
        children.iter().all(|child| self.visit(child, depth - 1))
    }

    fn send(&self, info: FileInfo) -> bool {
        self.sender.blocking_send(Ok(info)).is_ok()
    }

    fn wants(&self, kind: FileType) -> bool {
        self.types.is_empty()
            || self.types.iter().any(|wanted| match wanted {
                Type::Regular => kind.is_file(),
                Type::Directory => kind.is_dir(),
                Type::Symlink => kind.is_symlink(),
            })
    }

    fn relative(&self, path: &Path) -> String {
        match path.strip_prefix(self.root) {
            Ok(relative) if relative.as_os_str().is_empty() => ".".to_owned(),
            Ok(relative) => relative.display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }

    fn broken(&self, path: &Path, error: &std::io::Error) -> FileInfo {
        FileInfo {
            name: path.display().to_string(),
            relative_name: self.relative(path),
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
            relative_name: self.relative(path),
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
        list(&request).unwrap().map(|info| info.unwrap()).collect().await
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
