//! A machine of block devices in memory. It refuses what a kernel refuses: mounting what is no file system or is damaged,
//! making a file system on a mounted device, unmounting what is in use, writing to a device that is read-only or ends before,
//! partition tables whose partitions overlap or reach outside.

mod luks;
mod sparse;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use machine::disk::Disk;
use machine::gpt;
use parking_lot::Mutex;
use rustix::io::Errno;
use sys::mounts::{Mount, MountError};
use tokio::sync::watch;

use crate::device::{BlockDevices, BlockError, Device, DiskErrors, PartitionOf, Probed};
use crate::filesystem::{FileSystemError, FileSystems, MountPlan, Usage};
use crate::groups::DeviceGroups;
use crate::kernel::probe_reader;
use crate::tables::{Grown, PartitionTables, TableError};
use sparse::Sparse;

const SECTOR: u32 = 512;

#[derive(Debug, Clone)]
struct FakeDisk {
    properties: Disk,
    data: Sparse,
    is_read_only: bool,
    generation: u64,
    partitions: Vec<gpt::Partition>,
}

#[derive(Debug, Default)]
struct State {
    disks: BTreeMap<String, FakeDisk>,
    mounts: Vec<(PathBuf, MountPlan)>,
    pending: Vec<String>,
    /// Devices whose file system needs a repair.
    damaged: BTreeSet<PathBuf>,
    /// Targets that somebody uses.
    busy: BTreeSet<PathBuf>,
    unreadable: BTreeSet<PathBuf>,
    /// LUKS2 headers, by device.
    headers: BTreeMap<PathBuf, luks::FakeHeader>,
    /// Open volumes, with their devices.
    open: BTreeMap<PathBuf, PathBuf>,
    luks_changes: usize,
    luks_fail_from: Option<usize>,
    log: Vec<String>,
    /// How often partitions are absent after a new table, and still are.
    rereads: u32,
    rereading: u32,
    waiting_arrays: Vec<String>,
    /// Those that lack too many members.
    broken_arrays: Vec<String>,
    errors: BTreeMap<String, DiskErrors>,
    /// Disks that were pulled out, which keep what is on them.
    unplugged: BTreeMap<String, FakeDisk>,
    /// Mount points of file systems that gave up, of those that are full, and of those that do not answer.
    shut_down: BTreeSet<PathBuf>,
    full: BTreeSet<PathBuf>,
    silent: BTreeSet<PathBuf>,
    /// UUIDs of file systems that were detached, whose users keep them.
    detached: Vec<[u8; 16]>,
    made: u8,
}

/// The fake; clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeBlock {
    state: Arc<Mutex<State>>,
    changes: Arc<watch::Sender<u64>>,
}

impl FakeBlock {
    /// A disk appears. Its size is in bytes.
    pub fn add_disk(&self, name: &str, size: u64) {
        let path = format!("/dev/{name}");
        let properties =
            Disk { device_path: path, size, kind: machine::disk::DiskType::of(name, Some(false)), ..Disk::default() };
        self.add_disk_like(name, properties);
    }

    /// From now on partitions of a new table are absent at so many looks, as while udevd has the kernel read it again.
    pub fn reread_tables(&self, looks: u32) {
        self.state.lock().rereads = looks;
    }

    /// An array that lacks a member.
    pub fn add_waiting_array(&self, name: &str) {
        self.state.lock().waiting_arrays.push(name.to_owned());
        self.changed();
    }

    /// An array that lacks too many members.
    pub fn add_broken_array(&self, name: &str) {
        self.state.lock().broken_arrays.push(name.to_owned());
        self.changed();
    }

    /// All members of all arrays are there.
    pub fn complete_arrays(&self) {
        self.state.lock().waiting_arrays.clear();
        self.changed();
    }

    /// A disk with these properties appears.
    pub fn add_disk_like(&self, name: &str, properties: Disk) {
        let disk = FakeDisk {
            data: Sparse::new(properties.size),
            is_read_only: properties.is_read_only,
            properties,
            generation: 1,
            partitions: Vec::new(),
        };
        self.state.lock().disks.insert(name.to_owned(), disk);
        self.changed();
    }

