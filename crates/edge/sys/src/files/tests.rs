use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

#[test]
fn writing_the_same_content_again_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    assert!(write_atomic(&path, b"one", Access::SECRET).unwrap());
    assert!(!write_atomic(&path, b"one", Access::SECRET).unwrap());
    assert!(write_atomic(&path, b"one", Access::PUBLIC).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(write_atomic(&path, b"two", Access::PUBLIC).unwrap());
    assert_eq!(read(&path).unwrap().unwrap(), b"two");
    assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
}

#[test]
fn a_failed_write_leaves_the_old_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::create_dir(&path).unwrap();
    let error = write_atomic(&path, b"x", Access::PUBLIC).unwrap_err();
    assert_eq!((error.operation, error.path), ("writing", path.clone()));
    assert!(path.is_dir());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn two_writers_of_a_file_do_not_mix_their_contents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let contents = [b'a', b'b'].map(|byte| vec![byte; 1 << 20]);
    std::thread::scope(|scope| {
        for content in &contents {
            scope.spawn(|| {
                for _ in 0..20 {
                    write_atomic(&path, content, Access::PUBLIC).unwrap();
                }
            });
        }
        for _ in 0..200 {
            let seen = read(&path).unwrap().unwrap_or_default();
            assert!(seen.is_empty() || contents.contains(&seen), "{} bytes", seen.len());
        }
    });
    assert!(contents.contains(&read(&path).unwrap().unwrap()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
}

#[test]
fn removing_and_reading_what_is_not_there_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    remove(&dir.path().join("none")).unwrap();
    remove(&dir.path().join("no/directory")).unwrap();
    remove_tree(&dir.path().join("none")).unwrap();
    assert_eq!(read(&dir.path().join("none")).unwrap(), None);
    assert_eq!(read_current(&dir.path().join("no/directory")).unwrap(), None);
}

/// A directory of a service, and one beside it that is none of the service's business.
fn hostile() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("own"), dir.path().join("other"));
    fs::create_dir(&own).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("secret"), "secret").unwrap();
    (dir, own, other)
}

fn is_refused<T: std::fmt::Debug>(result: Result<T, FileError>) {
    let error = result.unwrap_err();
    assert_eq!(error.source.to_string(), "the path leads through a symbolic link", "{error:?}");
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let (_dir, own, other) = hostile();
    symlink(&other, own.join("pki")).unwrap();
    is_refused(write_atomic(&own.join("pki/secret"), b"x", Access::PUBLIC));
    is_refused(write_atomic(&own.join("pki/new/file"), b"x", Access::PUBLIC));
    is_refused(make_directory(&own.join("pki/new"), Access { mode: 0o777, owner: None }));
    is_refused(make_directory(&own.join("pki"), Access { mode: 0o777, owner: None }));
    is_refused(read(&own.join("pki/secret")));
    is_refused(read_current(&own.join("pki/secret")));
    is_refused(remove(&own.join("pki/secret")));
    is_refused(remove_tree(&own.join("pki/secret")));
    is_refused(link_atomic(&own.join("pki/secret"), Path::new("x")));
    is_refused(chown_tree(&own.join("pki"), (1, 1)));
    assert_eq!(fs::read(other.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced_and_not_written_through() {
    let (_dir, own, other) = hostile();
    symlink(other.join("secret"), own.join("file")).unwrap();
    is_refused(read(&own.join("file")));
    assert!(write_atomic(&own.join("file"), b"x", Access::PUBLIC).unwrap());
    assert!(own.join("file").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(other.join("secret")).unwrap(), b"secret");
    // the names of temporary files can be guessed
    for count in 0..10_000 {
        symlink(other.join("secret"), own.join(format!(".file.{}-{count}.new", std::process::id()))).unwrap();
    }
    assert!(write_atomic(&own.join("file"), b"y", Access::PUBLIC).unwrap());
    assert_eq!(fs::read(other.join("secret")).unwrap(), b"secret");
}

#[test]
fn a_current_file_is_read_beside_its_link_and_nowhere_else() {
    let (_dir, own, other) = hostile();
    fs::write(own.join("client-2026.pem"), "pem").unwrap();
    // the kubelet writes the whole path
    symlink(own.join("client-2026.pem"), own.join("client-current.pem")).unwrap();
    assert_eq!(read_current(&own.join("client-current.pem")).unwrap().unwrap(), b"pem");
    assert_eq!(read_current(&own.join("client-2026.pem")).unwrap().unwrap(), b"pem");
    symlink(other.join("secret"), own.join("elsewhere")).unwrap();
    assert_eq!(read_current(&own.join("elsewhere")).unwrap(), None);
    link_atomic(&own.join("elsewhere"), Path::new("client-2026.pem")).unwrap();
    assert_eq!(read_current(&own.join("elsewhere")).unwrap().unwrap(), b"pem");
    symlink(own.join("client-current.pem"), own.join("twice")).unwrap();
    is_refused(read_current(&own.join("twice")));
}

#[test]
fn something_else_than_a_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    for path in [pipe, dir.path().to_owned()] {
        assert_eq!(read(&path).unwrap_err().source.to_string(), "not a regular file");
    }
    let large = dir.path().join("large");
    File::create(&large).unwrap().set_len(MAX_READ + 1).unwrap();
    assert_eq!(read(&large).unwrap_err().source.to_string(), "more than 33554432 bytes");
}

#[test]
fn a_path_with_dots_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let error = write_atomic(&dir.path().join("a/../../b/c"), b"x", Access::PUBLIC).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::InvalidInput);
}

