//! Applying a layer of an image to a directory: an archive of what it adds, replaces and removes.
//!
//! Names come from whoever made the image. Each is resolved with the directory as its root, so that neither `..` nor a
//! symbolic link, of this layer or of one below, leads out of it. Names of removals are those of the OCI image
//! specification: `.wh.NAME` removes NAME of the layers below, `.wh..wh..opq` all that they have in its directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use tar::{Archive, Entry, EntryType};

/// More files than any image has.
const MAX_ENTRIES: usize = 1 << 20;
/// The largest layer, unpacked, in bytes: more than any image has.
const MAX_LAYER: u64 = 16 << 30;
const REMOVED: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// How archives name extended attributes.
const ATTRIBUTE: &str = "SCHILY.xattr.";
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A layer could not be applied, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("reading the archive")]
    Archive(#[source] io::Error),
    #[error("unpacking {}", path.display())]
    Entry {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a layer has more than {MAX_ENTRIES} files")]
    TooMany,
}

impl LayerError {
    /// Whether there is no room for the image where it is unpacked.
    pub(crate) fn is_too_large(&self) -> bool {
        match self {
            Self::Archive(source) | Self::Entry { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::TooMany => true,
        }
    }
}

/// Whether a layer outlives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Not for sure: its directory is in memory, or made anew.
    Volatile,
    /// All of it is on the disk when it was applied.
    Durable,
}

/// Applies a layer to `directory`: plain, or compressed by gzip or zstd, as its first bytes tell.
///
/// # Errors
/// See [`LayerError`]; what was applied until then stays.
pub(crate) fn apply(mut layer: impl Read, directory: &Path, durability: Durability) -> Result<(), LayerError> {
    let mut start = Vec::with_capacity(ZSTD.len());
    layer.by_ref().take(ZSTD.len() as u64).read_to_end(&mut start).map_err(LayerError::Archive)?;
    let whole = start.as_slice().chain(layer);
    if start.starts_with(&GZIP) {
        apply_plain(MultiGzDecoder::new(whole), directory, durability)
    } else if start == ZSTD {
        apply_plain(zstd::stream::read::Decoder::new(whole).map_err(LayerError::Archive)?, directory, durability)
    } else {
        apply_plain(whole, directory, durability)
    }
}

fn apply_plain(archive: impl Read, directory: &Path, durability: Durability) -> Result<(), LayerError> {
    let root = rustix::fs::openat(CWD, directory, DIRECTORY, Mode::empty())
        .map_err(|errno| LayerError::Entry { path: directory.to_owned(), source: errno.into() })?;
    let mut tree = Tree { root, durability, own: BTreeSet::new() };
    let mut archive = Archive::new(archive.take(MAX_LAYER));
    for entry in archive.entries().map_err(LayerError::Archive)? {
        let mut entry = entry.map_err(LayerError::Archive)?;
        let name = entry.path().map_err(LayerError::Archive)?.into_owned();
        tree.apply(&mut entry, &name).map_err(|source| LayerError::Entry { path: name, source })?;
        if tree.own.len() > MAX_ENTRIES {
            return Err(LayerError::TooMany);
        }
    }
    if durability == Durability::Durable {
        let failed = |errno: rustix::io::Errno| LayerError::Entry { path: directory.to_owned(), source: errno.into() };
        rustix::fs::fsync(&tree.root).map_err(failed)?;
    }
    Ok(())
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

struct Tree {
    root: OwnedFd,
    durability: Durability,
    /// What this layer has: removals are of what is below it.
    own: BTreeSet<PathBuf>,
}

impl Tree {
    fn apply<R: Read>(&mut self, entry: &mut Entry<'_, R>, name: &Path) -> io::Result<()> {
        let path = relative(name)?;
        let Some(file_name) = path.file_name() else { return give_directory(&self.root, entry) };
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        match file_name.as_bytes() {
            OPAQUE => return self.remove_below(&parent, path.parent().unwrap_or(Path::new(""))),
            name if name.starts_with(REMOVED) => {
                let removed = OsStr::from_bytes(&name[REMOVED.len()..]);
                // A name of directories would leave the parent.
                if !matches!(Path::new(removed).components().next(), Some(Component::Normal(_))) {
                    return Err(invalid("a removal of no name"));
                }
                return self.remove_unless_own(&parent, &path.with_file_name(removed));
            }
            _ => {}
        }
        self.make(entry, &parent, file_name)?;
        self.own.insert(path);
        Ok(())
    }

    fn make<R: Read>(&self, entry: &mut Entry<'_, R>, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        match entry.header().entry_type() {
            EntryType::Directory => {
                match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                    Ok(()) => {}
                    Err(rustix::io::Errno::EXIST) if is_directory(parent, name)? => {}
                    Err(rustix::io::Errno::EXIST) => {
                        sys::files::remove_at(parent, name)?;
                        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                    }
                    Err(errno) => return Err(errno.into()),
                }
                let made = rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
                give_directory(&made, entry)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                sys::files::remove_at(parent, name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
                io::copy(entry, &mut file)?;
                let file = OwnedFd::from(file);
                give(&file, entry)?;
                let modified =
                    i64::try_from(number(&entry.header().as_old().mtime, entry.header().mtime())?).unwrap_or_default();
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                    last_modification: Timespec { tv_sec: modified, tv_nsec: 0 },
                };
                rustix::fs::futimens(&file, &times)?;
                // The log has the names of all that was made before it.
                if self.durability == Durability::Durable {
                    rustix::fs::fsync(&file)?;
                }
                Ok(())
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| invalid("a link to nothing"))?.into_owned();
                sys::files::remove_at(parent, name)?;
                rustix::fs::symlinkat(&target, parent, name)?;
                give_owner(parent, name, entry)
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| invalid("a link to nothing"))?;
                let target = relative(&target)?;
                let target_name = target.file_name().ok_or_else(|| invalid("a link to the root"))?;
                let target_parent = self.directory(target.parent().unwrap_or(Path::new("")))?;
                if same(&target_parent, target_name, parent, name)? {
                    return Ok(());
                }
                sys::files::remove_at(parent, name)?;
                Ok(rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())?)
            }
            kind @ (EntryType::Fifo | EntryType::Char | EntryType::Block) => {
                let header = entry.header();
                let (kind, has_number) = match kind {
                    EntryType::Fifo => (FileType::Fifo, false),
                    EntryType::Char => (FileType::CharacterDevice, true),
                    _ => (FileType::BlockDevice, true),
                };
                let number = |number: io::Result<Option<u32>>| if has_number { number } else { Ok(None) };
                let major = number(header.device_major())?.unwrap_or_default();
                let minor = number(header.device_minor())?.unwrap_or_default();
                sys::files::remove_at(parent, name)?;
                let mode = mode(entry)?;
                rustix::fs::mknodat(parent, name, kind, mode, rustix::fs::makedev(major, minor))?;
                give_owner(parent, name, entry)?;
                Ok(rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?)
            }
            // Says something of the archive.
            EntryType::XGlobalHeader => Ok(()),
            other => Err(invalid(&format!("an entry of the unknown kind {other:?}"))),
        }
    }

    /// A directory, which is made where the archive does not have it.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let open = |path: &Path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            rustix::fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), IN_ROOT)
        };
        match open(path) {
            Err(rustix::io::Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        let mut directory = open(Path::new(""))?;
        let mut way = PathBuf::new();
        for component in path.components() {
            way.push(component);
            directory = match open(&way) {
                Err(rustix::io::Errno::NOENT) => {
                    rustix::fs::mkdirat(&directory, component.as_os_str(), Mode::from_raw_mode(0o755))?;
                    open(&way)?
                }
                opened => opened?,
            };
        }
        Ok(directory)
    }

    /// Removes what layers below have in a directory.
    fn remove_below(&self, directory: &OwnedFd, path: &Path) -> io::Result<()> {
        for name in sys::files::names(directory)? {
            self.remove_unless_own(directory, &path.join(name))?;
        }
        Ok(())
    }

    fn remove_unless_own(&self, parent: &OwnedFd, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or_else(|| invalid("a removal of no name"))?;
        // Ordered by components, all that is in a directory follows it.
        let is_own = self.own.range(path.to_owned()..).next().is_some_and(|next| next.starts_with(path));
        if !is_own {
            return sys::files::remove_at(parent, name);
        }
        if !is_directory(parent, name)? {
            return Ok(());
        }
        let inner = rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        self.remove_below(&inner, path)
    }
}

