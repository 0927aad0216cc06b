//! Makes the offline bundle: builds Kubernetes from source, once a machine, and hands it to `imager`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::host;
use crate::paths::Paths;
use crate::step::{Step, Steps, command};

const PAUSE: &str = include_str!("../bundle/pause.c");

/// Go, from Debian 13: Debian 12's own is too old for the modules. It is unpacked, not installed.
const GO_PACKAGES: &[&str] = &["golang-1.24-go", "golang-1.24-src"];

/// The versions of Kubernetes that can be built here: the newest that is supported, and the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Kubernetes {
    /// 1.25.4; CI neither builds nor runs it
    #[value(name = "1.25")]
    V1_25,
    /// 1.30.14
    #[default]
    #[value(name = "1.30")]
    V1_30,
}

/// Where Go is below the unpacked packages.
pub(crate) const GO_ROOT: &str = "usr/lib/go-1.24";

/// Debian packages that the build needs.
const PACKAGES: &[&str] = &["ca-certificates", "dpkg", "gcc", "libc6-dev", "musl-tools"];

/// CoreDNS and Flannel, with the versions that are built with every Kubernetes.
const ADDONS: &[(&str, &str)] = &[("coredns", "1.11.1"), ("flannel", "0.25.7")];

/// A file of a recipe: its path below the recipe's directory, and its text.
type RecipeFile = (&'static str, &'static str);

/// Build inputs of every version; the first is the script.
const SHARED_FILES: &[RecipeFile] = &[
    ("build.sh", include_str!("../bundle/modules/build.sh")),
    ("coredns/go.mod", include_str!("../bundle/modules/coredns/go.mod")),
    ("coredns/go.sum", include_str!("../bundle/modules/coredns/go.sum")),
    ("coredns/main.go", include_str!("../bundle/modules/coredns/main.go")),
    ("flannel/go.mod", include_str!("../bundle/modules/flannel/go.mod")),
    ("flannel/go.sum", include_str!("../bundle/modules/flannel/go.sum")),
    ("flannel/tools.go", include_str!("../bundle/modules/flannel/tools.go")),
    ("cni/go.mod", include_str!("../bundle/modules/cni/go.mod")),
    ("cni/go.sum", include_str!("../bundle/modules/cni/go.sum")),
    ("cni/tools.go", include_str!("../bundle/modules/cni/tools.go")),
    ("install-cni.sh", include_str!("../bundle/modules/install-cni.sh")),
    ("pause.c", PAUSE),
];

/// How a version of Kubernetes is built.
struct Recipe {
    /// As configurations have it.
    version: &'static str,
    /// When upstream released it, as the programs report it.
    date: &'static str,
    /// Its lock files.
    files: &'static [RecipeFile],
}

const V1_25: Recipe = Recipe {
    // The newest patch release of which every module is in Go's checksum database.
    version: "1.25.4",
    date: "2022-11-10T00:00:00Z",
    files: &[
        ("kubernetes/go.mod", include_str!("../bundle/modules/kubernetes-1.25/go.mod")),
        ("kubernetes/go.sum", include_str!("../bundle/modules/kubernetes-1.25/go.sum")),
        ("kubernetes/tools.go", include_str!("../bundle/modules/kubernetes-1.25/tools.go")),
    ],
};

const V1_30: Recipe = Recipe {
    version: "1.30.14",
    date: "2025-06-17T00:00:00Z",
    files: &[
        ("kubernetes/go.mod", include_str!("../bundle/modules/kubernetes-1.30/go.mod")),
        ("kubernetes/go.sum", include_str!("../bundle/modules/kubernetes-1.30/go.sum")),
        ("kubernetes/tools.go", include_str!("../bundle/modules/kubernetes-1.30/tools.go")),
    ],
};

impl Kubernetes {
    fn recipe(self) -> &'static Recipe {
        match self {
            Self::V1_25 => &V1_25,
            Self::V1_30 => &V1_30,
        }
    }

    /// The version, as configurations have it.
    pub(crate) fn version(self) -> &'static str {
        self.recipe().version
    }
}

