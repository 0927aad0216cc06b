//! The only place that prints. Results go to standard output, diagnostics to standard error; colour and progress are
//! for terminals alone.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::command_error::{CommandError, Kind};

pub(crate) mod table;

/// Whether a stream understands colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Coloured,
    Plain,
}

/// Where a run prints to.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Look,
    stderr: Look,
}

/// Colours in use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
    Dim,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Red => "\u{1b}[31m",
            Self::Green => "\u{1b}[32m",
            Self::Yellow => "\u{1b}[33m",
            Self::Dim => "\u{1b}[2m",
        }
    }
}

impl Look {
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        match self {
            Self::Coloured => format!("{}{text}\u{1b}[0m", colour.code()),
            Self::Plain => text.to_owned(),
        }
    }
}

impl Output {
    /// Standard output and error; coloured where they are terminals and `NO_COLOR` is not set.
    pub(crate) fn standard() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let look = |terminal: bool| if terminal && wanted { Look::Coloured } else { Look::Plain };
        Self { stdout: look(io::stdout().is_terminal()), stderr: look(io::stderr().is_terminal()) }
    }

    pub(crate) fn stdout_look(&self) -> Look {
        self.stdout
    }

    pub(crate) fn stderr_look(&self) -> Look {
        self.stderr
    }

    /// A line of the result.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_ref().as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    /// Bytes of the result, as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// A line about what goes on, beside the result.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        let mut stderr = io::stderr().lock();
        // Nobody can be told that standard error is gone.
        writeln!(stderr, "{}", text.as_ref()).ok();
    }

    pub(crate) fn warning(&self, text: impl AsRef<str>) {
        self.note(format!("{} {}", self.stderr.paint(Colour::Yellow, "warning:"), text.as_ref()));
    }

    /// A node's own error, while other nodes go on.
    pub(crate) fn node_error(&self, node: &str, error: &dyn std::fmt::Display) {
        let label = self.stderr.paint(Colour::Red, "error:");
        if node.is_empty() {
            self.note(format!("{label} {error}"));
        } else {
            self.note(format!("{label} {node}: {error}"));
        }
    }

    /// Prints why a command failed, with hints, and gives its exit code.
    pub(crate) fn finish_with_error(&self, error: &CommandError) -> ExitCode {
        if error.kind != Kind::OutputClosed {
            let label = self.stderr.paint(Colour::Red, "error:");
            self.note(format!("{label} {}", stdx::error_chain(error.error.as_ref())));
            for hint in &error.hints {
                self.note(format!("{} {hint}", self.stderr.paint(Colour::Green, "hint:")));
            }
        }
        error.exit_code()
    }

    /// Prints help or what was wrong with the command line.
    pub(crate) fn finish_parsing(&self, stop: &clap::Error) -> ExitCode {
        // Printing fails when nobody reads; there is nobody to tell then.
        stop.print().ok();
        if stop.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
