//! Where files of the configuration may be.

use std::path::{Component, Path};

use super::MachineFile;

/// The place of a file of `machine.files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilePlace<'a> {
    /// Below `/var`; this path is below it.
    Volume(&'a Path),
    /// The name of a file of the kubelet's directory of static pods.
    Manifest(&'a Path),
    /// Its content is merged into containerd's configuration.
    Customization,
    /// A file of the image, which is read-only: for each boot a changed copy lies over it. This path is below `/`.
    Image(&'a Path),
}

impl FilePlace<'_> {
    /// The path of containerd's customization.
    pub const CUSTOMIZATION: &'static str = "/etc/cri/conf.d/20-customization.part";
    /// The directory of static pods.
    pub const MANIFESTS: &'static str = "/etc/kubernetes/manifests";
    /// Directories without a file of the image: file systems of the kernel, and what the machine renders.
    const NOT_OF_THE_IMAGE: [&'static str; 7] = ["/dev", "/proc", "/run", "/sys", "/system", "/tmp", "/var"];
}

impl MachineFile {
    /// The place that its path means; none for one where no file of the configuration can be, or one that is not plain.
    #[must_use]
    pub fn place(&self) -> Option<FilePlace<'_>> {
        if self.path == FilePlace::CUSTOMIZATION {
            return Some(FilePlace::Customization);
        }
        let path = Path::new(&self.path);
        let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !is_plain || self.path.contains('\0') || self.path.ends_with('/') {
            return None;
        }
        let below = |directory: &str| path.strip_prefix(directory).ok().filter(|below| !below.as_os_str().is_empty());
        if let Some(below) = below("/var") {
            return Some(FilePlace::Volume(below));
        }
        if path.starts_with(FilePlace::MANIFESTS) {
            return below(FilePlace::MANIFESTS)
                .filter(|below| below.components().count() == 1)
                .map(FilePlace::Manifest);
        }
        let elsewhere = FilePlace::NOT_OF_THE_IMAGE.iter().any(|directory| path.starts_with(directory));
        below("/").filter(|_| !elsewhere).map(FilePlace::Image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_below_var_in_two_more_places_and_over_the_image() {
        let place = |path: &str| {
            let file = MachineFile { path: path.to_owned(), ..MachineFile::default() };
            file.place().map(|place| format!("{place:?}"))
        };
        assert_eq!(place("/var/etc/my.conf").as_deref(), Some("Volume(\"etc/my.conf\")"));
        assert_eq!(place("/etc/kubernetes/manifests/a.yaml").as_deref(), Some("Manifest(\"a.yaml\")"));
        assert_eq!(place(FilePlace::CUSTOMIZATION).as_deref(), Some("Customization"));
        assert_eq!(
            place("/etc/ssl/certs/ca-certificates").as_deref(),
            Some("Image(\"etc/ssl/certs/ca-certificates\")")
        );
        assert_eq!(place("/variable").as_deref(), Some("Image(\"variable\")"));
        for path in [
            "/",
            "/proc/sys/kernel/x",
            "/system/etc/hosts",
            "/etc/kubernetes/manifests",
            "/etc/kubernetes/manifests/a/b",
            "/var",
            "/var/",
            "/var/../etc/x",
            "var/x",
            "",
            "/var/a\0b",
            "/var/d/",
        ] {
            assert_eq!(place(path), None, "{path:?}");
        }
    }
}
