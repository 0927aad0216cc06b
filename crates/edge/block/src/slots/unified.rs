//! Slots of systemd-boot: kernel images in a directory of EFI, and variables of the firmware. The name of a slot is that of its
//! entry in the menu, which is the image's without its boot counter.

use std::path::Path;

use machine::loader::{self, ImageName};
use machine::trial::{Installed, SlotId, Slots};

use super::SlotsError;
use crate::efivar::EfiVariables;

pub(super) fn slots(root: &Path, variables: &EfiVariables) -> Result<Slots, SlotsError> {
    let installed = images(root)?.into_iter().map(|(_, image)| Installed {
        slot: SlotId::new(image.entry()),
        version: image.shown_version().to_owned(),
        tries_left: image.tries.map(|tries| tries.left),
    });
    let installed: Vec<Installed> = installed.collect();
    // The firmware may know other entries than ours, and file names in another case.
    let entry = |name: &str| -> Result<Option<SlotId>, SlotsError> {
        let Some(value) = variables.get(name, loader::VENDOR)? else { return Ok(None) };
        let Some(image) = ImageName::parse(&loader::decode_variable(&value)) else { return Ok(None) };
        let known = installed.iter().find(|known| known.slot.as_str().eq_ignore_ascii_case(&image.entry()));
        Ok(known.map(|known| known.slot.clone()))
    };
    let (default, next, booted) =
        (entry(loader::DEFAULT_ENTRY)?, entry(loader::NEXT_ENTRY)?, entry(loader::SELECTED_ENTRY)?);
    Ok(Slots { default, next, booted, installed })
}

pub(super) fn start_next(root: &Path, variables: &EfiVariables, slot: Option<&SlotId>) -> Result<(), SlotsError> {
    match slot {
        None => Ok(variables.remove(loader::NEXT_ENTRY, loader::VENDOR)?),
        Some(slot) => {
            find(root, slot)?;
            set(variables, loader::NEXT_ENTRY, slot)
        }
    }
}

pub(super) fn make_default(root: &Path, variables: &EfiVariables, slot: &SlotId) -> Result<(), SlotsError> {
    let (file, image) = find(root, slot)?;
    if image.tries.is_some() {
        let directory = root.join(loader::IMAGES);
        let good = ImageName { tries: None, ..image }.to_string();
        let renamed = std::fs::rename(directory.join(&file), directory.join(good))
            .and_then(|()| std::fs::File::open(&directory)?.sync_all());
        renamed.map_err(|source| SlotsError::File { path: directory.join(file), source })?;
    }
    set(variables, loader::DEFAULT_ENTRY, slot)
}

fn set(variables: &EfiVariables, name: &str, slot: &SlotId) -> Result<(), SlotsError> {
    Ok(variables.set(name, loader::VENDOR, loader::ATTRIBUTES, &loader::encode_variable(slot.as_str()))?)
}

fn find(root: &Path, slot: &SlotId) -> Result<(String, ImageName), SlotsError> {
    let found = images(root)?.into_iter().find(|(_, image)| image.entry().eq_ignore_ascii_case(slot.as_str()));
    found.ok_or_else(|| SlotsError::Unknown(slot.clone()))
}

/// Files that are images of ours, with what their names say.
fn images(root: &Path) -> Result<Vec<(String, ImageName)>, SlotsError> {
    let directory = root.join(loader::IMAGES);
    let error = |source| SlotsError::File { path: directory.clone(), source };
    let mut images = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(error)? {
        let file = entry.map_err(error)?.file_name().to_string_lossy().into_owned();
        images.extend(ImageName::parse(&file).map(|image| (file, image)));
    }
    images.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Esp {
        root: tempfile::TempDir,
        variables: EfiVariables,
    }

    fn esp(files: &[&str]) -> Esp {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(loader::IMAGES);
        std::fs::create_dir_all(&directory).unwrap();
        for file in files {
            std::fs::write(directory.join(file), "").unwrap();
        }
        let variables = root.path().join("efivars");
        std::fs::create_dir(&variables).unwrap();
        Esp { variables: EfiVariables::new(variables), root }
    }

    #[test]
    fn the_choice_is_in_variables_and_a_good_image_has_no_counter() {
        let esp = esp(&["Talos-v1.efi", "Talos-v2+2-1.efi", "other.efi"]);
        let (root, variables) = (esp.root.path(), &esp.variables);
        let (old, new) = (SlotId::new("Talos-v1.efi"), SlotId::new("Talos-v2.efi"));
        make_default(root, variables, &old).unwrap();
        start_next(root, variables, Some(&new)).unwrap();
        // The firmware's own spelling.
        set(variables, loader::SELECTED_ENTRY, &SlotId::new("TALOS-V1.EFI")).unwrap();
        let seen = slots(root, variables).unwrap();
        let chosen = (seen.default.clone(), seen.next.clone(), seen.booted.clone());
        assert_eq!(chosen, (Some(old.clone()), Some(new.clone()), Some(old)));
        let installed: Vec<_> = seen.installed.iter().map(|one| (one.version.as_str(), one.tries_left)).collect();
        assert_eq!(installed, [("v1", None), ("v2", Some(2))]);
        make_default(root, variables, &new).unwrap();
        start_next(root, variables, None).unwrap();
        let seen = slots(root, variables).unwrap();
        assert_eq!((&seen.default, &seen.next), (&Some(new.clone()), &None));
        assert_eq!(seen.version(&new).map(|one| one.tries_left), Some(None));
        assert!(root.join("EFI/Linux/Talos-v2.efi").exists());
    }

    #[test]
    fn a_version_that_is_not_there_is_not_chosen() {
        let esp = esp(&["Talos-v1.efi"]);
        let gone = SlotId::new("Talos-v3.efi");
        let error = make_default(esp.root.path(), &esp.variables, &gone).unwrap_err();
        assert!(matches!(error, SlotsError::Unknown(_)), "{error}");
        let error = start_next(esp.root.path(), &esp.variables, Some(&gone)).unwrap_err();
        assert!(matches!(error, SlotsError::Unknown(_)), "{error}");
        assert_eq!(slots(esp.root.path(), &esp.variables).unwrap().next, None);
    }
}
