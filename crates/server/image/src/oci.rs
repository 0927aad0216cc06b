//! Writes container images as an OCI image layout. Blobs are written once under their digest; `index.json` comes last,
//! with the full reference of each image in `org.opencontainers.image.ref.name`.
//!
//! Layers use zstd: nodes unpack it several times faster than gzip, and containerd supports it since 1.5.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::tree::{Kind, Tree};
use crate::{EPOCH, EPOCH_TEXT, ImageError, sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Compression level of layers: higher levels hardly reduce the size and double the time.
const LEVEL: i32 = 9;

/// The start configuration of an image.
#[derive(Debug, Clone, Default)]
pub struct Start {
    pub entrypoint: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
}

/// An image layout being written.
#[derive(Debug)]
pub struct Layout {
    directory: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    /// Starts a layout in `directory`, which is created.
    ///
    /// # Errors
    /// A failed write.
    pub fn create(directory: &Path) -> Result<Self, ImageError> {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(ImageError::write(&blobs))?;
        Ok(Self { directory: directory.to_owned(), manifests: Vec::new() })
    }

    /// Adds an image of one layer with the content of `tree` under the full reference `reference`.
    ///
    /// # Errors
    /// A blob that cannot be written.
    pub fn add(&mut self, reference: &str, tree: &Tree, start: &Start) -> Result<(), ImageError> {
        let plain = tarball(tree).map_err(ImageError::write(reference))?;
        let layer = zstd::bulk::compress(&plain, LEVEL).map_err(ImageError::write(reference))?;
        let config = json!({
            "created": EPOCH_TEXT,
            "architecture": "amd64",
            "os": "linux",
            "config": { "Env": start.env, "Entrypoint": start.entrypoint, "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&plain))] },
            "history": [{ "created": EPOCH_TEXT, "created_by": "imager bundle" }],
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(CONFIG, config.to_string().as_bytes())?,
            "layers": [self.blob(LAYER, &layer)?],
        });
        let mut descriptor = self.blob(MANIFEST, manifest.to_string().as_bytes())?;
        descriptor["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": reference });
        self.manifests.push(descriptor);
        Ok(())
    }

    /// Writes the index, which makes the directory a valid layout.
    ///
    /// # Errors
    /// A failed write.
    pub fn finish(self) -> Result<(), ImageError> {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests });
        for (name, content) in [("index.json", index), ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))] {
            let path = self.directory.join(name);
            std::fs::write(&path, format!("{content:#}\n")).map_err(ImageError::write(&path))?;
        }
        Ok(())
    }

    /// Writes a blob and returns its descriptor.
    fn blob(&self, media_type: &str, content: &[u8]) -> Result<Value, ImageError> {
        let digest = sha256(content);
        let path = self.directory.join("blobs/sha256").join(&digest);
        std::fs::write(&path, content).map_err(ImageError::write(&path))?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len() }))
    }
}

/// `tree` as a tar archive, owned by root and with one time.
pub(crate) fn tarball(tree: &Tree) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, node) in tree.iter() {
        let path = path.trim_start_matches('/');
        let mut header = tar::Header::new_gnu();
        header.set_mode(u32::from(node.mode));
        header.set_mtime(u64::from(EPOCH));
        header.set_uid(0);
        header.set_gid(0);
        match &node.kind {
            Kind::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, format!("{path}/"), &[][..])?;
            }
            Kind::File(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, &content[..])?;
            }
            Kind::Link(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, to)?;
            }
        }
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn read(directory: &Path, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(directory.join(name)).unwrap()).unwrap()
    }

    fn blob(directory: &Path, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let content = std::fs::read(directory.join("blobs/sha256").join(&digest)).unwrap();
        assert_eq!(sha256(&content), digest);
        assert_eq!(descriptor["size"], content.len());
        content
    }

    fn layout(directory: &Path) {
        let mut tree = Tree::default();
        tree.place("/usr/bin/tool", Node::file(*b"tool", true)).unwrap();
        tree.place("/bin", Node::link("usr/bin")).unwrap();
        let start = Start { entrypoint: vec!["/usr/bin/tool".to_owned()], env: vec!["A=b".to_owned()] };
        let mut layout = Layout::create(directory).unwrap();
        layout.add("example.org/tool:1", &tree, &start).unwrap();
        layout.finish().unwrap();
    }

    #[test]
    fn an_image_is_found_by_its_reference_and_its_digests_agree() {
        let directory = tempfile::tempdir().unwrap();
        layout(directory.path());
        assert_eq!(read(directory.path(), "oci-layout")["imageLayoutVersion"], "1.0.0");
        let index = read(directory.path(), "index.json");
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "example.org/tool:1");
        let manifest: Value = serde_json::from_slice(&blob(directory.path(), entry)).unwrap();
        let config: Value = serde_json::from_slice(&blob(directory.path(), &manifest["config"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/tool");
        let layer = zstd::decode_all(&blob(directory.path(), &manifest["layers"][0])[..]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&layer)));
        let mut archive = tar::Archive::new(&layer[..]);
        let names: Vec<String> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["bin", "usr/", "usr/bin/", "usr/bin/tool"]);
    }

    #[test]
    fn the_same_inputs_give_the_same_layout() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        layout(one.path());
        layout(two.path());
        assert_eq!(read(one.path(), "index.json"), read(two.path(), "index.json"));
    }
}
