//! Writes a tree as a squashfs: zstd, large blocks, everything owned by root, one timestamp for all. Equal trees give
//! identical images. Extended attributes are not written.

use std::io::{Cursor, Read, Seek, SeekFrom, Write};

use backhand::compression::{CompressionOptions, Compressor, Zstd};
use backhand::kind::{Kind as Format, LE_V4_0};
use backhand::{BackhandError, FilesystemCompressor, FilesystemReader, FilesystemWriter, InnerNode, NodeHeader};

use crate::tree::{Kind, Node, Tree};
use crate::{EPOCH, ImageError};

/// Blocks are decompressed whole; large blocks compress better, and nodes read programs from start to end.
const BLOCK_SIZE: u32 = 1 << 20;

/// Writes `tree` to `out` at zstd level `level` (1 to 22).
///
/// # Errors
/// The writer refuses the tree, or `out` cannot be written.
pub fn write(tree: &Tree, level: u32, out: impl Write + Seek) -> Result<(), ImageError> {
    let mut writer = FilesystemWriter::default();
    writer.set_block_size(BLOCK_SIZE);
    writer.set_time(EPOCH);
    writer.set_only_root_id();
    writer.set_kind(Format::from_const(LE_V4_0).map_err(|problem| ImageError::Squashfs { problem })?);
    writer.set_root_mode(0o755);
    let options = CompressionOptions::Zstd(Zstd { compression_level: level });
    writer.set_compressor(FilesystemCompressor::new(Compressor::Zstd, Some(options)).map_err(refused)?);
    for (path, node) in tree.iter() {
        let header = NodeHeader::new(node.mode, 0, 0, EPOCH);
        match &node.kind {
            Kind::Dir => writer.push_dir(path, header),
            Kind::File(content) => writer.push_file(Cursor::new(content.clone()), path, header),
            Kind::Link(to) => writer.push_symlink(to.clone(), path, header),
        }
        .map_err(refused)?;
    }
    writer.write(out).map_err(refused)?;
    Ok(())
}

/// Reads a squashfs back.
///
/// # Errors
/// Bytes that are not a squashfs, or a damaged one.
pub fn read(bytes: &[u8]) -> Result<Tree, ImageError> {
    let reader = FilesystemReader::from_reader(Cursor::new(bytes)).map_err(refused)?;
    let mut tree = Tree::default();
    for node in reader.files() {
        let path = node.fullpath.to_string_lossy().into_owned();
        if path == "/" {
            continue;
        }
        let kind = match &node.inner {
            InnerNode::Dir(_) => Kind::Dir,
            InnerNode::Symlink(link) => Kind::Link(link.link.to_string_lossy().into_owned()),
            InnerNode::File(file) => {
                let mut content = Vec::new();
                reader.file(file).reader().read_to_end(&mut content).map_err(ImageError::read(&path))?;
                Kind::File(content.into())
            }
            _ => return Err(ImageError::Squashfs { problem: format!("{path} is a device, pipe or socket") }),
        };
        tree.set(&path, Node { mode: node.header.permissions, kind });
    }
    Ok(tree)
}

/// The image as bytes.
///
/// # Errors
/// As [`write`].
pub fn to_bytes(tree: &Tree, level: u32) -> Result<Vec<u8>, ImageError> {
    let mut out = Cursor::new(Vec::new());
    write(tree, level, &mut out)?;
    out.seek(SeekFrom::Start(0)).map_err(ImageError::write("memory"))?;
    Ok(out.into_inner())
}

fn refused(error: BackhandError) -> ImageError {
    ImageError::Squashfs { problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(order: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in order {
            tree.place(path, Node::file(path.as_bytes(), path.ends_with("tool"))).unwrap();
        }
        tree.place("/link", Node::link("usr/tool")).unwrap();
        tree
    }

    #[test]
    fn what_was_written_is_read_back() {
        let tree = tree(&["/usr/tool", "/usr-x/y", "/etc/hosts"]);
        assert_eq!(read(&to_bytes(&tree, 3).unwrap()).unwrap(), tree);
    }

    #[test]
    fn the_same_inputs_give_the_same_bits_in_any_order() {
        let one = to_bytes(&tree(&["/usr/tool", "/usr-x/y", "/etc/hosts"]), 3).unwrap();
        let two = to_bytes(&tree(&["/etc/hosts", "/usr-x/y", "/usr/tool"]), 3).unwrap();
        assert_eq!(crate::sha256(&one), crate::sha256(&two));
    }
}
