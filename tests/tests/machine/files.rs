//! Files that machines fetch by HTTP: busybox's server on loopback.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tests::support::{eventually, http_get};

use crate::vm::{HOST, free_port};

/// Serves a directory until it is dropped.
#[derive(Debug)]
pub(crate) struct Files {
    busybox: Child,
    pub(crate) directory: PathBuf,
    port: u16,
}

impl Files {
    /// Serves `directory`, which is made if it is absent.
    #[expect(clippy::disallowed_methods, reason = "tools on a host, not on a node: there is no reaper to disturb")]
    pub(crate) fn serve(directory: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&directory).context("making a directory to serve")?;
        std::fs::write(directory.join("ready"), "yes")?;
        let port = free_port()?;
        let mut busybox = Command::new("busybox");
        busybox.args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"]).arg(&directory).stdin(Stdio::null());
        let busybox = busybox.spawn().context("starting busybox (Debian's package busybox-static)")?;
        let files = Self { busybox, directory, port };
        let address = ([127, 0, 0, 1], port).into();
        eventually("the server of files", Duration::from_secs(10), || http_get(address, "/ready").map(drop))?;
        Ok(files)
    }

    /// Serves `file` too, under its own name.
    pub(crate) fn add(&self, file: &Path) -> anyhow::Result<()> {
        let name = file.file_name().context("a file without a name")?;
        std::os::unix::fs::symlink(file, self.directory.join(name)).context("serving a file")
    }

    /// The address of a file for machines.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{HOST}:{}/{name}", self.port)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // It may have ended.
        self.busybox.kill().ok();
        self.busybox.wait().ok();
    }
}