/// The parts of an offline cluster.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// The image layout.
    pub(crate) directory: PathBuf,
    /// The Kubernetes programs that the bundle was made of.
    pub(crate) programs: PathBuf,
    /// kubectl of the same version.
    pub(crate) kubectl: PathBuf,
    /// The version of Kubernetes, as configurations have it.
    pub(crate) version: &'static str,
}

/// Builds the bundle with the `imager` in `programs`, unless it exists.
pub(crate) fn build(
    steps: &mut Steps,
    paths: &Paths,
    programs: &Path,
    kubernetes: Kubernetes,
) -> anyhow::Result<Bundle> {
    let recipe = kubernetes.recipe();
    let version = recipe.version;
    let directory = paths.cache.join(format!("kubernetes-{:016x}", recipe.fingerprint()));
    let binaries = directory.join("bin");
    if !directory.join("complete").exists() {
        steps.run("packages for building Kubernetes", |step| host::install(step, PACKAGES))?;
        steps.run(&format!("tools for building Kubernetes {version}"), |step| {
            // The remains of an interrupted run are useless.
            remove(&directory)?;
            std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
            ingredients(step, paths, &directory, programs, recipe)
        })?;
        steps.run(&format!("Kubernetes {version}"), |step| compile(step, &directory, &binaries, recipe))?;
    }
    let kubectl = paths.cache.join("bin").join(format!("kubectl-{version}"));
    let directory = steps.run(&format!("offline bundle of Kubernetes {version}"), |step| {
        let mut imager = command(programs.join("imager"));
        imager
            .arg("bundle")
            .arg("--programs")
            .arg(&binaries)
            .arg("--packages")
            .arg(paths.packages())
            .arg("--cache")
            .arg(&paths.cache);
        for (name, version) in [("kubernetes", version)].iter().chain(ADDONS) {
            imager.args(["--component", &format!("{name}={version}")]);
        }
        let output = step.call(&mut imager)?;
        let directory = output.lines().last().context("imager printed no directory")?;
        step.note(directory);
        link(&binaries.join("kubectl"), &kubectl)?;
        Ok(PathBuf::from(directory))
    })?;
    Ok(Bundle { directory, programs: binaries, kubectl, version })
}

/// Unpacks Debian's Go into `directory`, where it is at [`GO_ROOT`].
pub(crate) fn unpack_go(step: &mut Step, paths: &Paths, programs: &Path, directory: &Path) -> anyhow::Result<()> {
    let mut imager = command(programs.join("imager"));
    imager.arg("unpack").args(GO_PACKAGES).arg("--packages").arg(paths.packages());
    step.call(imager.arg("--out").arg(directory))?;
    Ok(())
}

