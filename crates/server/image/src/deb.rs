//! Unpacks Debian packages: an `ar` archive with a compressed `control.tar` and `data.tar`. Maintainer scripts are not
//! run; files that they would create must be in the list.

use std::io::{Cursor, Read};
use std::path::Path;

use crate::tree::{Kind, Node, Tree};
use crate::{ImageError, sha256};

/// An unpacked package.
#[derive(Debug, Clone)]
pub struct Package {
    pub name: String,
    /// Debian version, as `1:1.4.8-2`.
    pub version: String,
    pub architecture: String,
    /// The source package, if its name differs.
    pub source: Option<String>,
    pub homepage: Option<String>,
    /// The field `Depends`.
    pub depends: Option<String>,
    /// SHA-256 of the package file.
    pub sha256: String,
    pub files: Tree,
}

impl Package {
    /// Reads and unpacks the package file at `path`.
    ///
    /// # Errors
    /// An unreadable file, or one that is not a Debian package.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let bytes = std::fs::read(path).map_err(ImageError::read(path))?;
        Self::parse(&path.file_name().unwrap_or_default().to_string_lossy(), &bytes)
    }

    /// Reads the package file at `path` without its files.
    ///
    /// # Errors
    /// As [`Package::open`].
    pub fn open_control(path: &Path) -> Result<Self, ImageError> {
        let bytes = std::fs::read(path).map_err(ImageError::read(path))?;
        Self::parse_parts(&path.file_name().unwrap_or_default().to_string_lossy(), &bytes, Parts::Control)
    }

    /// Unpacks `bytes`; `label` is for messages.
    ///
    /// # Errors
    /// Bytes that are not a Debian package.
    pub fn parse(label: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        Self::parse_parts(label, bytes, Parts::All)
    }

    fn parse_parts(label: &str, bytes: &[u8], parts: Parts) -> Result<Self, ImageError> {
        let bad = |problem: &str| ImageError::Package { package: label.to_owned(), problem: problem.to_owned() };
        let io = |source| ImageError::Unpack { package: label.to_owned(), source };
        let members = members(bytes).ok_or_else(|| bad("not an ar archive"))?;
        let member = |prefix: &str| {
            let (name, content) = members
                .iter()
                .find(|(name, _)| name.starts_with(prefix))
                .ok_or_else(|| bad(&format!("no {prefix} inside")))?;
            decompress(name, content).map_err(io)
        };
        let control =
            control_file(&member("control.tar")?).map_err(io)?.ok_or_else(|| bad("no control file inside"))?;
        let field = |name: &str| {
            control.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
        };
        Ok(Self {
            name: field("Package").ok_or_else(|| bad("no Package field"))?,
            version: field("Version").ok_or_else(|| bad("no Version field"))?,
            architecture: field("Architecture").ok_or_else(|| bad("no Architecture field"))?,
            source: field("Source"),
            homepage: field("Homepage"),
            depends: field("Depends"),
            sha256: sha256(bytes),
            files: match parts {
                Parts::All => read_tree(&member("data.tar")?).map_err(io)?,
                Parts::Control => Tree::default(),
            },
        })
    }

    /// The upstream part of the version: `1:3.5.16-4` is `3.5.16`.
    #[must_use]
    pub fn upstream_version(&self) -> &str {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, rest)| rest);
        version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
    }
}

/// What of a package is read.
#[derive(Debug, Clone, Copy)]
enum Parts {
    All,
    Control,
}

/// Members of an `ar` archive, by name.
fn members(bytes: &[u8]) -> Option<Vec<(String, &[u8])>> {
    let mut rest = bytes.strip_prefix(b"!<arch>\n")?;
    let mut members = Vec::new();
    while rest.len() >= 60 {
        let (header, body) = rest.split_at(60);
        let name = std::str::from_utf8(&header[..16]).ok()?.trim_end().trim_end_matches('/').to_owned();
        let size: usize = std::str::from_utf8(&header[48..58]).ok()?.trim_end().parse().ok()?;
        members.push((name, body.get(..size)?));
        rest = body.get(size + size % 2..).unwrap_or_default();
    }
    Some(members)
}

