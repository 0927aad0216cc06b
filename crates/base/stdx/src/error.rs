//! Formats an error with its causes on one line.
//!
//! Our own errors never repeat their cause in `Display`; some foreign ones do, so a cause that the preceding text
//! already ends with is omitted.

use std::{error::Error, fmt};

/// Shows `error` and all its sources, separated by `": "`.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !text.is_empty() && !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// [`ErrorChain`] as a string.
#[must_use]
pub fn error_chain(error: &(dyn Error + '_)) -> String {
    ErrorChain(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        #[source]
        cause: Option<Box<Self>>,
    }

    fn chain(texts: &[&'static str]) -> Link {
        let (first, rest) = texts.split_first().unwrap();
        Link { text: first, cause: (!rest.is_empty()).then(|| Box::new(chain(rest))) }
    }

    #[test]
    fn prints_every_cause_once() {
        assert_eq!(
            error_chain(&chain(&["reading x", "opening y", "no such file"])),
            "reading x: opening y: no such file"
        );
    }

    #[test]
    fn a_cause_already_told_is_left_out() {
        assert_eq!(
            error_chain(&chain(&["transport: refused", "refused", "os error 111"])),
            "transport: refused: os error 111"
        );
    }
}
