//! The choice of kernel modules: a list of patterns with reasons, and the modules that the chosen ones depend on, as their
//! own `.modinfo` sections say.
//!
//! It writes no index files; `depmod` does that ([`crate::kernel`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use crate::list::matches;
use crate::{ImageError, elf};

/// Largest module after decompression.
const MODULE_LIMIT: u64 = 64 << 20;

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    pattern: String,
    initramfs: bool,
    line: usize,
}

/// A parsed list of modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleList {
    name: String,
    lines: Vec<Line>,
}

/// The chosen modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Modules by their path below `kernel`, as `fs/xfs/xfs.ko`. They are not compressed: the root image is, better than each
    /// module could be, and a machine decompresses that faster. Signatures are part of the modules, which stay as they are.
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Paths of the modules of the initramfs in the order of loading: each after those that it needs.
    pub initramfs: Vec<String>,
}

impl ModuleList {
    /// Parses `text`; `name` is used in messages.
    ///
    /// # Errors
    /// [`ImageError::List`] with the line number.
    pub fn parse(name: &str, text: &str) -> Result<Self, ImageError> {
        let mut lines = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let refuse = |problem: &str| ImageError::List { list: name.to_owned(), line, problem: problem.to_owned() };
            let trimmed = raw.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let (body, reason) = trimmed.split_once(" # ").unwrap_or((trimmed, ""));
            if reason.trim().is_empty() {
                return Err(refuse("missing reason (` # why`)"));
            }
            let (initramfs, pattern) = match body.trim().split_once(' ') {
                Some(("initramfs", pattern)) => (true, pattern.trim()),
                Some(_) => return Err(refuse("a pattern is one word, `initramfs` may precede it")),
                None => (false, body.trim()),
            };
            lines.push(Line { pattern: pattern.to_owned(), initramfs, line });
        }
        Ok(Self { name: name.to_owned(), lines })
    }

    /// Chooses from `all` modules of a kernel, by path below `kernel`.
    ///
    /// # Errors
    /// A line that chooses nothing, a damaged module, or a dependency that does not exist.
    pub fn choose(&self, all: &BTreeMap<String, Arc<[u8]>>) -> Result<Chosen, ImageError> {
        let names: BTreeMap<String, &str> = all.keys().map(|path| (module_name(path), path.as_str())).collect();
        let mut todo = Vec::new();
        let mut first = Vec::new();
        for line in &self.lines {
            let found: Vec<&str> = all.keys().map(String::as_str).filter(|path| line.covers(path)).collect();
            if found.is_empty() {
                let problem = format!("the kernel has no module {}", line.pattern);
                return Err(ImageError::List { list: self.name.clone(), line: line.line, problem });
            }
            if line.initramfs {
                first.extend(found.iter().copied());
            }
            todo.extend(found);
        }
        let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut files = BTreeMap::new();
        while let Some(path) = todo.pop() {
            if needs.contains_key(path) {
                continue;
            }
            let plain = decompress(path, &all[path]).map_err(|error| damaged(path, error.to_string()))?;
            let below = dependencies(path, &plain, &names)?;
            todo.extend(below.iter().copied());
            needs.insert(path, below);
            files.insert(plain_path(path), plain.into());
        }
        let initramfs = in_order(&first, &needs).iter().map(|path| plain_path(path)).collect();
        Ok(Chosen { files, initramfs })
    }
}

impl Line {
    fn covers(&self, path: &str) -> bool {
        let plain = without_ending(path);
        if self.pattern.ends_with('/') { plain.starts_with(&self.pattern) } else { matches(&self.pattern, plain) }
    }
}

fn without_ending(path: &str) -> &str {
    path.rsplit_once(".ko").map_or(path, |(plain, _)| plain)
}

fn plain_path(path: &str) -> String {
    format!("{}.ko", without_ending(path))
}

fn damaged(path: &str, problem: String) -> ImageError {
    ImageError::Module { path: path.to_owned(), problem }
}

/// The kernel's name of the module at `path`: of file names, `-` and `_` are the same.
fn module_name(path: &str) -> String {
    without_ending(path).rsplit('/').next().unwrap_or_default().replace('-', "_")
}

