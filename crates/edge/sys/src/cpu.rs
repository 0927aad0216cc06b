//! The processor: whether it has what programs of the system are compiled for.

/// A processor has not all instructions of x86-64-v2, which the system's programs use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the processor is too old: it has no {}, and the system needs x86-64-v2", missing.join(", "))]
pub struct UnsupportedProcessor {
    pub missing: Vec<&'static str>,
}

/// Bits of ECX that make x86-64-v2 (System V ABI): of leaf 1, and of leaf 0x8000_0001.
const LEAF_1: [(u32, &str); 6] =
    [(0, "SSE3"), (9, "SSSE3"), (13, "CMPXCHG16B"), (19, "SSE4.1"), (20, "SSE4.2"), (23, "POPCNT")];
const EXTENDED: [(u32, &str); 1] = [(0, "LAHF")];

/// Checks this processor.
///
/// # Errors
/// [`UnsupportedProcessor`] with the names of missing instructions. Other architectures are not checked.
pub fn supports_x86_64_v2() -> Result<(), UnsupportedProcessor> {
    let (leaf_1, extended) = leaves();
    check(leaf_1, extended)
}

#[cfg(target_arch = "x86_64")]
fn leaves() -> (u32, u32) {
    use std::arch::x86_64::{__cpuid, __get_cpuid_max};
    let (highest, _) = __get_cpuid_max(0x8000_0000);
    let extended = if highest >= 0x8000_0001 { __cpuid(0x8000_0001).ecx } else { 0 };
    (__cpuid(1).ecx, extended)
}

#[cfg(not(target_arch = "x86_64"))]
fn leaves() -> (u32, u32) {
    (u32::MAX, u32::MAX)
}

fn check(leaf_1: u32, extended: u32) -> Result<(), UnsupportedProcessor> {
    let lacks = |bits: u32, table: &'static [(u32, &'static str)]| {
        table.iter().filter(move |(bit, _)| bits & (1 << bit) == 0).map(|(_, name)| *name)
    };
    let missing: Vec<&str> = lacks(leaf_1, &LEAF_1).chain(lacks(extended, &EXTENDED)).collect();
    if missing.is_empty() { Ok(()) } else { Err(UnsupportedProcessor { missing }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_of_the_first_generation_is_told_what_it_lacks() {
        // A Pentium 4 with EM64T: SSE3, CMPXCHG16B, LAHF.
        let error = check(1 | 1 << 13, 1).unwrap_err();
        assert_eq!(error.missing, ["SSSE3", "SSE4.1", "SSE4.2", "POPCNT"]);
        assert_eq!(check(u32::MAX, 1), Ok(()));
        assert_eq!(check(u32::MAX, 0).unwrap_err().missing, ["LAHF"]);
    }
}
