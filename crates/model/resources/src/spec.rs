//! A resource type: its definition and its two wire forms.
//!
//! Types implement [`Spec`]; [`AnySpec`] follows and is stored. Metadata, versions and owners belong to `state`.

use std::{any::Any, fmt::Debug, sync::Arc};

/// Whether reading a type requires the admin role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sensitivity {
    /// Every role may read it.
    #[default]
    NonSensitive,
    /// Holds secrets.
    Sensitive,
}

/// A column of the table that `get` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading, such as `Machine Type`.
    pub name: &'static str,
    /// Path of the cell in the YAML form, such as `{.machineType}`.
    pub json_path: &'static str,
}

/// The static facts about a resource type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The full type: `AddressStatuses.net.talos.dev`.
    pub type_name: &'static str,
    /// The default namespace.
    pub namespace: &'static str,
    /// Short names besides those that [`all_aliases`](Self::all_aliases) derives.
    pub aliases: &'static [&'static str],
    /// Columns of the table form, in order.
    pub columns: &'static [Column],
    /// Read permission.
    pub sensitivity: Sensitivity,
}

impl Definition {
    /// The plural name without its group: `AddressStatuses`.
    #[must_use]
    pub fn plural(&self) -> &'static str {
        self.type_name.split_once('.').map_or(self.type_name, |(name, _)| name)
    }

    /// The singular name that tables show: `AddressStatus`.
    #[must_use]
    pub fn display_type(&self) -> String {
        let plural = self.plural();
        for (ending, singular) in [("ies", "y"), ("uses", "us"), ("esses", "ess"), ("eshes", "esh"), ("s", "")] {
            if let Some(stem) = plural.strip_suffix(ending) {
                return format!("{stem}{singular}");
            }
        }
        plural.to_owned()
    }

    /// Every short name that `get` understands, lower case, without repetition: plural, singular, the capitals of the
    /// singular and their plural where there are at least two, the type with more and more of its group, then the type's
    /// own [`aliases`](Self::aliases).
    #[must_use]
    pub fn all_aliases(&self) -> Vec<String> {
        let display = self.display_type();
        let capitals: String =
            display.chars().filter(char::is_ascii_uppercase).collect::<String>().to_ascii_lowercase();
        let mut names = vec![self.plural().to_ascii_lowercase(), display.to_ascii_lowercase()];
        if capitals.len() > 1 {
            names.push(format!("{capitals}s"));
            names.push(capitals);
        }
        let dots = self.type_name.match_indices('.').skip(1).map(|(dot, _)| dot).chain([self.type_name.len()]);
        names.extend(dots.map(|end| self.type_name[..end].to_ascii_lowercase()));
        names.extend(self.aliases.iter().map(|&alias| alias.to_owned()));
        let mut unique: Vec<String> = Vec::with_capacity(names.len());
        for name in names {
            if !unique.contains(&name) {
                unique.push(name);
            }
        }
        unique
    }
}

/// The desired or observed state in a resource of one type.
///
/// Assumptions: `to_yaml` and `to_proto` are pure and cheap; equal values give equal forms.
pub trait Spec: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The definition of the type.
    const DEFINITION: Definition;

    /// The YAML form as an ordered tree, with the keys that clients know.
    fn to_yaml(&self) -> serde_json::Value;

    /// The YAML form as text: of a type whose form has comments, more than [`to_yaml`](Self::to_yaml) can hold.
    fn to_yaml_text(&self) -> String {
        yaml_text(&self.to_yaml())
    }

    /// The protobuf form; empty where the type has none.
    fn to_proto(&self) -> Vec<u8>;
}

