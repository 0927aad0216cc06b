//! The disks of a machine: files of the host. They are made once; a machine finds them as it left them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::firmware::Found;
use super::image;
use super::machine::{TPM, VARIABLES, disk};
use crate::command::QEMU_IMG;
use crate::error::{HostError, Operation as _, Problem};
use crate::folder::make_folder;
use crate::machines::{MachineSettings, Media};

/// Makes what is missing in the folder of a machine. `image` is what its disk begins with.
pub(super) fn make(
    folder: &Path,
    settings: &MachineSettings,
    firmware: Option<&Found>,
    image: Option<&Path>,
) -> Result<(), HostError> {
    make_folder(folder)?;
    let system = folder.join(disk(0));
    make_once(&system, |new| {
        if let Some(image) = image {
            copy_image(image, new)?;
        }
        grow(new, settings.disk.size, settings.disk.preallocate)
    })?;
    for (number, extra) in (1..).zip(settings.more_disks()) {
        make_once(&folder.join(disk(number)), |new| grow(new, extra.size, false))?;
    }
    if let Some(Found { variables, .. }) = firmware {
        make_once(&folder.join(VARIABLES), |new| {
            std::fs::copy(variables, new).map(drop).map_err(HostError::io("copying", variables))
        })?;
    }
    if settings.tpm {
        make_folder(&folder.join(TPM))?;
    }
    Ok(())
}

/// The image that disks begin with: the operator's, or the one that [`unpack_image`] made of it.
pub(super) fn image_of(settings: &MachineSettings, unpacked: &Path) -> Option<PathBuf> {
    let Media::DiskImage(image) = &settings.media else { return None };
    Some(if unpacked.exists() { unpacked.to_path_buf() } else { image.clone() })
}

/// Unpacks a compressed image for all machines.
pub(super) fn unpack_image(settings: &MachineSettings, unpacked: &Path) -> Result<(), HostError> {
    match &settings.media {
        Media::DiskImage(image) if image::is_compressed(image)? => make_once(unpacked, |new| image::unpack(image, new)),
        _ => Ok(()),
    }
}

/// Makes a file under another name first: one with its own name is complete.
fn make_once(path: &Path, make: impl FnOnce(&Path) -> Result<(), HostError>) -> Result<(), HostError> {
    if path.exists() {
        return Ok(());
    }
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(HostError::io("removing", &new)(error));
        }
        _ => {}
    }
    let made = make(&new).and_then(|()| std::fs::rename(&new, path).map_err(HostError::io("making", path)));
    if made.is_err() {
        // It may hold all that a full disk has left.
        std::fs::remove_file(&new).ok();
    }
    made
}

/// Why the file system of `folder` cannot hold the allocated disks of so many machines.
pub(super) fn too_little_room(folder: &Path, settings: &MachineSettings, machines: usize) -> Option<Problem> {
    if !settings.disk.preallocate {
        return None;
    }
    // The folder itself may be yet to make.
    let made = folder.ancestors().find(|folder| folder.exists())?;
    let room = rustix::fs::statvfs(made).ok()?;
    let available = room.f_bavail.saturating_mul(room.f_frsize);
    let needed = settings.disk.size.saturating_mul(machines.try_into().unwrap_or(u64::MAX));
    let mib = |bytes: u64| bytes >> 20;
    (needed > available).then(|| {
        let (needed, available) = (mib(needed), mib(available));
        Problem::new(
            format!("the disks of {machines} machines need {needed} MiB, {} has {available} MiB", made.display()),
            "choose a smaller --disk, another --state, or --disk-preallocate=false for disks that grow as they fill",
        )
    })
}

/// Whatever format the image has.
fn copy_image(image: &Path, target: &Path) -> Result<(), HostError> {
    let arguments = ["convert".as_ref(), "-O".as_ref(), "raw".as_ref(), image.as_os_str(), target.as_os_str()];
    QEMU_IMG.run(arguments).map(drop).operation(|| format!("copying the disk image {}", image.display()))
}

/// Makes a disk, or a larger one of an image. An image that is larger keeps its size.
fn grow(path: &Path, size: u64, preallocate: bool) -> Result<(), HostError> {
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(HostError::io("making disk", path))?;
    let before = file.metadata().map_err(HostError::io("reading", path))?.len();
    let size = size.max(before);
    if preallocate {
        return fallocate(&file, FallocateFlags::empty(), 0, size).map_err(|error| {
            HostError::io("allocating disk (--disk-preallocate=false makes a sparse one)", path)(error.into())
        });
    }
    file.set_len(size).map_err(HostError::io("making disk", path))
}

