//! The check for circular dependencies between files: files of a crate that use each other in a circle cannot be read,
//! tested or moved one at a time. A module and its descendants count as one unit (see `graph`).

mod graph;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::graph::{Crate, circles};
use crate::paths::Paths;
use crate::step::command;

/// Existing circles: the crate's folder, and the files that reach each other. The list only shrinks: an unknown circle
/// is refused, and so is an entry whose circle has been removed or has become smaller.
const KNOWN: &[(&str, &[&str])] = &[];

/// The source folders of the workspace by crate folder.
fn sources() -> BTreeMap<String, PathBuf> {
    let root = Paths::find().unwrap().root;
    let listed = command("git").current_dir(&root).args(["ls-files", "*/Cargo.toml"]).output().unwrap();
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|manifest| manifest.trim_end_matches("/Cargo.toml"))
        .map(|folder| (folder.to_owned(), root.join(folder).join("src")))
        .collect()
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut known: BTreeSet<(String, BTreeSet<PathBuf>)> =
        KNOWN.iter().map(|(folder, files)| ((*folder).to_owned(), files.iter().map(PathBuf::from).collect())).collect();
    let (mut files, mut new) = (0, Vec::new());
    for (folder, source) in sources() {
        for root in ["lib.rs", "main.rs"] {
            let read = |file: &Path| std::fs::read_to_string(source.join(file)).ok();
            let krate = Crate::load(Path::new(root), &read);
            files += krate.files();
            for circle in circles(&krate.uses()) {
                if !known.remove(&(folder.clone(), circle.members.clone())) {
                    new.push(format!("{folder}: {:?}, for instance {:?}", circle.members, circle.example));
                }
            }
        }
    }
    assert!(files > 400, "the workspace was not read: {files} files");
    assert_eq!(new, Vec::<String>::new(), "circles that are not in KNOWN");
    assert_eq!(known, BTreeSet::new(), "these circles no longer exist: remove them from KNOWN");
}

/// Circles of a crate with these files.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let read = |file: &Path| files.iter().find(|(name, _)| Path::new(name) == file).map(|(_, text)| (*text).to_owned());
    let names = |members: &BTreeSet<PathBuf>| {
        members.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    circles(&Crate::load(Path::new("lib.rs"), &read).uses()).iter().map(|circle| names(&circle.members)).collect()
}

#[test]
fn files_that_import_each_other_are_found() {
    let circle = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        ("b.rs", "use super::c; pub struct B; fn f() { c::f() }"),
        ("c.rs", "pub fn f() { crate::a::A::new(); }"),
    ];
    assert_eq!(found(&circle), ["a.rs b.rs c.rs"]);
    let straight = [circle[0], circle[1], circle[2], ("c.rs", "pub fn f() { A::new(); }")];
    assert_eq!(found(&straight), Vec::<String>::new());
}

#[test]
fn a_re_export_leads_to_the_file_that_defines() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use self::a::{A, C as D};"),
        ("a.rs", "pub struct A; pub struct C; fn f() { crate::b::f(); }"),
        ("b.rs", "use crate::D; pub fn f() {}"),
    ];
    assert_eq!(found(&files), ["a.rs b.rs"]);
    let glob = [("lib.rs", "mod a; mod b; pub use a::*;"), files[1], ("b.rs", "use crate::*; pub fn f(a: A) {}")];
    assert_eq!(found(&glob), ["a.rs b.rs"]);
    let unused = [glob[0], files[1], ("b.rs", "use crate::*; pub fn f() {}")];
    assert_eq!(found(&unused), Vec::<String>::new());
}

#[test]
fn a_module_and_its_children_may_use_each_other() {
    let files = [
        ("lib.rs", "mod a; pub struct L; fn f(x: a::A) {}"),
        ("a.rs", "mod b; use crate::L; pub struct A(b::B);"),
        ("a/b.rs", "use super::A; pub struct B(Box<A>);"),
    ];
    assert_eq!(found(&files), Vec::<String>::new());
    let siblings = [
        files[0],
        ("a.rs", "mod b; mod c; pub struct A(b::B);"),
        ("a/b.rs", "use super::{A, c::C}; pub struct B(Box<A>, C);"),
        ("a/c.rs", "use super::A; pub struct C(Box<super::b::B>);"),
    ];
    assert_eq!(found(&siblings), ["a/b.rs a/c.rs"]);
}

#[test]
fn a_circle_that_leads_through_a_module_and_its_child_is_found() {
    let files = [
        ("lib.rs", "mod cli; mod commands;"),
        ("cli.rs", "use crate::commands::Command; pub fn definition() { Command::new() }"),
        ("commands.rs", "mod completion; pub struct Command; fn run() { completion::run() }"),
        ("commands/completion.rs", "pub fn run() { crate::cli::definition() }"),
    ];
    assert_eq!(found(&files), ["cli.rs commands/completion.rs commands.rs"]);
}

#[test]
fn tests_may_use_what_they_like() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
        ("b.rs", "pub struct B(crate::a::A); #[cfg(test)] mod tests;"),
        ("b/tests.rs", "use crate::a; use super::*;"),
    ];
    assert_eq!(found(&files), Vec::<String>::new());
}