/// Paths of the modules that the one at `path` needs. A soft dependency counts if the kernel has it as a module.
fn dependencies<'a>(path: &str, plain: &[u8], names: &BTreeMap<String, &'a str>) -> Result<Vec<&'a str>, ImageError> {
    let damaged = |problem: String| damaged(path, problem);
    let info = elf::section(plain, ".modinfo").ok_or_else(|| damaged("no section .modinfo".to_owned()))?;
    let mut found = Vec::new();
    for entry in info.split(|&byte| byte == 0) {
        let Some((key, value)) = std::str::from_utf8(entry).ok().and_then(|entry| entry.split_once('=')) else {
            continue;
        };
        match key {
            "depends" => {
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    let path = names.get(&name.replace('-', "_"));
                    found.push(*path.ok_or_else(|| damaged(format!("it needs {name}, which the kernel lacks")))?);
                }
            }
            "softdep" => {
                let wanted = value.split_whitespace().filter(|word| !word.ends_with(':'));
                found.extend(wanted.filter_map(|name| names.get(&name.replace('-', "_")).copied()));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn decompress(path: &str, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match path.rsplit('.').next() {
        Some("xz") => liblzma::read::XzDecoder::new(content).take(MODULE_LIMIT).read_to_end(&mut plain)?,
        Some("zst") => zstd::stream::read::Decoder::new(content)?.take(MODULE_LIMIT).read_to_end(&mut plain)?,
        _ => return Ok(content.to_vec()),
    };
    Ok(plain)
}

/// `first` with all that they need, each after its own needs.
fn in_order(first: &[&str], needs: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    fn visit<'a>(
        path: &'a str,
        needs: &BTreeMap<&'a str, Vec<&'a str>>,
        seen: &mut BTreeSet<&'a str>,
        order: &mut Vec<String>,
    ) {
        if seen.insert(path) {
            for &below in needs.get(path).into_iter().flatten() {
                visit(below, needs, seen, order);
            }
            order.push(path.to_owned());
        }
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for path in first {
        visit(path, needs, &mut seen, &mut order);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(modules: &[(&str, &str)]) -> BTreeMap<String, Arc<[u8]>> {
        modules
            .iter()
            .map(|(path, info)| {
                let elf = elf::testing::with_section(".modinfo", info.replace('|', "\0").as_bytes());
                ((*path).to_owned(), elf.into())
            })
            .collect()
    }

    fn chosen(list: &str, modules: &[(&str, &str)]) -> Result<Chosen, ImageError> {
        ModuleList::parse("list", list)?.choose(&kernel(modules))
    }

    #[test]
    fn modules_come_with_those_that_they_need() {
        let done = chosen(
            "# comment\nfs/ # r\ninitramfs drivers/block/* # r\n",
            &[
                ("fs/xfs/xfs.ko", "license=GPL|depends=libcrc32c,my-lib|"),
                ("lib/libcrc32c.ko", "depends=|softdep=pre: crc32c|"),
                ("lib/my_lib.ko", "depends="),
                ("crypto/crc32c.ko", ""),
                ("drivers/block/loop.ko", "depends=base|softdep=post: built-in"),
                ("drivers/block/deep/nbd.ko", ""),
                ("drivers/base.ko", "depends="),
                ("drivers/other.ko", ""),
            ],
        )
        .unwrap();
        let paths: Vec<&str> = done.files.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "crypto/crc32c.ko",
                "drivers/base.ko",
                "drivers/block/loop.ko",
                "fs/xfs/xfs.ko",
                "lib/libcrc32c.ko",
                "lib/my_lib.ko"
            ]
        );
        assert_eq!(done.initramfs, ["drivers/base.ko", "drivers/block/loop.ko"]);
    }

    #[test]
    fn a_line_that_chooses_nothing_or_has_no_reason_is_refused_with_its_number() {
        for (list, wanted) in [
            ("\nfs/xfs # r\n", "list, line 2: the kernel has no module fs/xfs"),
            ("fs/xfs\n", "list, line 1: missing reason (` # why`)"),
            ("load fs/xfs # r\n", "list, line 1: a pattern is one word, `initramfs` may precede it"),
        ] {
            assert_eq!(chosen(list, &[("fs/ext4.ko", "")]).unwrap_err().to_string(), wanted);
        }
    }

    #[test]
    fn damaged_modules_and_missing_dependencies_are_named() {
        let error = chosen("a # r", &[("a.ko", "depends=b")]).unwrap_err();
        assert_eq!(error.to_string(), "kernel module a.ko: it needs b, which the kernel lacks");
        let broken = BTreeMap::from([("a.ko.xz".to_owned(), Arc::from(*b"text"))]);
        let error = ModuleList::parse("list", "a # r").unwrap().choose(&broken).unwrap_err();
        assert!(matches!(&error, ImageError::Module { path, .. } if path == "a.ko.xz"), "{error}");
    }

    #[test]
    fn modules_that_need_each_other_in_a_circle_end() {
        let done = chosen("initramfs a # r", &[("a.ko", "depends=b"), ("b.ko", "depends=a")]).unwrap();
        assert_eq!(done.initramfs, ["b.ko", "a.ko"]);
    }

    #[test]
    fn compressed_modules_are_decompressed_with_their_signature() {
        let mut plain = elf::testing::with_section(".modinfo", b"license=GPL\0");
        plain.extend_from_slice(b"signature~Module signature appended~\n");
        let mut compressed = Vec::new();
        liblzma::read::XzEncoder::new(&plain[..], 1).read_to_end(&mut compressed).unwrap();
        let all = BTreeMap::from([("fs/a.ko.xz".to_owned(), Arc::from(compressed))]);
        let done = ModuleList::parse("list", "initramfs fs/a # r").unwrap().choose(&all).unwrap();
        assert_eq!(done.initramfs, ["fs/a.ko"]);
        assert_eq!(done.files, BTreeMap::from([("fs/a.ko".to_owned(), Arc::from(plain))]));
    }
}