/// Whether a disk has partitions, by GPT or MBR.
pub(super) fn has_partitions(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(1024).read_to_end(&mut start)?;
    Ok(partitioned(&start))
}

fn partitioned(start: &[u8]) -> bool {
    let (Some(sector), Some(signature)) = (start.get(..512), start.get(512..520)) else { return false };
    let types = [450, 466, 482, 498].map(|offset| sector[offset]);
    let mbr = sector[510..] == [0x55, 0xaa] && types.iter().any(|kind| *kind != 0);
    mbr || signature == b"EFI PART"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::tests::settings;

    #[test]
    fn a_disk_has_partitions_when_a_table_says_so() {
        let disk = |change: &dyn Fn(&mut [u8])| {
            let mut start = vec![0; 1024];
            change(&mut start);
            partitioned(&start)
        };
        assert!(!disk(&|_| {}));
        assert!(!disk(&|start| start[510..512].copy_from_slice(&[0x55, 0xaa])), "a boot sector without partitions");
        assert!(disk(&|start| {
            start[510..512].copy_from_slice(&[0x55, 0xaa]);
            start[466] = 0x83;
        }));
        assert!(disk(&|start| start[512..520].copy_from_slice(b"EFI PART")));
        assert!(!partitioned(&[0; 100]), "a disk too small for a table");
    }

    #[test]
    fn allocated_disks_need_room_for_all_machines() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings();
        settings.disk.size = 1 << 20;
        let problem = |settings: &MachineSettings, machines| {
            too_little_room(&folder.path().join("to/be/made"), settings, machines).map(|problem| problem.what)
        };
        assert_eq!(problem(&settings, 2), None);
        settings.disk.size = 1 << 60;
        let what = problem(&settings, 2).unwrap();
        assert!(what.starts_with("the disks of 2 machines need 2199023255552 MiB, "), "{what}");
        settings.disk.preallocate = false;
        assert_eq!(problem(&settings, 2), None);
    }

    #[test]
    fn a_disk_that_could_not_be_made_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let refused = make_once(&folder.path().join("0.disk"), |new| {
            std::fs::write(new, "half a disk").unwrap();
            Err(HostError::io("making disk", new)(std::io::ErrorKind::StorageFull.into()))
        });
        assert!(refused.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn disks_are_made_once_with_their_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings();
        settings.disk.size = 3 << 20;
        settings.disk.preallocate = false;
        make(folder.path(), &settings, None, None).unwrap();
        let size = |number| std::fs::metadata(folder.path().join(disk(number))).unwrap().len();
        assert_eq!((size(0), size(1)), (3 << 20, 1 << 30));
        assert!(folder.path().join(TPM).is_dir());
        std::fs::write(folder.path().join(disk(0)), "something of the machine").unwrap();
        make(folder.path(), &settings, None, None).unwrap();
        assert_eq!(std::fs::read(folder.path().join(disk(0))).unwrap(), b"something of the machine");
    }

    #[test]
    fn a_disk_begins_with_its_image_and_grows_to_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, vec![7; 2 << 20]).unwrap();
        let compressed = folder.path().join("image.zst");
        std::fs::write(&compressed, zstd::encode_all(&vec![7; 2 << 20][..], 1).unwrap()).unwrap();
        for (image, name) in [(image, "plain"), (compressed, "compressed")] {
            let mut settings = MachineSettings { media: Media::DiskImage(image), ..settings() };
            settings.disk.size = 5 << 20;
            let unpacked = folder.path().join("unpacked");
            unpack_image(&settings, &unpacked).unwrap();
            assert_eq!(unpacked.exists(), name == "compressed");
            let machine = folder.path().join(name);
            make(&machine, &settings, None, image_of(&settings, &unpacked).as_deref()).unwrap();
            let bytes = std::fs::read(machine.join(disk(0))).unwrap();
            assert_eq!((bytes.len(), bytes[..2 << 20].iter().all(|byte| *byte == 7)), (5 << 20, true), "{name}");
        }
    }
}
