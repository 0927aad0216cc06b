//! Writes unified kernel images: those of installed systems, and those that machines boot from elsewhere. Large parts are copied
//! from file to file.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use machine::uki::{self, KERNEL_HEAD, Section, UkiError};

/// In bytes; stubs have some 100 KiB.
const LARGEST_STUB: u64 = 16 << 20;

/// What an image is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The program that the rest is appended to.
    pub stub: &'a Path,
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// Of the system: `v1.7.0`.
    pub version: &'a str,
    pub cmdline: &'a str,
}

/// An image was not made.
#[derive(Debug, thiserror::Error)]
pub enum BuildUkiError {
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("making the kernel image for UEFI")]
    Layout(#[source] UkiError),
}

impl BuildUkiError {
    fn read(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}

/// Writes an image to `to`. Sections: `.osrel`, `.cmdline`, `.initrd`, `.uname` if the kernel names its release, and `.linux`.
///
/// # Errors
/// See [`BuildUkiError`].
pub fn build(parts: Parts<'_>, to: &Path) -> Result<(), BuildUkiError> {
    let stub = head(parts.stub, LARGEST_STUB)?;
    let (os_release, release) = (uki::os_release(parts.version), kernel_release(parts.kernel)?);
    let mut contents = vec![
        Content::text(".osrel", &os_release),
        Content::text(".cmdline", parts.cmdline),
        Content::file(".initrd", parts.initramfs)?,
    ];
    contents.extend(release.as_deref().map(|release| Content::text(".uname", release)));
    contents.push(Content::file(".linux", parts.kernel)?);
    let sections: Vec<Section> = contents.iter().map(|content| content.section.clone()).collect();
    let layout = uki::layout(&stub, &sections).map_err(BuildUkiError::Layout)?;
    let write = || -> io::Result<()> {
        let mut file = File::create(to)?;
        file.set_len(layout.size)?;
        file.write_all(&layout.head)?;
        for (mut content, offset) in contents.into_iter().zip(layout.offsets) {
            file.seek(SeekFrom::Start(offset))?;
            io::copy(&mut content.reader, &mut file)?;
        }
        Ok(())
    };
    write().map_err(|source| BuildUkiError::Write { path: to.to_owned(), source })
}

/// A section, and where its content comes from.
struct Content<'a> {
    section: Section,
    reader: Box<dyn Read + 'a>,
}

impl<'a> Content<'a> {
    fn text(name: &'static str, text: &'a str) -> Self {
        Self { section: Section { name, size: text.len() as u64 }, reader: Box::new(text.as_bytes()) }
    }

    fn file(name: &'static str, path: &Path) -> Result<Self, BuildUkiError> {
        let file = File::open(path).map_err(BuildUkiError::read(path))?;
        let size = file.metadata().map_err(BuildUkiError::read(path))?.len();
        Ok(Self { section: Section { name, size }, reader: Box::new(file) })
    }
}

/// The release that a kernel names in its header; none for a kernel of another form.
///
/// # Errors
/// A kernel that cannot be read.
pub fn kernel_release(kernel: &Path) -> Result<Option<String>, BuildUkiError> {
    Ok(uki::kernel_release(&head(kernel, KERNEL_HEAD as u64)?))
}

fn head(path: &Path, length: u64) -> Result<Vec<u8>, BuildUkiError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(BuildUkiError::read(path))?;
    file.take(length).read_to_end(&mut bytes).map_err(BuildUkiError::read(path))?;
    Ok(bytes)
}
