//! A file system tree in memory. The owner is always root and the time always [`crate::EPOCH`], so a node consists of
//! its mode and its content.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ImageError;

/// The content of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File(Arc<[u8]>),
    /// Link target as written, absolute or relative.
    Link(String),
}

/// A node: permission bits and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permission bits, with set-id and sticky bits where present.
    pub mode: u16,
    pub kind: Kind,
}

impl Node {
    /// A directory with mode 0755.
    #[must_use]
    pub fn dir() -> Self {
        Self { mode: 0o755, kind: Kind::Dir }
    }

    /// A file with mode 0644 or 0755, owned by root.
    #[must_use]
    pub fn file(content: impl Into<Arc<[u8]>>, executable: bool) -> Self {
        Self { mode: if executable { 0o755 } else { 0o644 }, kind: Kind::File(content.into()) }
    }

    #[must_use]
    pub fn link(to: &str) -> Self {
        Self { mode: 0o777, kind: Kind::Link(to.to_owned()) }
    }
}

/// Nodes by absolute path; the root is implied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// The node at exactly this path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// All nodes in path order, directories before their content.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Inserts `node` at `path` without checks.
    pub fn set(&mut self, path: &str, node: Node) {
        self.nodes.insert(path.to_owned(), node);
    }

    /// Inserts `node` at `path` and creates the directories above it. Links above it are followed: a file for
    /// `/sbin/init` lands in `/usr/sbin` if `/sbin` is a link there. Returns the resulting path.
    ///
    /// # Errors
    /// [`ImageError::Place`] if the path is taken, or a file is above it.
    pub fn place(&mut self, path: &str, node: Node) -> Result<String, ImageError> {
        let refuse = |problem: &str| ImageError::Place { path: path.to_owned(), problem: problem.to_owned() };
        let (parent, name) = path.rsplit_once('/').ok_or_else(|| refuse("not an absolute path"))?;
        let mut real = String::new();
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            let below = format!("{real}/{part}");
            real = match self.nodes.get(&below).map(|node| &node.kind) {
                None => {
                    self.nodes.insert(below.clone(), Node::dir());
                    below
                }
                Some(Kind::Dir) => below,
                Some(Kind::Link(_)) => {
                    let target = self.resolve(&below).ok_or_else(|| refuse("a link above it is dangling"))?;
                    if target == "/" { String::new() } else { target }
                }
                Some(Kind::File(_)) => return Err(refuse("a file is above it")),
            };
        }
        let real = format!("{real}/{name}");
        match self.nodes.get(&real) {
            Some(there) if *there == node => {}
            Some(_) => return Err(refuse("the path is taken")),
            None => {
                self.nodes.insert(real.clone(), node);
            }
        }
        Ok(real)
    }

    /// The path that `path` resolves to through links, if it exists.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut todo: Vec<String> = parts(path);
        let mut real: Vec<String> = Vec::new();
        let mut hops = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                real.pop();
                continue;
            }
            let here = format!("/{}", [real.as_slice(), std::slice::from_ref(&part)].concat().join("/"));
            match &self.nodes.get(&here)?.kind {
                Kind::Link(to) => {
                    hops += 1;
                    if hops > 40 {
                        return None;
                    }
                    if to.starts_with('/') {
                        real.clear();
                    }
                    todo.extend(parts(to));
                }
                Kind::File(_) if !todo.is_empty() => return None,
                Kind::Dir | Kind::File(_) => real.push(part),
            }
        }
        Some(format!("/{}", real.join("/")))
    }
}

/// Path components, last first.
fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged() -> Tree {
        let mut tree = Tree::default();
        tree.place("/usr/sbin", Node::dir()).unwrap();
        tree.place("/sbin", Node::link("usr/sbin")).unwrap();
        tree
    }

    #[test]
    fn a_file_below_a_link_lands_where_the_link_leads() {
        let mut tree = merged();
        assert_eq!(tree.place("/sbin/init", Node::file(*b"x", true)).unwrap(), "/usr/sbin/init");
        assert_eq!(tree.resolve("/sbin/init").as_deref(), Some("/usr/sbin/init"));
        assert_eq!(tree.get("/sbin/init"), None);
    }

    #[test]
    fn one_path_holds_one_thing() {
        let mut tree = merged();
        tree.place("/sbin/init", Node::file(*b"x", true)).unwrap();
        tree.place("/usr/sbin/init", Node::file(*b"x", true)).unwrap();
        for (path, wanted) in [("/usr/sbin/init", "the path is taken"), ("/usr/sbin/init/below", "a file is above it")]
        {
            let Err(ImageError::Place { problem, .. }) = tree.place(path, Node::file(*b"y", true)) else {
                panic!("{path} was accepted")
            };
            assert_eq!(problem, wanted);
        }
    }

    #[test]
    fn links_that_lead_nowhere_or_in_circles_resolve_to_nothing() {
        let mut tree = merged();
        tree.place("/a", Node::link("b")).unwrap();
        tree.place("/b", Node::link("/a")).unwrap();
        tree.place("/c", Node::link("../sbin/../missing")).unwrap();
        assert_eq!(tree.resolve("/a"), None);
        assert_eq!(tree.resolve("/c"), None);
        assert_eq!(tree.resolve("/sbin/../sbin").as_deref(), Some("/usr/sbin"));
    }
}
