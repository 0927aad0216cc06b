//! The list of an image's content: one line per file, each with its reason.
//!
//! ```text
//! # a comment
//! package containerd                          # what the package is for
//!   file /usr/bin/containerd                  # a file of that package, kept at its path
//!   file /usr/lib/cni/bridge -> /opt/cni/bin/ # moved; `*` may stand in the last part of the source
//!   concat /usr/share/x/*.crt -> /etc/x.crt   # many files as one
//! libraries libc6                             # shared objects of this package are taken where a program needs them
//! program machined -> /sbin/init              # one of our own programs
//! local os-release -> /etc/os-release         # a text that lies beside the list
//! dir /var/lib                                # an empty directory
//! empty /etc/hosts                            # an empty file, to be bound over
//! link /bin -> usr/bin                        # a symbolic link
//! ```
//!
//! The list of a container image also has `image REFERENCE`, `entrypoint WORDS` and `env NAME=VALUE`, and `component
//! NAME` for images of bundles with that component only; these lines need no reason. Parsing does no I/O.

use crate::ImageError;

/// One item of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A file or link of a package; a pattern may match several.
    File {
        package: String,
        source: String,
        target: Target,
    },
    /// Files of a package, joined in the order of their names.
    Concat {
        package: String,
        source: String,
        target: String,
    },
    /// One of our own programs.
    Program {
        name: String,
        target: String,
    },
    /// A text file beside the list.
    Local {
        name: String,
        target: String,
    },
    Dir {
        path: String,
    },
    Empty {
        path: String,
    },
    Link {
        path: String,
        to: String,
    },
}

/// The target of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Its path in the package.
    Same,
    /// This path.
    Path(String),
    /// This directory, under its own name; ends in `/`.
    Into(String),
}

/// An item with its line and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub item: Item,
    pub reason: String,
    pub line: usize,
}

/// A parsed list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// Name in messages.
    pub name: String,
    /// Full reference, for lists of container images.
    pub image: Option<String>,
    /// The component that a bundle must have to contain the image.
    pub component: Option<String>,
    pub entrypoint: Vec<String>,
    pub env: Vec<String>,
    pub entries: Vec<Entry>,
    /// Packages that may provide shared libraries.
    pub libraries: Vec<String>,
}

impl List {
    /// Parses `text`; `name` is used in messages.
    ///
    /// # Errors
    /// [`ImageError::List`] with the line number.
    pub fn parse(name: &str, text: &str) -> Result<Self, ImageError> {
        let mut list = Self { name: name.to_owned(), ..Self::default() };
        let mut package = None;
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let trimmed = raw.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            list.line(trimmed, line, &mut package).map_err(|problem| ImageError::List {
                list: name.to_owned(),
                line,
                problem,
            })?;
        }
        Ok(list)
    }

    /// All packages needed to assemble the list, sorted.
    #[must_use]
    pub fn packages(&self) -> Vec<String> {
        let mut names = self.libraries.clone();
        for entry in &self.entries {
            if let Item::File { package, .. } | Item::Concat { package, .. } = &entry.item {
                names.push(package.clone());
            }
        }
        names.sort();
        names.dedup();
        names
    }

    fn line(&mut self, text: &str, line: usize, package: &mut Option<String>) -> Result<(), String> {
        let (body, reason) = match text.split_once(" # ") {
            Some((body, reason)) => (body.trim(), reason.trim()),
            None => (text, ""),
        };
        let mut words = body.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        match (verb, words.as_slice()) {
            ("image", [reference]) => {
                self.image = Some((*reference).to_owned());
                return Ok(());
            }
            ("component", [name]) => {
                self.component = Some((*name).to_owned());
                return Ok(());
            }
            ("entrypoint", words) if !words.is_empty() => {
                self.entrypoint = words.iter().map(|&word| word.to_owned()).collect();
                return Ok(());
            }
            ("env", [pair]) if pair.contains('=') => {
                self.env.push((*pair).to_owned());
                return Ok(());
            }
            _ => {}
        }
        if reason.is_empty() {
            return Err("missing reason (` # why`)".to_owned());
        }
        let item = match (verb, words.as_slice()) {
            ("package", [name]) => {
                *package = Some((*name).to_owned());
                return Ok(());
            }
            ("libraries", [name]) => {
                self.libraries.push((*name).to_owned());
                return Ok(());
            }
            ("file", [source]) => Item::File { package: owner(package)?, source: path(source)?, target: Target::Same },
            ("file", [source, "->", target]) => {
                Item::File { package: owner(package)?, source: path(source)?, target: destination(source, target)? }
            }
            ("concat", [source, "->", target]) => {
                Item::Concat { package: owner(package)?, source: path(source)?, target: path(target)? }
            }
            ("program", [name, "->", target]) => Item::Program { name: (*name).to_owned(), target: path(target)? },
            ("local", [name, "->", target]) => Item::Local { name: (*name).to_owned(), target: path(target)? },
            ("dir", [dir]) => Item::Dir { path: path(dir)? },
            ("empty", [file]) => Item::Empty { path: path(file)? },
            ("link", [link, "->", to]) => Item::Link { path: path(link)?, to: (*to).to_owned() },
            _ => return Err(format!("unknown directive `{body}`")),
        };
        self.entries.push(Entry { item, reason: reason.to_owned(), line });
        Ok(())
    }
}

