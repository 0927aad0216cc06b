//! Files that machines fetch by HTTP from loopback, and what they asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;

use crate::vm::HOST;

const PATIENCE: Duration = Duration::from_secs(60);

/// Serves files until the test program ends.
#[derive(Debug)]
pub(crate) struct Files {
    known: Arc<Known>,
    port: u16,
}

#[derive(Debug, Default)]
struct Known {
    files: Mutex<BTreeMap<String, PathBuf>>,
    asked: Mutex<Vec<String>>,
}

impl Files {
    pub(crate) fn serve() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port to serve files on")?;
        let files = Self { known: Arc::default(), port: listener.local_addr()?.port() };
        let known = Arc::clone(&files.known);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let known = Arc::clone(&known);
                std::thread::spawn(move || {
                    // A machine that loses its power in between is no fault of the server.
                    answer(&client, &known).ok();
                });
            }
        });
        Ok(files)
    }

    /// Serves `file` too, under its own name.
    pub(crate) fn add(&self, file: &Path) -> anyhow::Result<()> {
        let name = file.file_name().context("a file without a name")?.to_string_lossy().into_owned();
        self.known.files.lock().insert(name, file.to_owned());
        Ok(())
    }

    /// The address of a file for machines.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{HOST}:{}/{name}", self.port)
    }

    /// What was asked for, with queries, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.known.asked.lock().clone()
    }
}

fn answer(client: &TcpStream, known: &Known) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let target = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let name = target.split('?').next().unwrap_or_default().to_owned();
    known.asked.lock().push(target);
    let path = known.files.lock().get(&name).cloned();
    let mut to = client;
    let Some(path) = path else {
        return to.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    if !request.starts_with("HEAD") {
        io::copy(&mut file, &mut to)?;
    }
    Ok(())
}
