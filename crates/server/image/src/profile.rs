//! Profiles of `imager`: which artefact is made of which inputs, as YAML and as built-in names. Pure; the fields are those
//! of the original, and a field without effect here is refused with the reason.

use serde::{Deserialize, Serialize};

/// A profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Profile {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base_profile_name: String,
    pub arch: String,
    pub platform: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub board: String,
    #[serde(rename = "secureboot", skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    #[serde(skip_serializing_if = "is_default")]
    pub customization: Customization,
    #[serde(skip_serializing_if = "is_default")]
    pub input: Input,
    pub output: Output,
}

/// An overlay for single-board computers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Overlay {
    pub name: String,
    pub image: Container,
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// What the operator adds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Customization {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_kernel_args: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meta_contents: Vec<MetaValue>,
}

/// A value of META.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetaValue {
    pub key: u8,
    pub value: String,
}

/// What the artefact is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Input {
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: File,
    #[serde(skip_serializing_if = "is_default")]
    pub initramfs: File,
    #[serde(skip_serializing_if = "is_default")]
    pub sd_stub: File,
    #[serde(skip_serializing_if = "is_default")]
    pub sd_boot: File,
    #[serde(skip_serializing_if = "is_default")]
    pub base_installer: Container,
    #[serde(skip_serializing_if = "is_default")]
    pub overlay_installer: Container,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_extensions: Vec<Container>,
    #[serde(rename = "secureboot", skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<serde_json::Value>,
}

/// A file of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub path: String,
}

/// A container image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Container {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_ref: String,
    #[serde(skip_serializing_if = "is_default")]
    pub force_insecure: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tarball_path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub oci_path: String,
}

/// What is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Output {
    pub kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_format: Option<OutFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_options: Option<ImageOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iso_options: Option<IsoOptions>,
}

/// Kinds of artefacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Iso,
    Image,
    Installer,
    Kernel,
    Initramfs,
    Cmdline,
    Uki,
}

/// How a disk image is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutFormat {
    #[serde(rename = "raw")]
    Raw,
    #[serde(rename = ".xz")]
    Xz,
    #[serde(rename = ".gz")]
    Gzip,
    #[serde(rename = ".zst")]
    Zstd,
    #[serde(rename = ".tar.gz")]
    TarGzip,
}

/// Options of disk images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImageOptions {
    /// Bytes.
    pub disk_size: u64,
    pub disk_format: DiskFormat,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub disk_format_options: String,
}

/// Forms of disk images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    #[default]
    Raw,
    Qcow2,
    Vpc,
}

/// Options of ISO images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IsoOptions {
    #[serde(rename = "sdBootEnrollKeys")]
    pub enroll_keys: String,
}

/// Why a profile is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not a built-in name.
    #[error("unknown profile {name:?}; built in are {}, and `-` reads one from standard input", names().join(", "))]
    Unknown { name: String },
    /// A field with a value that nothing here can do.
    #[error("{field}: {problem}")]
    Unsupported { field: &'static str, problem: String },
}

/// Size of a disk image for metal, in bytes: 1246 MiB as of the original, and the room that a UKI needs beside GRUB's
/// partitions, so that one image boots on BIOS and UEFI. EPHEMERAL grows to its disk at the first boot.
pub const METAL_SIZE: u64 = (1246 + 1001) << 20;

/// Names of the built-in profiles.
#[must_use]
pub fn names() -> Vec<&'static str> {
    vec!["installer", "iso", "metal"]
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn unsupported(field: &'static str, problem: impl Into<String>) -> ProfileError {
    ProfileError::Unsupported { field, problem: problem.into() }
}

impl Profile {
    /// The built-in profile `name`.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`].
    pub fn built_in(name: &str) -> Result<Self, ProfileError> {
        let kind = match name {
            "iso" => Kind::Iso,
            "metal" => Kind::Image,
            "installer" => Kind::Installer,
            _ => return Err(ProfileError::Unknown { name: name.to_owned() }),
        };
        let mut profile = Self { arch: "amd64".into(), platform: "metal".into(), ..Self::default() };
        profile.output.kind = Some(kind);
        if kind == Kind::Image {
            profile.output.out_format = Some(OutFormat::Xz);
            profile.output.image_options = Some(ImageOptions { disk_size: METAL_SIZE, ..ImageOptions::default() });
        }
        Ok(profile)
    }

