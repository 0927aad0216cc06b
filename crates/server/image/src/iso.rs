//! ISO images that boot on BIOS and UEFI, from a disc or a USB stick: GRUB for both, with one kernel and one initramfs.
//! Made by xorriso and GRUB's own tools from files of an unprivileged directory; equal inputs give equal bits.

use std::path::Path;

use crate::tools::Tools;
use crate::{EPOCH, ImageError, sha256};

/// Modules of GRUB on BIOS: the disc, the menu, and starting Linux.
const BIOS_MODULES: &[&str] = &[
    "biosdisk",
    "iso9660",
    "part_msdos",
    "part_gpt",
    "normal",
    "configfile",
    "linux",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
    "echo",
    "test",
];

/// Modules of GRUB on UEFI.
const EFI_MODULES: &[&str] = &[
    "iso9660",
    "fat",
    "part_msdos",
    "part_gpt",
    "normal",
    "configfile",
    "linux",
    "search",
    "search_fs_file",
    "efi_gop",
    "efi_uga",
    "serial",
    "terminal",
    "echo",
    "test",
];

/// Types of partitions.
const EFI_SYSTEM: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const BASIC_DATA: &str = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";

/// Size of the FAT image with GRUB for UEFI, in KiB.
const EFI_IMAGE: u32 = 4096;

/// What an ISO image holds.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    pub kernel: &'a [u8],
    pub initramfs: &'a [u8],
    /// Kernel command line of the first entry.
    pub cmdline: &'a str,
}

/// Writes an ISO image of `parts` to `out` by [`crate::loaders::tools`].
///
/// # Errors
/// A failed write, or a tool that fails.
pub fn build(parts: Parts<'_>, tools: &Tools, out: &Path) -> Result<(), ImageError> {
    let scratch = tempfile::tempdir().map_err(ImageError::write("a temporary directory"))?;
    let work = scratch.path();
    let id = sha256(format!("{}{}{}", sha256(parts.kernel), sha256(parts.initramfs), parts.cmdline).as_bytes());
    // GRUB finds the image among the disks by this file, not by a label: two sticks may be in one machine.
    let marker = format!("boot/{}.id", &id[..16]);
    let menu = menu(parts.cmdline);
    let early = format!(
        "search --no-floppy --set=root --file /{marker}\nset prefix=($root)/boot/grub\nconfigfile /boot/grub/grub.cfg\n"
    );
    for directory in ["iso/boot/grub", "efi"] {
        let path = work.join(directory);
        std::fs::create_dir_all(&path).map_err(ImageError::write(&path))?;
    }
    let files: [(&str, &[u8]); 5] = [
        ("iso/boot/vmlinuz", parts.kernel),
        ("iso/boot/initramfs.xz", parts.initramfs),
        ("iso/boot/grub/grub.cfg", menu.as_bytes()),
        (&format!("iso/{marker}"), b""),
        ("early.cfg", early.as_bytes()),
    ];
    for (name, content) in files {
        let path = work.join(name);
        std::fs::write(&path, content).map_err(ImageError::write(&path))?;
    }
    grub(tools, work, "i386-pc-eltorito", "i386-pc", "iso/boot/grub/bios.img", BIOS_MODULES)?;
    grub(tools, work, "x86_64-efi", "x86_64-efi", "efi/bootx64.efi", EFI_MODULES)?;
    efi_image(tools, work, &id)?;
    assemble(tools, work, out)
}

/// The argument of the second entry.
const RESET: &str = "talos.experimental.wipe=system";
const KERNEL: &str = "/boot/vmlinuz";

/// The most bytes that GRUB and the entries of its menu add to a command line.
pub(crate) fn added_arguments() -> usize {
    format!("{}={KERNEL} ", machine::grub::BOOT_IMAGE).len() + RESET.len() + 1
}

/// GRUB's menu. The second entry makes a machine of an installed one that waits for its configuration.
fn menu(cmdline: &str) -> String {
    let cmdline = escape(cmdline);
    let entry = |title: &str, arguments: &str| {
        format!("menuentry \"{title}\" {{\n  linux {KERNEL} {arguments}\n  initrd /boot/initramfs.xz\n}}\n")
    };
    format!(
        "set default=0\nset timeout=3\n\nterminal_input console\nterminal_output console\n\n{}{}",
        entry("Talos ISO", &cmdline),
        entry("Reset Talos installation", &format!("{cmdline} {RESET}")),
    )
}

/// Escapes what GRUB's language gives a meaning.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        if "\\{}&$|;<>\"".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

