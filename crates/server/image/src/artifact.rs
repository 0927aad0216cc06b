//! Artefacts of a profile, from the boot assets of a directory: kernel, initramfs, command line, UKI, ISO image, disk image,
//! installer image. The files are written under the names of the profile; equal inputs give equal bits.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use machine::cmdline::{Cmdline, DEFAULTS, METAL_CONSOLES, PLATFORM};
use machine::uki::{self, Section};

use crate::place::Place;
use crate::profile::{Kind, MetaValue, Profile};
use crate::{ImageError, disk_image, installer_image, iso, loaders};

/// Makes the artefact of a completed `profile`; returns its path.
///
/// # Errors
/// A missing asset, a tool that fails, or a failed write.
pub async fn make(profile: &Profile, place: Place<'_>) -> Result<PathBuf, ImageError> {
    std::fs::create_dir_all(place.out).map_err(ImageError::write(place.out))?;
    let target = place.out.join(profile.file_name());
    let asset = |given: &str, name: &str| {
        let path = if given.is_empty() { place.assets.join(name) } else { PathBuf::from(given) };
        std::fs::read(&path).map_err(ImageError::read(path))
    };
    let input = &profile.input;
    let kernel = || asset(&input.kernel.path, "vmlinuz");
    let initramfs = || asset(&input.initramfs.path, "initramfs.xz");
    match profile.output.kind {
        Some(Kind::Kernel) => replace(&target, &kernel()?)?,
        Some(Kind::Initramfs) => replace(&target, &initramfs()?)?,
        Some(Kind::Cmdline) => replace(&target, cmdline(profile)?.as_bytes())?,
        Some(Kind::Uki) => {
            let stub = asset(&input.sd_stub.path, "systemd-stub.efi")?;
            write_uki(&target, &stub, &cmdline(profile)?, &kernel()?, &initramfs()?)?;
        }
        Some(Kind::Iso) => {
            let (kernel, initramfs) = (kernel()?, initramfs()?);
            let parts = iso::Parts { kernel: &kernel, initramfs: &initramfs, cmdline: &cmdline(profile)? };
            iso::build(parts, &loaders::tools(place.packages)?, &target)?;
        }
        Some(Kind::Installer) => installer_image::build(profile, place, &target)?,
        Some(Kind::Image) => disk_image::build(profile, place, &cmdline(profile)?, &target).await?,
        None => return Err(ImageError::NoKind),
    }
    Ok(target)
}

/// The kernel command line of an image: platform, consoles, defaults, extra arguments, and values of META where there is no
/// partition for them.
///
/// # Errors
/// An extra argument that cannot be part of a command line.
pub fn cmdline(profile: &Profile) -> Result<String, ImageError> {
    let mut cmdline = Cmdline::default();
    cmdline.push(PLATFORM, &profile.platform);
    cmdline.append(METAL_CONSOLES);
    cmdline.append(DEFAULTS);
    let custom = &profile.customization;
    cmdline.apply_extra(&custom.extra_kernel_args).map_err(|source| ImageError::Argument { source })?;
    if !custom.meta_contents.is_empty() && profile.output.kind != Some(Kind::Image) {
        cmdline.push("talos.environment", &format!("INSTALLER_META_BASE64={}", encode_meta(&custom.meta_contents)));
    }
    Ok(cmdline.to_string())
}

/// Values of META as a variable holds them.
fn encode_meta(values: &[MetaValue]) -> String {
    use base64::Engine as _;

    let texts: Vec<String> = values.iter().map(|MetaValue { key, value }| format!("{key:#x}={value}")).collect();
    base64::engine::general_purpose::STANDARD.encode(texts.join(";"))
}

