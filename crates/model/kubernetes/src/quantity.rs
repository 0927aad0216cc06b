//! Kubernetes quantities: amounts of CPU and memory.

/// Suffixes with the factor by which a number of them has this many thousandths.
const UNITS: [(&str, i128); 16] = [
    ("m", 1),
    ("", 1_000),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
    ("Ei", 1_000 << 60),
    ("n", 0),
    ("u", 0),
];
/// More digits than any amount needs; bounds the arithmetic.
const MAX_DIGITS: usize = 18;

/// A quantity in thousandths, rounded up: `500m` is 500, `1` is 1000, `1Ki` is 1,024,000. `None` where the text is no
/// quantity that can be asked for: another form, a negative amount, or more than any machine has.
#[must_use]
pub fn milli(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (factor, exponent) = match unit.strip_prefix(['e', 'E']).filter(|digits| !digits.is_empty() && *digits != "i") {
        Some(digits) => (1_000, digits.parse::<u32>().ok().filter(|exponent| *exponent <= 18)?),
        None => (UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > MAX_DIGITS || fraction.contains('.') {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    // billionths and millionths round up to a thousandth
    if factor == 0 {
        return Some(i128::from(value > 0));
    }
    let scaled = value.checked_mul(factor)?.checked_mul(10i128.checked_pow(exponent)?)?;
    Some(scaled.div_euclid(scale) + i128::from(scaled.rem_euclid(scale) > 0))
}

/// A quantity in whole units, such as bytes, rounded down; `None` where it is no quantity or more than fits.
#[must_use]
pub fn whole(text: &str) -> Option<u64> {
    u64::try_from(milli(text)? / 1_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_in_thousandths() {
        for (text, expected) in [
            ("500m", 500),
            ("1", 1_000),
            ("0.5", 500),
            ("1.0005", 1_001),
            ("1Ki", 1_024_000),
            ("256Mi", 268_435_456_000),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("5n", 1),
            ("0", 0),
        ] {
            assert_eq!(milli(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn bytes_are_rounded_down() {
        for (text, bytes) in [
            ("1Gi", Some(1 << 30)),
            ("512Mi", Some(512 << 20)),
            ("2G", Some(2_000_000_000)),
            ("1.5Gi", Some(1_610_612_736)),
            ("1500m", Some(1)),
            ("", None),
            ("99999999999999999999Ti", None),
        ] {
            assert_eq!(whole(text), bytes, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_quantities() {
        for text in ["", "m", "lots", "1 Gi", "-1", "1.2.3", "1Kb", "1e99", "9999999999999999999999", ".", "1mm"] {
            assert_eq!(milli(text), None, "{text}");
        }
    }
}
