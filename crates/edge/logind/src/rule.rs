//! Match rules: which signals a client wants. Pure.

/// A rule of `AddMatch`. What it does not name may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    text: String,
    conditions: Vec<(String, String)>,
}

/// A rule that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rule is written key='value',...")]
pub(crate) struct RuleError;

impl Rule {
    pub(crate) fn parse(text: &str) -> Result<Self, RuleError> {
        let mut conditions = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (key, value) = rest.split_once("='").ok_or(RuleError)?;
            let (value, after) = value.split_once('\'').ok_or(RuleError)?;
            conditions.push((key.trim().to_owned(), value.to_owned()));
            rest = after.trim_start();
            if !rest.is_empty() {
                rest = rest.strip_prefix(',').ok_or(RuleError)?.trim_start();
            }
        }
        Ok(Self { text: text.to_owned(), conditions })
    }

    /// Whether this is the rule of that text.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text
    }

    /// Whether it is met by a signal with these properties; one that signals here do not have meets no condition.
    pub(crate) fn matches(&self, signal: &[(&str, &str)]) -> bool {
        let is_met =
            |(key, wanted): &(String, String)| signal.iter().any(|(name, value)| name == key && value == wanted);
        self.conditions.iter().all(is_met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNAL: [(&str, &str); 3] = [("type", "signal"), ("interface", "a.b"), ("member", "C")];

    #[test]
    fn a_rule_is_met_when_all_its_conditions_are() {
        let matches = |text| Rule::parse(text).unwrap().matches(&SIGNAL);
        assert!(matches("type='signal',interface='a.b',member='C'"));
        assert!(matches("type='signal', member='C'"));
        assert!(matches(""));
        assert!(!matches("type='signal',member='D'"));
        assert!(!matches("type='signal',arg0='x'"));
        for text in ["type=signal", "type='signal", "type='signal'member='C'", "x"] {
            assert_eq!(Rule::parse(text), Err(RuleError), "{text}");
        }
    }
}
