//! Old spellings that configurations of earlier versions have, in one table.
//!
//! A tree is rewritten to today's spelling before it is decoded, so that types and everything behind them know only that.
//! The text of a configuration keeps the spelling that it was written in.

use yaml::{Entry, FieldPath, Kind, Node, Position};

/// What an old spelling means today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// This field beside it.
    Field(&'static str),
    /// The only element of this list beside it.
    ElementOf(&'static str),
    /// The value of the field, where it is the first of these words, is the second; empty for an absent one.
    Word(&'static str, &'static str),
    /// Nothing: it is always so.
    Always(&'static str),
}

/// Whether users should change the spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// An error where warnings are errors, as in 1.7.
    Warning,
    Remark,
    /// Validation speaks of it where the field is absent, too.
    Silent,
}

/// An old spelling in root documents.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Legacy {
    /// Dotted, with `[]` for the elements of a list.
    pub(crate) path: &'static str,
    pub(crate) becomes: Becomes,
    pub(crate) tone: Tone,
}

const fn remark(path: &'static str, becomes: Becomes) -> Legacy {
    Legacy { path, becomes, tone: Tone::Remark }
}

const fn warning(path: &'static str, becomes: Becomes) -> Legacy {
    Legacy { path, becomes, tone: Tone::Warning }
}

pub(crate) const LEGACY: &[Legacy] = &[
    remark("machine.type", Becomes::Word("join", "worker")),
    Legacy { path: "machine.type", becomes: Becomes::Word("", ""), tone: Tone::Silent },
    remark("machine.install.bootloader", Becomes::Always("a boot loader is always installed")),
    warning("machine.network.interfaces[].cidr", Becomes::ElementOf("addresses")),
    warning("machine.network.interfaces[].vlans[].cidr", Becomes::ElementOf("addresses")),
    remark("cluster.etcd.subnet", Becomes::ElementOf("advertisedSubnets")),
    remark("cluster.allowSchedulingOnMasters", Becomes::Field("allowSchedulingOnControlPlanes")),
];

/// An old spelling that a document has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) path: FieldPath,
    pub(crate) at: Position,
    pub(crate) legacy: &'static Legacy,
    /// The new spelling is there as well, and counts.
    pub(crate) hidden: bool,
}

impl Use {
    pub(crate) fn message(&self) -> String {
        let old = self.legacy.path.rsplit('.').next().unwrap_or_default();
        match self.legacy.becomes {
            Becomes::Field(new) | Becomes::ElementOf(new) if self.hidden => {
                format!("{old} is an old name of {new}, and has no effect beside it")
            }
            Becomes::Field(new) | Becomes::ElementOf(new) => format!("{old} is an old name: use {new}"),
            Becomes::Word(word, new) => format!("{word} is an old word for {new}"),
            Becomes::Always(because) => format!("{old} is an old field without effect: {because}"),
        }
    }
}

/// More than anybody reads.
const MAX_USES: usize = 100;

/// A root document in today's spelling, and the old spellings that it had; `None` where it had none.
pub(crate) fn modern(node: &Node) -> Option<(Node, Vec<Use>)> {
    if !LEGACY.iter().any(|legacy| occurs(node, &parts(legacy.path), legacy)) {
        return None;
    }
    let mut node = node.clone();
    let mut uses = Vec::new();
    for legacy in LEGACY {
        rewrite(&mut node, &parts(legacy.path), &FieldPath::default(), legacy, &mut uses);
    }
    uses.truncate(MAX_USES);
    Some((node, uses))
}