/// A [`Spec`] whose type is known only at run time.
pub trait AnySpec: Debug + Send + Sync + 'static {
    /// The definition of its type.
    fn definition(&self) -> &'static Definition;
    /// The YAML form as an ordered tree.
    fn tree(&self) -> serde_json::Value;
    /// The YAML form as text.
    fn yaml(&self) -> String;
    /// The protobuf form; empty where the type has none.
    fn proto(&self) -> Vec<u8>;
    /// Whether `other` has the same type and an equal value.
    fn same(&self, other: &dyn AnySpec) -> bool;
    /// For downcasting to the concrete type.
    fn as_any(&self) -> &dyn Any;
    /// For downcasting a shared value to the concrete type.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<S: Spec> AnySpec for S {
    fn definition(&self) -> &'static Definition {
        &S::DEFINITION
    }

    fn tree(&self) -> serde_json::Value {
        Spec::to_yaml(self)
    }

    fn yaml(&self) -> String {
        Spec::to_yaml_text(self)
    }

    fn proto(&self) -> Vec<u8> {
        Spec::to_proto(self)
    }

    fn same(&self, other: &dyn AnySpec) -> bool {
        other.as_any().downcast_ref::<S>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// `tree` as YAML text in the layout that clients of the original expect: four spaces, lists indented, no folding, text
/// quoted only where it must be.
#[must_use]
pub fn yaml_text(tree: &serde_json::Value) -> String {
    yaml::to_text(tree)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Widget(u32);

    impl Spec for Widget {
        const DEFINITION: Definition = Definition {
            type_name: "WidgetStatuses.test.talos.dev",
            namespace: "test",
            aliases: &["widget", "ws"],
            columns: &[Column { name: "Size", json_path: "{.size}" }],
            sensitivity: Sensitivity::NonSensitive,
        };

        fn to_yaml(&self) -> serde_json::Value {
            json!({ "size": self.0, "items": ["a", "b"], "nested": { "on": "yes" } })
        }

        fn to_proto(&self) -> Vec<u8> {
            Vec::new()
        }
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Other;

    impl Spec for Other {
        const DEFINITION: Definition = Definition { type_name: "Others.test.talos.dev", ..Widget::DEFINITION };

        fn to_yaml(&self) -> serde_json::Value {
            json!({})
        }

        fn to_proto(&self) -> Vec<u8> {
            Vec::new()
        }
    }

    #[test]
    fn same_needs_the_same_type_and_value() {
        let widget: &dyn AnySpec = &Widget(1);
        assert!(widget.same(&Widget(1)));
        assert!(!widget.same(&Widget(2)));
        assert!(!widget.same(&Other));
        assert_eq!(widget.definition(), &Widget::DEFINITION);
    }

    #[test]
    fn yaml_keeps_the_order_of_keys_and_indents_by_four() {
        assert_eq!(AnySpec::yaml(&Widget(3)), "size: 3\nitems:\n    - a\n    - b\nnested:\n    \"on\": \"yes\"\n");
    }

    #[test]
    fn addresses_and_names_are_not_quoted() {
        let text = yaml_text(&json!({ "addresses": ["10.5.0.2", "10.5.0.2/24"], "link": "eth0", "on": "true" }));
        assert_eq!(text, "addresses:\n    - 10.5.0.2\n    - 10.5.0.2/24\nlink: eth0\n\"on\": \"true\"\n");
    }

    #[test]
    fn text_of_several_lines_is_a_block_indented_once() {
        assert_eq!(
            yaml_text(&json!("version: v1alpha1\ndebug: false\n")),
            "|\n    version: v1alpha1\n    debug: false\n"
        );
    }

    #[test]
    fn long_text_is_not_folded() {
        let long = "word ".repeat(60);
        let text = yaml_text(&json!({ "a": long.trim() }));
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn singulars_follow_the_plural() {
        for (plural, singular) in [
            ("AddressStatuses.net.talos.dev", "AddressStatus"),
            ("Identities.cluster.talos.dev", "Identity"),
            ("Members.cluster.talos.dev", "Member"),
            ("NodeAddresses.net.talos.dev", "NodeAddress"),
            ("LinkRefreshes.net.talos.dev", "LinkRefresh"),
            ("NfTablesChains.net.talos.dev", "NfTablesChain"),
            ("SeccompProfiles.cri.talos.dev", "SeccompProfile"),
        ] {
            let definition = Definition { type_name: plural, ..Widget::DEFINITION };
            assert_eq!(definition.display_type(), singular);
        }
    }

    #[test]
    fn aliases_are_plural_singular_capitals_and_own_without_repetition() {
        let dotted = ["widgetstatuses.test", "widgetstatuses.test.talos", "widgetstatuses.test.talos.dev"];
        let names = [["widgetstatuses", "widgetstatus", "wss", "ws"].as_slice(), &dotted, &["widget"]].concat();
        assert_eq!(Widget::DEFINITION.all_aliases(), names);
        let member = Definition { type_name: "Members.cluster.talos.dev", aliases: &[], ..Widget::DEFINITION };
        assert_eq!(
            member.all_aliases(),
            ["members", "member", "members.cluster", "members.cluster.talos", "members.cluster.talos.dev"]
        );
    }
}
