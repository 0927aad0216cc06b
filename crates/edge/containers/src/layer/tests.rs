//! Layers that add, replace and remove, and such that would like to leave their directory.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

/// An archive in the making.
struct Changes(Builder<Vec<u8>>);

impl Changes {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Any name, also one that the builder would refuse.
    fn entry(mut self, name: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(50);
        header.set_gid(51);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(name, EntryType::Regular, 0o640, "", content.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.entry(name, EntryType::Directory, 0o750, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, 0o777, target, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Link, 0o640, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A directory with a file beside it that no layer may reach.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.root()).unwrap();
        std::fs::write(place.0.path().join("outside"), "as it was").unwrap();
        place
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn apply(&self, changes: Changes) -> Result<(), LayerError> {
        apply(&changes.bytes()[..], &self.root(), Durability::Durable)
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.root().join(name)).ok()
    }

    /// All names below the root.
    fn names(&self) -> Vec<String> {
        fn below(directory: &Path, root: &Path, names: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                names.push(entry.path().strip_prefix(root).unwrap().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    below(&entry.path(), root, names);
                }
            }
        }
        let mut names = Vec::new();
        below(&self.root(), &self.root(), &mut names);
        names.sort();
        names
    }
}

#[test]
fn files_have_content_owner_mode_and_time_and_links_their_targets() {
    let place = Place::new();
    let changes =
        Changes::new().directory("./").directory("bin/").file("bin/tool", "tool").link("bin/same", "bin/tool");
    let setuid = |changes: Changes| changes.entry("bin/su", EntryType::Regular, 0o4755, "", b"su");
    place.apply(setuid(changes).symlink("sbin", "bin").entry("pipe", EntryType::Fifo, 0o600, "", b"")).unwrap();
    let tool = std::fs::metadata(place.root().join("bin/tool")).unwrap();
    assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777, tool.mtime()), (50, 51, 0o640, 1_700_000_000));
    assert_eq!(tool.nlink(), 2);
    let mode = |name: &str| std::fs::metadata(place.root().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("bin"), mode("bin/su"), mode("."), mode("pipe")), (0o750, 0o4755, 0o750, 0o600));
    assert_eq!(std::fs::read_link(place.root().join("sbin")).unwrap(), Path::new("bin"));
    assert_eq!(place.read("sbin/same").unwrap(), "tool");
}

#[test]
fn fields_of_a_header_that_are_empty_are_zero() {
    let place = Place::new();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_path("f").unwrap();
    header.set_size(1);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, &b"x"[..]).unwrap();
    place.apply(Changes(builder)).unwrap();
    let file = std::fs::metadata(place.root().join("f")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.mtime()), (0, 0, 0, 0));
}

#[test]
fn compressed_layers_are_told_by_their_first_bytes() {
    let plain = Changes::new().file("a", "content").bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for layer in [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap()] {
        let place = Place::new();
        apply(&layer[..], &place.root(), Durability::Volatile).unwrap();
        assert_eq!(place.read("a").unwrap(), "content");
        let broken = apply(&layer[..layer.len() / 3], &Place::new().root(), Durability::Volatile);
        assert!(matches!(broken, Err(LayerError::Archive(_) | LayerError::Entry { .. })), "{broken:?}");
    }
}

#[test]
fn an_upper_layer_replaces_whatever_is_there() {
    let place = Place::new();
    let lower =
        Changes::new().directory("d").file("d/a", "lower").file("d/b", "lower").symlink("l", "d").file("f", "lower");
    place.apply(lower.link("h", "f")).unwrap();
    // A file instead of a directory, a directory instead of a link to one, and one of two names of a file.
    place.apply(Changes::new().file("d", "upper").directory("l").file("l/new", "upper").file("h", "upper")).unwrap();
    assert_eq!(place.names(), ["d", "f", "h", "l", "l/new"]);
    assert_eq!((place.read("f").unwrap(), place.read("h").unwrap()), ("lower".into(), "upper".into()));
    // A directory that is there keeps what is in it.
    place.apply(Changes::new().directory("l").link("h", "h")).unwrap();
    assert_eq!(place.names(), ["d", "f", "h", "l", "l/new"]);
}

#[test]
fn a_layer_removes_what_is_below_it_and_nothing_of_its_own() {
    let place = Place::new();
    let lower =
        || Changes::new().directory("d").file("d/a", "lower").directory("d/e").file("d/e/x", "lower").file("f", "l");
    place.apply(lower()).unwrap();
    place.apply(Changes::new().file(".wh.f", "").file("d/.wh.a", "").file("d/.wh.absent", "")).unwrap();
    assert_eq!(place.names(), ["d", "d/e", "d/e/x"]);
    place.apply(lower()).unwrap();
    // Removals may follow what the same layer adds.
    let upper = Changes::new().directory("d/e").file("d/e/y", "upper").file("d/z", "upper");
    place.apply(upper.file("d/.wh..wh..opq", "").file("d/.wh.z", "")).unwrap();
    assert_eq!(place.names(), ["d", "d/e", "d/e/y", "d/z", "f"]);
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let outside = |place: &Place| {
        assert_eq!(std::fs::read_to_string(place.0.path().join("outside")).unwrap(), "as it was");
        let mut beside: Vec<_> =
            std::fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["outside", "root"]);
    };
    for name in ["../outside", "a/../../outside", ".wh...", ".wh..", ".wh.", "d/.wh..."] {
        let place = Place::new();
        let refused = place.apply(Changes::new().directory("d").file(name, "theirs"));
        assert!(matches!(refused, Err(LayerError::Entry { .. })), "{name}: {refused:?}");
        outside(&place);
    }
    // Where links lead, the directory is the root.
    for target in ["..", "/", "/..", "../../..", "d/../.."] {
        let place = Place::new();
        let changes = Changes::new().directory("d").symlink("l", target).file("l/outside", "inside");
        place.apply(changes.file("l/.wh.absent", "")).unwrap();
        assert_eq!(place.read("outside").as_deref(), Some("inside"), "{target}");
        outside(&place);
        place.apply(Changes::new().link("stolen", "l/outside").file("l", "no link any more")).unwrap();
        assert_eq!(place.read("stolen").unwrap(), "inside");
    }
    // A file is written anew, and not to where a link of its name leads.
    let place = Place::new();
    place.apply(Changes::new().symlink("f", "../outside").file("f", "inside")).unwrap();
    assert_eq!(place.read("f").unwrap(), "inside");
    outside(&place);
    let refused = place.apply(Changes::new().link("stolen", "../outside"));
    assert!(matches!(refused, Err(LayerError::Entry { .. })), "{refused:?}");
    outside(&place);
}

#[test]
fn extended_attributes_are_kept() {
    let place = Place::new();
    let mut builder = Builder::new(Vec::new());
    // cap_net_bind_service, permitted and effective
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    builder.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
    let archive = Changes(builder).file("tool", "x");
    place.apply(archive).unwrap();
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(place.root().join("tool"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);
}