/// The name of an entry below the root, which is the empty path.
fn relative(name: &Path) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(invalid("a name with `..`")),
        }
    }
    Ok(path)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn is_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Whether two names are those of one file.
fn same(parent: &OwnedFd, name: &OsStr, other_parent: &OwnedFd, other: &OsStr) -> io::Result<bool> {
    let one = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match rustix::fs::statat(other_parent, other, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(two) => Ok((one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn owner<R: Read>(entry: &Entry<'_, R>) -> io::Result<(Option<Uid>, Option<Gid>)> {
    let id = |id: u64| u32::try_from(id).map_err(|_| invalid("an owner that is no number of 32 bits"));
    let header = entry.header();
    let uid = number(&header.as_old().uid, header.uid())?;
    let gid = number(&header.as_old().gid, header.gid())?;
    Ok((Some(Uid::from_raw(id(uid)?)), Some(Gid::from_raw(id(gid)?))))
}

fn mode<R: Read>(entry: &Entry<'_, R>) -> io::Result<Mode> {
    let header = entry.header();
    Ok(Mode::from_raw_mode(number(&header.as_old().mode, header.mode())?))
}

/// A field of a header; writers leave those empty that are 0.
fn number<N: Default>(field: &[u8], parsed: io::Result<N>) -> io::Result<N> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(N::default()) } else { parsed }
}

fn give_owner<R: Read>(parent: &OwnedFd, name: &OsStr, entry: &Entry<'_, R>) -> io::Result<()> {
    let (uid, gid) = owner(entry)?;
    Ok(rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn give_directory<R: Read>(directory: &OwnedFd, entry: &mut Entry<'_, R>) -> io::Result<()> {
    if entry.header().entry_type() == EntryType::Directory { give(directory, entry) } else { Err(invalid("the root")) }
}

/// Owner, mode and extended attributes, in this order: a new owner takes bits of the mode and the capabilities away.
fn give<R: Read>(file: &OwnedFd, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let (uid, gid) = owner(entry)?;
    rustix::fs::fchown(file, uid, gid)?;
    rustix::fs::fchmod(file, mode(entry)?)?;
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(ATTRIBUTE)) else { continue };
        match rustix::fs::fsetxattr(file, name, extension.value_bytes(), XattrFlags::empty()) {
            // Memory does not have those of users.
            Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
