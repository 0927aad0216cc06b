//! OVMF, the UEFI firmware for virtual machines: where distributions put it.

use std::path::{Path, PathBuf};

use crate::command::Tool;
use crate::error::Problem;
use crate::machines::Firmware;

const FOLDERS: [&str; 4] = ["/usr/share/OVMF", "/usr/share/edk2/x64", "/usr/share/edk2/ovmf", "/usr/share/qemu"];
/// Code, and the variables that a new machine begins with. Those of 4 MB are what distributions build today.
const NAMES: [(&str, &str); 4] = [
    ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    ("OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"),
    ("OVMF_CODE.fd", "OVMF_VARS.fd"),
    ("edk2-x86_64-code.fd", "edk2-i386-vars.fd"),
];
const PACKAGE: Tool = Tool { program: "OVMF", package: "ovmf" };

/// Firmware on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) code: PathBuf,
    pub(super) variables: PathBuf,
}

/// The firmware of UEFI machines; none for BIOS, which the emulator has.
pub(super) fn find(firmware: &Firmware) -> Result<Option<Found>, Problem> {
    let Firmware::Uefi { folders } = firmware else { return Ok(None) };
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).chain(FOLDERS.iter().map(Path::new)).collect();
    let found = find_in(&folders);
    let problem = || {
        let remedy = format!(
            "apt-get install {}, name its folder by --extra-uefi-search-paths, or --with-uefi=false",
            PACKAGE.package
        );
        Problem::new(format!("UEFI firmware ({}) is not installed", PACKAGE.program), remedy)
    };
    found.map(Some).ok_or_else(problem)
}

fn find_in(folders: &[&Path]) -> Option<Found> {
    let candidates = folders.iter().flat_map(|folder| {
        NAMES.iter().map(|(code, variables)| Found { code: folder.join(code), variables: folder.join(variables) })
    });
    candidates.into_iter().find(|found| found.code.is_file() && found.variables.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_folders_win_and_code_without_variables_is_none() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |folder: &tempfile::TempDir, name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        let folders = [one.path(), two.path()];
        make(&one, "OVMF_CODE_4M.fd");
        assert_eq!(find_in(&folders), None);
        make(&two, "OVMF_CODE.fd");
        make(&two, "OVMF_VARS.fd");
        assert_eq!(find_in(&folders).unwrap().code, two.path().join("OVMF_CODE.fd"));
        make(&one, "OVMF_VARS_4M.fd");
        assert_eq!(find_in(&folders).unwrap().variables, one.path().join("OVMF_VARS_4M.fd"));
        assert_eq!(find(&Firmware::Bios), Ok(None));
    }
}