fn write_uki(target: &Path, stub: &[u8], cmdline: &str, kernel: &[u8], initramfs: &[u8]) -> Result<(), ImageError> {
    let release = kernel_release(kernel).ok_or_else(|| ImageError::Kernel {
        package: "vmlinuz".to_owned(),
        problem: "not a bzImage with the kernel's release".to_owned(),
    })?;
    let os_release = os_release();
    let contents: [(&'static str, &[u8]); 5] = [
        (".osrel", os_release.as_bytes()),
        (".cmdline", cmdline.as_bytes()),
        (".initrd", initramfs),
        (".uname", release.as_bytes()),
        (".linux", kernel),
    ];
    let sections = contents.map(|(name, content)| Section { name, size: content.len() as u64 });
    let layout = uki::layout(stub, &sections).map_err(|source| ImageError::Uki { source })?;
    let partial = partial(target);
    let write = || {
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(&layout.head)?;
        let mut at = layout.head.len() as u64;
        for ((_, content), offset) in contents.iter().zip(&layout.offsets) {
            write_zeros(&mut file, offset - at)?;
            file.write_all(content)?;
            at = offset + content.len() as u64;
        }
        write_zeros(&mut file, layout.size - at)?;
        std::fs::rename(&partial, target)
    };
    write().map_err(ImageError::write(target))
}

fn write_zeros(file: &mut std::fs::File, count: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), count), file).map(drop)
}

/// The section `.osrel`.
fn os_release() -> String {
    let version = stdx::version::TAG;
    let site = "https://www.talos.dev/";
    format!(
        "NAME=\"Talos\"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\nHOME_URL=\"{site}\"\n\
         BUG_REPORT_URL=\"{site}\"\nVENDOR_NAME=\"Talos\"\nVENDOR_URL=\"{site}\"\n"
    )
}

/// The release that a bzImage names in its header.
fn kernel_release(kernel: &[u8]) -> Option<String> {
    if kernel.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16::from_le_bytes(kernel.get(0x20e..0x210)?.try_into().ok()?)) + 0x200;
    let text: Vec<u8> = kernel.get(at..)?.iter().copied().take_while(|byte| !b"\0 ".contains(byte)).take(65).collect();
    String::from_utf8(text).ok().filter(|text| !text.is_empty() && text.len() <= 64)
}

fn partial(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes a file atomically: readers see the old or the new one.
fn replace(target: &Path, content: &[u8]) -> Result<(), ImageError> {
    let partial = partial(target);
    std::fs::write(&partial, content)
        .and_then(|()| std::fs::rename(&partial, target))
        .map_err(ImageError::write(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::Packages;

    fn profile(kind: Kind) -> Profile {
        let mut profile = Profile::built_in("iso").unwrap().complete().unwrap();
        profile.output.kind = Some(kind);
        profile
    }

    #[test]
    fn the_command_line_has_defaults_extra_arguments_and_meta() {
        let mut profile = profile(Kind::Cmdline);
        profile.customization.extra_kernel_args = vec!["-console".into(), "console=ttyS1".into(), "a=b".into()];
        profile.customization.meta_contents = vec![MetaValue { key: 10, value: "x: y".into() }];
        let text = cmdline(&profile).unwrap();
        assert!(text.starts_with("talos.platform=metal init_on_alloc=1 slab_nomerge pti=on "), "{text}");
        assert!(text.ends_with(" console=ttyS1 a=b talos.environment=INSTALLER_META_BASE64=MHhhPXg6IHk="), "{text}");
        profile.customization.extra_kernel_args = vec!["=b".into()];
        assert!(matches!(cmdline(&profile), Err(ImageError::Argument { .. })));
    }

    #[test]
    fn the_release_of_a_kernel_is_read_from_its_header() {
        let mut kernel = vec![0; 0x400];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20f] = 1;
        kernel[0x300..0x30c].copy_from_slice(b"6.12.0 (x@y)");
        assert_eq!(kernel_release(&kernel).as_deref(), Some("6.12.0"));
        kernel[0x20f] = 9;
        assert_eq!(kernel_release(&kernel), None);
        assert_eq!(kernel_release(b"MZ"), None);
    }

    #[tokio::test]
    async fn an_asset_that_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let packages = Packages::new(directory.path());
        let place = Place {
            assets: directory.path(),
            programs: directory.path(),
            packages: &packages,
            out: &directory.path().join("out"),
        };
        let error = make(&profile(Kind::Kernel), place).await.unwrap_err();
        assert!(matches!(&error, ImageError::Read { path, .. } if path.ends_with("vmlinuz")), "{error}");
        std::fs::write(directory.path().join("vmlinuz"), "kernel").unwrap();
        let made = make(&profile(Kind::Kernel), place).await.unwrap();
        assert_eq!(std::fs::read(made).unwrap(), b"kernel");
    }
}
