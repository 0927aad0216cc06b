//! Assembles a tree from a list, packages and programs: places every item, then adds the shared libraries and loaders
//! that the programs need until none is missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::ImageError;
use crate::deb::Package;
use crate::elf;
use crate::list::{Item, List, Target, matches};
use crate::tree::{Kind, Node, Tree};

/// Where shared libraries live.
pub const LIBRARY_DIRECTORY: &str = "/usr/lib/x86_64-linux-gnu";

/// The inputs of a list.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub packages: Vec<Package>,
    /// Our own programs by name.
    pub programs: BTreeMap<String, Vec<u8>>,
    /// Text files beside the list, by name.
    pub locals: BTreeMap<String, String>,
}

/// A finished tree and the sources of its files.
#[derive(Debug, Clone, Default)]
pub struct Assembled {
    pub tree: Tree,
    /// Packages with at least one file in the tree.
    pub packages: BTreeSet<String>,
    /// Our own programs in the tree, with their paths.
    pub programs: BTreeMap<String, String>,
}

/// Assembles `list` from `inputs`.
///
/// # Errors
/// A missing file, program or library, or a path claimed twice.
pub fn assemble(list: &List, inputs: &Inputs) -> Result<Assembled, ImageError> {
    let mut done = Assembled::default();
    // Links first: files listed below a link must land at its target.
    let (links, others): (Vec<_>, Vec<_>) =
        list.entries.iter().map(|entry| &entry.item).partition(|item| matches!(item, Item::Link { .. }));
    for item in &links {
        if let Item::Link { path, to } = item
            && !to.starts_with('/')
            && path.matches('/').count() == 1
        {
            done.tree.place(&format!("/{to}"), Node::dir())?;
        }
    }
    for item in links.into_iter().chain(others) {
        place(item, inputs, &mut done)?;
    }
    while add_libraries(list, inputs, &mut done)? {}
    Ok(done)
}

fn place(item: &Item, inputs: &Inputs, done: &mut Assembled) -> Result<(), ImageError> {
    match item {
        Item::Dir { path } => done.tree.place(path, Node::dir())?,
        Item::Empty { path } => done.tree.place(path, Node::file([], false))?,
        Item::Link { path, to } => done.tree.place(path, Node::link(to))?,
        Item::Local { name, target } => {
            let text = inputs.locals.get(name).ok_or_else(|| ImageError::NoSuchProgram { name: name.clone() })?;
            done.tree.place(target, Node::file(text.as_bytes(), false))?
        }
        Item::Program { name, target } => {
            let content = inputs.programs.get(name).ok_or_else(|| ImageError::NoSuchProgram { name: name.clone() })?;
            let path = done.tree.place(target, Node::file(content.as_slice(), true))?;
            done.programs.insert(name.clone(), path.clone());
            path
        }
        Item::Concat { package, source, target } => {
            let package = find(inputs, package)?;
            let mut content = Vec::new();
            for (_, node) in matching(package, source)? {
                if let Kind::File(bytes) = &node.kind {
                    content.extend_from_slice(bytes);
                }
            }
            done.packages.insert(package.name.clone());
            done.tree.place(target, Node::file(content, false))?
        }
        Item::File { package, source, target } => {
            let package = find(inputs, package)?;
            for (path, node) in matching(package, source)? {
                let name = path.rsplit('/').next().unwrap_or_default();
                let target = match target {
                    Target::Same => path.to_owned(),
                    Target::Path(path) => path.clone(),
                    Target::Into(directory) => format!("{directory}{name}"),
                };
                done.tree.place(&target, normal(node))?;
            }
            done.packages.insert(package.name.clone());
            return Ok(());
        }
    };
    Ok(())
}

/// The same node with a normalised mode: no set-id bits, writable by root only.
fn normal(node: &Node) -> Node {
    match &node.kind {
        Kind::Dir => Node::dir(),
        Kind::Link(to) => Node::link(to),
        Kind::File(content) => Node::file(content.clone(), node.mode & 0o111 != 0),
    }
}

fn find<'a>(inputs: &'a Inputs, name: &str) -> Result<&'a Package, ImageError> {
    inputs
        .packages
        .iter()
        .find(|package| package.name == name)
        .ok_or_else(|| ImageError::Package { package: name.to_owned(), problem: "is missing".to_owned() })
}

fn matching<'a>(package: &'a Package, pattern: &str) -> Result<Vec<(&'a str, &'a Node)>, ImageError> {
    let found: Vec<_> =
        package.files.iter().filter(|(path, node)| node.kind != Kind::Dir && matches(pattern, path)).collect();
    if found.is_empty() {
        return Err(ImageError::NoSuchFile { package: package.name.clone(), path: pattern.to_owned() });
    }
    Ok(found)
}

/// Adds the missing libraries that files of the tree need; returns whether it added any.
fn add_libraries(list: &List, inputs: &Inputs, done: &mut Assembled) -> Result<bool, ImageError> {
    let mut missing: BTreeMap<String, String> = BTreeMap::new();
    for (path, node) in done.tree.iter() {
        let Kind::File(content) = &node.kind else { continue };
        let Some(needs) = elf::needs(content) else { continue };
        let wanted = needs.libraries.iter().map(|name| format!("{LIBRARY_DIRECTORY}/{name}"));
        for library in wanted.chain(needs.interpreter) {
            if done.tree.resolve(&library).is_none() {
                missing.insert(library, path.to_owned());
            }
        }
    }
    for (library, file) in &missing {
        add_library(list, inputs, done, library, file)?;
    }
    Ok(!missing.is_empty())
}

