//! File modes as text. Nodes send the file type in the high bits, as Go does, above the nine permission bits; kernel
//! modes are accepted as well.

/// Letter and bit of each file type; the first match is shown.
const HIGH_BITS: [(u32, char); 13] = [
    (31, 'd'),
    (30, 'a'),
    (29, 'l'),
    (28, 'T'),
    (27, 'L'),
    (26, 'D'),
    (25, 'p'),
    (24, 'S'),
    (23, 'u'),
    (22, 'g'),
    (21, 'c'),
    (20, 't'),
    (19, '?'),
];

/// `drwxr-xr-x`, `Lrwxrwxrwx`, `dtrwxrwxrwx`.
pub(super) fn text(mode: u32) -> String {
    let mut text: String = if mode & 0o170_000 == 0 {
        HIGH_BITS.iter().filter(|(bit, _)| mode & (1 << bit) != 0).map(|(_, letter)| *letter).collect()
    } else {
        kernel_type(mode).to_owned()
    };
    if text.is_empty() {
        text.push('-');
    }
    for (at, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if mode & (1 << (8 - at)) != 0 { letter } else { '-' });
    }
    text
}

fn kernel_type(mode: u32) -> &'static str {
    match mode & 0o170_000 {
        0o040_000 => "d",
        0o120_000 => "L",
        0o010_000 => "p",
        0o140_000 => "S",
        0o020_000 => "Dc",
        0o060_000 => "D",
        _ => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_of_a_mode_look_the_same() {
        assert_eq!(text(1 << 31 | 0o755), "drwxr-xr-x");
        assert_eq!(text(0o040_755), "drwxr-xr-x");
        assert_eq!(text(0o644), "-rw-r--r--");
        assert_eq!(text(0o100_644), "-rw-r--r--");
        assert_eq!(text(1 << 31 | 1 << 20 | 0o777), "dtrwxrwxrwx");
        assert_eq!(text(1 << 26 | 1 << 21 | 0o620), "Dcrw--w----");
    }
}
