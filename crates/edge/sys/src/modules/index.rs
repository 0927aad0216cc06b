//! What depmod wrote of the modules of an image: files, dependencies, soft dependencies, aliases. Pure: texts in, names and
//! files out.

use std::collections::{BTreeMap, BTreeSet};

/// Modules that one module may need, as a bound for damaged indexes.
const MAX_DEPENDENCIES: usize = 256;

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step<'a> {
    pub(super) name: &'a str,
    /// Below the directory of the index.
    pub(super) file: &'a str,
    /// Only wished for by another one, which works without it.
    pub(super) is_soft: bool,
}

#[derive(Debug, Clone, Default)]
struct Module {
    file: String,
    /// Files that it needs, nearest first, with all that those need.
    needed: Vec<String>,
}

/// Modules that one wishes to have loaded before it and after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

/// The index of the modules of a kernel.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    soft: BTreeMap<String, Soft>,
    /// The text of `modules.alias`: as tens of thousands of strings it would take several times the memory.
    aliases: String,
}

impl Index {
    /// Reads the texts of `modules.dep`, `modules.builtin`, `modules.softdep` and `modules.alias`.
    pub(super) fn parse(dependencies: &str, builtin: &str, soft: &str, aliases: String) -> Self {
        Self {
            modules: dependencies.lines().filter_map(module).collect(),
            builtin: builtin.lines().map(name_of).collect(),
            soft: soft.lines().filter_map(softdep).collect(),
            aliases,
        }
    }

    /// The modules to load for `name`, a module or an alias, in their order; none for what is built in. `None` where nothing
    /// has that name.
    pub(super) fn plan(&self, name: &str) -> Option<Vec<Step<'_>>> {
        let mut plan = Plan { index: self, seen: BTreeSet::new(), steps: Vec::new() };
        plan.visit(name, false).then_some(plan.steps)
    }

    /// The modules for devices with these aliases, each once.
    pub(super) fn for_aliases(&self, aliases: &[String]) -> BTreeSet<&str> {
        let lines = self.aliases.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '));
        let matching =
            lines.filter(|(pattern, _)| aliases.iter().any(|alias| matches(pattern.as_bytes(), alias.as_bytes())));
        matching.map(|(_, name)| name).filter(|name| self.modules.contains_key(*name)).collect()
    }

    /// The file of a module, below the directory of the index.
    pub(super) fn file(&self, name: &str) -> Option<&str> {
        self.modules.get(name).map(|module| module.file.as_str())
    }
}

struct Plan<'a> {
    index: &'a Index,
    seen: BTreeSet<&'a str>,
    steps: Vec<Step<'a>>,
}

impl<'a> Plan<'a> {
    /// Adds a module after all that it needs; says whether there is one of that name.
    fn visit(&mut self, name: &str, is_soft: bool) -> bool {
        let index = self.index;
        let name = name.replace('-', "_");
        let Some((name, module)) = index.modules.get_key_value(&name) else {
            if index.builtin.contains(&name) {
                return true;
            }
            // An algorithm or a protocol; each module for it is another implementation.
            let found = index.for_aliases(std::slice::from_ref(&name));
            for module in &found {
                self.visit(module, is_soft);
            }
            return !found.is_empty();
        };
        if !self.seen.insert(name) {
            return true;
        }
        let soft = index.soft.get(name);
        let wishes = |list: fn(&Soft) -> &Vec<String>| soft.into_iter().flat_map(list);
        for wish in wishes(|soft| &soft.before) {
            self.visit(wish, true);
        }
        for file in module.needed.iter().rev() {
            self.visit(&name_of(file), is_soft);
        }
        self.steps.push(Step { name, file: &module.file, is_soft });
        for wish in wishes(|soft| &soft.after) {
            self.visit(wish, true);
        }
        true
    }
}

/// `kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko`
fn module(line: &str) -> Option<(String, Module)> {
    let (file, needed) = line.split_once(':')?;
    let needed = needed.split_whitespace().take(MAX_DEPENDENCIES).map(str::to_owned).collect();
    Some((name_of(file), Module { file: file.to_owned(), needed }))
}

/// `softdep libcrc32c pre: crc32c post: other`
fn softdep(line: &str) -> Option<(String, Soft)> {
    let mut words = line.strip_prefix("softdep ")?.split_whitespace().take(MAX_DEPENDENCIES);
    let name = words.next()?.replace('-', "_");
    let mut soft = Soft::default();
    let mut list = None;
    for word in words {
        match (word, &list) {
            ("pre:", _) => list = Some(&mut soft.before),
            ("post:", _) => list = Some(&mut soft.after),
            _ => {}
        }
        if let Some(list) = list.as_mut().filter(|_| !word.ends_with(':')) {
            list.push(word.to_owned());
        }
    }
    Some((name, soft))
}

