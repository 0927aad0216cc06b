//! The check for unused dependencies: a crate in a manifest must occur in the sources of its package, and one in the
//! workspace's table must occur in a manifest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::paths::Paths;

/// Packages with generated sources, and the dependencies of these.
const GENERATED: &[(&str, &[&str])] = &[("wire", &["prost", "prost-types", "tonic", "tonic-prost"])];

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// All words of the sources below these folders.
fn words(folders: &[PathBuf]) -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in folders {
        if folder.is_dir() { source_files(folder, &mut files) } else { files.push(folder.clone()) }
    }
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.flat_map(|text| code_words(&text)).collect()
}

/// The words of a source outside of comments on lines of their own.
fn code_words(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let words = lines.flat_map(|line| line.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn packages(root: &Path) -> Vec<Value> {
    crate::metadata::read(root).unwrap()["packages"].as_array().unwrap().clone()
}

#[test]
fn every_dependency_of_a_package_has_a_user() {
    let root = Paths::find().unwrap().root;
    let (mut seen, mut unused) = (0, Vec::new());
    for package in packages(&root) {
        let name = package["name"].as_str().unwrap();
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned();
        let generated = GENERATED.iter().find(|(package, _)| *package == name).map_or(&[][..], |(_, list)| *list);
        let build = words(&[folder.join("build.rs")]);
        let program = words(&[folder.join("src")]);
        let all = words(&[folder.join("src"), folder.join("tests"), folder.join("benches"), folder.join("examples")]);
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["rename"].as_str().or(dependency["name"].as_str()).unwrap();
            let users = match dependency["kind"].as_str() {
                Some("build") => &build,
                Some("dev") => &all,
                _ => &program,
            };
            seen += 1;
            // A package depends on itself to enable a feature for its tests.
            if used != name && !generated.contains(&used) && !users.contains(&used.replace('-', "_")) {
                unused.push(format!("{name}: {used}"));
            }
        }
    }
    assert!(seen > 300, "the workspace was not read: {seen} dependencies");
    assert_eq!(unused, Vec::<String>::new(), "dependencies that their package does not use");
}

#[test]
fn every_dependency_of_the_workspace_has_a_user() {
    let root = Paths::find().unwrap().root;
    let packages = packages(&root);
    let named: BTreeSet<&str> = packages
        .iter()
        .flat_map(|package| package["dependencies"].as_array().unwrap())
        .filter_map(|dependency| dependency["name"].as_str())
        .collect();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, table) = manifest.split_once("[workspace.dependencies]").unwrap();
    let (table, _) = table.split_once("\n[").unwrap();
    let offered: Vec<&str> = table.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    assert!(offered.len() > 50, "the table was not read: {offered:?}");
    let unused: Vec<&&str> = offered.iter().filter(|name| !named.contains(**name)).collect();
    assert_eq!(unused, Vec::<&&str>::new());
}

#[test]
fn words_of_comments_use_nothing() {
    let text = "// tokio_util\n/// [`tokio_stream`]\nuse tokio::net; let x = stdx::y(\"serde_json\");";
    let expected = ["use", "tokio", "net", "let", "x", "stdx", "y", "serde_json"];
    assert_eq!(code_words(text), expected);
}
