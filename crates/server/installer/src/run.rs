//! Runs the steps of a plan. Each is on the disk before the next one begins.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use block::disk::{TargetDisk, copy_file, write_table};
use block::format::{FormatError, NewFile, write_xfs_prototype};
use block::{FileSystems as _, KernelFileSystems, MountPlan, ProjectQuota};
use machine::gpt::{Partition, Table};
use machine::install::{Plan, Step, Treatment};
use machine::layout::{self, Label};
use machine::meta::{COPY_SIZE, Meta, Parsed, SECOND_COPY};
use machine::{boot_option, grub, loader};

use crate::prepare::{self, Prepared};
use crate::{InstallError, Progress, Request, renew};

const MIB: usize = 1 << 20;
/// How long the device of a new partition may take to appear.
const DEVICE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

pub(crate) async fn run(
    disk: &mut dyn TargetDisk,
    request: &Request,
    plan: &Plan,
    prepared: &Prepared,
    progress: Progress<'_>,
) -> Result<(), InstallError> {
    let before = match block::disk::contents(disk)? {
        machine::install::Contents::Table(table) => Some(table),
        _ => None,
    };
    let mut run = Run { disk, request, prepared, table: before, kept: BTreeMap::new() };
    for step in &plan.steps {
        progress(&describe(step));
        run.step(step).await?;
    }
    Ok(())
}

fn describe(step: &Step) -> String {
    match step {
        Step::WipeDisk => "wiping the disk".to_owned(),
        Step::Keep(label) => format!("keeping {label}"),
        Step::BeginTable(_) => "writing the partition table".to_owned(),
        Step::WipePartition(label) => format!("wiping {label}"),
        Step::Restore(label) => format!("restoring {label}"),
        Step::Fill(label) => format!("making the file system of {label}"),
        Step::Add(label) => format!("adding the new version to {label}"),
        Step::Renew(label) => format!("renewing the boot loader on {label}"),
        Step::WriteMeta => "writing META".to_owned(),
        Step::CoreImage => "writing the boot loader to BIOS".to_owned(),
        Step::FinishTable(_) => "finishing the partition table".to_owned(),
        Step::SetVariables => "setting the variables of the boot loader".to_owned(),
    }
}

struct Run<'a> {
    disk: &'a mut dyn TargetDisk,
    request: &'a Request,
    prepared: &'a Prepared,
    /// The table that the disk has now.
    table: Option<Table>,
    kept: BTreeMap<Label, Vec<u8>>,
}