fn add_library(
    list: &List,
    inputs: &Inputs,
    done: &mut Assembled,
    library: &str,
    file: &str,
) -> Result<(), ImageError> {
    // The loader's path `/lib64/..` goes through a link; packages have it below `/usr`.
    let merged = format!("/usr{library}");
    for name in &list.libraries {
        let package = find(inputs, name)?;
        let at = [library, merged.as_str()].into_iter().find(|path| package.files.get(path).is_some());
        let Some(at) = at else { continue };
        // A library is often a link to the versioned file; both are added.
        let real = package.files.resolve(at);
        for path in [Some(at.to_owned()), real].into_iter().flatten() {
            if let Some(node) = package.files.get(&path) {
                done.tree.place(&path, normal(node))?;
            }
        }
        done.packages.insert(name.clone());
        if done.tree.resolve(library).is_some() {
            return Ok(());
        }
    }
    Err(ImageError::NoLibrary { file: file.to_owned(), library: library.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::testing;

    fn package(name: &str, files: &[(&str, Node)]) -> Package {
        Package::parse(name, &testing::package(name, "1-1", files)).unwrap()
    }

    fn inputs() -> Inputs {
        let tool = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        Inputs {
            packages: vec![package(
                "tool",
                &[
                    ("usr/bin/tool", Node { mode: 0o4777, kind: Kind::File(b"tool".as_slice().into()) }),
                    ("usr/lib/tool/a.so", Node::file(*b"a", false)),
                    ("usr/lib/tool/b.so", Node::file(*b"b", false)),
                ],
            )],
            programs: BTreeMap::from([("dynamic".to_owned(), tool), ("static".to_owned(), b"static".to_vec())]),
            locals: BTreeMap::from([("text".to_owned(), "hello".to_owned())]),
        }
    }

    fn assembled(text: &str) -> Result<Assembled, ImageError> {
        assemble(&List::parse("test", text).unwrap(), &inputs())
    }

    #[test]
    fn items_are_placed_and_modes_are_made_normal() {
        let done = assembled(
            "package tool # r\nfile /usr/bin/tool # r\nfile /usr/lib/tool/*.so -> /opt/ # r\nconcat /usr/lib/tool/*.so -> /all # r\n\
             program static -> /sbin/init # r\nlocal text -> /etc/text # r\ndir /run # r\nempty /etc/hosts # r\nlink /sbin -> usr/sbin # r\n",
        )
        .unwrap();
        assert_eq!(done.tree.get("/usr/bin/tool"), Some(&Node::file(*b"tool", true)));
        assert_eq!(done.tree.get("/opt/b.so"), Some(&Node::file(*b"b", false)));
        assert_eq!(done.tree.get("/all"), Some(&Node::file(*b"ab", false)));
        assert_eq!(done.programs.get("static").map(String::as_str), Some("/usr/sbin/init"));
        assert_eq!(done.tree.get("/etc/text"), Some(&Node::file(*b"hello", false)));
        assert_eq!(done.tree.get("/run"), Some(&Node::dir()));
        assert_eq!(done.packages, BTreeSet::from(["tool".to_owned()]));
    }

    #[test]
    fn a_program_whose_library_nobody_has_is_refused() {
        let error = assembled("program dynamic -> /usr/bin/dynamic # r\n").unwrap_err();
        assert!(matches!(&error, ImageError::NoLibrary { file, .. } if file == "/usr/bin/dynamic"), "{error}");
    }

    #[test]
    fn libraries_are_added_with_what_they_need_in_turn() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = elf::needs(&this).unwrap().libraries;
        let mut files: Vec<(String, Node)> = Vec::new();
        for name in &names {
            files.push((format!("usr/lib/x86_64-linux-gnu/{name}"), Node::link(&format!("real-{name}"))));
            files.push((format!("usr/lib/x86_64-linux-gnu/real-{name}"), Node::file(*b"lib", false)));
        }
        files.push(("usr/lib64/ld-linux-x86-64.so.2".into(), Node::file(*b"loader", true)));
        files.push(("usr/lib/x86_64-linux-gnu/libunused.so".into(), Node::file(*b"no", false)));
        let files: Vec<(&str, Node)> = files.iter().map(|(path, node)| (path.as_str(), node.clone())).collect();
        let mut inputs = inputs();
        inputs.packages.push(package("libc6", &files));
        let text = "libraries libc6 # r\nlink /lib64 -> usr/lib64 # r\nprogram dynamic -> /usr/bin/dynamic # r\n";
        let done = assemble(&List::parse("test", text).unwrap(), &inputs).unwrap();
        for name in &names {
            assert!(done.tree.resolve(&format!("{LIBRARY_DIRECTORY}/{name}")).is_some(), "{name}");
        }
        assert!(done.tree.get("/usr/lib64/ld-linux-x86-64.so.2").is_some());
        assert_eq!(done.tree.get("/usr/lib/x86_64-linux-gnu/libunused.so"), None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = assembled("package tool # r\nfile /usr/bin/other # r\n").unwrap_err();
        assert_eq!(error.to_string(), "package tool has no file /usr/bin/other");
        let error = assembled("program other -> /x # r\n").unwrap_err();
        assert_eq!(error.to_string(), "program other is missing");
    }
}
