//! Decoding returns for any input, and written documents decode to the same value.

use proptest::prelude::*;
use serde_json::Value;

use crate::{Documents, Patch};

const SAMPLE: &str = include_str!("../../testdata/controlplane-bare.yaml");

/// Texts with special meaning in YAML.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("machine"),
        Just("cluster"),
        Just(":"),
        Just(": "),
        Just("\n"),
        Just("  "),
        Just("- "),
        Just("&a "),
        Just("*a"),
        Just("<<"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("'"),
        Just("\""),
        Just("|"),
        Just(">"),
        Just("---"),
        Just("#"),
        Just("!!str "),
        Just("? "),
        Just(","),
        Just("kind"),
        Just("~"),
        Just("\t"),
        Just("\u{feff}"),
        Just("network"),
        Just("interfaces"),
        Just("0644"),
        Just("%YAML 1.2"),
        Just("..."),
        Just("x"),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[-+.0-9eExo_: ]{0,6}".prop_map(Value::from),
        "[a-z#:\\-\\n '\"|>]{0,16}".prop_map(Value::from),
        yaml_like().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("\\PC{0,8}", inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Documents::from_yaml(&bytes).map(|documents| documents.to_yaml());
    }

    #[test]
    fn any_text_is_decoded_or_refused(text in yaml_like()) {
        if let Ok(documents) = Documents::from_yaml(text.as_bytes()) {
            let written = documents.to_yaml();
            let again = Documents::from_yaml(written.as_bytes()).expect("written documents are valid");
            prop_assert_eq!(again.documents(), documents.documents());
        }
        if let Ok(patch) = Patch::parse(&text) {
            let _ = crate::patch::apply(&Documents::unjudged(SAMPLE.as_bytes()).expect("the sample is valid"), &[patch]);
        }
    }

    #[test]
    fn a_damaged_configuration_is_decoded_or_refused(at in 0..SAMPLE.len(), len in 0..20usize, with in yaml_like()) {
        let end = (at + len).min(SAMPLE.len());
        if SAMPLE.is_char_boundary(at) && SAMPLE.is_char_boundary(end) {
            let text = format!("{}{with}{}", &SAMPLE[..at], &SAMPLE[end..]);
            if let Err(errors) = Documents::from_yaml(text.as_bytes()) {
                prop_assert!(!errors.0.is_empty());
                prop_assert!(errors.0.iter().all(|error| error.line > 0 && error.column > 0), "{errors:?}");
            }
        }
    }

    #[test]
    fn values_come_back_from_their_text(value in value()) {
        let text = yaml::to_text(&value);
        let again = super::values(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        let expected = if value.is_null() { Vec::new() } else { vec![value] };
        prop_assert_eq!(again, expected, "{}", text);
    }
}
