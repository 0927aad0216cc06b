//! Resolves a word on the command line to a resource type.

use client::Definition;

use crate::command_error::CommandError;

/// A full type name wins over aliases; an ambiguous word is refused.
pub(crate) fn resolve(definitions: &[Definition], wanted: &str) -> Result<Definition, CommandError> {
    let is = |name: &str| name.eq_ignore_ascii_case(wanted);
    if let Some(exact) = definitions.iter().find(|one| is(&one.resource_type)) {
        return Ok(exact.clone());
    }
    let named =
        |one: &Definition| is(&one.display_type) || one.aliases.iter().chain(&one.all_aliases).any(|alias| is(alias));
    let found: Vec<&Definition> = definitions.iter().filter(|one| named(one)).collect();
    match found[..] {
        [one] => Ok(one.clone()),
        [] => {
            Err(CommandError::usage(format!("unknown resource type {wanted:?}"))
                .hint("`talosctl get rd` lists the types"))
        }
        _ => {
            let names: Vec<&str> = found.iter().map(|one| one.resource_type.as_str()).collect();
            Err(CommandError::usage(format!("{wanted:?} is ambiguous: {}", names.join(", ")))
                .hint("give the full name of the type"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(resource_type: &str, display: &str, aliases: &[&str]) -> Definition {
        Definition {
            resource_type: resource_type.to_owned(),
            display_type: display.to_owned(),
            all_aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..Definition::default()
        }
    }

    #[test]
    fn names_aliases_and_full_names_are_found_in_any_case() {
        let all = [
            definition("Members.cluster.talos.dev", "Member", &["member", "members"]),
            definition("EtcdMembers.etcd.talos.dev", "EtcdMember", &["etcdmembers", "ems"]),
            definition("Mems.x.talos.dev", "Mem", &["ems"]),
        ];
        let of = |wanted: &str| resolve(&all, wanted).map(|one| one.resource_type);
        for wanted in ["members", "Member", "MEMBERS.cluster.talos.dev"] {
            assert_eq!(of(wanted).unwrap(), "Members.cluster.talos.dev");
        }
        let error = of("ems").unwrap_err();
        assert_eq!(error.error.to_string(), "\"ems\" is ambiguous: EtcdMembers.etcd.talos.dev, Mems.x.talos.dev");
        assert_eq!(of("nothing").unwrap_err().hints, ["`talosctl get rd` lists the types"]);
    }
}
