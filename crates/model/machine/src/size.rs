//! Sizes in bytes as operators write them: `10 GB`, `512MiB`.

/// KB is 1000 bytes, KiB is 1024; the case of units does not matter.
const UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
];

/// A text that is no size.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a size; write bytes or, for example, 10 GB or 512MiB")]
pub struct SizeError(String);

/// The bytes that `text` means.
///
/// # Errors
/// [`SizeError`].
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let invalid = || SizeError(text.to_owned());
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(invalid)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).unwrap_or(u32::MAX)).ok_or_else(invalid)?;
    let digits: u64 = format!("{whole}{fraction}").parse().map_err(|_| invalid())?;
    let bytes = u128::from(digits) * u128::from(factor) / u128::from(scale);
    u64::try_from(bytes).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_families_of_units() {
        let good =
            [("1024", 1024), ("10 GB", 10_000_000_000), ("1.5GiB", 1_610_612_736), ("0", 0), ("512mib", 512 << 20)];
        for (text, bytes) in good {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "1 parsec", "-1", "99999999999 PB", "1.2.3 GB", "1.0000000000000000000000 GB"] {
            assert_eq!(parse(text), Err(SizeError(text.to_owned())), "{text}");
        }
    }
}
