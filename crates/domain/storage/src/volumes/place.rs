//! Where volumes are mounted.

use std::path::{Path, PathBuf};

use machine::layout::Label;

/// Directories of the image that are writable by a layer on EPHEMERAL, with the layer's name.
pub const OVERLAYS: [(&str, &str); 4] = [
    ("etc/cni", "etc-cni"),
    ("etc/kubernetes", "etc-kubernetes"),
    ("usr/libexec/kubernetes", "usr-libexec-kubernetes"),
    ("opt", "opt"),
];
/// Where the layers are, below EPHEMERAL.
const LAYERS: &str = "system/overlays";

/// The mount points of volumes below a root.
#[derive(Debug, Clone)]
pub struct Places {
    root: PathBuf,
}

/// One volume's place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) label: &'static str,
    /// `xfs` is made where the partition is blank; `vfat` only by the installer.
    pub(super) kind: &'static str,
    pub(super) target: PathBuf,
    pub(super) mode: u32,
    /// It grows to the disk's end, counts what projects use, and carries the layers over the image.
    pub(super) is_ephemeral: bool,
    pub(super) overlays: Vec<Overlay>,
}

/// A writable layer over a directory.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    pub(super) target: PathBuf,
    pub(super) layers: PathBuf,
    pub(super) name: &'static str,
}

impl Default for Places {
    fn default() -> Self {
        Self::below("/")
    }
}

impl Places {
    /// Labels of volumes.
    pub const LABELS: [&'static str; 4] =
        [Label::State.name(), Label::Ephemeral.name(), Label::Boot.name(), Label::Efi.name()];

    /// The same places below another root.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(super) fn of(&self, label: &str) -> Option<Place> {
        let (label, kind, target, mode) = match Label::from_name(label)? {
            Label::State => (Label::State, "xfs", "system/state", 0o700),
            Label::Ephemeral => (Label::Ephemeral, "xfs", "var", 0o755),
            Label::Boot => (Label::Boot, "xfs", "boot", 0o700),
            Label::Efi => (Label::Efi, "vfat", "boot/EFI", 0o700),
            Label::Bios | Label::Meta => return None,
        };
        let is_ephemeral = label == Label::Ephemeral;
        let target = self.root.join(target);
        let overlays = if is_ephemeral { self.overlays(&target) } else { Vec::new() };
        Some(Place { label: label.name(), kind, target, mode, is_ephemeral, overlays })
    }

    fn overlays(&self, ephemeral: &Path) -> Vec<Overlay> {
        let overlay = |(directory, name): (&str, &'static str)| Overlay {
            target: self.root.join(directory),
            layers: ephemeral.join(LAYERS),
            name,
        };
        OVERLAYS.into_iter().map(overlay).collect()
    }
}
