//! Artefacts of a profile, from the boot assets of a directory: kernel, initramfs, command line, UKI, ISO image, disk image,
//! installer image. The files are written under the names of the profile; equal inputs give equal bits.

use std::path::{Path, PathBuf};

use installer::uki::{self, BuildUkiError};
use machine::cmdline::{CONFIG, Cmdline, DEFAULTS, ENVIRONMENT, METAL_CONSOLES, PLATFORM, check_length};
use machine::grub;

use crate::meta_variable::meta_variable;
use crate::place::Place;
use crate::profile::{Kind, Profile};
use crate::{ImageError, disk_image, installer_image, iso, loaders};

/// Makes the artefact of a completed `profile`; returns its path.
///
/// # Errors
/// A missing asset, a tool that fails, or a failed write.
pub async fn make(profile: &Profile, place: Place<'_>) -> Result<PathBuf, ImageError> {
    std::fs::create_dir_all(place.out).map_err(ImageError::write(place.out))?;
    let target = place.out.join(profile.file_name());
    let asset = |given: &str, name: &str| if given.is_empty() { place.assets.join(name) } else { PathBuf::from(given) };
    let input = &profile.input;
    let kernel_path = asset(&input.kernel.path, "vmlinuz");
    let initramfs_path = asset(&input.initramfs.path, "initramfs.xz");
    let read = |path: &Path| std::fs::read(path).map_err(ImageError::read(path));
    let (kernel, initramfs) = (|| read(&kernel_path), || read(&initramfs_path));
    match profile.output.kind {
        Some(Kind::Kernel) => replace(&target, &kernel()?)?,
        Some(Kind::Initramfs) => replace(&target, &initramfs()?)?,
        Some(Kind::Cmdline) => replace(&target, cmdline(profile)?.as_bytes())?,
        Some(Kind::Uki) => {
            let stub = asset(&input.sd_stub.path, "systemd-stub.efi");
            let (stub, kernel, initramfs) = (&stub, &kernel_path, &initramfs_path);
            let (version, cmdline) = (&profile.version, &cmdline(profile)?);
            write_uki(&target, uki::Parts { stub, kernel, initramfs, version, cmdline })?;
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
/// partition for them. That of a disk image says where its configuration comes from, as that of any installed system.
///
/// # Errors
/// An extra argument that cannot be part of a command line, a value that META cannot keep, or a line that the kernel would cut.
pub fn cmdline(profile: &Profile) -> Result<String, ImageError> {
    let mut cmdline = Cmdline::default();
    cmdline.push(PLATFORM, &profile.platform);
    cmdline.append(METAL_CONSOLES);
    cmdline.append(DEFAULTS);
    let custom = &profile.customization;
    cmdline.apply_extra(&custom.extra_kernel_args).map_err(|source| ImageError::Argument { source })?;
    let is_disk = profile.output.kind == Some(Kind::Image);
    if is_disk && cmdline.first(CONFIG).is_none() {
        cmdline.push(CONFIG, "none");
    }
    if let Some(variable) = meta_variable(&custom.meta_contents)?.filter(|_| !is_disk) {
        cmdline.push(ENVIRONMENT, &variable);
    }
    let cmdline = cmdline.to_string();
    let added = match profile.output.kind {
        Some(Kind::Iso) => iso::added_arguments(),
        Some(Kind::Image) => grub::added_arguments(),
        _ => 0,
    };
    check_length(&cmdline, added)?;
    Ok(cmdline)
}

/// Writes a unified kernel image. Unlike the installer, this refuses a kernel that does not name its release.
fn write_uki(target: &Path, parts: uki::Parts<'_>) -> Result<(), ImageError> {
    if uki::kernel_release(parts.kernel).map_err(failed)?.is_none() {
        return Err(ImageError::Kernel {
            package: "vmlinuz".to_owned(),
            problem: "not a bzImage with the kernel's release".to_owned(),
        });
    }
    let partial = partial(target);
    uki::build(parts, &partial).map_err(failed)?;
    std::fs::rename(&partial, target).map_err(ImageError::write(target))
}

fn failed(error: BuildUkiError) -> ImageError {
    match error {
        BuildUkiError::Read { path, source } => ImageError::Read { path, source },
        BuildUkiError::Write { path, source } => ImageError::Write { path, source },
        BuildUkiError::Layout(source) => ImageError::Uki { source },
    }
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
    use crate::profile::MetaValue;

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

    fn with(kind: Kind, arguments: &[&str], values: &[(u8, &str)]) -> Profile {
        let mut profile = profile(kind);
        profile.customization.extra_kernel_args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let values = values.iter().map(|(key, value)| MetaValue { key: *key, value: (*value).to_owned() });
        profile.customization.meta_contents = values.collect();
        profile
    }

    #[test]
    fn a_disk_image_says_once_where_its_configuration_comes_from() {
        let sources = |kind, arguments: &[&str]| {
            let line = Cmdline::parse(&cmdline(&with(kind, arguments, &[])).unwrap());
            line.values(CONFIG).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(sources(Kind::Image, &[]), ["none"]);
        assert_eq!(sources(Kind::Image, &["talos.config=https://a/b", "c=d"]), ["https://a/b"]);
        assert_eq!(sources(Kind::Iso, &[]), [""; 0]);
        assert_eq!(sources(Kind::Uki, &["talos.config=https://a/b"]), ["https://a/b"]);
    }

    #[test]
    fn values_that_no_machine_could_read_are_refused_for_each_artefact() {
        for kind in [Kind::Iso, Kind::Uki, Kind::Cmdline, Kind::Image] {
            let refused = cmdline(&with(kind, &[], &[(10, "a;b")]));
            assert!(matches!(refused, Err(ImageError::Preset { .. })), "{refused:?}");
            let refused = cmdline(&with(kind, &[], &[(0, "a")]));
            assert!(matches!(refused, Err(ImageError::Meta { .. })), "{refused:?}");
        }
        // Long values are compressed, as the installer and machines read them.
        let text = cmdline(&with(Kind::Cmdline, &[], &[(10, &"0".repeat(5000))])).unwrap();
        let (_, preset) = text.split_once("INSTALLER_META_BASE64=").unwrap();
        assert_eq!(machine::meta::decode_preset(preset).unwrap()[0].value, "0".repeat(5000));
    }

    #[test]
    fn a_line_that_the_kernel_would_cut_is_refused() {
        let usual = cmdline(&profile(Kind::Cmdline)).unwrap().len();
        let of = |kind, length: usize| cmdline(&with(kind, &[&format!("a={}", "b".repeat(length - 3))], &[]));
        let left = machine::cmdline::KERNEL_LIMIT - usual;
        for kind in [Kind::Cmdline, Kind::Uki] {
            assert_eq!(of(kind, left).unwrap().len(), machine::cmdline::KERNEL_LIMIT);
            assert!(matches!(of(kind, left + 1), Err(ImageError::CommandLine(_))));
        }
        // GRUB adds the kernel's path, and its second entry an argument.
        for kind in [Kind::Iso, Kind::Image] {
            let refused = of(kind, left - 20);
            assert!(matches!(refused, Err(ImageError::CommandLine(_))), "{refused:?}");
            of(kind, left - 100).unwrap();
        }
    }

    #[tokio::test]
    async fn a_unified_kernel_image_has_the_release_of_its_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        let loaders = crate::loaders::build(&crate::packages::testing::packages()).unwrap();
        crate::tools::write(&loaders, base).unwrap();
        let mut kernel = vec![0; 0x400];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        std::fs::write(base.join("vmlinuz"), &kernel).unwrap();
        std::fs::write(base.join("initramfs.xz"), "initramfs").unwrap();
        let packages = Packages::new(base);
        let place = Place { assets: base, programs: base, packages: &packages, out: &base.join("out") };
        let refused = make(&profile(Kind::Uki), place).await.unwrap_err();
        assert!(matches!(refused, ImageError::Kernel { .. }), "{refused}");
        kernel[0x20f] = 1;
        kernel[0x300..0x30c].copy_from_slice(b"6.12.0 (x@y)");
        std::fs::write(base.join("vmlinuz"), &kernel).unwrap();
        let image = std::fs::read(make(&profile(Kind::Uki), place).await.unwrap()).unwrap();
        let holds = |text: &[u8]| image.windows(text.len()).any(|window| window == text);
        for text in [".uname\0\0", ".osrel\0\0", "HOME_URL=\"https://www.talos.dev/\"\n", "6.12.0\0", "initramfs\0"] {
            assert!(holds(text.as_bytes()), "{text:?}");
        }
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
