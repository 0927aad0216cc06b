//! The kernel command line: reading, rendering, and the arguments of an installed system.

use std::fmt;

/// Arguments that every image and installed system has: those of Talos 1.7, and what its kernel is built with and Debian's is not
/// (`module.sig_enforce`, `panic`, without which a kernel that finds no root stays where it is).
pub const DEFAULTS: &str = "init_on_alloc=1 slab_nomerge pti=on consoleblank=0 nvme_core.io_timeout=4294967295 \
                            printk.devkmsg=on ima_template=ima-ng ima_appraise=fix ima_hash=sha512 module.sig_enforce=1 panic=10";
/// Consoles of platform `metal` on x86-64.
pub const METAL_CONSOLES: &str = "console=ttyS0 console=tty0";
pub const PLATFORM: &str = "talos.platform";
pub const CONFIG: &str = "talos.config";
/// Partitions to wipe at the boot: `system`, or `system:LABEL,LABEL`.
pub const WIPE: &str = "talos.experimental.wipe";
/// A variable of the system's environment: `NAME=value`.
pub const ENVIRONMENT: &str = "talos.environment";
/// A receiver of the kernel log: a URL of scheme tcp or udp.
pub const LOGGING: &str = "talos.logging.kernel";
/// A receiver of events: `host:port`.
pub const EVENT_SINK: &str = "talos.events.sink";
/// Arguments that an installation takes over from the running kernel, if it has them.
const KEPT: [&str; 6] =
    ["siderolink.api", EVENT_SINK, LOGGING, "em.events_url", "talos.dashboard.disabled", "net.ifnames"];
/// Extra arguments that replace those of the same key instead of being added.
const REPLACED: [&str; 2] = ["console", PLATFORM];
/// Longest command line that is read.
const LONGEST: usize = 16 * 1024;
/// Longest command line in bytes that a kernel on x86 takes (`COMMAND_LINE_SIZE`, less the zero at its end): it cuts off the rest.
pub const KERNEL_LIMIT: usize = 2047;

/// One argument: `key`, or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    pub key: String,
    /// Empty where there is none.
    pub value: String,
}

impl Argument {
    fn parse(text: &str) -> Self {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        // The kernel strips quotes from around the value, or from around the whole argument.
        Self { key: key.replace('"', ""), value: value.replace('"', "") }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |f: &mut fmt::Formatter<'_>, text: &str| {
            if text.contains(is_separator) { write!(f, "\"{text}\"") } else { f.write_str(text) }
        };
        quoted(f, &self.key)?;
        if self.value.is_empty() {
            return Ok(());
        }
        f.write_str("=")?;
        quoted(f, &self.value)
    }
}

/// Whether a character ends an argument unless it is quoted.
const fn is_separator(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\0'
}

/// The arguments of a command line, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline(Vec<Argument>);

/// An extra argument that cannot be part of a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtraArgumentError {
    #[error("extra kernel argument {0:?} has no name")]
    NoName(String),
    #[error("extra kernel argument {0:?} holds a quote or a control character")]
    Character(String),
}

/// A command line that the kernel would cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel command line has {length} bytes with what the boot loader adds, and the kernel takes {KERNEL_LIMIT}: \
     leave out arguments or values of META"
)]
pub struct TooLongError {
    pub length: usize,
}

/// Refuses a command line that is too long for the kernel. `added` are bytes that boot loaders may add to it.
///
/// # Errors
/// [`TooLongError`].
pub fn check_length(line: &str, added: usize) -> Result<(), TooLongError> {
    let length = line.len() + added;
    if length <= KERNEL_LIMIT { Ok(()) } else { Err(TooLongError { length }) }
}

