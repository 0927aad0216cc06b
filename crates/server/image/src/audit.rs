//! Rules for a node's root file system, checked on the finished tree: no shell, no coreutils, no package manager, no
//! set-id bits, nothing writable by others, no dangling links, no program without its libraries.

use crate::assemble::LIBRARY_DIRECTORY;
use crate::elf;
use crate::tree::{Kind, Tree};

/// File names that are forbidden in program directories.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("a shell", &["sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox", "toybox", "perl", "python3", "lua"]),
    (
        "coreutils",
        &[
            "cat",
            "chmod",
            "chown",
            "coreutils",
            "cp",
            "cut",
            "dd",
            "df",
            "du",
            "echo",
            "env",
            "false",
            "head",
            "id",
            "install",
            "kill",
            "ln",
            "ls",
            "mkdir",
            "mkfifo",
            "mknod",
            "mv",
            "nice",
            "nohup",
            "printf",
            "pwd",
            "readlink",
            "rm",
            "rmdir",
            "seq",
            "sleep",
            "sort",
            "stat",
            "stty",
            "su",
            "sync",
            "tail",
            "tee",
            "test",
            "touch",
            "true",
            "uname",
            "wc",
            "yes",
        ],
    ),
    (
        "a package manager",
        &["apk", "apt", "apt-get", "dnf", "dpkg", "dpkg-deb", "opkg", "pacman", "rpm", "snap", "yum", "zypper"],
    ),
    ("remote access", &["sshd", "ssh", "dropbear", "telnetd"]),
];

/// Directories of package manager records.
const RECORDS: &[&str] = &["/var/lib/dpkg", "/var/lib/rpm", "/lib/apk", "/etc/apt"];

/// All violations, one sentence each; empty for a valid tree.
#[must_use]
pub fn audit(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, node) in tree.iter() {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let programs = directory.ends_with("bin") || (node.mode & 0o111 != 0 && matches!(node.kind, Kind::File(_)));
        if programs && let Some((what, _)) = FORBIDDEN.iter().find(|(_, names)| names.contains(&name)) {
            findings.push(format!("{path} is {what}"));
        }
        if RECORDS.contains(&path) {
            findings.push(format!("{path} belongs to a package manager"));
        }
        match &node.kind {
            Kind::Link(to) => {
                if tree.resolve(path).is_none() {
                    findings.push(format!("{path} is a dangling link to {to}"));
                }
            }
            Kind::Dir | Kind::File(_) => {
                if node.mode & 0o6000 != 0 {
                    findings.push(format!("{path} is set-user-id or set-group-id"));
                }
                if node.mode & 0o022 != 0 {
                    findings.push(format!("{path} is writable by others than root"));
                }
            }
        }
        if let Kind::File(content) = &node.kind {
            findings.extend(script(path, content));
            findings.extend(missing_libraries(tree, path, content));
        }
    }
    findings
}

fn script(path: &str, content: &[u8]) -> Option<String> {
    content.starts_with(b"#!").then(|| format!("{path} is a script"))
}

fn missing_libraries(tree: &Tree, path: &str, content: &[u8]) -> Vec<String> {
    let Some(needs) = elf::needs(content) else { return Vec::new() };
    needs
        .libraries
        .iter()
        .map(|name| format!("{LIBRARY_DIRECTORY}/{name}"))
        .chain(needs.interpreter)
        .filter(|library| tree.resolve(library).is_none())
        .map(|library| format!("{path} needs {library}, which is missing"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn findings(nodes: &[(&str, Node)]) -> Vec<String> {
        let mut tree = Tree::default();
        for (path, node) in nodes {
            tree.place(path, node.clone()).unwrap();
        }
        audit(&tree)
    }

    #[test]
    fn a_plain_tree_passes() {
        let nodes = [("/usr/bin/containerd", Node::file(*b"x", true)), ("/bin", Node::link("usr/bin"))];
        assert_eq!(findings(&nodes), Vec::<String>::new());
    }

    #[test]
    fn each_broken_rule_is_found() {
        let dynamic = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for (path, node, wanted) in [
            ("/usr/bin/sh", Node::file(*b"x", true), "/usr/bin/sh is a shell"),
            ("/usr/bin/ls", Node::link("sh"), "/usr/bin/ls is coreutils"),
            ("/opt/tools/dpkg", Node::file(*b"x", true), "/opt/tools/dpkg is a package manager"),
            ("/usr/sbin/sshd", Node::file(*b"x", true), "/usr/sbin/sshd is remote access"),
            ("/var/lib/dpkg", Node::dir(), "/var/lib/dpkg belongs to a package manager"),
            ("/a", Node { mode: 0o4755, kind: Kind::Dir }, "/a is set-user-id or set-group-id"),
            ("/a", Node { mode: 0o757, kind: Kind::Dir }, "/a is writable by others than root"),
            ("/a", Node::link("b"), "/a is a dangling link to b"),
            ("/a", Node::file(*b"#!/x", true), "/a is a script"),
            ("/a", Node::file(dynamic, true), "/a needs /usr/lib/x86_64-linux-gnu/libc.so.6, which is missing"),
        ] {
            let found = findings(&[(path, node)]);
            assert!(found.iter().any(|finding| finding == wanted), "{wanted}: {found:?}");
        }
    }
}