    /// The profile with what it takes from its base and from defaults.
    ///
    /// # Errors
    /// An unknown base, or a field that nothing here can do.
    pub fn complete(mut self) -> Result<Self, ProfileError> {
        if !self.base_profile_name.is_empty() {
            let base = Self::built_in(&self.base_profile_name)?;
            self.output.kind = self.output.kind.or(base.output.kind);
            self.output.out_format = self.output.out_format.or(base.output.out_format);
            self.output.image_options = self.output.image_options.or(base.output.image_options);
            for (value, base) in [(&mut self.arch, base.arch), (&mut self.platform, base.platform)] {
                if value.is_empty() {
                    *value = base;
                }
            }
            self.base_profile_name.clear();
        }
        if self.arch.is_empty() {
            self.arch = "amd64".to_owned();
        }
        if self.version.is_empty() {
            self.version = stdx::version::TAG.to_owned();
        }
        if self.output.kind == Some(Kind::Image) {
            let options = self.output.image_options.get_or_insert_default();
            if options.disk_size == 0 {
                options.disk_size = METAL_SIZE;
            }
        }
        self.check()?;
        Ok(self)
    }

    /// Refuses what this imager cannot do, so that no field is accepted without its effect.
    fn check(&self) -> Result<(), ProfileError> {
        if self.arch != "amd64" {
            return Err(unsupported("arch", format!("{:?} is not supported, only \"amd64\" is", self.arch)));
        }
        if self.platform != "metal" {
            return Err(unsupported("platform", format!("{:?} is not supported, only \"metal\" is", self.platform)));
        }
        if !self.board.is_empty() {
            return Err(unsupported("board", "boards are of architecture arm64, which is not supported"));
        }
        if self.overlay.is_some() || !is_default(&self.input.overlay_installer) {
            return Err(unsupported("overlay", "overlays are for boards of arm64, which is not supported"));
        }
        if self.secure_boot == Some(true) || self.input.secure_boot.is_some() || self.output.iso_options.is_some() {
            return Err(unsupported("secureboot", "signed images are not supported yet"));
        }
        if !is_default(&self.input.base_installer) {
            return Err(unsupported("input.baseInstaller", "the installer image is made without a base"));
        }
        if !self.input.system_extensions.is_empty() {
            return Err(unsupported("input.systemExtensions", "system extensions are not supported yet"));
        }
        if self.version != stdx::version::TAG {
            let problem = format!("this imager makes {}, not {}", stdx::version::TAG, self.version);
            return Err(unsupported("version", problem));
        }
        let Some(kind) = self.output.kind else {
            return Err(unsupported("output.kind", "missing; set it, or `baseProfileName`"));
        };
        if kind != Kind::Image && (self.output.image_options.is_some() || self.output.out_format.is_some()) {
            return Err(unsupported("output", "`imageOptions` and `outFormat` are for kind `image`"));
        }
        self.check_customization(kind)?;
        if let Some(options) = &self.output.image_options {
            if self.output.out_format == Some(OutFormat::TarGzip) && options.disk_format != DiskFormat::Raw {
                let problem = "`.tar.gz` is an archive with `disk.raw`: only for disk format `raw`";
                return Err(unsupported("output.outFormat", problem));
            }
            let fixed = ["", "subformat=fixed", "subformat=fixed,force_size"];
            if !options.disk_format_options.is_empty()
                && (options.disk_format != DiskFormat::Vpc || !fixed.contains(&options.disk_format_options.as_str()))
            {
                let problem = "only `subformat=fixed,force_size` of `vpc`, which is what is made, is supported";
                return Err(unsupported("output.imageOptions.diskFormatOptions", problem));
            }
            if options.disk_size % (1 << 20) != 0 {
                return Err(unsupported("output.imageOptions.diskSize", "must be a multiple of 1 MiB"));
            }
        }
        Ok(())
    }

    /// Refuses what the operator adds where the artefact has no place for it.
    fn check_customization(&self, kind: Kind) -> Result<(), ProfileError> {
        let Customization { extra_kernel_args, meta_contents } = &self.customization;
        let arguments = match kind {
            Kind::Installer => {
                "the installer image has no kernel command line: the installed system's arguments are in \
                 `machine.install.extraKernelArgs` of its configuration"
            }
            Kind::Kernel | Kind::Initramfs => "kernel and initramfs are without command line, which is kind `cmdline`",
            Kind::Iso | Kind::Image | Kind::Cmdline | Kind::Uki => "",
        };
        if !arguments.is_empty() && !extra_kernel_args.is_empty() {
            return Err(unsupported("customization.extraKernelArgs", arguments));
        }
        if matches!(kind, Kind::Kernel | Kind::Initramfs) && !meta_contents.is_empty() {
            let problem = "kernel and initramfs have no place for META; the command line has (kind `cmdline`)";
            return Err(unsupported("customization.metaContents", problem));
        }
        Ok(())
    }

