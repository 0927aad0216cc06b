//! Disk images: an installation to a file, which is then written in the form that the profile names. Identifiers come from
//! the inputs, so that equal inputs give equal bits.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use block::disk::{ImageFile, contents};
use block::format::Tools;
use installer::{Assets, Request};
use machine::gpt::{Guid, ProtectiveEntry};
use machine::install::{Contents, Options, Treatment};
use machine::layout::{EPHEMERAL_IN_IMAGE, Label, Layout};
use stdx::Secret;

use crate::disk_format::{self, Compression};
use crate::place::Place;
use crate::profile::{DiskFormat, OutFormat, Profile};
use crate::{EPOCH, ImageError, loaders, sha256, xfs_times};

/// Programs that the installation runs.
const PROGRAMS: &[&str] = &[
    "/usr/sbin/mkfs.xfs",
    "/usr/sbin/mkfs.vfat",
    "/usr/bin/mcopy",
    "/usr/bin/mdel",
    "/usr/bin/mdir",
    "/usr/bin/mmd",
    "/usr/bin/mren",
];

/// Makes the disk image of `profile` with the kernel command line `cmdline` at `target`.
///
/// # Errors
/// A missing asset, a disk that is too small, or a tool that fails.
pub async fn build(profile: &Profile, place: Place<'_>, cmdline: &str, target: &Path) -> Result<(), ImageError> {
    let options = profile.output.image_options.clone().unwrap_or_default();
    let scratch = tempfile::tempdir_in(place.out).map_err(ImageError::write(place.out))?;
    let raw = scratch.path().join("disk");
    let mut request = request(profile, place, cmdline);
    let seed = seed(&request, options.disk_size)?;
    let tools = loaders::tools(place.packages)?;
    request.tools.path = tools.by_name(PROGRAMS)?.to_string_lossy().into_owned();
    request.tools.xfs_id = Some(Guid::from_random(identifier(&seed, 0)).to_string().to_lowercase());
    // 0 is the file system's.
    let mut count = 0_u32;
    let new_id = || {
        count += 1;
        Guid::from_random(identifier(&seed, count))
    };
    let failed = |source| ImageError::Install { source: Box::new(source) };
    let mut disk = ImageFile::create(&raw, options.disk_size).map_err(|source| failed(source.into()))?;
    let progress = |line: &str| tracing::info!("{line}");
    installer::install(&mut disk, &request, scratch.path(), new_id, &progress).await.map_err(failed)?;
    normalize(&disk, &raw)?;
    drop(disk);
    let formatted = format(&raw, options.disk_format, options.disk_size, identifier(&seed, 0))?;
    let compression = match profile.output.out_format {
        Some(OutFormat::Xz) => Compression::Xz,
        Some(OutFormat::Gzip) => Compression::Gzip,
        Some(OutFormat::TarGzip) => Compression::TarGzip,
        Some(OutFormat::Zstd) => Compression::Zstd,
        Some(OutFormat::Raw) | None => return std::fs::rename(&formatted, target).map_err(ImageError::write(target)),
    };
    let packed = scratch.path().join("packed");
    let pack = || -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(&packed)?);
        disk_format::compress(&mut File::open(&formatted)?, &mut out, compression)?;
        out.flush()?;
        std::fs::rename(&packed, target)
    };
    pack().map_err(ImageError::write(target))
}

fn request(profile: &Profile, place: Place<'_>, cmdline: &str) -> Request {
    let mut assets = Assets::below(place.assets);
    let input = &profile.input;
    for (path, given) in [
        (&mut assets.kernel, &input.kernel),
        (&mut assets.initramfs, &input.initramfs),
        (&mut assets.stub, &input.sd_stub),
        (&mut assets.systemd_boot, &input.sd_boot),
    ] {
        if !given.path.is_empty() {
            *path = (&given.path).into();
        }
    }
    let values = &profile.customization.meta_contents;
    Request {
        options: Options { ephemeral: EPHEMERAL_IN_IMAGE, ..Options::new(Layout::Both, Treatment::Zero) },
        assets,
        version: profile.version.clone(),
        cmdline: cmdline.to_owned(),
        entry: ProtectiveEntry::Inactive,
        meta: values.iter().map(|meta| (meta.key, meta.value.clone().into_bytes())).collect::<BTreeMap<_, _>>(),
        configuration: Secret::new(Vec::new()),
        tools: Tools { epoch: Some(u64::from(EPOCH)), ..Tools::default() },
        variables: None,
        booted_slot: None,
    }
}

