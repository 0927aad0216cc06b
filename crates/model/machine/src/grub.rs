//! GRUB on BIOS machines: its menu with two slots of kernels, and the start code in front of it.
//!
//! BOOT holds `A/` and `B/`, each with `vmlinuz`, `initramfs.xz`, and its entries of the menu (`entry.cfg`, `reset.cfg`); the
//! menu `grub/grub.cfg`, which reads those; and `grub/grubenv`, which says what is started. GRUB reads XFS without its
//! log: what starts a machine is therefore never replaced, and the choice is one block that is written in place.

mod start;

use std::fmt;

pub use start::{StartCodeError, boot_sector, core_image, core_sector, free_half, interrupted};

/// The menu on BOOT.
pub const CONFIG_PATH: &str = "grub/grub.cfg";
/// What is started.
pub const ENVIRONMENT_PATH: &str = "grub/grubenv";
/// The argument that names the kernel's file.
pub const BOOT_IMAGE: &str = "BOOT_IMAGE";
/// A slot's own entry of the menu, which is written when all else of the slot is there.
pub const ENTRY: &str = "entry.cfg";
pub const RESET_ENTRY: &str = "reset.cfg";
/// Size of the environment in bytes (GRUB's own is as large).
const ENVIRONMENT_SIZE: usize = 1024;
const ENVIRONMENT_HEAD: &str = "# GRUB Environment Block\n";
pub const KERNEL: &str = "vmlinuz";
pub const INITRAMFS: &str = "initramfs.xz";
const RESET: &str = "Reset Talos installation and return to maintenance mode";
const RESET_ARGUMENT: &str = "talos.experimental.wipe=system:EPHEMERAL,STATE";
const TIMEOUT_SECONDS: u32 = 3;
/// Characters that the menu's language gives a meaning.
const SPECIAL: [char; 11] = ['\\', '{', '}', '&', '$', '|', ';', '<', '>', '"', '\''];
/// Longest file that is read, in bytes.
const LONGEST: usize = 64 * 1024;

/// One of both places for a kernel on BOOT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    A,
    B,
}

impl Slot {
    /// The other place.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its directory on BOOT, which is also the first letter of its menu entry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }

    /// The slot of its name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            _ => None,
        }
    }

    /// The slot that a running kernel came from, by the value of its argument [`BOOT_IMAGE`]: `/A/vmlinuz`.
    #[must_use]
    pub fn of_boot_image(path: &str) -> Option<Self> {
        let (_, path) = path.split_once('/')?;
        Self::of_name(path.strip_suffix(KERNEL)?.strip_suffix('/')?)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The entry of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub slot: Slot,
    /// Of what is in it: `v1.7.0`.
    pub version: String,
    pub arguments: String,
}

impl Entry {
    fn title(&self) -> String {
        format!("{} - Talos {}", self.slot, self.version)
    }
}

/// The kernel argument by which a kernel knows its slot; GRUB adds it by itself.
#[must_use]
pub fn boot_image(slot: Slot) -> String {
    format!("{BOOT_IMAGE}=/{slot}/{KERNEL}")
}

/// What the boot loader starts, as the file [`ENVIRONMENT_PATH`] has it. It is one block that is written in place, by GRUB as well:
/// nothing else on BOOT changes when another slot gets the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Environment {
    /// Started by itself.
    pub default: Slot,
    /// Started the next time only: GRUB forgets it when it starts it.
    pub next: Option<Slot>,
}

/// A menu or an environment that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrubError {
    #[error("the file has {0} bytes; at most {LONGEST} are read")]
    TooLong(usize),
    #[error("the environment of the boot loader names no slot that it starts")]
    NoDefault,
    #[error("the slot has no entry in the menu")]
    NoEntry,
}

impl Environment {
    /// The whole file: lines `NAME=VALUE`, filled up with `#`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let next = self.next.map_or("", Slot::name);
        let mut block = format!("{ENVIRONMENT_HEAD}default_slot={}\nnext_slot={next}\n", self.default).into_bytes();
        block.resize(ENVIRONMENT_SIZE, b'#');
        block
    }

    /// # Errors
    /// `NoDefault`, `TooLong`.
    pub fn parse(block: &[u8]) -> Result<Self, GrubError> {
        if block.len() > LONGEST {
            return Err(GrubError::TooLong(block.len()));
        }
        let text = String::from_utf8_lossy(block);
        let value = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            values.next_back().and_then(Slot::of_name)
        };
        let default = value("default_slot").ok_or(GrubError::NoDefault)?;
        Ok(Self { default, next: value("next_slot") })
    }
}

/// The most bytes that entries of the menu add to the arguments of a system.
#[must_use]
pub fn added_arguments() -> usize {
    boot_image(Slot::A).len() + 1 + RESET_ARGUMENT.len() + 1
}

impl Entry {
    /// The slot's own entry of the menu: the file [`ENTRY`] of its directory.
    #[must_use]
    pub fn render(&self) -> String {
        self.entry(&self.title(), &self.arguments, &format!(" --id {}", self.slot))
    }

    /// The entry that wipes the machine with this slot's kernel: the file [`RESET_ENTRY`] of its directory.
    #[must_use]
    pub fn render_reset(&self) -> String {
        self.entry(RESET, &format!("{} {RESET_ARGUMENT}", self.arguments), "")
    }

