//! The program that stays with a cluster: as its agent, as the agent's guard, and as the monitor of a node.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::command;

/// How to start the program: its path and the arguments before `--state DIR --name NAME`, which `--guard` follows for the guard
/// and `--monitor NODE` for the monitor of a node.
#[derive(Debug, Clone)]
pub struct AgentProgram {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

/// Role of a process of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty<'a> {
    Agent,
    Guard,
    Monitor(&'a str),
}

/// Starts the program for one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    program: AgentProgram,
    source: Source,
    root: PathBuf,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The file of that path.
    File,
    /// The running program under its own path: the file may have been replaced or removed.
    ThisProcess,
}

impl Launcher {
    /// Starts the file of the program; `root` must be absolute.
    pub(crate) fn of_file(program: AgentProgram, root: &Path, name: &str) -> Self {
        Self { program, source: Source::File, root: root.to_path_buf(), name: name.to_owned() }
    }

    /// Starts the running program again.
    pub(crate) fn of_this_process(program: AgentProgram, root: &Path, name: &str) -> Self {
        Self { source: Source::ThisProcess, ..Self::of_file(program, root, name) }
    }

    /// Starts a process with all its output in `log`.
    pub(crate) fn start(&self, duty: Duty<'_>, log: &File) -> std::io::Result<Child> {
        self.start_with_output(duty, log.try_clone()?.into(), log)
    }

    /// Starts a process with its errors in `log`.
    pub(crate) fn start_with_output(&self, duty: Duty<'_>, output: Stdio, log: &File) -> std::io::Result<Child> {
        let mut command = match self.source {
            Source::File => command::prepare(&self.program.program),
            Source::ThisProcess => command::own(&self.program.program),
        };
        command.args(self.arguments(duty)).current_dir("/");
        command.stdin(Stdio::null()).stdout(output).stderr(log.try_clone()?).spawn()
    }

    fn arguments(&self, duty: Duty<'_>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = self.program.arguments.iter().map(Into::into).collect();
        let (root, name) = (self.root.as_os_str(), self.name.as_str());
        arguments.extend(["--state".into(), root.into(), "--name".into(), name.into()]);
        match duty {
            Duty::Agent => {}
            Duty::Guard => arguments.push("--guard".into()),
            Duty::Monitor(node) => arguments.extend(["--monitor".into(), node.into()]),
        }
        arguments
    }
}
