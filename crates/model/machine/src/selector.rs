//! Selection of a disk by its properties: all given fields have to match, and the first disk by name is taken.

use std::cmp::Ordering;

use crate::disk::Disk;
use crate::size::{self, SizeError};

/// Fields of `machine.install.diskSelector`; an empty one matches every disk. `*` in a text stands for any text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    pub size: Option<SizeMatch>,
    pub name: String,
    pub model: String,
    pub serial: String,
    pub modalias: String,
    pub uuid: String,
    pub wwid: String,
    /// `ssd`, `hdd`, `nvme` or `sd`.
    pub kind: String,
    pub bus_path: String,
}

impl Selector {
    /// Whether a disk matches all fields.
    #[must_use]
    pub fn matches(&self, disk: &Disk) -> bool {
        let texts = [
            (&self.name, disk.name.as_str()),
            (&self.model, &disk.model),
            (&self.serial, &disk.serial),
            (&self.modalias, &disk.modalias),
            (&self.uuid, &disk.uuid),
            (&self.wwid, &disk.wwid),
            (&self.bus_path, &disk.bus_path),
        ];
        texts.iter().all(|(pattern, text)| pattern.is_empty() || glob(pattern, text))
            && (self.kind.is_empty() || self.kind == disk.kind.as_str())
            && self.size.is_none_or(|size| size.matches(disk.size))
    }

    /// The first matching disk by the path of its device.
    #[must_use]
    pub fn select<'a>(&self, disks: &'a [Disk]) -> Option<&'a Disk> {
        disks.iter().filter(|disk| self.matches(disk)).min_by(|a, b| a.device_path.cmp(&b.device_path))
    }
}

/// A comparison with a size: `>= 1TB`, `<500GiB`, `== 10GB`; without a sign the size is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeMatch {
    comparison: Comparison,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    Equal,
    Above,
    Below,
}

const SIGNS: [(&str, Comparison); 5] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

impl std::str::FromStr for SizeMatch {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_start();
        let signed = SIGNS.iter().find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)));
        let (comparison, number) = signed.unwrap_or((Comparison::Equal, text));
        Ok(Self { comparison, bytes: size::parse(number)? })
    }
}

impl SizeMatch {
    /// Whether a disk of this many bytes has it.
    #[must_use]
    pub fn matches(self, bytes: u64) -> bool {
        let order = bytes.cmp(&self.bytes);
        match self.comparison {
            Comparison::AtLeast => order != Ordering::Less,
            Comparison::AtMost => order != Ordering::Greater,
            Comparison::Equal => order == Ordering::Equal,
            Comparison::Above => order == Ordering::Greater,
            Comparison::Below => order == Ordering::Less,
        }
    }
}

/// Whether `text` is `pattern`, in which each `*` stands for any text. The time is bounded by the product of both lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The first place is as good as any: what follows may only begin earlier.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::DiskType;

    fn disk(path: &str, size: u64, model: &str) -> Disk {
        Disk { device_path: path.into(), size, model: model.into(), ..Disk::default() }
    }

    #[test]
    fn all_fields_have_to_match_and_the_first_by_name_is_taken() {
        let disks = [disk("/dev/sdc", 10, "WDC A"), disk("/dev/sda", 10, "Other"), disk("/dev/sdb", 10, "WDC B")];
        let by_model = Selector { model: "WDC*".into(), ..Selector::default() };
        assert_eq!(by_model.select(&disks).unwrap().device_path, "/dev/sdb");
        let none = Selector { serial: "x".into(), ..by_model.clone() };
        assert_eq!(none.select(&disks), None);
        let large = Selector { size: Some("> 10".parse().unwrap()), ..by_model };
        assert_eq!(large.select(&disks), None);
    }

    #[test]
    fn kind_and_bus_path_select() {
        let nvme = Disk { kind: DiskType::Nvme, bus_path: "/pci0000:00/0000:00:17.0/ata1/".into(), ..Disk::default() };
        let selector = Selector { kind: "nvme".into(), bus_path: "/pci0000:00/*/ata1/".into(), ..Selector::default() };
        assert!(selector.matches(&nvme));
        assert!(!selector.matches(&Disk { kind: DiskType::Ssd, ..nvme.clone() }));
        assert!(!Selector { bus_path: "/pci0000:00/*/ata2/".into(), ..selector }.matches(&nvme));
    }

    #[test]
    fn sizes_are_compared_by_their_sign() {
        let gigabyte = 1_000_000_000;
        for (text, below, equal, above) in [
            (">= 1GB", false, true, true),
            ("<=1GB", true, true, false),
            (" == 1 GB", false, true, false),
            ("1GB", false, true, false),
            ("> 1GB", false, false, true),
            ("< 1GB", true, false, false),
        ] {
            let size: SizeMatch = text.parse().unwrap();
            let matches = [gigabyte - 1, gigabyte, gigabyte + 1].map(|bytes| size.matches(bytes));
            assert_eq!(matches, [below, equal, above], "{text}");
        }
        assert!("=> 1GB".parse::<SizeMatch>().is_err_and(|error| error.to_string().contains("is not a size")));
    }

    #[test]
    fn stars_stand_for_any_text_and_nothing_else_is_special() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("?", "a", false),
            ("a**c", "ac", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// The definition of a pattern, slow and short.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| slow(rest, &text[skip..])),
            Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_they_are_defined(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            prop_assert_eq!(glob(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
