//! Filters for lists and watches.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use crate::{error::StateError, metadata::Metadata};

/// The longest pattern of ids, in bytes.
const MAX_PATTERN: usize = 1024;
/// Size limit of a compiled pattern in bytes: a watch keeps its pattern.
const PATTERN_MEMORY: usize = 256 << 10;

/// Conditions on labels and id. The default matches everything.
#[derive(Clone, Debug, Default)]
pub struct Query {
    labels: Vec<LabelQuery>,
    id: Option<Regex>,
}

/// All terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelQuery {
    /// The terms.
    pub terms: Vec<LabelTerm>,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTerm {
    /// The label.
    pub key: String,
    /// The comparison; false where the label is absent, except for [`LabelOp::NotExists`].
    pub op: LabelOp,
    /// Wants the opposite.
    pub invert: bool,
}

/// How a label is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelOp {
    /// Is there.
    Exists,
    /// Does not exist.
    NotExists,
    /// Is exactly this.
    Equal(String),
    /// Is one of these.
    In(Vec<String>),
    /// Sorts before this.
    Lt(String),
    /// Sorts before this or is it.
    Lte(String),
    /// Is a smaller number (units as `10Ki`, `5M`).
    LtNumeric(String),
    /// Is a smaller or the same number.
    LteNumeric(String),
}

impl Query {
    /// Wants resources for which any of `labels` holds; everything when there is none.
    #[must_use]
    pub fn labels(mut self, labels: Vec<LabelQuery>) -> Self {
        self.labels = labels;
        self
    }

    /// Wants ids in which `pattern` is found.
    ///
    /// # Errors
    /// [`StateError::InvalidPattern`] when it does not compile, or is too large: 1 KiB of text, 256 KiB compiled.
    pub fn id_matches(mut self, pattern: &str) -> Result<Self, StateError> {
        let invalid = |reason| StateError::InvalidPattern { pattern: shortened(pattern), reason };
        if pattern.len() > MAX_PATTERN {
            return Err(invalid(format!("longer than {MAX_PATTERN} bytes")));
        }
        let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_MEMORY).dfa_size_limit(PATTERN_MEMORY).build();
        self.id = Some(compiled.map_err(|error| invalid(error.to_string()))?);
        Ok(self)
    }

    /// The label conditions.
    #[must_use]
    pub fn label_queries(&self) -> &[LabelQuery] {
        &self.labels
    }

    /// The pattern of ids.
    #[must_use]
    pub fn id_pattern(&self) -> Option<&str> {
        self.id.as_ref().map(Regex::as_str)
    }

    /// Whether everything matches.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.labels.is_empty() && self.id.is_none()
    }

    /// Whether a resource with this metadata matches.
    #[must_use]
    pub fn matches(&self, metadata: &Metadata) -> bool {
        self.id.as_ref().is_none_or(|regex| regex.is_match(&metadata.id))
            && (self.labels.is_empty() || self.labels.iter().any(|query| query.matches(&metadata.labels)))
    }
}

impl LabelQuery {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| term.matches(labels))
    }
}

impl LabelTerm {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key).map(String::as_str);
        self.invert
            != match (&self.op, value) {
                (LabelOp::NotExists, value) => value.is_none(),
                (_, None) => false,
                (LabelOp::Exists, Some(_)) => true,
                (LabelOp::Equal(want), Some(have)) => have == want,
                (LabelOp::In(wants), Some(have)) => wants.iter().any(|want| want == have),
                (LabelOp::Lt(want), Some(have)) => have < want.as_str(),
                (LabelOp::Lte(want), Some(have)) => have <= want.as_str(),
                (LabelOp::LtNumeric(want), Some(have)) => number(have).zip(number(want)).is_some_and(|(a, b)| a < b),
                (LabelOp::LteNumeric(want), Some(have)) => number(have).zip(number(want)).is_some_and(|(a, b)| a <= b),
            }
    }
}

/// The beginning of a pattern, for an error.
fn shortened(pattern: &str) -> String {
    pattern.chars().take(64).collect()
}

