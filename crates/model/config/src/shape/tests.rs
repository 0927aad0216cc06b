use std::collections::BTreeSet;

use super::*;

/// Every field of the schema of 1.7: kind, path, type.
const FIELDS: &str = include_str!("../../testdata/fields.txt");

/// The word of the list of fields for a shape.
fn word(shape: &Shape) -> String {
    let pem = |fields: &[(&str, Shape)]| {
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        let pem = !names.is_empty() && names.iter().all(|name| ["crt", "key"].contains(name));
        pem.then(|| format!("pem:{}", names.join("|")))
    };
    match shape {
        Shape::Boolean => "boolean".into(),
        Shape::Number | Shape::Size => "number".into(),
        Shape::Text | Shape::Words(_) => "text".into(),
        Shape::List(inner) | Shape::OneOrMany(inner) => match &**inner {
            Shape::Text => "texts".into(),
            Shape::Port => "ports".into(),
            Shape::Fields(_, fields) => pem(fields).unwrap_or_else(|| "list".into()),
            inner if inner.is_free() => "objects".into(),
            _ => "?".into(),
        },
        Shape::Names(inner) => match &**inner {
            Shape::Text => "pairs".into(),
            Shape::Any => "object".into(),
            _ => "mappings".into(),
        },
        Shape::Fields(_, fields) => pem(fields).unwrap_or_else(|| "mapping".into()),
        Shape::Any | Shape::Port => "?".into(),
    }
}

fn list(kind: &str, path: &str, shape: &Shape, found: &mut BTreeSet<String>) {
    let entry = |path: &str, word: String| format!("{kind} {path} {word}");
    match shape {
        Shape::Fields(_, fields) => {
            for (name, shape) in fields {
                let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
                let word = word(shape);
                let inside = !word.starts_with("pem:");
                found.insert(entry(&path, word));
                if inside {
                    list(kind, &path, shape, found);
                }
            }
        }
        Shape::List(inner) | Shape::OneOrMany(inner) => list(kind, &format!("{path}[]"), inner, found),
        Shape::Names(inner) => list(kind, &format!("{path}.*"), inner, found),
        _ => {}
    }
}

#[test]
fn names_and_types_are_those_of_the_schema() {
    let mut found = BTreeSet::new();
    for (kind, shape) in all() {
        list(kind, "", shape, &mut found);
    }
    let expected: BTreeSet<String> = FIELDS
        .lines()
        .map(|line| {
            let (field, what) = line.rsplit_once(' ').unwrap();
            // the words of a text are a matter of its form
            let what = match what {
                words if words.starts_with("enum:") && field.ends_with(".options") => "texts",
                words if words.starts_with("enum:") => "text",
                other => other,
            };
            format!("{field} {what}")
        })
        .chain(["v1alpha1 persist boolean".to_owned()])
        .collect();
    assert_eq!(found.difference(&expected).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(expected.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn scalars_get_the_type_of_their_place() {
    let text = "debug: no\nmachine:\n  token: 5\n  env: {A: 1, B: yes}\n  kubelet: {extraConfig: {maxPods: 5, a: yes}}\n  \
                acceptedCAs: {crt: YQ==}\n  files: [{permissions: 0644}]\n";
    let node = yaml::parse(text).unwrap().remove(0);
    let expected = serde_json::json!({
        "debug": false,
        "machine": {
            "token": "5",
            "env": {"A": "1", "B": "yes"},
            "kubelet": {"extraConfig": {"maxPods": 5, "a": "yes"}},
            "acceptedCAs": [{"crt": "YQ=="}],
            "files": [{"permissions": 420}],
        },
    });
    assert_eq!(value_of(&node, of("v1alpha1")), expected);
}
