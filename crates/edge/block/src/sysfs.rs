//! Block devices in sysfs. Files that are missing or make no sense are empty or 0: kernels and drivers differ.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use machine::disk::{Disk, DiskType};

use crate::device::{BlockError, Device, PartitionOf};

/// sysfs counts in these, whatever a device's own sectors are.
const UNIT: u64 = 512;
/// Longest file that is read.
const LONGEST: usize = 4096;

/// All devices below `sys` (`/sys`), whole disks before their partitions, by name. Device nodes are in `dev`.
pub(crate) fn devices(sys: &Path, dev: &Path) -> Result<Vec<Device>, BlockError> {
    let block = sys.join("block");
    let failed = |source| BlockError::List { path: block.clone(), source };
    let mut found = Vec::new();
    for name in names(&block).map_err(failed)? {
        let directory = block.join(&name);
        // One that went away meanwhile has no number any more.
        let Some(mut disk) = device(&directory, dev, &name) else { continue };
        disk.disk = properties(sys, &disk);
        let (sector_size, io_size) = (disk.sector_size, disk.io_size);
        let mut partitions = Vec::new();
        for child in names(&directory).unwrap_or_default() {
            let path = directory.join(&child);
            let Some(number) = number(&path, "partition") else { continue };
            let Some(mut partition) = device(&path, dev, &child) else { continue };
            (partition.sector_size, partition.io_size) = (sector_size, io_size);
            partition.partition = Some(PartitionOf {
                disk: name.clone(),
                number: u32::try_from(number).unwrap_or_default(),
                name: uevent_value(&path, "PARTNAME"),
                start: self::number(&path, "start").unwrap_or_default().saturating_mul(UNIT),
            });
            partitions.push(partition);
        }
        partitions.sort_by_key(|partition| partition.partition.as_ref().map(|of| of.number));
        found.push(disk);
        found.append(&mut partitions);
    }
    Ok(found)
}

/// Interfaces of USB disks whose disks have not appeared: their drivers wait some seconds before they look at a disk.
pub(crate) fn pending(sys: &Path) -> Vec<String> {
    let mut pending = Vec::new();
    for driver in ["usb-storage", "uas"] {
        let directory = sys.join("bus/usb/drivers").join(driver);
        for name in names(&directory).unwrap_or_default() {
            let interface = directory.join(&name);
            let children = |path: &Path, prefix: &str| -> Vec<PathBuf> {
                let names = names(path).unwrap_or_default().into_iter().filter(|name| name.starts_with(prefix));
                names.map(|name| path.join(name)).collect()
            };
            let hosts = children(&interface, "host");
            // Entries that are no interfaces have no host.
            if !hosts.is_empty() && hosts.iter().all(|host| children(host, "target").is_empty()) {
                pending.push(name);
            }
        }
    }
    pending
}

