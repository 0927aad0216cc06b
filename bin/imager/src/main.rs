//! Builds images: `imager PROFILE` one artefact that machines boot or install; and for these, `imager rootfs` the root file system of a node, `imager boot` kernel and initramfs of a machine, `imager
//! bundle` the container images of an offline cluster; `imager unpack` fetches the packages that the latter is built with.

mod make;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use image::kernel::{self, Source};
use image::packages::Packages;
use image::tree::Kind;
use image::{boot, bundle, loaders, rootfs};

#[derive(Debug, Parser)]
#[command(name = "imager", version, about = "Builds boot media, disk images, node images and offline bundles")]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    make: make::Make,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the root file system of a node as one squashfs, with its SPDX SBOM beside it
    Rootfs(Rootfs),
    /// Build kernel and initramfs of a machine, around its root file system, and its boot loaders
    Boot(Boot),
    /// Build the container images of an offline cluster as one OCI image layout, and print its directory
    Bundle(Bundle),
    /// Fetch and unpack Debian packages of the images' release, without installing them
    Unpack(Unpack),
}

#[derive(Debug, clap::Args)]
struct Rootfs {
    /// File to write; the SBOM gets the same name with `.spdx.json`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Directory with our own programs, statically linked
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// Cache directory of Debian packages
    #[arg(long, value_name = "DIR")]
    packages: PathBuf,
    /// Fetch current packages even if older ones are cached
    #[arg(long)]
    refresh: bool,
    /// Kernel whose modules the image gets: a name of a Debian package, or the path of a package file
    #[arg(long, default_value = kernel::DEFAULT, value_name = "PACKAGE")]
    kernel: String,
    /// Version in the SBOM
    #[arg(long, default_value = concat!("v", env!("CARGO_PKG_VERSION")))]
    image_version: String,
    /// zstd level
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(u32).range(1..=22))]
    level: u32,
}

#[derive(Debug, clap::Args)]
struct Boot {
    /// Directory for `vmlinuz`, `initramfs.xz` and boot loaders
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Root file system, as `imager rootfs` built it
    #[arg(long, value_name = "FILE")]
    rootfs: PathBuf,
    /// Directory with our own programs, statically linked
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// Cache directory of Debian packages
    #[arg(long, value_name = "DIR")]
    packages: PathBuf,
    /// Kernel, the same as of the root file system: a name of a Debian package, or the path of a package file
    #[arg(long, default_value = kernel::DEFAULT, value_name = "PACKAGE")]
    kernel: String,
}

