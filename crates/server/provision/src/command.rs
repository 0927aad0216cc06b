//! The one place where the provisioner starts tools of the host.
//!
//! Tools are looked for where distributions install them, not by `PATH`: a root shell made by `su` often lacks `sbin`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::error::{CommandError, Problem};

const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A tool and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// The front of either packet filter that Docker talks to; used where it is installed.
pub(crate) const IPTABLES: Tool = Tool { program: "iptables", package: "iptables" };
pub(crate) const CP: Tool = Tool { program: "cp", package: "coreutils" };
pub(crate) const IP: Tool = Tool { program: "ip", package: "iproute2" };
pub(crate) const MOUNT: Tool = Tool { program: "mount", package: "mount" };
pub(crate) const NFT: Tool = Tool { program: "nft", package: "nftables" };
pub(crate) const NSENTER: Tool = Tool { program: "nsenter", package: "util-linux" };
pub(crate) const QEMU: Tool = Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" };
pub(crate) const QEMU_IMG: Tool = Tool { program: "qemu-img", package: "qemu-utils" };
pub(crate) const RUNC: Tool = Tool { program: "runc", package: "runc" };
/// Lets a child end with its parent.
pub(crate) const SETPRIV: Tool = Tool { program: "setpriv", package: "util-linux" };
pub(crate) const SH: Tool = Tool { program: "sh", package: "dash" };
pub(crate) const SWTPM: Tool = Tool { program: "swtpm", package: "swtpm" };
/// Traffic control.
pub(crate) const TC: Tool = Tool { program: "tc", package: "iproute2" };
pub(crate) const UMOUNT: Tool = Tool { program: "umount", package: "mount" };
pub(crate) const UNSHARE: Tool = Tool { program: "unshare", package: "util-linux" };

/// All that creating a cluster needs.
pub(crate) const NEEDED: [Tool; 10] = [CP, IP, MOUNT, NFT, NSENTER, RUNC, SETPRIV, SH, UMOUNT, UNSHARE];

/// One problem for each tool that is missing, with its package.
pub(crate) fn missing(tools: &[Tool]) -> Vec<Problem> {
    let missing = tools.iter().filter(|tool| tool.find().is_none());
    let problem = |tool: &Tool| {
        Problem::new(format!("{} is not installed", tool.program), format!("apt-get install {}", tool.package))
    };
    missing.map(problem).collect()
}

/// All that every cluster of virtual machines needs.
pub(crate) const NEEDED_BY_MACHINES: [Tool; 5] = [IP, NFT, QEMU, SETPRIV, SH];

impl Tool {
    /// Where the tool is installed.
    pub(crate) fn find(self) -> Option<PathBuf> {
        FOLDERS.iter().map(|folder| Path::new(folder).join(self.program)).find(|path| path.is_file())
    }

    /// Runs the tool to completion and returns its output.
    pub(crate) fn run<I, S>(self, arguments: I) -> Result<String, CommandError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.execute(arguments, Stdin::Nothing, None)
    }

    /// As [`Tool::run`], with text on standard input.
    pub(crate) fn run_with_input<I, S>(self, arguments: I, input: &str) -> Result<String, CommandError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.execute(arguments, Stdin::Text(input), None)
    }

    /// As [`Tool::run`], with standard output and error in `log`; for tools that leave a process running.
    pub(crate) fn run_with_log<I, S>(self, arguments: I, log: &File) -> Result<(), CommandError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.execute(arguments, Stdin::Nothing, Some(log)).map(drop)
    }

    fn execute<I, S>(self, arguments: I, stdin: Stdin<'_>, log: Option<&File>) -> Result<String, CommandError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let Self { program, package } = self;
        let path = self.find().ok_or(CommandError::Missing { program, package })?;
        let arguments: Vec<OsString> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let start = |source| CommandError::Start { program, source };
        let mut command = prepare(&path);
        command.args(&arguments);
        command.stdin(if matches!(stdin, Stdin::Nothing) { Stdio::null() } else { Stdio::piped() });
        match log {
            Some(log) => {
                command.stdout(log.try_clone().map_err(start)?).stderr(log.try_clone().map_err(start)?);
            }
            None => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let mut child = command.spawn().map_err(start)?;
        if let (Stdin::Text(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
            // A tool that ends before reading all input reports the reason by its status.
            drop(pipe.write_all(text.as_bytes()));
        }
        let output = child.wait_with_output().map_err(start)?;
        check(program, &arguments, &output)
    }
}

/// Starts a program that stays, with its output in `log`.
pub(crate) fn start<I, S>(program: &Path, arguments: I, log: &File) -> std::io::Result<Child>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = prepare(program);
    command.args(arguments).current_dir("/").stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log.try_clone()?).spawn()
}

/// As [`start`], in a folder.
pub(crate) fn start_in(folder: &Path, program: &Path, arguments: &[String], log: &File) -> std::io::Result<Child> {
    let mut command = prepare(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log.try_clone()?).spawn()
}

/// The program of this process once more, under `name`; also where its file was replaced or removed meanwhile.
pub(crate) fn own(name: &Path) -> Command {
    let mut command = prepare(Path::new("/proc/self/exe"));
    command.arg0(name);
    command
}

/// A program of the host with a clean environment.
#[expect(clippy::disallowed_methods, reason = "a tool on a host, not on a node: there is no reaper to disturb")]
pub(crate) fn prepare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", FOLDERS.join(":")).env("LC_ALL", "C");
    command
}

enum Stdin<'a> {
    Nothing,
    Text(&'a str),
}

fn check(program: &str, arguments: &[OsString], output: &Output) -> Result<String, CommandError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut command = program.to_owned();
    for argument in arguments {
        command.push(' ');
        command.push_str(&argument.to_string_lossy());
    }
    let printed = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let output_text = String::from_utf8_lossy(printed).trim().replace('\n', "; ");
    Err(CommandError::Failed { command, status: output.status.to_string(), output: output_text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_tool_says_what_it_was_asked_and_what_it_answered() {
        let error = CP.run(["/does/not/exist", "/tmp/nowhere"]).unwrap_err();
        let CommandError::Failed { command, output, .. } = error else { panic!("{error}") };
        assert_eq!(command, "cp /does/not/exist /tmp/nowhere");
        assert!(output.contains("No such file"), "{output}");
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let tool = Tool { program: "no-such-tool", package: "nothing" };
        let error = tool.run::<[&str; 0], _>([]).unwrap_err();
        assert_eq!(error.to_string(), "no-such-tool is not installed (Debian package nothing)");
    }
}
