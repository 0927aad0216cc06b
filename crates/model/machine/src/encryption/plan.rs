//! Which slots have to change, so that a volume has the keys that are configured and no others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Header, SLOTS};

/// Whether a configured key fits what is in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Fits,
    Wrong,
    /// It cannot be had now: nothing is done to its slot.
    Unknown,
}

/// One change of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Gives `slot` the configured key of the slot `key`.
    Add { slot: u32, key: u32 },
    /// Deletes a slot with its token.
    Kill { slot: u32 },
}

/// Changes in their order. Between both parts, old and new keys open the volume: that is the time to note the new ones elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Only adds.
    pub first: Vec<Step>,
    pub then: Vec<Step>,
}

impl Plan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.then.is_empty()
    }
}

/// The changes that `header` needs for the configured keys, by their slots. A key whose slot has another one is added to a spare
/// slot first. While a key cannot be had, nothing is deleted that might be the way in.
#[must_use]
pub fn plan(header: &Header, keys: &BTreeMap<u32, Check>) -> Plan {
    let mut plan = Plan::default();
    let mut used: BTreeSet<u32> = header.slots.iter().chain(keys.keys()).copied().collect();
    // A slot of an administrator is never a configured key's as well.
    let keys = keys.iter().filter(|(slot, _)| !header.is_recovery(**slot));
    let keys: BTreeMap<u32, Check> = keys.map(|(slot, check)| (*slot, *check)).collect();
    for (slot, check) in &keys {
        if !header.slots.contains(slot) {
            if *check != Check::Unknown {
                plan.first.push(Step::Add { slot: *slot, key: *slot });
            }
        } else if *check == Check::Wrong
            && let Some(spare) = (0..SLOTS).rev().find(|spare| !used.contains(spare))
        {
            used.insert(spare);
            plan.first.push(Step::Add { slot: spare, key: *slot });
            plan.then.extend([
                Step::Kill { slot: *slot },
                Step::Add { slot: *slot, key: *slot },
                Step::Kill { slot: spare },
            ]);
        }
    }
    let is_certain = keys.values().any(|check| *check == Check::Fits) || !plan.first.is_empty();
    if is_certain {
        let unlisted = header.slots.iter().filter(|slot| !keys.contains_key(slot) && !header.is_recovery(**slot));
        plan.then.extend(unlisted.map(|slot| Step::Kill { slot: *slot }));
    }
    plan
}