/// The name of the module in a file: without directories and extensions, with underscores.
pub(super) fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// Whether a pattern with `*`, `?` and `[a-z]` covers all of `text`; `-` and `_` are the same outside of brackets.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where the last star was, and the text that it has not taken yet.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, read));
            at += 1;
            continue;
        }
        let Some(&byte) = text.get(read) else { break };
        if let Some(next) = one(pattern, at, byte) {
            at = next;
            read += 1;
        } else if let Some((star_at, taken)) = star {
            star = Some((star_at, taken + 1));
            (at, read) = (star_at + 1, taken + 1);
        } else {
            return false;
        }
    }
    at == pattern.len()
}

/// Where the pattern goes on after the part at `at`, if that part covers `byte`.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => {
            let end = at + 1 + pattern[at + 1..].iter().position(|&byte| byte == b']')?;
            let set = &pattern[at + 1..end];
            let in_range = set.windows(3).any(|range| range[1] == b'-' && (range[0]..=range[2]).contains(&byte));
            (in_range || set.contains(&byte)).then_some(end + 1)
        }
        &own => (own == byte || [own, byte].iter().all(|byte| b"-_".contains(byte))).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let dependencies = "kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko\n\
                            kernel/lib/libcrc32c.ko:\nno colon\nkernel/crypto/crc32c_generic.ko.xz:\n\
                            kernel/arch/x86/crypto/crc32c-intel.ko.xz:\n\
                            kernel/net/a.ko: kernel/net/b.ko kernel/net/c.ko\nkernel/net/b.ko: kernel/net/c.ko\n\
                            kernel/net/c.ko:\nkernel/net/d.ko:\nkernel/drivers/e1000.ko:\n";
        let soft = "# comment\nsoftdep libcrc32c pre: crc32c\nsoftdep c post: d nosuch\nsoftdep d pre: c\n";
        let aliases = "# Aliases\nalias crc32c crc32c_intel\nalias crc32c crc32c_generic\nalias scsi:t-0x05* c\n\
                       alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\nalias fs-xfs xfs\nalias pci:v*gone gone\n";
        Index::parse(dependencies, "kernel/drivers/virtio/virtio-pci.ko\n", soft, aliases.to_owned())
    }

    fn plan<'a>(index: &'a Index, name: &str) -> Vec<&'a str> {
        index.plan(name).unwrap().iter().map(|step| step.name).collect()
    }

    #[test]
    fn what_a_module_needs_comes_before_it_with_what_that_wishes_for() {
        let index = index();
        assert_eq!(plan(&index, "xfs"), ["crc32c_generic", "crc32c_intel", "libcrc32c", "xfs"]);
        let soft: Vec<bool> = index.plan("xfs").unwrap().iter().map(|step| step.is_soft).collect();
        assert_eq!(soft, [true, true, false, false]);
        assert_eq!(plan(&index, "a"), ["c", "d", "b", "a"], "wishes in a circle end, and come after where they are to");
        let files: Vec<&str> = index.plan("crc32c-intel").unwrap().iter().map(|step| step.file).collect();
        assert_eq!(files, ["kernel/arch/x86/crypto/crc32c-intel.ko.xz"]);
    }

    #[test]
    fn aliases_stand_for_modules_and_unknown_names_for_none() {
        let index = index();
        assert_eq!(plan(&index, "fs-xfs").last(), Some(&"xfs"));
        assert_eq!(plan(&index, "virtio_pci"), [""; 0]);
        assert_eq!(index.plan("nosuch"), None);
        let card = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00".to_owned();
        let found = index.for_aliases(&[card, "pci:v1gone".into(), "acpi:PNP0C0C:".into(), "scsi:t-0x05".into()]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["c", "e1000"]);
    }

    #[test]
    fn patterns_cover_whole_texts() {
        for (pattern, text, wanted) in [
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("a*b*c", "a_b_b_c", true),
            ("*", "", true),
            ("", "a", false),
            ("a?", "a", false),
            ("a?", "ab", true),
            ("usb:v04E8d[1-9]*", "usb:v04E8d4001", true),
            ("usb:v04E8d[1-9]*", "usb:v04E8d0001", false),
            ("a-b_c", "a_b-c", true),
            ("a-b", "a.b", false),
            ("x[ab]", "xb", true),
            ("x[ab", "xa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), wanted, "{pattern} {text}");
        }
    }
}
