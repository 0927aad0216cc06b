//! Shared helpers: running programs, waiting with a deadline, and the only module that prints.

use std::ffi::OsStr;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};

/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(500);

/// How long something takes, to a tenth of a second.
#[derive(Debug, Clone, Copy)]
pub struct Clock(SystemTime);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the tests measure real time, and no runtime is here for another")]
    pub fn start() -> Self {
        Self(SystemTime::now())
    }

    pub fn elapsed(self) -> Duration {
        Self::start().0.duration_since(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.elapsed().as_secs_f64())
    }
}

/// Prints a line of the report.
#[expect(clippy::print_stdout, reason = "the runner's report")]
pub fn say(text: &str) {
    println!("{text}");
}

/// The names that are asked for, without the options that every test program is given.
pub fn filters(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut filters = Vec::new();
    let mut value_follows = false;
    for argument in arguments {
        if std::mem::take(&mut value_follows) {
            continue;
        }
        if argument.starts_with("--") {
            value_follows = argument == "--test-threads";
        } else if !argument.starts_with('-') {
            filters.push(argument);
        }
    }
    filters
}

/// Result of a program.
#[derive(Debug)]
pub struct Answer {
    pub succeeded: bool,
    pub stdout: String,
    pub stderr: String,
}

/// How long a program may take, unless it is said to take longer.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Runs a program to its end. Every program that is run so has a limit of its own for how long it takes.
pub fn run<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> anyhow::Result<Answer> {
    run_within(LIMIT, program, arguments)
}

/// As [`run`], with another limit.
#[expect(clippy::disallowed_methods, reason = "tools on a host, not on a node: there is no reaper to disturb")]
pub fn run_within<S: AsRef<OsStr>>(limit: Duration, program: &Path, arguments: &[S]) -> anyhow::Result<Answer> {
    let output = Command::new("timeout")
        .arg(limit.as_secs().to_string())
        .arg(program)
        .args(arguments)
        .env_remove("TALOSCONFIG")
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    Ok(Answer {
        succeeded: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Answer {
    /// Output of a successful program.
    pub fn ok(self) -> anyhow::Result<String> {
        if self.succeeded {
            return Ok(self.stdout);
        }
        bail!("the program failed: {}{}", self.stdout, self.stderr)
    }

    /// Error message of a failed program.
    pub fn refused(self) -> anyhow::Result<String> {
        if self.succeeded {
            bail!("the program succeeded where it must not: {}", self.stdout);
        }
        Ok(self.stderr)
    }
}

/// Asks a server on this machine without TLS; its answer, head and body.
pub fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connecting {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("reading {path} of {address}"))?;
    Ok(answer)
}

/// What no waiting mends: context of an error that ends [`eventually`] at once.
#[derive(Debug)]
pub struct Final(pub String);

impl std::fmt::Display for Final {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Waits until `check` succeeds; when it does not in time, the error is its last one. [`Final`] ends the wait at once.
pub fn eventually<T>(what: &str, at_most: Duration, mut check: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let clock = Clock::start();
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if error.is::<Final>() => return Err(error.context(what.to_owned())),
            Err(error) if clock.elapsed() >= at_most => {
                return Err(error.context(format!("{what}: timed out after {} s", at_most.as_secs())));
            }
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}