/// Devices and controllers of the buses that devices appear on slowly.
pub(crate) fn slow_bus_devices(sys: &Path) -> Vec<String> {
    let directories = ["bus/usb/devices", "class/mmc_host", "bus/mmc/devices"];
    // A machine without such a bus has no directory for it.
    directories.iter().flat_map(|directory| names(&sys.join(directory)).unwrap_or_default()).collect()
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn device(directory: &Path, dev: &Path, name: &str) -> Option<Device> {
    let (major, minor) = text(directory, "dev").split_once(':').map(|(a, b)| (a.parse(), b.parse()))?;
    let queue = directory.join("queue");
    let size_of = |file: &str| number(&queue, file).and_then(|size| u32::try_from(size).ok()).unwrap_or_default();
    Some(Device {
        name: name.to_owned(),
        // The kernel writes the slashes of a node's name as exclamation marks.
        path: dev.join(name.replace('!', "/")),
        major: major.ok()?,
        minor: minor.ok()?,
        size: number(directory, "size").unwrap_or_default().saturating_mul(UNIT),
        sector_size: size_of("logical_block_size").max(512),
        io_size: size_of("minimum_io_size").max(512),
        is_read_only: text(directory, "ro") == "1",
        generation: 0,
        partition: None,
        disk: Disk::default(),
    })
}

fn properties(sys: &Path, device: &Device) -> Disk {
    let directory = sys.join("block").join(&device.name);
    let of_device = directory.join("device");
    let own_or_device = |file: &str| match text(&directory, file) {
        own if own.is_empty() => text(&of_device, file),
        own => own,
    };
    let rotational = number(&directory.join("queue"), "rotational").map(|value| value != 0);
    Disk {
        device_path: device.path.display().to_string(),
        size: device.size,
        model: text(&of_device, "model"),
        serial: own_or_device("serial"),
        modalias: text(&of_device, "modalias"),
        uuid: own_or_device("uuid"),
        wwid: own_or_device("wwid"),
        name: text(&of_device, "name"),
        kind: DiskType::of(&device.name, rotational),
        bus_path: bus_path(&directory, &device.name),
        subsystem: subsystem(sys, &directory),
        is_read_only: device.is_read_only,
    }
}

/// The link is `../devices/pci0000:00/…/block/sda`.
fn bus_path(directory: &Path, name: &str) -> String {
    let link = fs::read_link(directory).map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
    let path = link.strip_prefix("../devices").and_then(|path| path.strip_suffix(name));
    path.and_then(|path| path.strip_suffix("block/")).unwrap_or_default().to_owned()
}

/// As an absolute path: `/sys/class/block`.
fn subsystem(sys: &Path, directory: &Path) -> String {
    let resolved = fs::canonicalize(directory.join("subsystem")).ok();
    let below = resolved.and_then(|path| Some(path.strip_prefix(sys.canonicalize().ok()?).ok()?.to_owned()));
    below.map(|path| PathBuf::from("/sys").join(path).display().to_string()).unwrap_or_default()
}

fn number(directory: &Path, file: &str) -> Option<u64> {
    text(directory, file).parse().ok()
}

/// The content of a file without white space around it and without control characters.
fn text(directory: &Path, file: &str) -> String {
    let bytes = read(&directory.join(file));
    let printable: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control() || *c == '\n').collect();
    printable.trim().to_owned()
}

fn uevent_value(directory: &Path, key: &str) -> String {
    let uevent = text(directory, "uevent");
    let value = uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_default().to_owned()
}