/// A digest of all that the image is made of.
fn seed(request: &Request, size: u64) -> Result<String, ImageError> {
    let assets = &request.assets;
    let mut text = format!("{size} {} {} {:?}\n", request.version, request.cmdline, request.meta);
    for path in
        [&assets.kernel, &assets.initramfs, &assets.stub, &assets.systemd_boot, &assets.grub_boot, &assets.grub_core]
    {
        text.push_str(&sha256(&std::fs::read(path).map_err(ImageError::read(path))?));
    }
    Ok(sha256(text.as_bytes()))
}

/// The identifier of that number.
fn identifier(seed: &str, number: u32) -> [u8; 16] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{seed} {number}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    bytes
}

/// Removes what differs from run to run from the file system of BOOT.
fn normalize(disk: &ImageFile, raw: &Path) -> Result<(), ImageError> {
    let failed = |source| ImageError::Install { source: Box::new(source) };
    let Contents::Table(table) = contents(disk).map_err(|source| failed(source.into()))? else { return Ok(()) };
    let Some(boot) = table.by_name(Label::Boot.name()) else { return Ok(()) };
    let mut file = File::options().read(true).write(true).open(raw).map_err(ImageError::write(raw))?;
    let (start, size) = (boot.offset(table.geometry), boot.size(table.geometry));
    xfs_times::normalize(&mut file, start, size).map_err(ImageError::write(raw))?;
    Ok(())
}

/// The image `raw` in the form `form`, beside it.
fn format(raw: &Path, form: DiskFormat, size: u64, id: [u8; 16]) -> Result<std::path::PathBuf, ImageError> {
    match form {
        DiskFormat::Raw => {}
        DiskFormat::Qcow2 => {
            let path = raw.with_extension("qcow2");
            let write = || -> std::io::Result<()> {
                let mut out = BufWriter::new(File::create(&path)?);
                disk_format::qcow2(&mut File::open(raw)?, size, &mut out)?;
                out.flush()
            };
            write().map_err(ImageError::write(&path))?;
            return Ok(path);
        }
        DiskFormat::Vpc => {
            let mut file = File::options().append(true).open(raw).map_err(ImageError::write(raw))?;
            file.write_all(&disk_format::vhd_footer(size, id)).map_err(ImageError::write(raw))?;
        }
    }
    Ok(raw.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::MetaValue;

    /// Assets that are small, with real boot loaders.
    fn assets(directory: &Path) {
        let loaders = crate::loaders::build(&crate::packages::testing::packages()).unwrap();
        crate::tools::write(&loaders, directory).unwrap();
        let mut kernel = vec![0x4b; 200_000];
        // It has what its head says: 76 sectors, and so many units of 16 bytes.
        kernel[0x1f4..0x1f8].copy_from_slice(&10_068_u32.to_le_bytes());
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        std::fs::write(directory.join("vmlinuz"), kernel).unwrap();
        std::fs::write(directory.join("initramfs.xz"), vec![0x49; 300_000]).unwrap();
    }

    #[tokio::test]
    async fn the_same_inputs_give_the_same_image_in_every_form() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        assets(base);
        let packages = crate::packages::testing::packages();
        let place = Place { assets: base, programs: base, packages: &packages, out: base };
        let mut profile = Profile::built_in("metal").unwrap().complete().unwrap();
        profile.customization.meta_contents = vec![MetaValue { key: 10, value: "value".into() }];
        // Faster than xz, which is the default.
        profile.output.out_format = Some(OutFormat::Zstd);
        let mut made = Vec::new();
        for name in ["one", "two"] {
            // Times have a resolution of seconds in VFAT and XFS.
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
            build(&profile, place, "a=b", &base.join(name)).await.unwrap();
            made.push(sha256(&std::fs::read(base.join(name)).unwrap()));
        }
        assert_eq!(made[0], made[1], "the same inputs must give the same bits");

        profile.output.image_options.as_mut().unwrap().disk_format = DiskFormat::Vpc;
        build(&profile, place, "a=b", &base.join("vhd.zst")).await.unwrap();
        let size = profile.output.image_options.as_ref().unwrap().disk_size;
        let mut reader = zstd::stream::read::Decoder::new(File::open(base.join("vhd.zst")).unwrap()).unwrap();
        assert_eq!(std::io::copy(&mut reader, &mut std::io::sink()).unwrap(), size + 512);

        profile.output.image_options.as_mut().unwrap().disk_size = 1 << 30;
        let error = build(&profile, place, "a=b", &base.join("small")).await.unwrap_err();
        assert!(matches!(error, ImageError::Install { .. }), "{error:?}");
    }
}