    /// A disk disappears, with all that is on it.
    pub fn remove_disk(&self, name: &str) {
        self.state.lock().disks.remove(name);
        self.changed();
    }

    /// A disk is pulled out; what is mounted from it stays in the mount table.
    pub fn unplug(&self, name: &str) {
        let mut state = self.state.lock();
        if let Some(disk) = state.disks.remove(name) {
            state.unplugged.insert(name.to_owned(), disk);
        }
        drop(state);
        self.changed();
    }

    /// A disk that was pulled out is back, with another name.
    pub fn plug(&self, name: &str, now: &str) {
        let mut state = self.state.lock();
        if let Some(mut disk) = state.unplugged.remove(name) {
            disk.properties.device_path = format!("/dev/{now}");
            state.disks.insert(now.to_owned(), disk);
        }
        drop(state);
        self.changed();
    }

    /// A request to a disk fails.
    pub fn add_error(&self, disk: &str, what: &str) {
        let mut state = self.state.lock();
        let errors = state.errors.entry(disk.to_owned()).or_default();
        errors.count += 1;
        what.clone_into(&mut errors.last);
        drop(state);
        self.changed();
    }

    /// The file system at `target` gives up, until it is unmounted.
    pub fn shut_down(&self, target: &Path) {
        self.state.lock().shut_down.insert(target.to_owned());
    }

    /// The file system at `target` has no room, or has some again.
    pub fn set_full(&self, target: &Path, is_full: bool) {
        switch(&mut self.state.lock().full, target, is_full);
    }

    /// The file system at `target` answers nobody, or does again.
    pub fn set_silent(&self, target: &Path, is_silent: bool) {
        switch(&mut self.state.lock().silent, target, is_silent);
    }

    /// The disk becomes larger, as virtual ones do.
    ///
    /// # Panics
    /// There is no such disk.
    #[expect(clippy::expect_used, reason = "a test with a wrong name")]
    pub fn resize_disk(&self, name: &str, size: u64) {
        let mut state = self.state.lock();
        let disk = state.disks.get_mut(name).expect("the disk exists");
        disk.data.resize(size);
        disk.properties.size = size;
        disk.generation += 1;
        drop(state);
        self.changed();
    }

    /// Writes a partition table to a disk, and has the kernel read it.
    ///
    /// # Errors
    /// `BUSY` while a partition is mounted, `INVAL` for partitions that overlap or reach outside the disk.
    ///
    /// # Panics
    /// There is no such disk.
    #[expect(clippy::expect_used, reason = "a test with a wrong name")]
    pub fn partition(&self, name: &str, partitions: &[(&str, u64)]) -> io::Result<()> {
        let mut state = self.state.lock();
        let size = state.disks.get(name).expect("the disk exists").properties.size;
        let geometry = gpt::Geometry::new(SECTOR, size).map_err(io::Error::other)?;
        let mut table = gpt::Table::new(gpt::Guid::from_random([7; 16]), geometry);
        let mut first = 2048;
        for (index, (label, size)) in partitions.iter().enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let last = first + size / u64::from(SECTOR) - 1;
            table.partitions.push(gpt::Partition {
                number,
                kind: machine::layout::LINUX_DATA,
                id: gpt::Guid::from_random([u8::try_from(number).unwrap_or(0); 16]),
                first,
                last,
                attributes: 0,
                name: (*label).to_owned(),
            });
            first = (last + 1).next_multiple_of(2048);
        }
        state.set_table(name, &table)?;
        drop(state);
        self.changed();
        Ok(())
    }

    /// The partition table on a disk.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<gpt::Table> {
        let state = self.state.lock();
        let device = state.devices().into_iter().find(|device| device.name == name)?;
        state.probe(&device).ok()?.table
    }

    /// Disks that were found and are not ready yet.
    pub fn set_pending(&self, names: &[&str]) {
        self.state.lock().pending = names.iter().map(|name| (*name).to_owned()).collect();
        self.changed();
    }

    /// The file system on a device cannot be mounted before a repair.
    pub fn damage(&self, device: &str) {
        self.state.lock().damaged.insert(device.into());
    }

    /// Somebody uses what is mounted at `target`, or nobody any more.
    pub fn set_busy(&self, target: &Path, is_busy: bool) {
        switch(&mut self.state.lock().busy, target, is_busy);
    }

    /// The disk refuses writes from now on.
    pub fn set_read_only(&self, name: &str) {
        if let Some(disk) = self.state.lock().disks.get_mut(name) {
            disk.is_read_only = true;
        }
    }

    /// Reading the device fails.
    pub fn set_unreadable(&self, device: &str) {
        self.state.lock().unreadable.insert(device.into());
    }

    /// Operations that changed something, in order: `mkfs.xfs STATE /dev/sda5`.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Something happened to a device: as an event of the kernel.
    fn touch(&self, path: &Path) {
        let mut state = self.state.lock();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let disk = state.devices().iter().find(|device| device.name == name).map(|device| match &device.partition {
            Some(partition) => partition.disk.clone(),
            None => device.name.clone(),
        });
        if let Some(disk) = disk.and_then(|disk| state.disks.get_mut(&disk)) {
            disk.generation += 1;
        }
        drop(state);
        self.changed();
    }
}

