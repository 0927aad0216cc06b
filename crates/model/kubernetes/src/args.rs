//! Command lines of Kubernetes components: flags by name, merged with user flags.

use std::collections::BTreeMap;

/// Merge policy for a flag that both we and the user set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The flag is ours: setting it is an error.
    Deny,
    /// A comma-separated list: the user's elements follow ours, each once.
    Append,
}

/// Exceptions to overriding, for one component.
pub type Policies = &'static [(&'static str, Policy)];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("extra argument {name:?} of {component} cannot be set: the system sets it")]
pub struct DeniedArgument {
    pub component: &'static str,
    pub name: String,
}

/// Flags sorted by name, without leading dashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args(BTreeMap<String, String>);

impl Args {
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Merges the user's flags by policy; a flag without a policy is overridden.
    ///
    /// # Errors
    /// A flag that is denied.
    pub fn merge(
        &mut self,
        component: &'static str,
        extra: &BTreeMap<String, String>,
        policies: Policies,
    ) -> Result<(), DeniedArgument> {
        for (name, value) in extra {
            let policy = policies.iter().find(|(flag, _)| flag == name).map(|(_, policy)| *policy);
            match policy {
                Some(Policy::Deny) => return Err(DeniedArgument { component, name: name.clone() }),
                Some(Policy::Append) => {
                    let merged = append_list(self.0.get(name).map_or("", String::as_str), value);
                    self.0.insert(name.clone(), merged);
                }
                None => {
                    self.0.insert(name.clone(), value.clone());
                }
            }
        }
        Ok(())
    }

    /// `--name=value`, sorted by name.
    #[must_use]
    pub fn to_vec(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("--{name}={value}")).collect()
    }
}

fn append_list(ours: &str, theirs: &str) -> String {
    let mut elements: Vec<&str> = Vec::new();
    for element in ours.split(',').chain(theirs.split(',')).map(str::trim) {
        if !element.is_empty() && !elements.contains(&element) {
            elements.push(element);
        }
    }
    elements.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: Policies = &[("secret-file", Policy::Deny), ("plugins", Policy::Append)];

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn user_overrides_appends_and_is_denied() {
        let mut args = Args::default();
        args.set("plugins", "A,B");
        args.set("level", "1");
        args.merge("it", &map(&[("plugins", "B, C"), ("level", "2"), ("new", "x")]), POLICIES).unwrap();
        assert_eq!(args.to_vec(), ["--level=2", "--new=x", "--plugins=A,B,C"]);

        let denied = args.merge("it", &map(&[("secret-file", "/tmp/x")]), POLICIES);
        assert_eq!(denied, Err(DeniedArgument { component: "it", name: "secret-file".to_owned() }));
    }
}