fn grub(
    tools: &Tools,
    work: &Path,
    format: &str,
    modules: &str,
    target: &str,
    names: &[&str],
) -> Result<(), ImageError> {
    let directory = tools.path(&format!("/usr/lib/grub/{modules}")).to_string_lossy().into_owned();
    let mut arguments = vec!["-O", format, "-d", &directory, "-p", "/boot/grub", "-c", "early.cfg", "-o", target];
    arguments.extend(names);
    tools.run("/usr/bin/grub-mkimage", &arguments, work)?;
    Ok(())
}

/// The FAT image that UEFI starts from.
fn efi_image(tools: &Tools, work: &Path, id: &str) -> Result<(), ImageError> {
    let (size, serial) = (EFI_IMAGE.to_string(), &id[..8]);
    tools.run("/usr/sbin/mkfs.fat", &["--invariant", "-C", "-n", "EFI", "-i", serial, "efi.img", &size], work)?;
    tools.run("/usr/bin/mmd", &["-i", "efi.img", "::EFI", "::EFI/BOOT"], work)?;
    tools.run("/usr/bin/mcopy", &["-i", "efi.img", "efi/bootx64.efi", "::EFI/BOOT/BOOTX64.EFI"], work)?;
    Ok(())
}

fn assemble(tools: &Tools, work: &Path, out: &Path) -> Result<(), ImageError> {
    let mbr = tools.path("/usr/lib/grub/i386-pc/boot_hybrid.img").to_string_lossy().into_owned();
    let time = format!("={EPOCH}");
    let partial = out.with_extension("partial");
    let target = std::path::absolute(&partial).map_err(ImageError::write(&partial))?.to_string_lossy().into_owned();
    let arguments = [
        "-no_rc",
        "-as",
        "mkisofs",
        "-quiet",
        "-r",
        "-V",
        "",
        "--set_all_file_dates",
        &time,
        "--grub2-mbr",
        &mbr,
        "-partition_offset",
        "16",
        "-b",
        "boot/grub/bios.img",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-boot-info-table",
        "--grub2-boot-info",
        // A GPT, since not every UEFI looks into an MBR: the image itself, and behind it the FAT image.
        "-appended_part_as_gpt",
        "-append_partition",
        "2",
        EFI_SYSTEM,
        "efi.img",
        "-iso_mbr_part_type",
        BASIC_DATA,
        "-eltorito-alt-boot",
        "-e",
        "--interval:appended_partition_2:all::",
        "-no-emul-boot",
        "-o",
        &target,
        "iso",
    ];
    tools.run("/usr/bin/xorriso", &arguments, work)?;
    std::fs::rename(&partial, out).map_err(ImageError::write(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loaders;

    #[test]
    fn the_menu_has_both_entries_and_escapes_the_arguments() {
        let text = menu("console=tty0 talos.config=http://h/?a=1&b=$c");
        assert!(text.contains("set timeout=3\n"), "{text}");
        assert!(text.contains(
            "menuentry \"Talos ISO\" {\n  linux /boot/vmlinuz console=tty0 talos.config=http://h/?a=1\\&b=\\$c\n"
        ));
        assert!(text.contains("menuentry \"Reset Talos installation\" {\n"));
        assert!(text.contains("\\$c talos.experimental.wipe=system\n"));
    }

    #[test]
    fn the_same_inputs_give_the_same_image_with_both_ways_to_boot() {
        let cache = tempfile::tempdir().unwrap();
        let tools = loaders::tools(&crate::packages::testing::packages()).unwrap();
        let parts = Parts { kernel: b"kernel", initramfs: b"initramfs", cmdline: "console=ttyS0" };
        let build = |name: &str| {
            let path = cache.path().join(name);
            build(parts, &tools, &path).unwrap();
            std::fs::read(path).unwrap()
        };
        let image = build("one.iso");
        assert!(image == build("two.iso"), "the same inputs must give the same bits");
        assert_eq!(&image[32769..32774], b"CD001");
        // El Torito: the boot record names the catalogue, whose entries are for BIOS (0) and UEFI (0xef).
        assert_eq!(&image[34817..34822], b"CD001");
        let catalogue = usize::try_from(u32::from_le_bytes(image[34887..34891].try_into().unwrap())).unwrap() * 2048;
        assert_eq!((image[catalogue + 1], image[catalogue + 65]), (0, 0xef));
        // A stick: boot code for BIOS, and a GPT whose second partition is for UEFI.
        assert_eq!(&image[510..512], b"\x55\xaa");
        assert_eq!(&image[512..520], b"EFI PART");
        assert_eq!(image[1024 + 128..1024 + 132], [0x28, 0x73, 0x2a, 0xc1]);
    }
}