impl State {
    fn devices(&self) -> Vec<Device> {
        let mut devices = Vec::new();
        for (index, (name, disk)) in self.disks.iter().enumerate() {
            let major = 259;
            let whole = Device {
                name: name.clone(),
                path: format!("/dev/{name}").into(),
                major,
                minor: u32::try_from(index * 32).unwrap_or(0),
                size: disk.properties.size,
                sector_size: SECTOR,
                io_size: SECTOR,
                is_read_only: disk.is_read_only,
                generation: disk.generation,
                partition: None,
                disk: disk.properties.clone(),
            };
            devices.push(whole.clone());
            let separator = if name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
            for partition in &disk.partitions {
                let name = format!("{name}{separator}{}", partition.number);
                devices.push(Device {
                    path: format!("/dev/{name}").into(),
                    name,
                    minor: whole.minor + partition.number,
                    size: partition.sectors() * u64::from(SECTOR),
                    partition: Some(PartitionOf {
                        disk: whole.name.clone(),
                        number: partition.number,
                        name: partition.name.clone(),
                        start: partition.first * u64::from(SECTOR),
                    }),
                    disk: Disk::default(),
                    ..whole.clone()
                });
            }
        }
        devices
    }

    fn device(&self, path: &Path) -> io::Result<Device> {
        let found = self.devices().into_iter().find(|device| device.path == path);
        found.or_else(|| self.mapped(path)).ok_or_else(|| Errno::NOENT.into())
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let device = self.device(path)?;
        if self.unreadable.contains(path) {
            return Err(Errno::IO.into());
        }
        if offset.checked_add(length as u64).is_none_or(|end| end > device.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (disk, start) = place(&device);
        Ok(self.disks.get(disk).map(|disk| disk.data.read(start + offset, length)).unwrap_or_default())
    }

    fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let device = self.device(path)?;
        if device.is_read_only {
            return Err(Errno::PERM.into());
        }
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > device.size) {
            return Err(Errno::NOSPC.into());
        }
        let (disk, start) = place(&device);
        if let Some(disk) = self.disks.get_mut(disk) {
            disk.data.write(start + offset, bytes);
        }
        Ok(())
    }

    fn probe(&self, device: &Device) -> io::Result<Probed> {
        if self.unreadable.contains(&device.path) {
            return Err(Errno::IO.into());
        }
        let mapped = self.mapped(&device.path);
        let device = mapped.as_ref().unwrap_or(device);
        let (disk, start) = place(device);
        let disk = self.disks.get(disk).ok_or(Errno::NOENT)?;
        probe_reader(&mut disk.data.reader(start, device.size), device)
    }

    /// The UUID of the XFS on a device, also of one whose disk was pulled out.
    fn uuid(&self, path: &Path) -> Option<[u8; 16]> {
        let pulled = Self { disks: self.unplugged.clone(), ..Self::default() };
        let block = self.read(path, 0, 64).or_else(|_| pulled.read(path, 0, 64)).ok()?;
        block.get(XFS_UUID..XFS_UUID + 16)?.try_into().ok()
    }

    fn mounted_uuids(&self) -> Vec<[u8; 16]> {
        self.mounts
            .iter()
            .filter(|(_, plan)| plan.kind == "xfs")
            .filter_map(|(_, plan)| self.uuid(&plan.source))
            .collect()
    }

    fn usage(&self, target: &Path) -> Result<Usage, FileSystemError> {
        let failed = |errno: Errno| FileSystemError::Look { target: target.to_owned(), source: errno.into() };
        let (_, plan) = self.mounts.iter().rfind(|(at, _)| at == target).ok_or_else(|| failed(Errno::NOENT))?;
        let size = self.device(&plan.source).map_err(|_| failed(Errno::IO))?.size;
        if self.shut_down.contains(target) {
            return Err(failed(Errno::IO));
        }
        Ok(Usage { size, available: if self.full.contains(target) { 0 } else { size / 2 } })
    }

    /// Writes a table and takes its partitions, as the kernel does.
    fn set_table(&mut self, name: &str, table: &gpt::Table) -> io::Result<()> {
        let mounted = |device: &Device| self.mounts.iter().any(|(_, plan)| plan.source == device.path);
        if self.devices().iter().any(|d| d.partition.as_ref().is_some_and(|of| of.disk == name) && mounted(d)) {
            return Err(Errno::BUSY.into());
        }
        let path = PathBuf::from(format!("/dev/{name}"));
        for region in gpt::writes(table, gpt::ProtectiveEntry::Inactive, &[]) {
            self.write(&path, region.offset, &region.bytes)?;
        }
        let device = self.device(&path)?;
        let read = self.probe(&device)?.table.ok_or(Errno::INVAL)?;
        if let Some(disk) = self.disks.get_mut(name) {
            disk.partitions = read.partitions;
            disk.generation += 1;
        }
        Ok(())
    }
}

