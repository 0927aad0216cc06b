//! Properties of a disk, as the kernel shows them and operators choose by them.

/// The kind of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskType {
    #[default]
    Unknown,
    Ssd,
    Hdd,
    Nvme,
    Sd,
}

impl DiskType {
    /// As selectors spell it; empty for an unknown kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Ssd => "ssd",
            Self::Hdd => "hdd",
            Self::Nvme => "nvme",
            Self::Sd => "sd",
        }
    }

    /// The kind of the disk that the kernel calls `device`. `rotational` is its `queue/rotational`, if there is one.
    #[must_use]
    pub fn of(device: &str, rotational: Option<bool>) -> Self {
        if device.contains("nvme") {
            return Self::Nvme;
        }
        if device.contains("mmc") {
            return Self::Sd;
        }
        match rotational {
            Some(true) => Self::Hdd,
            Some(false) => Self::Ssd,
            None => Self::Unknown,
        }
    }
}

/// Whether the kernel's block device is a disk for operators: no optical drive, no loop device, nothing made of other devices.
#[must_use]
pub fn is_disk(device: &str) -> bool {
    !["sg", "sr", "loop", "md", "dm-", "ram"].iter().any(|prefix| device.starts_with(prefix))
}

/// A disk. Texts are empty where the kernel knows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// Path of the device: `/dev/sda`.
    pub device_path: String,
    /// In bytes.
    pub size: u64,
    pub model: String,
    pub serial: String,
    pub modalias: String,
    pub uuid: String,
    pub wwid: String,
    /// The device's own name in sysfs; few kinds of disks have one.
    pub name: String,
    pub kind: DiskType,
    /// `/pci0000:00/…/`: the path between `/sys/devices` and `block/NAME`.
    pub bus_path: String,
    /// Where its subsystem is: `/sys/class/block`.
    pub subsystem: String,
    pub is_read_only: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_kind_before_the_rotation_does() {
        assert_eq!(DiskType::of("nvme0n1", Some(true)), DiskType::Nvme);
        assert_eq!(DiskType::of("mmcblk0", Some(false)), DiskType::Sd);
        assert_eq!(DiskType::of("sda", Some(true)), DiskType::Hdd);
        assert_eq!(DiskType::of("vda", Some(true)), DiskType::Hdd, "disks of hypervisors have no kind of their own");
        assert_eq!(DiskType::of("vda", Some(false)), DiskType::Ssd);
        assert_eq!(DiskType::of("vda", Some(false)), DiskType::Ssd);
        assert_eq!(DiskType::of("vda", None).as_str(), "");
    }

    #[test]
    fn devices_made_of_others_are_no_disks() {
        for name in ["sr0", "loop1", "md127", "dm-0", "ram3", "sg0"] {
            assert!(!is_disk(name), "{name}");
        }
        for name in ["sda", "vda", "nvme0n1", "xvda", "mmcblk0"] {
            assert!(is_disk(name), "{name}");
        }
    }
}