impl Run<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), InstallError> {
        match step {
            Step::WipeDisk => self.wipe_disk(),
            Step::Keep(label) => self.keep(*label),
            Step::Restore(label) => self.restore(*label),
            Step::BeginTable(table) => self.put_table(table, &grub::interrupted()),
            Step::FinishTable(table) if self.request.options.treatment == Treatment::Untouched => {
                let boot_code = renew::boot_code(self.disk)?;
                self.put_table(table, &boot_code)
            }
            Step::FinishTable(table) => self.put_table(table, &self.prepared.boot_code),
            Step::WipePartition(label) => self.wipe_partition(*label),
            Step::Fill(label) => self.fill(*label).await,
            Step::Add(label) => self.add(*label).await,
            Step::Renew(label) => self.renew(*label).await,
            Step::WriteMeta => self.write_meta(),
            Step::CoreImage => self.write_at(Label::Bios, 0, &self.prepared.core),
            Step::SetVariables => self.set_variables(),
        }
    }

    /// The partition of a label in the table that the disk has now, also of an unfinished installation.
    fn partition(&self, label: Label) -> Result<&Partition, InstallError> {
        let unfinished = layout::unfinished_name(label);
        let table = self.table.as_ref().ok_or(InstallError::Plan(label))?;
        table.by_name(label.name()).or_else(|| table.by_name(&unfinished)).ok_or(InstallError::Plan(label))
    }

    /// Offset and size of a partition in bytes.
    fn range(&self, label: Label) -> Result<(u64, u64), InstallError> {
        let geometry = self.disk.disk().geometry;
        let partition = self.partition(label)?;
        Ok((partition.offset(geometry), partition.size(geometry)))
    }

    fn write_at(&mut self, label: Label, offset: u64, bytes: &[u8]) -> Result<(), InstallError> {
        let (start, _) = self.range(label)?;
        self.disk.write_at(start + offset, bytes)?;
        Ok(self.disk.flush()?)
    }

    fn read(&self, label: Label) -> Result<Vec<u8>, InstallError> {
        let (start, size) = self.range(label)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(256 * MIB)];
        self.disk.read_at(start, &mut bytes)?;
        Ok(bytes)
    }

    fn wipe_disk(&mut self) -> Result<(), InstallError> {
        block::disk::wipe(self.disk)?;
        self.table = None;
        Ok(())
    }

    fn wipe_partition(&mut self, label: Label) -> Result<(), InstallError> {
        let partition = self.partition(label)?.clone();
        Ok(block::disk::wipe_partition(self.disk, &partition)?)
    }

    fn keep(&mut self, label: Label) -> Result<(), InstallError> {
        let bytes = self.read(label)?;
        self.kept.insert(label, bytes);
        Ok(())
    }

    fn restore(&mut self, label: Label) -> Result<(), InstallError> {
        let bytes = self.kept.remove(&label).ok_or(InstallError::Plan(label))?;
        self.write_at(label, 0, &bytes)
    }

    fn put_table(&mut self, table: &Table, boot_code: &[u8]) -> Result<(), InstallError> {
        write_table(self.disk, table, self.request.entry, boot_code)?;
        self.table = Some(table.clone());
        Ok(())
    }

    /// Writes the second copy before the first one: one of both is whole at any time.
    fn write_meta(&mut self) -> Result<(), InstallError> {
        let Parsed { mut meta, copies } = Meta::parse(&self.read(Label::Meta)?);
        if self.request.meta.is_empty() && copies.iter().any(Result::is_ok) {
            return Ok(());
        }
        for (tag, value) in &self.request.meta {
            meta.set(*tag, value)?;
        }
        let copy = meta.encode_copy();
        debug_assert_eq!(copy.len(), COPY_SIZE);
        self.write_at(Label::Meta, SECOND_COPY as u64, &copy)?;
        self.write_at(Label::Meta, 0, &copy)
    }

    /// Makes the file system of a partition: on its device where it has one, else in a file that is copied.
    async fn fill(&mut self, label: Label) -> Result<(), InstallError> {
        let device = self.device(label).await?;
        let target = match &device {
            Some(device) => device.clone(),
            None => self.scratch_file(label)?,
        };
        let files = match label {
            Label::Efi => &self.prepared.efi,
            Label::State => &self.prepared.state,
            _ => &self.prepared.boot,
        };
        self.make(&target, label, files).await.map_err(|source| InstallError::Format { label, source })?;
        match device {
            Some(device) => flush(&device),
            None => {
                // The file begins empty, the partition does not.
                self.wipe_partition(label)?;
                let (start, _) = self.range(label)?;
                copy_file(self.disk, &target, start)?;
                self.disk.flush()?;
                remove(&target)
            }
        }
    }

    async fn make(&self, target: &Path, label: Label, files: &[NewFile]) -> Result<(), FormatError> {
        let tools = &self.request.tools;
        if label == Label::Efi {
            tools.make_vfat(target, label.name()).await?;
            return tools.copy_to_vfat(target, files).await;
        }
        let prototype = self.prepared.scratch.join("prototype");
        // Where EFI is mounted on a running machine.
        let directories: &[&str] = if label == Label::Boot { &["EFI"] } else { &[] };
        write_xfs_prototype(&prototype, directories, files)?;
        tools.make_xfs(target, label.name(), Some(&prototype)).await
    }

    /// Adds a version beside the one that runs. What starts the machine now stays as it is, and nothing starts the new one yet.
    async fn add(&mut self, label: Label) -> Result<(), InstallError> {
        let device = self.device(label).await?.ok_or(InstallError::Plan(label))?;
        if label == Label::Efi {
            self.add_image(&device).await.map_err(|source| InstallError::Format { label, source })?;
        } else {
            self.add_slot(&device).await?;
        }
        flush(&device)
    }

    async fn renew(&mut self, label: Label) -> Result<(), InstallError> {
        let assets = &self.request.assets;
        if label == Label::Efi {
            let device = self.device(label).await?.ok_or(InstallError::Plan(label))?;
            renew::systemd_boot(&device, assets, &self.prepared.scratch).await?;
            return flush(&device);
        }
        let bios = self.partition(label)?.clone();
        renew::grub(self.disk, assets, &bios).map(drop)
    }

    /// Fills the slot that does not run.
    async fn add_slot(&self, device: &Path) -> Result<(), InstallError> {
        let filesystems = KernelFileSystems;
        let root = self.prepared.scratch.join("boot");
        filesystems.mount(&MountPlan::xfs(device, &root, ProjectQuota::Off)).await?;
        let files = self.prepared.boot.clone();
        let to = root.clone();
        let filled = tokio::task::spawn_blocking(move || fill_slot(&to, &files)).await;
        filesystems.unmount(&root).await?;
        filled.unwrap_or(Err(InstallError::Plan(Label::Boot)))
    }

    async fn add_image(&self, device: &Path) -> Result<(), FormatError> {
        let tools = &self.request.tools;
        let image = &self.prepared.image;
        let booted = prepare::booted_entry(self.request);
        let files = tools.list_vfat(device, loader::IMAGES).await?;
        for file in loader::obsolete(&files, booted.as_deref(), image) {
            tools.remove_from_vfat(device, &format!("{}/{file}", loader::IMAGES)).await?;
        }
        // Under a name that starts nothing until it is whole.
        let unfinished = format!("{}/{}.new", loader::IMAGES, image.version);
        let is_image = |file: &&NewFile| file.path.starts_with(loader::IMAGES);
        for file in self.prepared.efi.iter().filter(is_image) {
            tools.copy_to_vfat(device, &[NewFile { path: unfinished.clone(), ..file.clone() }]).await?;
        }
        tools.rename_in_vfat(device, &unfinished, &image.to_string()).await
    }

    /// The device of a partition, once it is there; `None` where partitions have none.
    async fn device(&self, label: Label) -> Result<Option<PathBuf>, InstallError> {
        let Some(path) = self.disk.partition_device(self.partition(label)?.number) else { return Ok(None) };
        let deadline = tokio::time::Instant::now() + DEVICE;
        while !path.exists() {
            if tokio::time::Instant::now() >= deadline {
                return Err(InstallError::NoDevice { label, path, seconds: DEVICE.as_secs() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Some(path))
    }

    /// An empty file of a partition's size.
    fn scratch_file(&self, label: Label) -> Result<PathBuf, InstallError> {
        let (_, size) = self.range(label)?;
        let path = self.prepared.scratch.join(format!("{label}.img"));
        let made = File::create(&path).and_then(|file| file.set_len(size));
        made.map_err(|source| InstallError::Scratch { path: path.clone(), source })?;
        Ok(path)
    }

    fn set_variables(&self) -> Result<(), InstallError> {
        let Some(variables) = &self.request.variables else { return Ok(()) };
        if self.prepared.efi.is_empty() {
            return Ok(());
        }
        let entry = self.prepared.image.entry();
        let mut values = vec![(loader::TIMEOUT, loader::TIMEOUT_SECONDS)];
        // A version beside another one is started on the machine's word.
        if self.prepared.image.tries.is_none() {
            values.push((loader::DEFAULT_ENTRY, &entry));
        }
        for (name, value) in values {
            variables.set(name, loader::VENDOR, loader::ATTRIBUTES, &loader::encode_variable(value))?;
        }
        // One that cannot be loaded gives the turn back to the firmware.
        if self.prepared.image.tries.is_some() {
            let get = |name: &str| variables.get(name, boot_option::VENDOR);
            let efi = self.partition(Label::Efi)?;
            if let Some(second) = boot_option::second(efi, loader::REMOVABLE_PATH, get)? {
                let (name, option) = &second.option;
                for (name, value) in [(name.as_str(), option), (boot_option::ORDER, &second.order)] {
                    variables.set(name, boot_option::VENDOR, loader::ATTRIBUTES, value)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes the files of a slot in their order, each on the disk before the next one; what the slot held goes first.
fn fill_slot(root: &Path, files: &[NewFile]) -> Result<(), InstallError> {
    for file in files.iter().rev() {
        let path = root.join(&file.path);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(InstallError::File { path, source }),
            _ => {}
        }
    }
    sync(root)?;
    for file in files {
        let path = root.join(&file.path);
        let directory = path.parent().unwrap_or(root).to_owned();
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(&directory)?;
            let mut to = File::options().write(true).create_new(true).mode(file.mode).open(&path)?;
            io::copy(&mut File::open(&file.source)?, &mut to)?;
            to.sync_all()
        };
        write().map_err(|source| InstallError::File { path: path.clone(), source })?;
        sync(&directory)?;
    }
    Ok(())
}

fn sync(directory: &Path) -> Result<(), InstallError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| InstallError::File { path: directory.to_owned(), source })
}

/// Waits until what tools wrote to a device has reached it.
fn flush(device: &Path) -> Result<(), InstallError> {
    let flushed = File::open(device).and_then(|file| file.sync_all());
    flushed.map_err(|source| InstallError::Flush { path: device.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), InstallError> {
    std::fs::remove_file(path).map_err(|source| InstallError::Scratch { path: path.to_owned(), source })
}