fn owner(package: &Option<String>) -> Result<String, String> {
    package.clone().ok_or_else(|| "a file must follow its `package`".to_owned())
}

fn path(text: &str) -> Result<String, String> {
    let bad = !text.starts_with('/') || text.split('/').any(|part| part == "." || part == "..");
    if bad { Err(format!("`{text}` is not an absolute path")) } else { Ok(text.to_owned()) }
}

fn destination(source: &str, target: &str) -> Result<Target, String> {
    let target = path(target)?;
    if target.ends_with('/') {
        Ok(Target::Into(target))
    } else if source.contains('*') {
        Err("the target of a pattern must be a directory (ending in `/`)".to_owned())
    } else {
        Ok(Target::Path(target))
    }
}

/// Whether `path` matches `pattern`, where `*` matches any characters except `/`.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        let at = if last {
            rest.len().checked_sub(part.len()).filter(|&at| rest.is_char_boundary(at) && rest.ends_with(part))
        } else {
            rest.find(part)
        };
        let Some(at) = at else { return false };
        if rest[..at].contains('/') {
            return false;
        }
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_understood() {
        let text = "image example.org/a:1\nentrypoint /a --b\nenv PATH=/usr/bin\n\
                    package p # why\n file /a # r\n file /b -> /c # r\n file /d/* -> /e/ # r\n concat /f* -> /g # r\n\
                    libraries l # r\nprogram m -> /sbin/init # r\nlocal n -> /o # r\ndir /q # r\nempty /r # r\nlink /s -> t # r\n";
        let list = List::parse("list", text).unwrap();
        assert_eq!(list.image.as_deref(), Some("example.org/a:1"));
        assert_eq!(list.entrypoint, ["/a", "--b"]);
        assert_eq!(list.packages(), ["l", "p"]);
        assert_eq!(list.entries.len(), 9);
        assert_eq!(
            list.entries[2].item,
            Item::File { package: "p".into(), source: "/d/*".into(), target: Target::Into("/e/".into()) }
        );
        assert_eq!(list.entries[8].line, 14);
    }

    #[test]
    fn a_line_without_a_reason_is_refused_with_its_number() {
        let error = List::parse("list", "# fine\ndir /a\n").unwrap_err();
        assert_eq!(error.to_string(), "list, line 2: missing reason (` # why`)");
    }

    #[test]
    fn a_file_without_a_package_and_a_relative_path_are_refused() {
        for (text, wanted) in [
            ("file /a # r", "a file must follow its `package`"),
            ("dir a/b # r", "`a/b` is not an absolute path"),
            ("dir /a/../b # r", "`/a/../b` is not an absolute path"),
            ("package p # r\nfile /a* -> /b # r", "the target of a pattern must be a directory (ending in `/`)"),
            ("copy /a # r", "unknown directive `copy /a`"),
        ] {
            let Err(ImageError::List { problem, .. }) = List::parse("list", text) else {
                panic!("{text} was accepted")
            };
            assert_eq!(problem, wanted);
        }
    }

    #[test]
    fn a_star_stays_within_one_part_of_a_path() {
        assert!(matches("/a/*.so", "/a/b.so"));
        assert!(matches("/a/lib*_x*.so", "/a/libq_xy.so"));
        assert!(!matches("/a/*.so", "/a/b/c.so"));
        assert!(!matches("/a/*.so", "/a/b.so.1"));
        assert!(matches("/a/b", "/a/b"));
        assert!(!matches("/a/b", "/a/bc"));
        assert!(!matches("/a*a", "/a"));
    }
}
