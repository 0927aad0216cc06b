//! The only module that prints. Results go to standard output, diagnostics to standard error; colour and progress are
//! for terminals only.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use crate::command_error::{CommandError, Kind};

pub(crate) mod json;
pub(crate) mod table;

/// Whether a stream supports colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColorMode {
    Coloured,
    Plain,
}

/// Destination of output.
#[derive(Debug)]
pub(crate) struct Output {
    stderr: ColorMode,
}

/// Colours in use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Red => "\u{1b}[31m",
            Self::Green => "\u{1b}[32m",
            Self::Yellow => "\u{1b}[33m",
        }
    }
}

impl ColorMode {
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
        let look = |terminal: bool| if terminal && wanted { ColorMode::Coloured } else { ColorMode::Plain };
        Self { stderr: look(io::stderr().is_terminal()) }
    }

    /// Without colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { stderr: ColorMode::Plain }
    }

    /// Prints a line of the result.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_ref().as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    /// Prints bytes of the result unchanged.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Replaces the content of a terminal; on other streams texts follow each other.
    pub(crate) fn screen(&self, text: &str) -> io::Result<()> {
        let clear = if io::stdout().is_terminal() { "\u{1b}[H\u{1b}[2J" } else { "" };
        self.line(format!("{clear}{text}"))
    }

    /// Style for diagnostics.
    pub(crate) fn painted(&self, colour: Colour, text: &str) -> String {
        self.stderr.paint(colour, text)
    }

    /// Prints a progress line to standard error.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        let mut stderr = io::stderr().lock();
        // A closed standard error cannot be reported.
        writeln!(stderr, "{}", text.as_ref()).ok();
    }

    pub(crate) fn warning(&self, text: impl AsRef<str>) {
        self.note(format!("{} {}", self.stderr.paint(Colour::Yellow, "warning:"), text.as_ref()));
    }

    /// Prints the error of one node; others continue.
    pub(crate) fn node_error(&self, node: &str, error: &dyn std::fmt::Display) {
        let label = self.stderr.paint(Colour::Red, "error:");
        if node.is_empty() {
            self.note(format!("{label} {error}"));
        } else {
            self.note(format!("{label} {node}: {error}"));
        }
    }

    /// Asks a question, answered by `y` or `yes`; the answer is no without a terminal.
    pub(crate) fn confirm(&self, question: &str) -> io::Result<bool> {
        if !io::stdin().is_terminal() {
            return Ok(false);
        }
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question} [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Prints the error with hints and returns its exit code.
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

    /// Prints requested help, or the error in the command line.
    pub(crate) fn finish_parsing(&self, stop: &clap::Error) -> ExitCode {
        // A group without a subcommand is a request for help.
        if stop.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            self.raw(stop.render().to_string().as_bytes()).ok();
            return ExitCode::SUCCESS;
        }
        // A closed stream cannot be reported.
        stop.print().ok();
        if stop.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// The distance of a time from now in its largest whole unit: `3 hours ago`, `11 months from now`.
pub(crate) fn relative(at: SystemTime, now: SystemTime) -> String {
    match (at.duration_since(now), now.duration_since(at)) {
        (Ok(left), _) if left.as_secs() > 0 => format!("{} from now", distance(left)),
        (_, Ok(past)) if past.as_secs() > 0 => format!("{} ago", distance(past)),
        _ => "now".to_owned(),
    }
}

/// Months of 30 days and years of twelve months are accurate enough here.
fn distance(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = duration.as_secs();
    let units =
        [("year", 360 * DAY), ("month", 30 * DAY), ("week", 7 * DAY), ("day", DAY), ("hour", HOUR), ("minute", MINUTE)];
    let (unit, size) = units.into_iter().find(|(_, size)| seconds >= *size).unwrap_or(("second", 1));
    match seconds / size {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    }
}

/// A value as YAML in the project's style.
pub(crate) fn yaml_of(value: &serde_json::Value) -> String {
    yaml::to_text(value)
}

/// A size with decimal units: `512 B`, `2.0 kB`, `13 MB`.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 1000 {
        return format!("{size} B");
    }
    // Tenths of the unit as exact integers, so that nothing is rounded up into the next unit.
    let mut tenths = u128::from(size) * 10 / 1000;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", tenths / 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits_and_a_unit() {
        let shown = [0, 999, 1000, 2048, 9_999, 10_000, 999_999, 13_500_000, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "2.0 kB", "9.9 kB", "10 kB", "999 kB", "13 MB", "18 EB"]);
    }

    #[test]
    fn times_are_as_far_away_as_people_say() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let past = [0, 1, 59, 65, 7_300, 90_000, 8 * 86_400, 45 * 86_400, 800 * 86_400];
        let shown = past.map(|seconds| relative(now - Duration::from_secs(seconds), now));
        let expected = [
            "now",
            "1 second ago",
            "59 seconds ago",
            "1 minute ago",
            "2 hours ago",
            "1 day ago",
            "1 week ago",
            "1 month ago",
            "2 years ago",
        ];
        assert_eq!(shown, expected);
        assert_eq!(relative(now + Duration::from_secs(330 * 86_400), now), "11 months from now");
    }
}
