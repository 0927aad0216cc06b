//! `imager PROFILE`: one artefact of boot assets, by a built-in profile or one of standard input, changed by flags.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use image::artifact;
use image::installer_image::{self, Made};
use image::packages::Packages;
use image::place::Place;
use image::profile::{Container, ImageOptions, Kind, MetaValue, Profile};

/// Longest profile that is read.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Make {
    /// Profile: iso, metal, installer, or `-` to read one from standard input
    #[arg(value_name = "PROFILE")]
    profile: Option<String>,
    /// Platform of the artefact
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Architecture of the artefact
    #[arg(long, value_name = "string")]
    arch: Option<String>,
    /// Installer image to start from
    #[arg(long, value_name = "string")]
    base_installer_image: Option<String>,
    /// Board of the artefact
    #[arg(long, value_name = "string")]
    board: Option<String>,
    /// Pull images without verifying certificates
    #[arg(long)]
    insecure: bool,
    /// Size of a disk image: bytes, or with a unit as 8GB, 8GiB
    #[arg(long, value_name = "string")]
    image_disk_size: Option<String>,
    /// Kernel argument to add, or with a leading `-` to remove
    #[arg(long, value_name = "string", allow_hyphen_values = true)]
    extra_kernel_arg: Vec<String>,
    /// Value of META, as 0xa=value
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<String>,
    /// System extension to add
    #[arg(long, value_name = "string")]
    system_extension_image: Vec<String>,
    /// Directory for the artefact
    #[arg(long, default_value = "/out", value_name = "DIR")]
    output: PathBuf,
    /// Kind of the artefact: iso, image, installer, kernel, initramfs, cmdline, uki
    #[arg(long, value_name = "string")]
    output_kind: Option<String>,
    /// Write a compressed tar archive with the artefact to standard output
    #[arg(long)]
    tar_to_stdout: bool,
    /// Name of the overlay
    #[arg(long, value_name = "string")]
    overlay_name: Option<String>,
    /// Image of the overlay
    #[arg(long, value_name = "string")]
    overlay_image: Option<String>,
    /// Option of the overlay
    #[arg(long, value_name = "KEY=VALUE")]
    overlay_option: Vec<String>,
    /// Write the installer image as an OCI image layout to this directory, instead of a tar file to --output
    #[arg(long, value_name = "DIR")]
    layout: Option<PathBuf>,
    /// Directory with the boot assets, as `imager boot` built them
    #[arg(long, default_value = "/usr/install/amd64", value_name = "DIR")]
    assets: PathBuf,
    /// Directory with our own programs, for the installer image
    #[arg(long, default_value = "/usr/bin", value_name = "DIR")]
    programs: PathBuf,
    /// Cache directory of Debian packages, for the tools that make images
    #[arg(long, env = "IMAGER_PACKAGES", default_value = "/var/cache/imager", value_name = "DIR")]
    packages: PathBuf,
}

impl Make {
    /// Makes the artefact; returns what is printed.
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let profile = self.profile()?.complete()?;
        let shown = yaml::to_string(&profile).context("writing the profile")?;
        let _ = write!(std::io::stderr(), "profile ready:\n{shown}");
        let packages = Packages::new(&self.packages);
        let scratch;
        let out = if self.tar_to_stdout {
            scratch = tempfile::tempdir().context("making a temporary directory")?;
            scratch.path()
        } else {
            &self.output
        };
        let place = Place { assets: &self.assets, programs: &self.programs, packages: &packages, out };
        if let Some(directory) = &self.layout {
            if profile.output.kind != Some(Kind::Installer) || self.tar_to_stdout {
                bail!("--layout is for the profile `installer`, without --tar-to-stdout");
            }
            return Ok(match installer_image::layout_if_changed(&profile, place, directory)? {
                Made::New => directory.display().to_string(),
                Made::UpToDate => format!("{}: up to date", directory.display()),
            });
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
        let made = runtime.block_on(artifact::make(&profile, place))?;
        if self.tar_to_stdout {
            tar_to_stdout(&made)?;
            return Ok(String::new());
        }
        let size = std::fs::metadata(&made).with_context(|| format!("reading {}", made.display()))?.len();
        Ok(format!("{}: {size} bytes", made.display()))
    }