#[derive(Debug, clap::Args)]
struct Bundle {
    /// Directory with the images' programs
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// Cache directory of Debian packages
    #[arg(long, value_name = "DIR")]
    packages: PathBuf,
    /// Versions of the programs, such as `kubernetes=1.30.14`; also `coredns` and `flannel` if present
    #[arg(long = "component", value_name = "NAME=VERSION", required = true, value_parser = component)]
    components: Vec<(String, String)>,
    /// Directory for bundles, each in a directory named by a digest of its inputs
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Unpack {
    /// Names of the packages
    #[arg(required = true)]
    names: Vec<String>,
    /// Cache directory of Debian packages
    #[arg(long, value_name = "DIR")]
    packages: PathBuf,
    /// Directory to unpack into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).without_time().with_ansi(false).init();
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => arguments.make.run(),
        Some(Command::Rootfs(command)) => build_rootfs(&command),
        Some(Command::Boot(command)) => build_boot(&command),
        Some(Command::Bundle(command)) => build_bundle(&command),
        Some(Command::Unpack(command)) => unpack(&command),
    };
    match result {
        Ok(line) if line.is_empty() => ExitCode::SUCCESS,
        Ok(line) => {
            // A closed standard output needs no report.
            let _ = writeln!(std::io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build_rootfs(command: &Rootfs) -> anyhow::Result<String> {
    let packages = Packages::new(&command.packages);
    if command.refresh {
        packages.refresh()?;
    }
    let programs = read_programs(&command.programs, rootfs::programs()?)?;
    let names = rootfs::list()?.packages();
    let kernel = Source::parse(&command.kernel);
    let (version, level) = (&command.image_version, command.level);
    let inputs =
        rootfs::inputs_digest(&packages.digests(&names)?, &programs, &kernel.digest(&packages)?, version, level);
    let stamp = command.out.with_extension("inputs");
    if command.out.exists() && std::fs::read_to_string(&stamp).is_ok_and(|known| known == inputs) {
        return Ok(format!("{}: up to date", command.out.display()));
    }
    let kernel = kernel.read(&packages)?;
    let image = rootfs::build(packages.get(&names)?, programs, &kernel, version, level)?;
    let mut sbom = serde_json::to_vec_pretty(&image.sbom).context("writing the SBOM")?;
    sbom.push(b'\n');
    replace(&command.out, &image.bytes)?;
    replace(&command.out.with_extension("spdx.json"), &sbom)?;
    replace(&stamp, inputs.as_bytes())?;
    Ok(format!("{}: {} bytes, sha256 {}", command.out.display(), image.bytes.len(), image.digest))
}

fn build_boot(command: &Boot) -> anyhow::Result<String> {
    let packages = Packages::new(&command.packages);
    let source = Source::parse(&command.kernel);
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let (init, rootfs) = (read(&command.programs.join("init"))?, read(&command.rootfs)?);
    let inputs = boot::inputs_digest(&init, &rootfs, &source.digest(&packages)?, &loaders::inputs_digest(&packages)?);
    let (vmlinuz, initramfs) = (command.out.join("vmlinuz"), command.out.join("initramfs.xz"));
    let stamp = command.out.join("initramfs.inputs");
    let there = vmlinuz.exists() && initramfs.exists();
    if there && std::fs::read_to_string(&stamp).is_ok_and(|known| known == inputs) {
        return Ok(format!("{}: up to date", initramfs.display()));
    }
    let kernel = source.read(&packages)?;
    let content = boot::initramfs(&init, &rootfs, &kernel)?;
    for (path, node) in loaders::build(&packages)?.iter() {
        if let Kind::File(content) = &node.kind {
            replace(&command.out.join(path.trim_start_matches('/')), content)?;
        }
    }
    replace(&vmlinuz, &kernel.image)?;
    replace(&initramfs, &content)?;
    replace(&stamp, inputs.as_bytes())?;
    let (image, version) = (kernel.image.len(), kernel.version);
    Ok(format!("kernel {version}: {image} bytes, {}: {} bytes", initramfs.display(), content.len()))
}

fn build_bundle(command: &Bundle) -> anyhow::Result<String> {
    let components = command.components.iter().cloned().collect();
    let programs = read_programs(&command.programs, bundle::programs(&components)?)?;
    let directory = bundle::build(&Packages::new(&command.packages), programs, &components, &command.cache)?;
    Ok(directory.display().to_string())
}

fn component(text: &str) -> anyhow::Result<(String, String)> {
    let (name, version) = text.split_once('=').context("expected NAME=VERSION")?;
    let known = bundle::component_names()?;
    if !known.contains(name) {
        anyhow::bail!("unknown component {name:?}; known are {}", known.into_iter().collect::<Vec<_>>().join(", "));
    }
    Ok((name.to_owned(), version.to_owned()))
}

fn unpack(command: &Unpack) -> anyhow::Result<String> {
    Packages::new(&command.packages).unpack(&command.names, &command.out)?;
    Ok(command.out.display().to_string())
}

fn read_programs(directory: &Path, names: Vec<String>) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    names
        .into_iter()
        .map(|name| {
            let path = directory.join(&name);
            let content = std::fs::read(&path).with_context(|| format!("reading program {}", path.display()))?;
            Ok((name, content))
        })
        .collect()
}

/// Writes a file atomically: readers see the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes).with_context(|| format!("writing {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("writing {}", path.display()))
}