/// Needs root: it changes owners.
#[test]
fn a_tree_is_given_away_and_what_links_lead_to_is_not() {
    let (_dir, own, other) = hostile();
    let owner = |path: &Path| {
        let metadata = path.symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    fs::create_dir_all(own.join("member/wal")).unwrap();
    fs::write(own.join("member/wal/0.wal"), "x").unwrap();
    symlink(&other, own.join("member/snap")).unwrap();
    symlink(other.join("secret"), own.join("member/db")).unwrap();
    fs::hard_link(other.join("secret"), own.join("member/hard")).unwrap();
    let (before, secret) = (owner(&other), owner(&other.join("secret")));
    chown_tree(&own, (60, 60)).unwrap();
    for path in ["", "member", "member/wal", "member/wal/0.wal", "member/snap"] {
        assert_eq!(owner(&own.join(path)), (60, 60), "{path}");
    }
    assert_eq!((owner(&other), owner(&other.join("secret"))), (before, secret));
    make_directory(&own.join("new/dir"), Access::directory_of(60)).unwrap();
    assert_eq!((owner(&own.join("new")), owner(&own.join("new/dir"))), ((0, 0), (60, 60)));
    assert_eq!(own.join("new/dir").metadata().unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_tree_is_removed_and_what_links_lead_to_is_not() {
    let (_dir, own, other) = hostile();
    fs::create_dir_all(own.join("a/b")).unwrap();
    symlink(&other, own.join("a/b/link")).unwrap();
    remove_tree(&own).unwrap();
    assert!(!own.exists());
    assert_eq!(fs::read(other.join("secret")).unwrap(), b"secret");
    symlink(&other, &own).unwrap();
    remove_tree(&own).unwrap();
    assert!(own.symlink_metadata().is_err() && other.is_dir());
}

#[test]
fn a_missing_directory_is_made_and_one_that_is_there_keeps_its_mode() {
    let (_dir, own, other) = hostile();
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    ensure_directory(&own.join("a/b"), 0o700).unwrap();
    assert_eq!((mode(&own.join("a")), mode(&own.join("a/b"))), (0o755, 0o700));
    ensure_directory(&own.join("a"), 0o700).unwrap();
    assert_eq!(mode(&own.join("a")), 0o755);
    symlink(&other, own.join("link")).unwrap();
    is_refused(ensure_directory(&own.join("link/made"), 0o700));
    assert!(!other.join("made").exists());
}

#[test]
fn a_bound_file_is_written_in_place_and_not_through_a_link() {
    let (_dir, own, other) = hostile();
    fs::write(own.join("hosts"), "a longer text").unwrap();
    fs::hard_link(own.join("hosts"), own.join("bound")).unwrap();
    assert!(write_in_place(&own.join("hosts"), b"new").unwrap());
    assert!(!write_in_place(&own.join("hosts"), b"new").unwrap());
    assert_eq!(fs::read(own.join("bound")).unwrap(), b"new");
    symlink(other.join("secret"), own.join("link")).unwrap();
    is_refused(write_in_place(&own.join("link"), b"x"));
    assert_eq!(fs::read(other.join("secret")).unwrap(), b"secret");
}

#[test]
fn names_are_listed_and_a_link_to_a_directory_is_not() {
    let (_dir, own, other) = hostile();
    fs::write(own.join("a"), "").unwrap();
    assert_eq!(list(&own).unwrap(), ["a"]);
    assert!(list(&own.join("none")).unwrap().is_empty());
    symlink(&other, own.join("link")).unwrap();
    is_refused(list(&own.join("link")));
}

#[test]
fn pipes_and_sockets_take_the_place_of_links_and_are_not_made_beyond_them() {
    let (_dir, own, other) = hostile();
    for name in ["pipe", "socket"] {
        symlink(other.join("secret"), own.join(name)).unwrap();
    }
    let mut pipe = make_pipe(&own.join("pipe"), 0o600).unwrap();
    pipe.write_all(b"x").unwrap();
    let listener = listen_unix(&own.join("socket"), Access { mode: 0o620, owner: None }).unwrap();
    let socket = own.join("socket");
    assert_eq!(socket.symlink_metadata().unwrap().mode() & 0o7777, 0o620);
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    listener.accept().unwrap();
    assert_eq!(fs::read(other.join("secret")).unwrap(), b"secret");
    symlink(&other, own.join("directory")).unwrap();
    is_refused(make_pipe(&own.join("directory/pipe"), 0o600));
    is_refused(listen_unix(&own.join("directory/socket"), Access::SECRET));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}
