//! Makes everything that will be written, and checks that it fits, before anything is touched.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use block::format::NewFile;
use machine::cmdline::check_length;
use machine::grub::{self, Entry, Environment, Slot};
use machine::install::{Plan, Step};
use machine::layout::{CONFIGURATION, Label, Layout};
use machine::loader::{self, ImageName};

use crate::{InstallError, Request, assets, uki};

/// Room that a file system needs beside its files: XFS keeps a log of up to 64 MiB.
const BESIDE_XFS: u64 = 96 << 20;
const BESIDE_VFAT: u64 = 4 << 20;

/// What the steps write.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) scratch: PathBuf,
    /// Files of EFI, of BOOT and of STATE.
    pub(crate) efi: Vec<NewFile>,
    pub(crate) boot: Vec<NewFile>,
    pub(crate) state: Vec<NewFile>,
    /// The name of the kernel image on EFI.
    pub(crate) image: ImageName,
    /// Boot code of the MBR, and the core image for the partition BIOS; empty without GRUB.
    pub(crate) boot_code: Vec<u8>,
    pub(crate) core: Vec<u8>,
}

pub(crate) fn prepare(request: &Request, plan: &Plan, scratch: &Path) -> Result<Prepared, InstallError> {
    let Request { assets, options, .. } = request;
    assets.check_kernel(&options.image)?;
    let added = if matches!(options.layout, Layout::Grub | Layout::Both) { grub::added_arguments() } else { 0 };
    check_length(&request.cmdline, added)?;
    // A version beside one that works has to show itself good; the only one has nothing to fall back to.
    let image = if plan.steps.contains(&Step::Add(Label::Efi)) {
        ImageName::beside(&request.version, booted_entry(request).as_deref())
    } else {
        ImageName::good(&request.version)
    };
    let mut prepared = Prepared {
        scratch: scratch.to_owned(),
        efi: Vec::new(),
        boot: Vec::new(),
        state: Vec::new(),
        image,
        boot_code: Vec::new(),
        core: Vec::new(),
    };
    if matches!(options.layout, Layout::Uki | Layout::Both) {
        efi(request, plan, &mut prepared)?;
    }
    if matches!(options.layout, Layout::Grub | Layout::Both) {
        boot(request, plan, &mut prepared)?;
        start_code(request, plan, &mut prepared)?;
    }
    if plan.steps.contains(&Step::Fill(Label::State)) {
        state(request, &mut prepared)?;
    }
    Ok(prepared)
}

/// The unified kernel image, and systemd-boot after it: the file that makes the partition bootable comes last.
fn efi(request: &Request, plan: &Plan, prepared: &mut Prepared) -> Result<(), InstallError> {
    let image = prepared.scratch.join("uki.efi");
    let Request { assets, version, cmdline, .. } = request;
    let (stub, kernel, initramfs) = (&assets.stub, &assets.kernel, &assets.initramfs);
    uki::build(uki::Parts { stub, kernel, initramfs, version, cmdline }, &image)?;
    let needed = assets::size(&image)? + assets::size(&request.assets.systemd_boot)? + BESIDE_VFAT;
    check_room(plan, Label::Efi, needed)?;
    let file = |path: String, source: &Path| NewFile { path, source: source.to_owned(), mode: 0o644 };
    prepared.efi.push(file(format!("{}/{}", loader::IMAGES, prepared.image), &image));
    prepared.efi.push(file(loader::REMOVABLE_PATH.to_owned(), &request.assets.systemd_boot));
    Ok(())
}

/// The entry of systemd-boot that this machine was started from.
pub(crate) fn booted_entry(request: &Request) -> Option<String> {
    let variables = request.variables.as_ref()?;
    let value = variables.get(loader::SELECTED_ENTRY, loader::VENDOR).ok().flatten()?;
    Some(loader::decode_variable(&value))
}

/// Kernel, initramfs and entries of a slot: the first one with the menu in a new file system, else that beside the one that runs.
/// The slot's entry comes last: until then the slot is empty.
fn boot(request: &Request, plan: &Plan, prepared: &mut Prepared) -> Result<(), InstallError> {
    let Request { assets, version, cmdline, .. } = request;
    let is_new = !plan.steps.contains(&Step::Add(Label::Boot));
    // Three versions: the one that runs, the new one, and what the new one replaces.
    let versions = if is_new { 1 } else { 2 };
    let needed = versions * (assets::size(&assets.kernel)? + assets::size(&assets.initramfs)?) + BESIDE_XFS;
    check_room(plan, Label::Boot, needed)?;
    let slot = if is_new { Slot::A } else { request.booted_slot.unwrap_or(Slot::A).other() };
    let entry = Entry { slot, version: version.clone(), arguments: cmdline.clone() };
    let text = |name: &str, content: &[u8]| {
        let path = prepared.scratch.join(name);
        std::fs::write(&path, content).map_err(|source| InstallError::Scratch { path: path.clone(), source })?;
        Ok::<_, InstallError>(path)
    };
    let private = |path: String, source| NewFile { path, source, mode: 0o600 };
    let mut files =
        vec![in_slot(slot, grub::KERNEL, &assets.kernel), in_slot(slot, grub::INITRAMFS, &assets.initramfs)];
    if is_new {
        let environment = Environment { default: slot, next: None };
        files.push(private(grub::CONFIG_PATH.to_owned(), text("grub.cfg", grub::menu().as_bytes())?));
        files.push(private(grub::ENVIRONMENT_PATH.to_owned(), text("grubenv", &environment.encode())?));
    }
    let reset = text(grub::RESET_ENTRY, entry.render_reset().as_bytes())?;
    files.push(private(format!("{slot}/{}", grub::RESET_ENTRY), reset));
    files.push(private(format!("{slot}/{}", grub::ENTRY), text(grub::ENTRY, entry.render().as_bytes())?));
    prepared.boot = files;
    Ok(())
}

/// The configuration, as the machine itself would keep it: readable by root alone, here as well.
fn state(request: &Request, prepared: &mut Prepared) -> Result<(), InstallError> {
    let source = prepared.scratch.join(CONFIGURATION);
    let error = |error| InstallError::Scratch { path: source.clone(), source: error };
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&source).map_err(error)?;
    file.write_all(request.configuration.expose()).map_err(error)?;
    prepared.state.push(NewFile { path: CONFIGURATION.to_owned(), source, mode: 0o600 });
    Ok(())
}

fn in_slot(slot: Slot, name: &str, source: &Path) -> NewFile {
    NewFile { path: format!("{slot}/{name}"), source: source.to_owned(), mode: 0o644 }
}

fn start_code(request: &Request, plan: &Plan, prepared: &mut Prepared) -> Result<(), InstallError> {
    let bios = plan.table.by_name(Label::Bios.name()).ok_or(InstallError::Plan(Label::Bios))?;
    let geometry = plan.table.geometry;
    // The BIOS counts in sectors of 512 bytes.
    let sector = bios.offset(geometry) / 512;
    let boot = assets::read_small(&request.assets.grub_boot)?;
    let core = assets::read_small(&request.assets.grub_core)?;
    prepared.boot_code = grub::boot_sector(&boot, sector)?.to_vec();
    // The other half is for the next one.
    prepared.core = grub::core_image(&core, sector, bios.size(geometry) / 2)?;
    Ok(())
}

fn check_room(plan: &Plan, label: Label, needed: u64) -> Result<(), InstallError> {
    let partition = plan.table.by_name(label.name()).ok_or(InstallError::Plan(label))?;
    let room = partition.size(plan.table.geometry);
    if needed <= room { Ok(()) } else { Err(InstallError::NoRoom { label, needed, room }) }
}