fn parts(path: &'static str) -> Vec<&'static str> {
    path.split('.').collect()
}

fn is_written(legacy: &Legacy, value: &Node) -> bool {
    match legacy.becomes {
        Becomes::Word(word, _) => value.as_str() == Some(word),
        _ => true,
    }
}

fn occurs(node: &Node, parts: &[&'static str], legacy: &Legacy) -> bool {
    let Some((first, rest)) = parts.split_first() else { return false };
    let Some(value) = node.get(first.trim_end_matches("[]")) else { return false };
    match (&value.kind, first.ends_with("[]")) {
        (Kind::List(items), true) => items.iter().any(|item| occurs(item, rest, legacy)),
        (_, true) => false,
        _ if rest.is_empty() => is_written(legacy, value),
        _ => occurs(value, rest, legacy),
    }
}

fn rewrite(node: &mut Node, parts: &[&'static str], path: &FieldPath, legacy: &'static Legacy, uses: &mut Vec<Use>) {
    let (Some((first, rest)), Kind::Map(entries)) = (parts.split_first(), &mut node.kind) else { return };
    let name = first.trim_end_matches("[]");
    let Some(index) = entries.iter().position(|entry| entry.key == name) else { return };
    let path = path.key(name);
    if rest.is_empty() {
        if is_written(legacy, &entries[index].value) {
            uses.push(replace(entries, index, path, legacy));
        }
        return;
    }
    let value = &mut entries[index].value;
    match (&mut value.kind, first.ends_with("[]")) {
        (Kind::List(items), true) => {
            for (index, item) in items.iter_mut().enumerate() {
                rewrite(item, rest, &path.index(index), legacy, uses);
            }
        }
        (_, true) => {}
        _ => rewrite(value, rest, &path, legacy, uses),
    }
}

/// Writes one entry anew. An empty value says nothing, and a new name that has a value counts.
fn replace(entries: &mut Vec<Entry>, index: usize, path: FieldPath, legacy: &'static Legacy) -> Use {
    let mut entry = entries.remove(index);
    let mut found = Use { path, at: entry.at, legacy, hidden: false };
    let empty = matches!(&entry.value.kind, Kind::Null) || entry.value.as_str() == Some("");
    let (name, kind) = match legacy.becomes {
        Becomes::Word(_, "") => (entry.key.as_str(), Kind::Null),
        Becomes::Word(_, new) => (entry.key.as_str(), Kind::Scalar { text: new.to_owned(), plain: true }),
        Becomes::Field(new) if !empty => (new, entry.value.kind.clone()),
        Becomes::ElementOf(new) if !empty => (new, Kind::List(vec![entry.value.clone()])),
        Becomes::Field(_) | Becomes::ElementOf(_) | Becomes::Always(_) => return found,
    };
    let name = name.to_owned();
    let is_empty = |node: &Node| match &node.kind {
        Kind::Null => true,
        Kind::List(items) => items.is_empty(),
        _ => false,
    };
    if let Some(other) = entries.iter().position(|entry| entry.key == name) {
        if !is_empty(&entries[other].value) {
            found.hidden = true;
            return found;
        }
        entries.remove(other);
    }
    entry.key = name;
    entry.value.kind = kind;
    entries.insert(index.min(entries.len()), entry);
    found
}

#[cfg(test)]
mod tests {
    use crate::{Documents, MachineType, Mode, validate};

    fn config(text: &str) -> Documents {
        Documents::from_yaml(text.as_bytes()).unwrap()
    }

    #[test]
    fn old_names_have_the_effect_of_the_new_ones() {
        let documents = config(
            "machine:\n  type: join\n  install: {bootloader: true}\n  network:\n    interfaces:\n      - interface: eth0\n        \
             cidr: 10.0.0.1/24\n        vlans: [{vlanId: 5, cidr: 10.1.0.1/24}]\ncluster:\n  etcd: {subnet: 10.0.0.0/8}\n  \
             allowSchedulingOnMasters: true\n",
        );
        let root = documents.v1alpha1().unwrap();
        assert_eq!(root.machine_type(), MachineType::Worker);
        let device = &root.machine().network.as_ref().unwrap().interfaces[0];
        assert_eq!(device.addresses, ["10.0.0.1/24"]);
        assert_eq!(device.vlans[0].addresses, ["10.1.0.1/24"]);
        assert_eq!(root.cluster().etcd.as_ref().unwrap().advertised_subnets, ["10.0.0.0/8"]);
        assert!(root.cluster().schedules_on_control_planes());
    }

    #[test]
    fn the_text_keeps_the_old_names_and_the_documents_do_not() {
        let documents = config("cluster: {allowSchedulingOnMasters: true}\n");
        assert!(documents.values()[0]["cluster"]["allowSchedulingOnMasters"].as_bool().unwrap());
        assert_eq!(documents.to_yaml(), "cluster:\n    allowSchedulingOnControlPlanes: true\n");
    }

    #[test]
    fn the_new_name_counts_where_both_have_a_value() {
        let documents = config("cluster: {etcd: {subnet: 10.0.0.0/8, advertisedSubnets: [10.1.0.0/16]}}\n");
        let etcd = documents.v1alpha1().unwrap().cluster().etcd.clone().unwrap();
        assert_eq!(etcd.advertised_subnets, ["10.1.0.0/16"]);
        let report = validate(&documents, Mode::Container);
        let said = report.remarks.iter().find(|remark| remark.path == "cluster.etcd.subnet").unwrap();
        assert_eq!(said.message, "subnet is an old name of advertisedSubnets, and has no effect beside it");
        let empty = config("cluster: {etcd: {subnet: '', advertisedSubnets: [10.1.0.0/16]}}\n");
        assert_eq!(empty.v1alpha1().unwrap().cluster().etcd, Some(etcd));
    }

    #[test]
    fn only_cidr_is_a_warning_and_each_is_told_with_its_line() {
        let text = "machine:\n  type: ''\n  install:\n    bootloader: false\n  network:\n    interfaces:\n      - interface: \
                    eth0\n        cidr: 10.0.0.1/24\ncluster:\n  allowSchedulingOnMasters: false\n";
        let report = validate(&config(text), Mode::Container);
        let told = |list: &[crate::ConfigError]| {
            let names = ["machine.type", "machine.install.bootloader", "cidr", "cluster.allowSchedulingOnMasters"];
            let named = list.iter().filter(|one| names.iter().any(|name| one.path.ends_with(name)));
            let mut found: Vec<_> = named.map(|one| (one.line, one.path.clone())).collect();
            found.sort();
            found
        };
        assert_eq!(told(&report.warnings), [(8, "machine.network.interfaces[0].cidr".to_owned())]);
        let remarks = [
            (2, "machine.type".to_owned()),
            (4, "machine.install.bootloader".to_owned()),
            (10, "cluster.allowSchedulingOnMasters".to_owned()),
        ];
        assert_eq!(told(&report.remarks), remarks);
    }

    #[test]
    fn a_value_of_an_old_name_is_checked_as_the_new_ones_are() {
        let errors =
            Documents::from_yaml(b"machine:\n  network:\n    interfaces:\n      - cidr: nonsense\n").unwrap_err();
        assert_eq!((errors.0[0].path.as_str(), errors.0[0].line), ("machine.network.interfaces[0].addresses[0]", 4));
    }
}