impl Cmdline {
    /// Reads a command line as the kernel does: arguments are separated by white space outside of double quotes. What lies
    /// beyond 16 KiB is not read.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let end = (0..=text.len().min(LONGEST)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        let mut quoted = false;
        let arguments = text[..end].split(|character: char| {
            if character == '"' {
                quoted = !quoted;
            }
            !quoted && is_separator(character)
        });
        // `=` and `""` say nothing.
        let arguments = arguments.map(Argument::parse);
        Self(arguments.filter(|argument| !argument.key.is_empty() || !argument.value.is_empty()).collect())
    }

    /// Its arguments in order.
    pub fn iter(&self) -> impl Iterator<Item = &Argument> {
        self.0.iter()
    }

    /// The first value of a key; empty where the argument has none.
    #[must_use]
    pub fn first<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.values(key).next()
    }

    /// The last value of a key, which is the one in force for most arguments of the kernel.
    #[must_use]
    pub fn last<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.values(key).last()
    }

    /// Where the machine's configuration comes from: the last value of [`CONFIG`], so that an argument added behind others wins, as
    /// for most arguments of the kernel. None for `none`, for an empty value, and without the argument.
    #[must_use]
    pub fn config_source(&self) -> Option<&str> {
        self.last(CONFIG).filter(|source| !matches!(*source, "" | "none"))
    }

    /// All values of a key in order.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |argument| argument.key == key).map(|argument| argument.value.as_str())
    }

    /// Adds all arguments of a command line.
    pub fn append(&mut self, text: &str) {
        self.0.extend(Self::parse(text).0);
    }

    /// Adds an argument.
    pub fn push(&mut self, key: &str, value: &str) {
        self.0.push(Argument { key: key.to_owned(), value: value.to_owned() });
    }

    /// Removes all arguments of a key.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|argument| argument.key != key);
    }

    /// Applies extra arguments of a configuration or of `--extra-kernel-arg`: `-key` removes all of that key, `-key=value`
    /// that one; `console` and `talos.platform` replace those that were there before; all others are added.
    ///
    /// # Errors
    /// An argument without a name or with characters that cannot be kept.
    pub fn apply_extra<S: AsRef<str>>(&mut self, extra: &[S]) -> Result<(), ExtraArgumentError> {
        let parsed = extra.iter().map(|text| check_extra(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
        for key in REPLACED {
            if parsed.iter().any(|argument| argument.key == key) {
                self.remove(key);
            }
        }
        for argument in parsed {
            match argument.key.strip_prefix('-') {
                Some(key) if argument.value.is_empty() => self.remove(key),
                Some(key) => self.0.retain(|own| own.key != key || own.value != argument.value),
                None => self.0.push(argument),
            }
        }
        Ok(())
    }

    /// The command line of an installed system: that of its platform and of the defaults, what is kept of the `running`
    /// one, and the extra arguments. Where its configuration comes from is told by `config`, else by the running one.
    ///
    /// # Errors
    /// As [`Cmdline::apply_extra`].
    pub fn installed<S: AsRef<str>>(
        platform: &str,
        config: Option<&str>,
        running: &Self,
        extra: &[S],
    ) -> Result<Self, ExtraArgumentError> {
        let mut own = Self::default();
        own.push(PLATFORM, platform);
        let config = config.or_else(|| running.config_source()).filter(|source| !source.is_empty());
        own.push(CONFIG, config.unwrap_or("none"));
        own.append(METAL_CONSOLES);
        own.append(DEFAULTS);
        for argument in running.0.iter().filter(|argument| KEPT.contains(&argument.key.as_str())) {
            own.0.push(argument.clone());
        }
        own.apply_extra(extra)?;
        Ok(own)
    }
}

fn check_extra(text: &str) -> Result<Argument, ExtraArgumentError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let name = key.strip_prefix('-').unwrap_or(key);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(ExtraArgumentError::NoName(text.to_owned()));
    }
    // Quotes around a value are what the shell of a boot loader would need; rendering adds them.
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    if text.chars().any(char::is_control) || value.contains('"') || key.contains('"') {
        return Err(ExtraArgumentError::Character(text.to_owned()));
    }
    Ok(Argument { key: key.to_owned(), value: value.to_owned() })
}