    fn profile(&self) -> anyhow::Result<Profile> {
        let mut profile = match self.profile.as_deref() {
            None => bail!("name a profile (iso, metal, installer), or `-` to read one from standard input"),
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().take(LONGEST).read_to_string(&mut text).context("reading the profile")?;
                yaml::from_str(&text).context("reading the profile from standard input")?
            }
            Some(name) => Profile::built_in(name)?,
        };
        if self.overlay_name.is_some() || self.overlay_image.is_some() || !self.overlay_option.is_empty() {
            bail!("overlays are for boards of arm64, which is not supported");
        }
        if self.base_installer_image.is_some() {
            bail!("--base-installer-image: the installer image is made without a base");
        }
        for (value, flag) in [
            (&mut profile.platform, &self.platform),
            (&mut profile.arch, &self.arch),
            (&mut profile.board, &self.board),
        ] {
            if let Some(flag) = flag {
                value.clone_from(flag);
            }
        }
        if let Some(kind) = &self.output_kind {
            change_kind(&mut profile, kind)?;
        }
        if let Some(size) = &self.image_disk_size {
            let options = profile.output.image_options.get_or_insert_with(ImageOptions::default);
            options.disk_size = bytes(size).with_context(|| format!("--image-disk-size {size}"))?;
        }
        profile.customization.extra_kernel_args.extend(self.extra_kernel_arg.iter().cloned());
        for text in &self.meta {
            profile.customization.meta_contents.push(meta(text).with_context(|| format!("--meta {text}"))?);
        }
        let extension = |image: &String| Container {
            image_ref: image.clone(),
            force_insecure: self.insecure,
            ..Default::default()
        };
        profile.input.system_extensions.extend(self.system_extension_image.iter().map(extension));
        Ok(profile)
    }
}

/// Another kind of artefact has no use for the options of the profile's own.
fn change_kind(profile: &mut Profile, kind: &str) -> anyhow::Result<()> {
    let kind: Kind = serde_json::from_value(kind.into()).with_context(|| {
        format!("--output-kind {kind}: must be one of iso, image, installer, kernel, initramfs, cmdline, uki")
    })?;
    if kind != Kind::Image {
        profile.output.image_options = None;
        profile.output.out_format = None;
    }
    profile.output.kind = Some(kind);
    Ok(())
}

fn meta(text: &str) -> anyhow::Result<MetaValue> {
    let (key, value) = text.split_once('=').context("expected KEY=VALUE")?;
    let number = match key.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => key.parse(),
    };
    Ok(MetaValue { key: number.context("the key must be a number from 0 to 255")?, value: value.to_owned() })
}

/// A size: bytes, or a number with a unit, of 1000 (GB) or 1024 (GiB).
fn bytes(text: &str) -> anyhow::Result<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => bail!("unknown unit {other:?}; use MiB or GiB"),
    };
    number.parse::<u64>().context("expected a number")?.checked_mul(unit).context("the size is too large")
}

/// Writes `file` as the one entry of a compressed tar archive.
fn tar_to_stdout(file: &Path) -> anyhow::Result<()> {
    let name = file.file_name().unwrap_or_default();
    let mut source = std::fs::File::open(file).with_context(|| format!("reading {}", file.display()))?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(u64::from(image::EPOCH));
    header.set_size(source.metadata().with_context(|| format!("reading {}", file.display()))?.len());
    let encoder = flate2::GzBuilder::new().write(std::io::stdout().lock(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    builder.append_data(&mut header, name, &mut source).context("writing the archive to standard output")?;
    let encoder = builder.into_inner().context("writing the archive to standard output")?;
    drop(encoder.finish().context("writing the archive to standard output")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_change_the_profile() {
        let make = Make {
            profile: Some("metal".into()),
            image_disk_size: Some("8GiB".into()),
            extra_kernel_arg: vec!["-console".into()],
            meta: vec!["0xa=x=y".into(), "11=z".into()],
            ..Make::default()
        };
        let profile = make.profile().unwrap().complete().unwrap();
        assert_eq!(profile.output.image_options.unwrap().disk_size, 8 << 30);
        assert_eq!(profile.customization.extra_kernel_args, ["-console"]);
        let values: Vec<(u8, &str)> =
            profile.customization.meta_contents.iter().map(|meta| (meta.key, meta.value.as_str())).collect();
        assert_eq!(values, [(10, "x=y"), (11, "z")]);
        let make = Make { profile: Some("metal".into()), output_kind: Some("uki".into()), ..Make::default() };
        assert_eq!(make.profile().unwrap().complete().unwrap().file_name(), "metal-amd64-uki.efi");
    }

    #[test]
    fn sizes_and_meta_values_that_are_none_are_refused() {
        for (text, wanted) in [
            ("8TB", "unknown unit \"TB\"; use MiB or GiB"),
            ("GiB", "expected a number"),
            ("99999999999GiB", "the size is too large"),
        ] {
            assert_eq!(bytes(text).unwrap_err().to_string(), wanted);
        }
        for (text, wanted) in [
            ("10", "expected KEY=VALUE"),
            ("256=x", "the key must be a number from 0 to 255"),
            ("0xg=x", "the key must be a number from 0 to 255"),
        ] {
            assert_eq!(meta(text).unwrap_err().to_string(), wanted);
        }
    }
}
