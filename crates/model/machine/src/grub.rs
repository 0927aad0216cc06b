//! GRUB on BIOS machines: its menu with two slots of kernels, and the start code in front of it.
//!
//! BOOT holds `A/` and `B/` with `vmlinuz` and `initramfs.xz` each, and `grub/grub.cfg`, which this renders and reads back.

mod start;

use std::fmt;

pub use start::{StartCodeError, boot_sector, core_image, interrupted};

/// The menu on BOOT.
pub const CONFIG_PATH: &str = "grub/grub.cfg";
pub const KERNEL: &str = "vmlinuz";
pub const INITRAMFS: &str = "initramfs.xz";
const RESET: &str = "Reset Talos installation and return to maintenance mode";
const RESET_ARGUMENT: &str = "talos.experimental.wipe=system:EPHEMERAL,STATE";
const TIMEOUT_SECONDS: u32 = 3;
/// Characters that the menu's language gives a meaning.
const SPECIAL: [char; 11] = ['\\', '{', '}', '&', '$', '|', ';', '<', '>', '"', '\''];
/// Longest menu that is read.
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

    /// The slot of a menu entry, by its first letter.
    #[must_use]
    pub fn of_entry(name: &str) -> Option<Self> {
        match name.as_bytes().first() {
            Some(b'A') => Some(Self::A),
            Some(b'B') => Some(Self::B),
            _ => None,
        }
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

/// A menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Menu {
    pub default: Entry,
    /// What GRUB starts when the default entry cannot be loaded.
    pub fallback: Option<Entry>,
}

/// A menu that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MenuError {
    #[error("the menu has {0} bytes; at most {LONGEST} are read")]
    TooLong(usize),
    #[error("the menu has no default entry")]
    NoDefault,
    #[error("the menu has no entry {0:?}")]
    NoEntry(String),
}

impl Menu {
    /// The menu after `version` was written to a slot: its entry is the default, and what was the default before is the
    /// fallback, unless that was this slot.
    #[must_use]
    pub fn after_install(before: Option<Self>, new: Entry) -> Self {
        let old = before.map(|menu| [Some(menu.default), menu.fallback]).into_iter().flatten().flatten();
        let fallback = old.into_iter().find(|entry| entry.slot != new.slot);
        Self { default: new, fallback }
    }

    /// The slot that the next version goes to: not the default's.
    #[must_use]
    pub fn next_slot(before: Option<&Self>) -> Slot {
        before.map_or(Slot::A, |menu| menu.default.slot.other())
    }

    /// Reads a menu that was rendered here or by the original. Lines of other meaning are passed over.
    ///
    /// # Errors
    /// A menu without a default, or whose default has no entry.
    pub fn parse(text: &str) -> Result<Self, MenuError> {
        if text.len() > LONGEST {
            return Err(MenuError::TooLong(text.len()));
        }
        let setting = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("set ")?.trim().strip_prefix(name)?.strip_prefix('='));
            line.map(|value| unescape(value.trim().trim_matches('"')))
        };
        let entries = entries(text);
        let entry = |title: String| {
            let found =
                entries.iter().find(|(own, _)| *own == title).and_then(|(title, arguments)| entry(title, arguments));
            found.ok_or(MenuError::NoEntry(title))
        };
        let default = entry(setting("default").ok_or(MenuError::NoDefault)?)?;
        // A fallback that is not there is none.
        let fallback = setting("fallback").and_then(|title| entry(title).ok());
        Ok(Self { default, fallback })
    }
}

/// Titles of the menu's entries with their kernel arguments.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    let mut title = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("menuentry \"") {
            title = rest.rsplit_once('"').map(|(title, _)| unescape(title));
        } else if let Some(rest) = line.strip_prefix("linux ") {
            let arguments = rest.trim_start().split_once(' ').map_or("", |(_, arguments)| arguments);
            entries.extend(title.take().map(|title| (title, unescape(arguments.trim()))));
        }
    }
    entries
}

fn entry(title: &str, arguments: &str) -> Option<Entry> {
    let slot = Slot::of_entry(title)?;
    let version = title.rsplit_once(' ').map_or("", |(_, version)| version).to_owned();
    Some(Entry { slot, version, arguments: arguments.to_owned() })
}