impl fmt::Display for Cmdline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, argument) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            argument.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arguments_are_read_as_the_kernel_reads_them() {
        let line = Cmdline::parse("console=ttyS0 quiet  talos.config=\"http://a/b c\" \"x=y z\" console=tty0 empty=\n");
        assert_eq!(line.to_string(), "console=ttyS0 quiet talos.config=\"http://a/b c\" x=\"y z\" console=tty0 empty");
        assert_eq!((line.first("console"), line.last("console")), (Some("ttyS0"), Some("tty0")));
        assert_eq!((line.first("quiet"), line.first("absent")), (Some(""), None));
        assert_eq!(Cmdline::parse(&line.to_string()), line);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        assert_eq!(Cmdline::parse(&"ä ".repeat(1 << 20)).iter().count(), LONGEST / 3);
    }

    #[test]
    fn extra_arguments_add_replace_and_remove() {
        let mut line = Cmdline::parse("talos.platform=metal console=ttyS0 console=tty0 pti=on a=1 a=2 slab_nomerge");
        line.apply_extra(&["console=ttyS1,115200", "a=3", "-a=1", "-pti", "talos.platform=nocloud", "b=\"x y\""])
            .unwrap();
        assert_eq!(line.to_string(), "a=2 slab_nomerge console=ttyS1,115200 a=3 talos.platform=nocloud b=\"x y\"");
    }

    #[test]
    fn arguments_that_cannot_be_kept_are_refused() {
        let apply = |text: &str| Cmdline::default().apply_extra(&[text]);
        assert_eq!(apply("=x"), Err(ExtraArgumentError::NoName("=x".into())));
        assert_eq!(apply("-"), Err(ExtraArgumentError::NoName("-".into())));
        assert_eq!(apply("a=\"b"), Err(ExtraArgumentError::Character("a=\"b".into())));
        assert_eq!(apply("a=b\nc"), Err(ExtraArgumentError::Character("a=b\nc".into())));
    }

    #[test]
    fn the_last_source_of_the_configuration_counts() {
        for (line, source) in [
            ("quiet", None),
            ("talos.config=none", None),
            ("talos.config=", None),
            ("talos.config=http://a talos.config=none", None),
            ("talos.config=none talos.config=http://a", Some("http://a")),
            ("talos.config=http://a talos.config=http://b", Some("http://b")),
        ] {
            assert_eq!(Cmdline::parse(line).config_source(), source, "{line}");
        }
        let running = Cmdline::parse("talos.config=none talos.config=http://a");
        let installed = Cmdline::installed("metal", None, &running, &["talos.config=http://b"]).unwrap();
        assert_eq!((installed.first(CONFIG), installed.config_source()), (Some("http://a"), Some("http://b")));
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        check_length(&"a".repeat(KERNEL_LIMIT - 1), 1).unwrap();
        let refused = check_length(&"a".repeat(KERNEL_LIMIT), 1);
        assert_eq!(refused, Err(TooLongError { length: KERNEL_LIMIT + 1 }));
    }

    #[test]
    fn an_installed_system_keeps_the_source_of_its_configuration_and_a_few_more() {
        let running =
            Cmdline::parse("talos.config=http://x/y panic=1 net.ifnames=0 siderolink.api=s BOOT_IMAGE=/vmlinuz");
        let line = Cmdline::installed("metal", None, &running, &["panic=5"]).unwrap().to_string();
        let expected = format!(
            "talos.platform=metal talos.config=http://x/y {METAL_CONSOLES} {DEFAULTS} net.ifnames=0 siderolink.api=s panic=5"
        );
        assert_eq!(line, expected);
        let without = Cmdline::installed::<&str>("metal", None, &Cmdline::default(), &[]).unwrap();
        assert_eq!(without.first(CONFIG), Some("none"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_rendered_so_that_it_is_read_the_same(text in "\\PC{0,200}|[a-c=\" \t\n\0.-]{0,60}|.{0,60}") {
            let line = Cmdline::parse(&text);
            prop_assert!(line.iter().all(|argument| !argument.key.contains('"') && !argument.value.contains('"')));
            let again = Cmdline::parse(&line.to_string());
            prop_assert_eq!(&again, &line);
            prop_assert_eq!(again.to_string(), line.to_string());
        }

        #[test]
        fn extra_arguments_are_refused_or_kept_as_they_are(text in "[a-c=\" \t.-]{1,20}") {
            let mut line = Cmdline::parse("a=1 b");
            if line.apply_extra(&[&text]).is_ok() {
                prop_assert_eq!(Cmdline::parse(&line.to_string()), line);
            }
        }
    }
}