/// Puts a target into a set, or takes it out.
fn switch(set: &mut BTreeSet<PathBuf>, target: &Path, is_in: bool) {
    if is_in {
        set.insert(target.to_owned())
    } else {
        set.remove(target)
    };
}

/// The disk of a device, and where the device begins on it.
fn place(device: &Device) -> (&str, u64) {
    device.partition.as_ref().map_or((device.name.as_str(), 0), |of| (of.disk.as_str(), of.start))
}

#[async_trait]
impl BlockDevices for FakeBlock {
    async fn devices(&self) -> Result<Vec<Device>, BlockError> {
        let mut state = self.state.lock();
        let mut devices = state.devices();
        if state.rereading > 0 {
            state.rereading -= 1;
            devices.retain(|device| device.partition.is_none());
        }
        Ok(devices)
    }

    async fn probe(&self, device: &Device) -> Result<Probed, BlockError> {
        let failed = |source| BlockError::Read { device: device.path.clone(), offset: 0, length: 0, source };
        self.state.lock().probe(device).map_err(failed)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn written(&self, name: &str) {
        self.touch(&Path::new("/dev").join(name));
    }

    fn errors(&self, disk: &str) -> DiskErrors {
        self.state.lock().errors.get(disk).cloned().unwrap_or_default()
    }

    async fn pending(&self) -> Result<Vec<String>, BlockError> {
        Ok(self.state.lock().pending.clone())
    }

    async fn read_at(&self, device: &Path, offset: u64, length: usize) -> Result<Vec<u8>, BlockError> {
        let read = self.state.lock().read(device, offset, length);
        read.map_err(|source| BlockError::Read { device: device.to_owned(), offset, length, source })
    }

    async fn write_at(&self, device: &Path, offset: u64, bytes: Vec<u8>) -> Result<(), BlockError> {
        let written = self.state.lock().write(device, offset, &bytes);
        let length = bytes.len();
        written.map_err(|source| BlockError::Write { device: device.to_owned(), offset, length, source })?;
        self.touch(device);
        Ok(())
    }
}

/// Where the superblock of an XFS has its UUID, and its label.
const XFS_UUID: usize = 32;
const XFS_LABEL: usize = 108;

/// A label as it is there; none for one that is too long.
fn xfs_label(label: &str) -> Option<[u8; 12]> {
    let mut bytes = [0; 12];
    bytes.get_mut(..label.len())?.copy_from_slice(label.as_bytes());
    Some(bytes)
}

#[async_trait]
impl FileSystems for FakeBlock {
    async fn make_xfs(&self, device: &Path, label: Option<&str>) -> Result<(), FileSystemError> {
        let mut state = self.state.lock();
        if state.is_open(device) || state.mounts.iter().any(|(_, plan)| plan.source == device) {
            return Err(refused("mkfs.xfs", device, "contains a mounted filesystem"));
        }
        let mut block = vec![0; 4096];
        block[..8].copy_from_slice(b"XFSB\0\0\x10\0");
        block[102..104].copy_from_slice(&512_u16.to_be_bytes());
        state.made += 1;
        block[XFS_UUID..XFS_UUID + 16].fill(state.made);
        let label = label.unwrap_or_default();
        let bytes = xfs_label(label).ok_or_else(|| refused("mkfs.xfs", device, "invalid label"))?;
        block[XFS_LABEL..XFS_LABEL + bytes.len()].copy_from_slice(&bytes);
        let size = state.device(device).map_err(|_| refused("mkfs.xfs", device, "no such device"))?.size;
        block[8..16].copy_from_slice(&(size / 4096).to_be_bytes());
        state.write(device, 0, &block).map_err(|error| refused("mkfs.xfs", device, &error.to_string()))?;
        state.damaged.remove(device);
        state.log.push(format!("mkfs.xfs {label} {}", device.display()));
        drop(state);
        // The kernel tells nobody.
        Ok(())
    }