impl fmt::Display for Menu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = [Some(&self.default), self.fallback.as_ref()];
        writeln!(f, "set default=\"{}\"", escape(&self.default.title()))?;
        if let Some(fallback) = &self.fallback {
            writeln!(f, "set fallback=\"{}\"", escape(&fallback.title()))?;
        }
        writeln!(f, "set timeout={TIMEOUT_SECONDS}\n")?;
        for entry in entries.into_iter().flatten() {
            menu_entry(f, &entry.title(), entry.slot, &entry.arguments)?;
        }
        let reset = format!("{} {RESET_ARGUMENT}", self.default.arguments);
        menu_entry(f, RESET, self.default.slot, &reset)
    }
}

fn menu_entry(f: &mut fmt::Formatter<'_>, title: &str, slot: Slot, arguments: &str) -> fmt::Result {
    writeln!(f, "menuentry \"{}\" {{", escape(title))?;
    writeln!(f, "  linux /{slot}/{KERNEL} {}", escape(arguments))?;
    writeln!(f, "  initrd /{slot}/{INITRAMFS}\n}}")
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
    fn a_menu_has_the_default_the_fallback_and_the_reset() {
        let menu =
            Menu { default: slot(Slot::B, "v1.7.1", "a=1 c=\"x y\""), fallback: Some(slot(Slot::A, "v1.7.0", "a=$2")) };
        let expected = r#"set default="B - Talos v1.7.1"
set fallback="A - Talos v1.7.0"
set timeout=3

menuentry "B - Talos v1.7.1" {
  linux /B/vmlinuz a=1 c=\"x y\"
  initrd /B/initramfs.xz
}
menuentry "A - Talos v1.7.0" {
  linux /A/vmlinuz a=\$2
  initrd /A/initramfs.xz
}
menuentry "Reset Talos installation and return to maintenance mode" {
  linux /B/vmlinuz a=1 c=\"x y\" talos.experimental.wipe=system:EPHEMERAL,STATE
  initrd /B/initramfs.xz
}
"#;
        assert_eq!(menu.to_string(), expected);
        assert_eq!(Menu::parse(expected), Ok(menu));
    }

    #[test]
    fn versions_go_from_slot_to_slot_and_the_old_default_is_the_fallback() {
        let first = Menu::after_install(None, slot(Menu::next_slot(None), "v1", ""));
        assert_eq!((first.default.slot, &first.fallback), (Slot::A, &None));
        let second = Menu::after_install(Some(first.clone()), slot(Menu::next_slot(Some(&first)), "v2", ""));
        assert_eq!((second.default.slot, second.fallback.as_ref()), (Slot::B, Some(&first.default)));
        // The same slot again: the fallback stays what it was.
        let again = Menu::after_install(Some(second.clone()), slot(Slot::B, "v3", ""));
        assert_eq!((again.default.version.as_str(), again.fallback), ("v3", Some(first.default)));
    }

    #[test]
    fn broken_menus_are_told_apart() {
        assert_eq!(Menu::parse(""), Err(MenuError::NoDefault));
        assert_eq!(
            Menu::parse("set default=\"A - x\"\nmenuentry \"B\" {\nlinux /B/vmlinuz\n}"),
            Err(MenuError::NoEntry("A - x".into()))
        );
        assert_eq!(Menu::parse(&" ".repeat(LONGEST + 1)), Err(MenuError::TooLong(LONGEST + 1)));
        let cut = Menu { default: slot(Slot::A, "v1", "x"), fallback: None }.to_string();
        let fallback_gone = format!("set fallback=\"B - Talos v0\"\n{cut}");
        assert_eq!(Menu::parse(&fallback_gone).map(|menu| menu.fallback), Ok(None));
    }

    #[test]
    fn a_new_line_in_an_argument_makes_no_new_command() {
        let menu = Menu { default: slot(Slot::A, "v1\"\nhalt", "x\nhalt; y"), fallback: None };
        assert!(menu.to_string().lines().all(|line| !line.starts_with("halt")), "{menu}");
    }
}