fn read(path: &Path) -> Vec<u8> {
    use io::Read as _;
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // Some drivers refuse to read what they list.
        file.take(LONGEST as u64).read_to_end(&mut bytes).ok();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(sys: &Path, directory: &str, files: &[(&str, &str)]) {
        let directory = sys.join(directory);
        for (file, text) in files {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn sys() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let sda = "devices/pci0000:00/ata1/host0/target0/block/sda";
        let queue =
            [("queue/rotational", "1\n"), ("queue/logical_block_size", "512\n"), ("queue/minimum_io_size", "4096\n")];
        put(
            sys,
            sda,
            &[("dev", "8:0\n"), ("size", "12582912\n"), ("ro", "0\n"), ("device/model", "QEMU HARDDISK   \n")],
        );
        put(sys, sda, &queue);
        put(sys, sda, &[("device/wwid", "t10.ATA QEMU\n"), ("serial", ""), ("device/serial", "S1\n")]);
        put(
            sys,
            sda,
            &[("sda10/dev", "8:10"), ("sda10/size", "8"), ("sda10/partition", "10"), ("sda10/start", "4096")],
        );
        put(
            sys,
            sda,
            &[("sda2/dev", "8:2"), ("sda2/size", "204800"), ("sda2/partition", "2\n"), ("sda2/start", "2048\n")],
        );
        put(sys, sda, &[("sda2/uevent", "MAJOR=8\nPARTN=2\nPARTNAME=EFI\x1b System=1\n"), ("sda2/ro", "1\n")]);
        put(sys, "devices/virtual/block/loop0", &[("dev", "7:0"), ("size", "0"), ("queue/rotational", "0")]);
        put(sys, "devices/virtual/block/cciss!c0d0", &[("dev", "104:0"), ("size", "0")]);
        fs::create_dir_all(sys.join("class/block")).unwrap();
        symlink(sys.join("class/block"), sys.join(sda).join("subsystem")).unwrap();
        fs::create_dir(sys.join("block")).unwrap();
        symlink(format!("../{sda}"), sys.join("block/sda")).unwrap();
        for name in ["loop0", "cciss!c0d0"] {
            symlink(format!("../devices/virtual/block/{name}"), sys.join("block").join(name)).unwrap();
        }
        // It went away while it was looked at.
        symlink("../devices/gone", sys.join("block/sdz")).unwrap();
        dir
    }

    #[test]
    fn disks_come_before_their_partitions_and_those_in_the_order_of_their_numbers() {
        let sys = sys();
        let devices = devices(sys.path(), Path::new("/dev")).unwrap();
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["cciss!c0d0", "loop0", "sda", "sda2", "sda10"]);
        assert_eq!(devices[0].path, Path::new("/dev/cciss/c0d0"));
        let disks: Vec<bool> = devices.iter().map(Device::is_disk).collect();
        assert_eq!(disks, [false, false, true, false, false], "neither empty drives nor loop devices");
        let partition = &devices[3];
        assert_eq!((partition.major, partition.minor, partition.size), (8, 2, 204_800 * 512));
        assert_eq!((partition.sector_size, partition.io_size, partition.is_read_only), (512, 4096, true));
        let of = PartitionOf { disk: "sda".into(), number: 2, name: "EFI System=1".into(), start: 1 << 20 };
        assert_eq!(partition.partition, Some(of), "control characters do not reach a terminal");
    }

    #[test]
    fn properties_of_a_disk_are_those_of_its_device() {
        let sys = sys();
        let devices = devices(sys.path(), Path::new("/dev")).unwrap();
        let disk = devices.iter().find(|device| device.name == "sda").unwrap().disk.clone();
        let expected = Disk {
            device_path: "/dev/sda".into(),
            size: 6 << 30,
            model: "QEMU HARDDISK".into(),
            serial: "S1".into(),
            wwid: "t10.ATA QEMU".into(),
            kind: DiskType::Hdd,
            bus_path: "/pci0000:00/ata1/host0/target0/".into(),
            subsystem: "/sys/class/block".into(),
            ..Disk::default()
        };
        assert_eq!(disk, expected);
    }

    #[test]
    fn usb_disks_are_pending_until_their_host_has_a_target() {
        let sys = sys();
        let driver = "bus/usb/drivers/usb-storage";
        put(sys.path(), driver, &[("bind", ""), ("1-1:1.0/host2/scsi_host/x", ""), ("2-1:1.0/host3/target3/x", "")]);
        assert_eq!(pending(sys.path()), ["1-1:1.0"]);
        fs::create_dir(sys.path().join(driver).join("1-1:1.0/host2/target2:0:0")).unwrap();
        assert_eq!(pending(sys.path()), Vec::<String>::new());
    }

    #[test]
    fn slow_buses_are_those_of_usb_and_sd() {
        let sys = sys();
        assert_eq!(slow_bus_devices(sys.path()), Vec::<String>::new());
        put(sys.path(), "bus/usb/devices", &[("usb1/x", ""), ("1-1/x", "")]);
        put(sys.path(), "class/mmc_host", &[("mmc0/x", "")]);
        assert_eq!(slow_bus_devices(sys.path()), ["1-1", "usb1", "mmc0"]);
    }

    #[test]
    fn a_kernel_without_block_devices_is_an_error_that_names_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let error = devices(dir.path(), Path::new("/dev")).unwrap_err();
        assert!(matches!(&error, BlockError::List { path, .. } if path.ends_with("block")), "{error}");
    }
}