    async fn label_xfs(&self, target: &Path, label: &str) -> Result<(), FileSystemError> {
        let mut state = self.state.lock();
        let invalid = |source| FileSystemError::Label { target: target.to_owned(), label: label.to_owned(), source };
        let mounted = state.mounts.iter().find(|(at, plan)| at == target && plan.kind == "xfs");
        let source = mounted.map(|(_, plan)| plan.source.clone()).ok_or_else(|| invalid(Errno::NOTTY.into()))?;
        let bytes = xfs_label(label).ok_or_else(|| invalid(Errno::INVAL.into()))?;
        state.write(&source, XFS_LABEL as u64, &bytes).map_err(invalid)?;
        state.log.push(format!("label {} {label}", target.display()));
        drop(state);
        Ok(())
    }

    async fn repair_xfs(&self, device: &Path) -> Result<(), FileSystemError> {
        let mut state = self.state.lock();
        if state.mounts.iter().any(|(_, plan)| plan.source == device) {
            return Err(refused("xfs_repair", device, "contains a mounted filesystem"));
        }
        state.damaged.remove(device);
        state.log.push(format!("xfs_repair {}", device.display()));
        Ok(())
    }

    async fn grow_xfs(&self, target: &Path) -> Result<(), FileSystemError> {
        let mut state = self.state.lock();
        if !state.mounts.iter().any(|(at, _)| at == target) {
            return Err(refused("xfs_growfs", target, "is not a mounted XFS filesystem"));
        }
        state.log.push(format!("xfs_growfs {}", target.display()));
        Ok(())
    }

