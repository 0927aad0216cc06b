//! Boot options of UEFI firmware: what it starts, in which order.
//!
//! systemd-boot gives the turn back to the firmware when an image cannot be loaded, and has forgotten by then that it was to start
//! that one. A second option with the same boot loader, right behind the one that the machine was started by, has it start the
//! default. Without it, the firmware goes on with what comes next: the network, or a menu that waits for a person.

use crate::gpt::Partition;
use crate::loader::{decode_variable, encode_variable};

/// Vendor of the firmware's own variables.
pub const VENDOR: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Variable: the options in their order.
pub const ORDER: &str = "BootOrder";
/// Variable: the option by which the machine was started.
pub const CURRENT: &str = "BootCurrent";
/// What firmware shows of the second option, by which it is known again.
const DESCRIPTION: &str = "Talos, after an image that does not start";
/// Attribute of an option that takes part.
const ACTIVE: u32 = 1;
/// Most options that firmware is taken to have.
const MOST: u16 = 256;

/// The variable of an option.
#[must_use]
pub fn name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// A file of a partition as an option (UEFI 2.10, 3.1.3 and 10.3).
fn option(partition: &Partition, file: &str) -> Vec<u8> {
    let mut path = node(4, 1, &{
        let mut drive = partition.number.to_le_bytes().to_vec();
        for number in [partition.first, partition.last.saturating_sub(partition.first).saturating_add(1)] {
            drive.extend(number.to_le_bytes());
        }
        drive.extend(partition.id.bytes());
        // A GPT, whose partitions have ids.
        drive.extend([2, 2]);
        drive
    });
    path.extend(node(4, 4, &encode_variable(&format!("\\{}", file.replace('/', "\\")))));
    path.extend(node(0x7f, 0xff, &[]));
    let mut option = ACTIVE.to_le_bytes().to_vec();
    option.extend(u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    option.extend(encode_variable(DESCRIPTION));
    option.extend(path);
    option
}

fn node(kind: u8, subtype: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 4).unwrap_or(u16::MAX).to_le_bytes();
    [&[kind, subtype, length[0], length[1]], content].concat()
}

fn numbers(value: &[u8]) -> Vec<u16> {
    value.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// Whether an option is the second one.
fn is_second(option: &[u8]) -> bool {
    option.get(6..).is_some_and(|rest| decode_variable(rest) == DESCRIPTION)
}

/// The second option, and the order in which it follows the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondOption {
    /// Its variable, with the value.
    pub option: (String, Vec<u8>),
    /// The value of [`ORDER`].
    pub order: Vec<u8>,
}

/// Plans the option for a boot loader. `get` reads a variable of [`VENDOR`]. None where the firmware does not say what it has started.
///
/// # Errors
/// Of `get`.
pub fn second<E>(
    partition: &Partition,
    boot_loader: &str,
    get: impl Fn(&str) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<SecondOption>, E> {
    let first_of = |value: Option<Vec<u8>>| numbers(&value.unwrap_or_default()).first().copied();
    let Some(current) = first_of(get(CURRENT)?) else { return Ok(None) };
    let mut order = numbers(&get(ORDER)?.unwrap_or_default());
    let (mut own, mut free) = (None, None);
    for number in 0..MOST {
        match get(&name(number))? {
            Some(option) if own.is_none() && is_second(&option) => own = Some(number),
            None if free.is_none() => free = Some(number),
            _ => {}
        }
    }
    let Some(number) = own.or(free) else { return Ok(None) };
    if number != current {
        order.retain(|other| *other != number);
        let Some(at) = order.iter().position(|other| *other == current) else { return Ok(None) };
        order.insert(at + 1, number);
    }
    let order = order.into_iter().flat_map(u16::to_le_bytes).collect();
    Ok(Some(SecondOption { option: (name(number), option(partition, boot_loader)), order }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::gpt::Guid;
    use crate::loader::REMOVABLE_PATH;

    fn efi() -> Partition {
        Partition {
            number: 1,
            kind: Guid::NIL,
            id: Guid::from_bytes([7; 16]),
            first: 2048,
            last: 4095,
            attributes: 0,
            name: "EFI".into(),
        }
    }

    fn planned(variables: &BTreeMap<String, Vec<u8>>) -> Option<SecondOption> {
        second(&efi(), REMOVABLE_PATH, |name| Ok::<_, Infallible>(variables.get(name).cloned())).unwrap()
    }

    fn firmware(current: u16, order: &[u16]) -> BTreeMap<String, Vec<u8>> {
        let order: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut variables =
            BTreeMap::from([(ORDER.to_owned(), order), (CURRENT.to_owned(), current.to_le_bytes().into())]);
        for number in [0, 1, 2] {
            variables.insert(name(number), vec![0; 40]);
        }
        variables
    }

    #[test]
    fn the_second_option_follows_the_one_that_started_the_machine_and_stays() {
        let mut variables = firmware(1, &[0, 1, 2]);
        let plan = planned(&variables).unwrap();
        assert_eq!((plan.option.0.as_str(), numbers(&plan.order)), ("Boot0003", vec![0, 1, 3, 2]));
        variables.insert(plan.option.0.clone(), plan.option.1.clone());
        variables.insert(ORDER.to_owned(), plan.order.clone());
        assert_eq!(planned(&variables).unwrap(), plan);
        // A start by the second one changes nothing.
        variables.insert(CURRENT.to_owned(), vec![3, 0]);
        assert_eq!(planned(&variables).unwrap(), plan);
    }

    #[test]
    fn it_is_what_the_specification_says() {
        let option = planned(&firmware(1, &[1])).unwrap().option.1;
        let title = encode_variable(DESCRIPTION);
        assert_eq!(option[..4], [1, 0, 0, 0]);
        assert_eq!(option[6..6 + title.len()], title);
        let path = &option[6 + title.len()..];
        assert_eq!(usize::from(u16::from_le_bytes([option[4], option[5]])), path.len());
        let mut drive = vec![4, 1, 42, 0, 1, 0, 0, 0];
        drive.extend([0, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]);
        drive.extend([7; 16]);
        drive.extend([2, 2]);
        assert_eq!(path[..42], drive);
        let file = encode_variable("\\EFI\\boot\\BOOTX64.EFI");
        assert_eq!(path[42..46], [4, 4, u8::try_from(file.len() + 4).unwrap(), 0]);
        assert_eq!(path[46..46 + file.len()], file);
        assert_eq!(path[46 + file.len()..], [0x7f, 0xff, 4, 0]);
    }

    #[test]
    fn firmware_that_does_not_say_what_it_started_keeps_its_order() {
        let mut variables = firmware(1, &[1]);
        variables.remove(CURRENT);
        assert_eq!(planned(&variables), None);
        assert_eq!(planned(&firmware(2, &[1])), None, "started by something that is not in the order");
    }
}