fn decompress(name: &str, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("xz") => liblzma::read::XzDecoder::new(bytes).read_to_end(&mut plain)?,
        Some("zst") => zstd::stream::read::Decoder::new(bytes)?.read_to_end(&mut plain)?,
        Some("gz") => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?,
        _ => Cursor::new(bytes).read_to_end(&mut plain)?,
    };
    Ok(plain)
}

fn control_file(tar: &[u8]) -> std::io::Result<Option<String>> {
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        if absolute(&entry.path()?) == "/control" {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

fn read_tree(tar: &[u8]) -> std::io::Result<Tree> {
    let mut tree = Tree::default();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = absolute(&entry.path()?);
        if path == "/" {
            continue;
        }
        let mode = u16::try_from(entry.header().mode()? & 0o7777).unwrap_or(0o644);
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => Kind::Dir,
            tar::EntryType::Symlink => {
                Kind::Link(entry.link_name()?.unwrap_or_default().to_string_lossy().into_owned())
            }
            tar::EntryType::Link => {
                let target = absolute(&entry.link_name()?.unwrap_or_default());
                match tree.get(&target) {
                    Some(node) => node.kind.clone(),
                    None => return Err(std::io::Error::other(format!("hard link {path} to missing {target}"))),
                }
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                Kind::File(content.into())
            }
            // Device nodes and pipes are not expected in the packages in use.
            _ => continue,
        };
        // Packages may omit their directories.
        for (at, _) in path.match_indices('/').skip(1) {
            if tree.get(&path[..at]).is_none() {
                tree.set(&path[..at], Node::dir());
            }
        }
        tree.set(&path, Node { mode, kind });
    }
    Ok(tree)
}

fn absolute(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("/{}", text.trim_start_matches('.').trim_matches('/'))
}

/// Builds package files for tests.
#[cfg(test)]
pub(crate) mod testing {
    use crate::tree::{Kind, Node};

    pub(crate) fn package(name: &str, version: &str, files: &[(&str, Node)]) -> Vec<u8> {
        let control = format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\nDescription: test\n");
        let mut archive = b"!<arch>\n".to_vec();
        let tars = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", tarball(&[("./control", Node::file(control.into_bytes(), false))])),
            ("data.tar", tarball(files)),
        ];
        for (name, content) in tars {
            archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, content.len()).bytes());
            archive.extend(&content);
            if content.len() % 2 == 1 {
                archive.push(b'\n');
            }
        }
        archive
    }

    fn tarball(files: &[(&str, Node)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, node) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(u32::from(node.mode));
            match &node.kind {
                Kind::Dir => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    builder.append_data(&mut header, path, &[][..]).unwrap();
                }
                Kind::File(content) => {
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, path, &content[..]).unwrap();
                }
                Kind::Link(to) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, path, to).unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_unpacked_with_names_and_modes() {
        let files = [("usr/bin/tool", Node::file(*b"odd", true)), ("usr/bin/alias", Node::link("tool"))];
        let package = Package::parse("tool.deb", &testing::package("tool", "1:2.0-1", &files)).unwrap();
        assert_eq!((package.name.as_str(), package.upstream_version()), ("tool", "2.0"));
        assert_eq!(package.files.get("/usr/bin/tool"), Some(&Node::file(*b"odd", true)));
        assert_eq!(package.files.get("/usr/bin/alias").unwrap().kind, Kind::Link("tool".into()));
    }

    #[test]
    fn other_files_and_cut_packages_are_refused() {
        let whole = testing::package("tool", "1", &[]);
        for (bytes, wanted) in [(&b"PK\x03\x04"[..], "not an ar archive"), (&whole[..200], "not an ar archive")] {
            let Err(ImageError::Package { problem, .. }) = Package::parse("x.deb", bytes) else { panic!("accepted") };
            assert_eq!(problem, wanted);
        }
        let Err(ImageError::Package { problem, .. }) = Package::parse("x.deb", &whole[..72]) else {
            panic!("accepted")
        };
        assert_eq!(problem, "no control.tar inside");
    }
}