    async fn mount(&self, plan: &MountPlan) -> Result<(), FileSystemError> {
        let mut state = self.state.lock();
        let refused = |errno: Errno| MountError::Mount {
            what: plan.kind.to_owned(),
            target: plan.target.clone(),
            source: errno.into(),
        };
        if plan.kind == "overlay" {
            state.log.push(format!("mount overlay {}", plan.target.display()));
            state.mounts.push((plan.target.clone(), plan.clone()));
            return Ok(());
        }
        if plan.kind == "tmpfs" {
            state.log.push(format!("mount tmpfs {}", plan.target.display()));
            state.mounts.push((plan.target.clone(), plan.clone()));
            return Ok(());
        }
        let device = state.device(&plan.source).map_err(|_| refused(Errno::NOENT))?;
        if state.damaged.contains(&plan.source) {
            return Err(refused(Errno::UCLEAN).into());
        }
        let content = state.probe(&device).map_err(|_| refused(Errno::IO))?.content;
        if content.is_none_or(|content| content.name != plan.kind) {
            return Err(refused(Errno::INVAL).into());
        }
        if device.is_read_only && !plan.is_read_only {
            return Err(refused(Errno::ACCESS).into());
        }
        let uuid = state.uuid(&plan.source);
        let is_used = |used: &[u8; 16]| uuid.as_ref() == Some(used);
        if !plan.options.split(',').any(|option| option == "nouuid")
            && (state.detached.iter().any(is_used) || state.mounted_uuids().iter().any(is_used))
        {
            return Err(refused(Errno::INVAL).into());
        }
        let options = if plan.options.is_empty() { String::new() } else { format!(" -o {}", plan.options) };
        state.log.push(format!("mount {} {}{options}", plan.source.display(), plan.target.display()));
        state.mounts.push((plan.target.clone(), plan.clone()));
        Ok(())
    }

    async fn unmount(&self, target: &Path) -> Result<(), FileSystemError> {
        let mut state = self.state.lock();
        let State { mounts, busy, log, shut_down, .. } = &mut *state;
        while let Some(last) = mounts.iter().rposition(|(at, _)| at.starts_with(target)) {
            let at = mounts[last].0.clone();
            if busy.contains(&at) {
                return Err(MountError::Unmount { target: at, source: Errno::BUSY.into() }.into());
            }
            mounts.remove(last);
            shut_down.remove(&at);
            log.push(format!("umount {}", at.display()));
        }
        Ok(())
    }

    async fn detach(&self, target: &Path) -> Result<(), FileSystemError> {
        let mut state = self.state.lock();
        let none = || MountError::Unmount { target: target.to_owned(), source: Errno::INVAL.into() };
        let last = state.mounts.iter().rposition(|(at, _)| at == target).ok_or_else(none)?;
        let (_, plan) = state.mounts.remove(last);
        let uuid = state.uuid(&plan.source).filter(|_| state.busy.contains(target));
        state.detached.extend(uuid);
        state.shut_down.remove(target);
        state.log.push(format!("detach {}", target.display()));
        Ok(())
    }

