//! Steps with a name, progress and a duration. On a terminal the last line of a running command is shown in place; in a
//! pipe each step is two lines. Output of commands goes to a log file, and its end is shown on failure.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the one module that prints")]
#![expect(clippy::disallowed_types, reason = "durations of real commands; no time is paused here")]

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::paths::Paths;

/// Lines of a failed command's output that are shown.
const SHOWN: usize = 30;

/// Runs steps one after another.
#[derive(Debug)]
pub(crate) struct Steps {
    logs: PathBuf,
    count: usize,
    terminal: bool,
}

/// One running step.
#[derive(Debug)]
pub(crate) struct Step {
    log: PathBuf,
    terminal: bool,
    note: Option<String>,
}

/// A command to run: program and arguments.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "a tool that runs on a developer's machine, the only spawner in it")]
    Command::new(program)
}

/// Prints why the command ended.
pub(crate) fn error_line(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Prints a line for the reader.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

impl Steps {
    pub(crate) fn new(paths: &Paths) -> anyhow::Result<Self> {
        let logs = paths.out.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        Ok(Self { logs, count: 0, terminal: std::io::stdout().is_terminal() })
    }

    /// Runs `work` as the step `name`.
    pub(crate) fn run<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Step) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.count += 1;
        let file = name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let log = self.logs.join(format!("{file}.log"));
        std::fs::write(&log, "").with_context(|| format!("writing {}", log.display()))?;
        let mut step = Step { log, terminal: self.terminal, note: None };
        print!("[{}] {name} ...", self.count);
        if !self.terminal {
            println!();
        }
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        let result = work(&mut step);
        let seconds = start.elapsed().as_secs_f64();
        let note = step.note.map(|note| format!(", {note}")).unwrap_or_default();
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        match &result {
            Ok(_) => println!("{clear}[{}] {name}: done in {seconds:.1} s{note}", self.count),
            Err(_) => {
                println!("{clear}[{}] {name}: FAILED after {seconds:.1} s (log: {})", self.count, step.log.display());
            }
        }
        result
    }
}

impl Step {
    /// The note beside the duration.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }

    /// Shows the current activity of the step.
    pub(crate) fn progress(&self, text: &str) {
        if self.terminal {
            let text: String = text.trim().chars().filter(|c| !c.is_control()).take(90).collect();
            print!("\r\x1b[K    {text}");
            let _ = std::io::stdout().flush();
        }
    }

    /// Runs `command` to its end, keeps its output in the step's log and returns its standard output and error together.
    pub(crate) fn call(&self, command: &mut Command) -> anyhow::Result<String> {
        let shown = format!("{} {}", command.get_program().display(), words(command));
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("making a pipe")?)
            .stderr(writer)
            .spawn()
            .with_context(|| format!("starting `{shown}`"))?;
        // The command itself holds the pipe's writing ends, and the pipe would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let output = self.follow(reader, &shown)?;
        let status = child.wait().with_context(|| format!("waiting for `{shown}`"))?;
        if !status.success() {
            let lines: Vec<&str> = output.lines().collect();
            let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n    ");
            bail!("`{shown}` failed ({status}):\n    {tail}");
        }
        Ok(output)
    }

    /// As [`Self::call`], for output that is data: a terminal does not show it.
    pub(crate) fn read(&self, command: &mut Command) -> anyhow::Result<String> {
        Self { log: self.log.clone(), terminal: false, note: None }.call(command)
    }

    /// Runs `command` with its output shown as it is.
    pub(crate) fn show(&self, command: &mut Command) -> anyhow::Result<()> {
        let shown = format!("{} {}", command.get_program().display(), words(command));
        if self.terminal {
            println!();
        }
        let status = command.stdin(Stdio::null()).status().with_context(|| format!("starting `{shown}`"))?;
        if !status.success() {
            bail!("`{shown}` failed ({status})");
        }
        Ok(())
    }

    fn follow(&self, reader: impl Read, shown: &str) -> anyhow::Result<String> {
        let mut log = open_log(&self.log)?;
        writeln!(log, "$ {shown}")?;
        let mut output = String::new();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).context("reading a command's output")? > 0 {
            let text = String::from_utf8_lossy(&line).into_owned();
            log.write_all(text.as_bytes())?;
            self.progress(&text);
            output.push_str(&text);
            line.clear();
        }
        Ok(output)
    }
}

fn open_log(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::options().append(true).create(true).open(path).with_context(|| format!("opening {}", path.display()))
}

fn words(command: &Command) -> String {
    command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