/// A decimal number with an optional unit of thousands or of 1024s.
fn number(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let scale: i128 = match unit.trim() {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        "Ti" | "TiB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<i64>().ok().map(|n| i128::from(n) * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Kind;

    fn metadata(id: &str, labels: &[(&str, &str)]) -> Metadata {
        let mut metadata = Metadata::new(&Kind::new("ns", "T"), id);
        metadata.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        metadata
    }

    fn holds(op: LabelOp, invert: bool, labels: &[(&str, &str)]) -> bool {
        let term = LabelTerm { key: "a".into(), op, invert };
        Query::default().labels(vec![LabelQuery { terms: vec![term] }]).matches(&metadata("x", labels))
    }

    #[test]
    fn each_operation_compares_as_named() {
        let a1 = [("a", "1")];
        assert!(holds(LabelOp::Exists, false, &a1));
        assert!(!holds(LabelOp::Exists, false, &[]));
        assert!(holds(LabelOp::NotExists, false, &[]));
        assert!(!holds(LabelOp::NotExists, false, &a1));
        assert!(holds(LabelOp::Equal("1".into()), false, &a1));
        assert!(!holds(LabelOp::Equal("2".into()), false, &a1));
        assert!(holds(LabelOp::In(vec!["0".into(), "1".into()]), false, &a1));
        assert!(holds(LabelOp::Lt("2".into()), false, &a1));
        assert!(!holds(LabelOp::Lt("1".into()), false, &a1));
        assert!(holds(LabelOp::Lte("1".into()), false, &a1));
        assert!(holds(LabelOp::LtNumeric("10".into()), false, &[("a", "9")]));
        assert!(!holds(LabelOp::Lt("10".into()), false, &[("a", "9")]));
        assert!(holds(LabelOp::LteNumeric("1Ki".into()), false, &[("a", "1024")]));
        assert!(!holds(LabelOp::LtNumeric("1Ki".into()), false, &[("a", "2k")]));
        assert!(!holds(LabelOp::LtNumeric("1".into()), false, &[("a", "x")]));
    }

    #[test]
    fn invert_wants_the_opposite_also_of_an_absent_label() {
        assert!(!holds(LabelOp::Equal("1".into()), true, &[("a", "1")]));
        assert!(holds(LabelOp::Equal("1".into()), true, &[("a", "2")]));
        assert!(holds(LabelOp::Equal("1".into()), true, &[]));
    }

    #[test]
    fn terms_are_joined_by_and_and_queries_by_or() {
        let has = |key: &str| LabelTerm { key: key.into(), op: LabelOp::Exists, invert: false };
        let both = LabelQuery { terms: vec![has("a"), has("b")] };
        let other = LabelQuery { terms: vec![has("c")] };
        let query = Query::default().labels(vec![both, other]);
        assert!(query.matches(&metadata("x", &[("a", ""), ("b", "")])));
        assert!(query.matches(&metadata("x", &[("c", "")])));
        assert!(!query.matches(&metadata("x", &[("a", "")])));
    }

    /// Perl classes and case-insensitive matching are features of the `regex` crate: without them such a pattern works
    /// only where another crate of the program asks for them.
    #[test]
    fn patterns_of_ids_have_perl_classes_and_ignore_case_when_asked() {
        for pattern in [r"^eth\d+$", r"^\w+$", "(?i)^ETH", r"\bETH|eth\S\b"] {
            assert!(Query::default().id_matches(pattern).unwrap().matches(&metadata("eth0", &[])), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_is_long_or_compiles_to_much_is_refused() {
        for pattern in ["a".repeat(2000).as_str(), r"(\w{50}){50}"] {
            let error = Query::default().id_matches(pattern).unwrap_err();
            assert!(
                matches!(error, StateError::InvalidPattern { ref pattern, .. } if pattern.len() <= 64),
                "{error:?}"
            );
        }
    }

    #[test]
    fn the_id_pattern_is_a_search_and_a_bad_one_is_named() {
        let query = Query::default().id_matches("^eth[0-9]+$").unwrap();
        assert!(query.matches(&metadata("eth0", &[])));
        assert!(!query.matches(&metadata("veth0", &[])));
        let error = Query::default().id_matches("(").unwrap_err();
        assert!(matches!(error, StateError::InvalidPattern { ref pattern, .. } if pattern == "("), "{error:?}");
    }
}
