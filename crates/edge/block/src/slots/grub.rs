//! Slots of GRUB: directories on BOOT.

use std::io::Write as _;
use std::path::Path;

use machine::grub::{ENTRY, ENVIRONMENT_PATH, Entry, Environment, Slot};
use machine::trial::{Installed, SlotId, Slots};

use super::{SlotsError, read};

pub(super) fn slots(root: &Path, booted: Option<Slot>) -> Result<Slots, SlotsError> {
    let Environment { default, next } = environment(root)?;
    let mut installed = Vec::new();
    for slot in [Slot::A, Slot::B] {
        let path = root.join(slot.name()).join(ENTRY);
        // A slot without an entry is empty, or was not finished.
        let Some(text) = read(&path)? else { continue };
        match Entry::parse(slot, &String::from_utf8_lossy(&text)) {
            Ok(entry) => installed.push(Installed { slot: id(slot), version: entry.version, tries_left: None }),
            Err(error) => tracing::warn!(path = %path.display(), %error, "the slot is passed over"),
        }
    }
    Ok(Slots { default: Some(id(default)), next: next.map(id), booted: booted.map(id), installed })
}

pub(super) fn start_next(root: &Path, slot: Option<&SlotId>) -> Result<(), SlotsError> {
    let next = slot.map(|slot| known(root, slot)).transpose()?;
    write(root, Environment { next, ..environment(root)? })
}

pub(super) fn make_default(root: &Path, slot: &SlotId) -> Result<(), SlotsError> {
    let default = known(root, slot)?;
    write(root, Environment { default, ..environment(root)? })
}

fn id(slot: Slot) -> SlotId {
    SlotId::new(slot.name())
}

fn known(root: &Path, slot: &SlotId) -> Result<Slot, SlotsError> {
    let found = Slot::of_name(slot.as_str()).filter(|slot| root.join(slot.name()).join(ENTRY).exists());
    found.ok_or_else(|| SlotsError::Unknown(slot.clone()))
}

fn environment(root: &Path) -> Result<Environment, SlotsError> {
    let path = root.join(ENVIRONMENT_PATH);
    let block = read(&path)?.unwrap_or_default();
    Environment::parse(&block).map_err(|source| SlotsError::Grub { path, source })
}

/// In place: the block of the file stays where it is, and is replaced as a whole.
fn write(root: &Path, environment: Environment) -> Result<(), SlotsError> {
    let path = root.join(ENVIRONMENT_PATH);
    let written = std::fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| {
        file.write_all(&environment.encode())?;
        file.sync_all()
    });
    written.map_err(|source| SlotsError::File { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot() -> tempfile::TempDir {
        let boot = tempfile::tempdir().unwrap();
        for directory in ["A", "B", "grub"] {
            std::fs::create_dir(boot.path().join(directory)).unwrap();
        }
        let environment = Environment { default: Slot::A, next: None };
        std::fs::write(boot.path().join(ENVIRONMENT_PATH), environment.encode()).unwrap();
        boot
    }

    fn fill(boot: &Path, slot: Slot, version: &str) {
        let entry = Entry { slot, version: version.into(), arguments: String::new() };
        std::fs::write(boot.join(slot.name()).join(ENTRY), entry.render()).unwrap();
    }

    #[test]
    fn the_choice_between_slots_is_kept() {
        let boot = boot();
        let root = boot.path();
        fill(root, Slot::A, "v1");
        let (a, b) = (SlotId::new("A"), SlotId::new("B"));
        let unknown = start_next(root, Some(&b)).unwrap_err();
        assert!(matches!(unknown, SlotsError::Unknown(_)), "{unknown}");
        fill(root, Slot::B, "v2");
        start_next(root, Some(&b)).unwrap();
        let seen = slots(root, Some(Slot::A)).unwrap();
        assert_eq!((&seen.default, &seen.next, &seen.booted), (&Some(a.clone()), &Some(b.clone()), &Some(a.clone())));
        let version = |slot| seen.version(slot).map(|installed| installed.version.clone());
        assert_eq!((version(&a), version(&b)), (Some("v1".into()), Some("v2".into())));
        make_default(root, &b).unwrap();
        start_next(root, None).unwrap();
        let seen = slots(root, None).unwrap();
        assert_eq!((seen.default, seen.next, seen.booted), (Some(b), None, None));
    }

    #[test]
    fn an_unfinished_slot_is_none_and_a_lost_environment_is_an_error() {
        let boot = boot();
        fill(boot.path(), Slot::A, "v1");
        std::fs::write(boot.path().join("B").join(ENTRY), "menuentry").unwrap();
        assert_eq!(slots(boot.path(), None).unwrap().installed.len(), 1);
        std::fs::write(boot.path().join(ENVIRONMENT_PATH), "").unwrap();
        let error = slots(boot.path(), None).unwrap_err();
        assert!(matches!(error, SlotsError::Grub { .. }), "{error}");
    }
}
