//! Whether a machine could still be reached through its API with a configuration.

use super::{Check, Report};
use crate::documents::Documents;
use crate::error::ConfigErrors;
use crate::v1alpha1::Machine;

/// Checks that a machine with this configuration can serve its API. A configuration without the means for that is a valid
/// one, since patches may complete it, but a machine that took it could never be given another one.
///
/// # Errors
/// All secrets of the machine API that are missing or unusable. Documents without the root document have nothing to say
/// about it.
pub fn reachable(documents: &Documents) -> Result<(), ConfigErrors> {
    let Some((index, root)) =
        documents.documents().iter().enumerate().find_map(|(index, document)| Some((index, document.as_root()?)))
    else {
        return Ok(());
    };
    let mut report = Report::default();
    let mut check = Check { documents, index, report: &mut report };
    if root.is_control_plane() {
        control_plane(&mut check, root.machine());
    } else {
        worker(&mut check, root.machine());
    }
    if report.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(report.errors)) }
}

fn control_plane(check: &mut Check<'_>, machine: &Machine) {
    match machine.issuing_ca() {
        Some(ca) if !ca.key.is_empty() => {
            if let Err(error) = pki::Authority::from_pair(ca) {
                check.error("machine.ca", error.to_string());
            }
        }
        Some(_) => check.error("machine.ca.key", "a control plane cannot serve its API without the authority's key"),
        None => check.error("machine.ca", "a machine cannot serve its API without the certificate authority"),
    }
}

fn worker(check: &mut Check<'_>, machine: &Machine) {
    if machine.issuing_ca().is_none() {
        check.error("machine.ca", "a machine cannot serve its API without the certificate authority");
    }
    if machine.token.is_empty() {
        check.error("machine.token", "a worker cannot get the certificate of its API without the token");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(text: &str) -> Vec<String> {
        let documents = Documents::from_yaml(text.as_bytes()).unwrap();
        let errors = reachable(&documents).err().map(|errors| errors.0).unwrap_or_default();
        errors.into_iter().map(|error| error.path).collect()
    }

    #[test]
    fn a_machine_needs_the_secrets_of_its_api() {
        assert_eq!(missing("machine: {type: worker}\n"), ["machine.ca", "machine.token"]);
        assert_eq!(missing("machine: {type: controlplane}\n"), ["machine.ca"]);
        assert_eq!(missing("machine: {type: controlplane, token: t, ca: {crt: YQ==}}\n"), ["machine.ca.key"]);
        assert_eq!(missing("machine: {type: controlplane, ca: {crt: YQ==, key: YQ==}}\n"), ["machine.ca"]);
        assert_eq!(missing("machine: {token: t, ca: {crt: YQ==}}\n"), Vec::<String>::new());
        let partial = "apiVersion: v1alpha1\nkind: EventSinkConfig\nendpoint: a:1\n";
        assert_eq!(missing(partial), Vec::<String>::new());
    }
}