    fn entry(&self, title: &str, arguments: &str, id: &str) -> String {
        let (slot, title, arguments) = (self.slot, escape(title), escape(arguments));
        format!(
            "menuentry \"{title}\"{id} {{\n  linux /{slot}/{KERNEL} {arguments}\n  initrd /{slot}/{INITRAMFS}\n}}\n"
        )
    }

    /// Reads the file [`ENTRY`] of a slot. Lines of other meaning are passed over.
    ///
    /// # Errors
    /// `NoEntry`, `TooLong`.
    pub fn parse(slot: Slot, text: &str) -> Result<Self, GrubError> {
        if text.len() > LONGEST {
            return Err(GrubError::TooLong(text.len()));
        }
        let line = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start));
        let title = line("menuentry \"").and_then(|rest| rest.rsplit_once('"')).map(|(title, _)| unescape(title));
        let kernel =
            line("linux ").map(|rest| rest.trim_start().split_once(' ').map_or("", |(_, arguments)| arguments));
        let (Some(title), Some(arguments)) = (title, kernel) else { return Err(GrubError::NoEntry) };
        let version = title.rsplit_once(' ').map_or("", |(_, version)| version).to_owned();
        Ok(Self { slot, version, arguments: unescape(arguments.trim()) })
    }
}

/// The menu on BOOT: which slot is started, its entries, the other slot's, and the reset. It is the same on each machine and is
/// never written again. A slot whose files cannot be loaded gives way to the other one.
#[must_use]
pub fn menu() -> String {
    format!(
        r#"set timeout={TIMEOUT_SECONDS}
set default_slot=A
load_env --file /{ENVIRONMENT_PATH} default_slot next_slot
if [ "$default_slot" = B ]; then set other_slot=A; else set other_slot=B; fi
set default="$default_slot"
set fallback="$other_slot"
if [ "$next_slot" = A -o "$next_slot" = B ]; then
  set default="$next_slot"
  if [ "$next_slot" = "$default_slot" ]; then set fallback="$other_slot"; else set fallback="$default_slot"; fi
  set next_slot=
  save_env --file /{ENVIRONMENT_PATH} next_slot
fi
for slot in $default_slot $other_slot; do
  if [ -e /$slot/{ENTRY} ]; then source /$slot/{ENTRY}; fi
done
if [ -e /$default_slot/{RESET_ENTRY} ]; then source /$default_slot/{RESET_ENTRY}; fi
"#
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars().filter(|character| !character.is_control()) {
        if SPECIAL.contains(&character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or(character) } else { character });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(slot: Slot, version: &str, arguments: &str) -> Entry {
        Entry { slot, version: version.into(), arguments: arguments.into() }
    }

    #[test]
    fn a_slot_has_its_entry_and_the_reset() {
        let entry = slot(Slot::B, "v1.7.1", "a=1 c=\"x y\" d=$2");
        let expected = r#"menuentry "B - Talos v1.7.1" --id B {
  linux /B/vmlinuz a=1 c=\"x y\" d=\$2
  initrd /B/initramfs.xz
}
"#;
        assert_eq!(entry.render(), expected);
        assert_eq!(Entry::parse(Slot::B, expected), Ok(entry.clone()));
        let reset = r#"menuentry "Reset Talos installation and return to maintenance mode" {
  linux /B/vmlinuz a=1 c=\"x y\" d=\$2 talos.experimental.wipe=system:EPHEMERAL,STATE
  initrd /B/initramfs.xz
}
"#;
        assert_eq!(entry.render_reset(), reset);
        assert_eq!(Entry::parse(Slot::A, ""), Err(GrubError::NoEntry));
        assert_eq!(Entry::parse(Slot::A, "menuentry \"A\" {\n}"), Err(GrubError::NoEntry));
        assert_eq!(Entry::parse(Slot::A, &" ".repeat(LONGEST + 1)), Err(GrubError::TooLong(LONGEST + 1)));
    }

    #[test]
    fn the_environment_is_one_block_that_grub_can_write_as_well() {
        for (default, next) in [(Slot::A, None), (Slot::B, Some(Slot::A)), (Slot::A, Some(Slot::A))] {
            let environment = Environment { default, next };
            let block = environment.encode();
            assert_eq!((block.len(), block.last()), (ENVIRONMENT_SIZE, Some(&b'#')));
            assert_eq!(Environment::parse(&block), Ok(environment));
        }
        assert_eq!(Environment::parse(b"# GRUB Environment Block\nnext_slot=A\n###"), Err(GrubError::NoDefault));
        assert_eq!(Environment::parse(&[b'#'; LONGEST + 1]), Err(GrubError::TooLong(LONGEST + 1)));
    }

    #[test]
    fn a_kernel_tells_the_slot_that_it_came_from() {
        for (path, slot) in [
            ("/A/vmlinuz", Some(Slot::A)),
            ("(hd0,gpt3)/B/vmlinuz", Some(Slot::B)),
            ("/boot/vmlinuz", None),
            ("/C/vmlinuz", None),
            ("A", None),
        ] {
            assert_eq!(Slot::of_boot_image(path), slot, "{path}");
        }
    }

    #[test]
    fn a_new_line_in_an_argument_makes_no_new_command() {
        let entry = slot(Slot::A, "v1\"\nhalt", "x\nhalt; y");
        assert!(entry.render().lines().all(|line| !line.starts_with("halt")), "{}", entry.render());
    }
}