    /// The name of the file that the profile makes.
    #[must_use]
    pub fn file_name(&self) -> String {
        let Self { platform, arch, .. } = self;
        match self.output.kind {
            Some(Kind::Iso) => format!("{platform}-{arch}.iso"),
            Some(Kind::Installer) => format!("installer-{arch}.tar"),
            Some(Kind::Kernel) => format!("kernel-{arch}"),
            Some(Kind::Initramfs) => format!("initramfs-{platform}-{arch}.xz"),
            Some(Kind::Cmdline) => format!("cmdline-{platform}-{arch}"),
            Some(Kind::Uki) => format!("{platform}-{arch}-uki.efi"),
            Some(Kind::Image) | None => {
                let disk = match self.output.image_options.as_ref().map(|options| options.disk_format) {
                    Some(DiskFormat::Qcow2) => "qcow2",
                    Some(DiskFormat::Vpc) => "vhd",
                    _ => "raw",
                };
                match self.output.out_format {
                    Some(OutFormat::Xz) => format!("{platform}-{arch}.{disk}.xz"),
                    Some(OutFormat::Gzip) => format!("{platform}-{arch}.{disk}.gz"),
                    Some(OutFormat::Zstd) => format!("{platform}-{arch}.{disk}.zst"),
                    Some(OutFormat::TarGzip) => format!("{platform}-{arch}.{disk}.tar.gz"),
                    Some(OutFormat::Raw) | None => format!("{platform}-{arch}.{disk}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Profile, ProfileError> {
        yaml::from_str::<Profile>(text).unwrap().complete()
    }

    #[test]
    fn a_profile_takes_from_its_base_what_it_does_not_say() {
        let profile = read(
            "baseProfileName: metal\narch: amd64\ncustomization:\n  extraKernelArgs: [a=b]\n  metaContents: [{key: 10, value: x}]\n\
             output:\n  outFormat: .zst\n",
        )
        .unwrap();
        assert_eq!(profile.platform, "metal");
        assert_eq!(profile.file_name(), "metal-amd64.raw.zst");
        assert_eq!(profile.output.image_options.unwrap().disk_size, METAL_SIZE);
        assert_eq!(profile.customization.meta_contents, [MetaValue { key: 10, value: "x".into() }]);
    }

    #[test]
    fn artefacts_have_the_names_of_the_original() {
        for (kind, wanted) in [
            (Kind::Iso, "metal-amd64.iso"),
            (Kind::Image, "metal-amd64.raw"),
            (Kind::Installer, "installer-amd64.tar"),
            (Kind::Kernel, "kernel-amd64"),
            (Kind::Initramfs, "initramfs-metal-amd64.xz"),
            (Kind::Cmdline, "cmdline-metal-amd64"),
            (Kind::Uki, "metal-amd64-uki.efi"),
        ] {
            let mut profile = Profile::built_in("iso").unwrap();
            profile.output.kind = Some(kind);
            assert_eq!(profile.file_name(), wanted);
        }
        let mut disk = Profile::built_in("metal").unwrap();
        assert_eq!(disk.file_name(), "metal-amd64.raw.xz");
        disk.output.out_format = Some(OutFormat::TarGzip);
        assert_eq!(disk.file_name(), "metal-amd64.raw.tar.gz");
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_field() {
        for (text, wanted) in [
            ("arch: arm64\nplatform: metal\noutput: {kind: iso}\n", "arch"),
            ("platform: aws\noutput: {kind: image}\n", "platform"),
            ("platform: metal\nsecureboot: true\noutput: {kind: iso}\n", "secureboot"),
            ("platform: metal\nversion: v1.6.0\noutput: {kind: iso}\n", "version"),
            ("platform: metal\n", "output.kind"),
            ("platform: metal\noutput: {kind: iso, outFormat: .xz}\n", "output"),
            ("platform: metal\nboard: rpi_4\noutput: {kind: image}\n", "board"),
            (
                "platform: metal\ncustomization: {extraKernelArgs: [a=b]}\noutput: {kind: installer}\n",
                "customization.extraKernelArgs",
            ),
            (
                "platform: metal\ncustomization: {extraKernelArgs: [a=b]}\noutput: {kind: initramfs}\n",
                "customization.extraKernelArgs",
            ),
            (
                "platform: metal\ncustomization: {metaContents: [{key: 10, value: x}]}\noutput: {kind: kernel}\n",
                "customization.metaContents",
            ),
            (
                "platform: metal\noutput: {kind: image, outFormat: .tar.gz, imageOptions: {diskFormat: qcow2}}\n",
                "output.outFormat",
            ),
            (
                "platform: metal\noutput: {kind: image, imageOptions: {diskSize: 1000}}\n",
                "output.imageOptions.diskSize",
            ),
        ] {
            let Err(ProfileError::Unsupported { field, .. }) = read(text) else { panic!("{text} was accepted") };
            assert_eq!(field, wanted);
        }
        let error = read("baseProfileName: aws\n").unwrap_err();
        assert_eq!(error, ProfileError::Unknown { name: "aws".into() });
        let error = yaml::from_str::<Profile>("platfrom: metal\n").unwrap_err();
        assert!(error.to_string().contains("platfrom"), "{error}");
    }
}