/// Brings the compiler, and the recipe.
fn ingredients(
    step: &mut Step,
    paths: &Paths,
    directory: &Path,
    programs: &Path,
    recipe: &Recipe,
) -> anyhow::Result<()> {
    unpack_go(step, paths, programs, &directory.join("go"))?;
    for (path, text) in recipe.all_files() {
        let path = directory.join("recipe").join(path);
        let parent = path.parent().context("a file needs a directory")?;
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn compile(step: &mut Step, directory: &Path, binaries: &Path, recipe: &Recipe) -> anyhow::Result<()> {
    let (go, work, texts) = (directory.join("go"), directory.join("work"), directory.join("recipe"));
    let mut build = command("bash");
    build.arg(texts.join("build.sh")).arg(&texts).arg(go.join(GO_ROOT)).arg(&work).arg(binaries);
    for (name, value) in recipe.versions() {
        build.env(name, value);
    }
    step.call(&mut build)?;
    let out = binaries.join("pause");
    let pause = texts.join("pause.c");
    step.call(command("musl-gcc").args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"]).arg(&out).arg(&pause))?;
    // These are gigabytes; the programs are all that is needed from here on.
    for directory in [&work, &go] {
        remove(directory)?;
    }
    std::fs::write(directory.join("complete"), "").context("marking the build complete")
}

/// Makes `link` a link to `target`, replacing anything there.
fn link(target: &Path, link: &Path) -> anyhow::Result<()> {
    if std::fs::read_link(link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let parent = link.parent().context("a link needs a directory")?;
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let partial = link.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    std::os::unix::fs::symlink(target, &partial)
        .and_then(|()| std::fs::rename(&partial, link))
        .with_context(|| format!("linking {}", link.display()))
}

pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

impl Recipe {
    fn all_files(&self) -> impl Iterator<Item = &'static RecipeFile> {
        SHARED_FILES.iter().chain(self.files)
    }

    /// Environment variables of the script.
    fn versions(&self) -> Vec<(String, String)> {
        let addons = ADDONS.iter().map(|(name, version)| (format!("{}_VERSION", name.to_uppercase()), *version));
        [("KUBERNETES_VERSION".to_owned(), self.version), ("KUBERNETES_DATE".to_owned(), self.date)]
            .into_iter()
            .chain(addons)
            .map(|(name, value)| (name, value.to_owned()))
            .collect()
    }

    /// A fingerprint of the build's inputs, which names its cache directory.
    fn fingerprint(&self) -> u64 {
        let versions: String = self.versions().into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fingerprint(std::iter::once(versions.as_str()).chain(self.all_files().map(|(_, text)| *text)))
    }
}

/// FNV-1a of all texts: distinguishes cache directories; not a security measure.
pub(crate) fn fingerprint<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    texts
        .flat_map(str::bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn text(recipe: &Recipe, wanted: &str) -> &'static str {
        recipe.all_files().find(|(path, _)| *path == wanted).unwrap().1
    }

    #[test]
    fn the_lock_files_are_those_of_the_versions_that_are_asked_for() {
        for kubernetes in Kubernetes::value_variants() {
            let recipe = kubernetes.recipe();
            let (minor, patch) = recipe.version.strip_prefix("1.").unwrap().split_once('.').unwrap();
            assert_eq!(kubernetes.to_possible_value().unwrap().get_name(), format!("1.{minor}"));
            let modules = text(recipe, "kubernetes/go.mod");
            assert!(modules.contains(&format!("require k8s.io/kubernetes v1.{minor}.{patch}\n")));
            // The parts of Kubernetes' own tree are modules of the same release; others of k8s.io have versions of their own.
            let replaced = modules.lines().filter_map(|line| line.split_once(" => k8s.io/")?.1.split_once(" v0."));
            let parts: Vec<&str> = replaced.map(|(_, version)| version).filter(|v| !v.starts_with("0.0-")).collect();
            assert!(parts.len() > 20);
            assert!(parts.iter().all(|version| *version == format!("{minor}.{patch}")), "{parts:?}");
        }
        let shared = &V1_30;
        for (name, module) in [("coredns", "github.com/coredns/coredns"), ("flannel", "github.com/flannel-io/flannel")]
        {
            let version = ADDONS.iter().find(|(component, _)| *component == name).unwrap().1;
            let file = text(shared, &format!("{name}/go.mod"));
            assert!(file.contains(&format!("require {module} v{version}\n")), "{file}");
        }
    }

    #[test]
    fn the_script_reads_every_version_that_it_is_told() {
        let script = text(&V1_25, "build.sh");
        for (name, _) in V1_25.versions().iter().filter(|(name, _)| name != "COREDNS_VERSION") {
            assert!(script.contains(&format!("${name}")), "{name}");
        }
    }

    #[test]
    fn another_recipe_gets_another_cache_directory() {
        let of = |texts: &[&'static str]| fingerprint(texts.iter().copied());
        assert_eq!(of(&["a"]), 0xaf63_dc4c_8601_ec8c);
        assert_ne!(of(&["ab"]), of(&["ba"]));
        assert_ne!(V1_25.fingerprint(), V1_30.fingerprint());
        let patched = Recipe { version: "1.30.15", ..V1_30 };
        assert_ne!(patched.fingerprint(), V1_30.fingerprint());
    }
}