    async fn usage(&self, target: &Path) -> Result<Usage, FileSystemError> {
        loop {
            let is_silent = self.state.lock().silent.contains(target);
            if !is_silent {
                return self.state.lock().usage(target);
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    async fn mounts(&self) -> Result<Vec<Mount>, FileSystemError> {
        let state = self.state.lock();
        let line = |(target, plan): &(PathBuf, MountPlan)| Mount {
            source: plan.source.display().to_string(),
            target: target.clone(),
            filesystem: plan.kind.to_owned(),
            options: ["rw", "noatime"]
                .into_iter()
                .chain(plan.options.split(','))
                .filter(|o| !o.is_empty())
                .map(str::to_owned)
                .collect(),
        };
        Ok(state.mounts.iter().map(line).collect())
    }
}

#[async_trait]
impl DeviceGroups for FakeBlock {
    async fn activate_volume_groups(&self) -> Result<(), FileSystemError> {
        self.state.lock().log.push("vgchange -ay".to_owned());
        Ok(())
    }

    async fn deactivate_volume_groups(&self) -> Result<(), FileSystemError> {
        self.state.lock().log.push("vgchange -an".to_owned());
        Ok(())
    }

    async fn waiting_arrays(&self) -> Result<Vec<String>, FileSystemError> {
        let state = self.state.lock();
        Ok(state.waiting_arrays.iter().chain(&state.broken_arrays).cloned().collect())
    }

    async fn start_degraded_arrays(&self) -> Result<(), FileSystemError> {
        let mut state = self.state.lock();
        state.log.push("mdadm --run".to_owned());
        state.waiting_arrays.clear();
        Ok(())
    }

    async fn stop_arrays(&self) -> Result<(), FileSystemError> {
        self.state.lock().log.push("mdadm --stop".to_owned());
        Ok(())
    }
}

#[async_trait]
impl PartitionTables for FakeBlock {
    async fn create(&self, disk: &Device, table: &gpt::Table) -> Result<(), TableError> {
        let mut state = self.state.lock();
        let path = disk.path.clone();
        let write = |source| TableError::Write { disk: path.clone(), source };
        if let Some(content) = state.probe(disk).map_err(write)?.content {
            return Err(TableError::NotEmpty { disk: path.clone(), content: content.name.to_owned() });
        }
        state.set_table(&disk.name, table).map_err(write)?;
        state.log.push(format!("partition {}", disk.path.display()));
        state.rereading = state.rereads;
        drop(state);
        self.changed();
        Ok(())
    }

    async fn rename(&self, disk: &Device, names: &[(u32, String)]) -> Result<(), TableError> {
        let mut state = self.state.lock();
        let write = |source| TableError::Write { disk: disk.path.clone(), source };
        let missing = || TableError::NoPartition { disk: disk.path.clone(), label: String::new() };
        let mut table = state.probe(disk).map_err(write)?.table.ok_or_else(missing)?;
        for partition in &mut table.partitions {
            if let Some((_, name)) = names.iter().find(|(number, _)| *number == partition.number) {
                partition.name.clone_from(name);
            }
        }
        for region in gpt::writes(&table, gpt::ProtectiveEntry::Inactive, &[]) {
            state.write(&disk.path, region.offset, &region.bytes).map_err(write)?;
        }
        if let Some(disk) = state.disks.get_mut(&disk.name) {
            disk.partitions = table.partitions;
            disk.generation += 1;
        }
        drop(state);
        self.changed();
        Ok(())
    }

    async fn grow(&self, disk: &Device, label: &str) -> Result<Grown, TableError> {
        let mut state = self.state.lock();
        let table = state.probe(disk).ok().and_then(|probed| probed.table);
        let table =
            table.ok_or_else(|| TableError::NoPartition { disk: disk.path.clone(), label: label.to_owned() })?;
        let Some(plan) = crate::tables::plan(disk, &table, label)? else { return Ok(Grown::Unchanged) };
        let path = disk.path.clone();
        for region in gpt::writes(&plan.table, gpt::ProtectiveEntry::Inactive, &[]) {
            let written = state.write(&path, region.offset, &region.bytes);
            written.map_err(|source| TableError::Write { disk: path.clone(), source })?;
        }
        state.log.push(format!("grow {} {label}", disk.path.display()));
        if let Some(disk) = state.disks.get_mut(&disk.name) {
            disk.partitions.clone_from(&plan.table.partitions);
            disk.generation += 1;
        }
        drop(state);
        self.changed();
        Ok(Grown::To(plan.bytes))
    }
}

fn refused(program: &'static str, subject: &Path, output: &str) -> FileSystemError {
    use std::os::unix::process::ExitStatusExt as _;
    let status = std::process::ExitStatus::from_raw(1 << 8);
    let source = sys::process::ProcessError::Failed { program: program.to_owned(), status };
    FileSystemError::Tool { program, subject: subject.display().to_string(), output: output.to_owned(), source }
}
