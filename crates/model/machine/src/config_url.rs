//! The URL of `talos.config`: variables in values of its query.

/// What a machine can say of itself in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variable {
    /// Of the firmware, or of META.
    Uuid,
    /// Of the firmware.
    Serial,
    /// Of the first physical link.
    Mac,
    Hostname,
    /// A word in META.
    Code,
}

impl Variable {
    pub const ALL: [Self; 5] = [Self::Uuid, Self::Serial, Self::Mac, Self::Hostname, Self::Code];

    /// Its name, as in `${uuid}`. Case does not matter there.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Serial => "serial",
            Self::Mac => "mac",
            Self::Hostname => "hostname",
            Self::Code => "code",
        }
    }
}

/// The variables of a URL, each once. A parameter `uuid` without a value asks for it as well.
#[must_use]
pub fn variables(url: &str) -> Vec<Variable> {
    let Some((_, query)) = split(url) else { return Vec::new() };
    let asks = |variable: &Variable| {
        query.split('&').any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            find(value, *variable).is_some() || (*variable == Variable::Uuid && name == "uuid" && value.is_empty())
        })
    };
    Variable::ALL.into_iter().filter(asks).collect()
}

/// The URL with the values that `value` gives; all else is as it was.
#[must_use]
pub fn fill(url: &str, value: impl Fn(Variable) -> String) -> String {
    let Some((before, query)) = split(url) else { return url.to_owned() };
    let (query, fragment) = match query.split_once('#') {
        Some((query, fragment)) => (query, Some(fragment)),
        None => (query, None),
    };
    let pairs = query.split('&').map(|pair| fill_pair(pair, &value)).collect::<Vec<_>>().join("&");
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    format!("{before}?{pairs}{fragment}")
}

fn split(url: &str) -> Option<(&str, &str)> {
    url.split_once('?')
}

fn fill_pair(pair: &str, value: &impl Fn(Variable) -> String) -> String {
    if pair == "uuid" || pair == "uuid=" {
        return format!("uuid={}", encode(&value(Variable::Uuid)));
    }
    let Some((name, text)) = pair.split_once('=') else { return pair.to_owned() };
    let mut filled = String::new();
    let mut rest = text;
    // The first variable of the rest, again and again: a value that was put in is not looked into.
    while let Some((variable, at, length)) =
        Variable::ALL.into_iter().filter_map(|variable| find(rest, variable)).min_by_key(|(_, at, _)| *at)
    {
        filled.push_str(&rest[..at]);
        filled.push_str(&encode(&value(variable)));
        rest = &rest[at + length..];
    }
    format!("{name}={filled}{rest}")
}

/// The first place of a variable in a text, and its length there. Braces may be percent-encoded.
fn find(text: &str, variable: Variable) -> Option<(Variable, usize, usize)> {
    let text = text.to_ascii_lowercase();
    let spellings = [
        format!("${{{}}}", variable.name()),
        format!("%24%7b{}%7d", variable.name()),
        format!("$%7b{}%7d", variable.name()),
    ];
    let found = spellings.iter().filter_map(|spelling| Some((variable, text.find(spelling.as_str())?, spelling.len())));
    found.min_by_key(|(_, at, _)| *at)
}

/// As the value of a query.
fn encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(variable: Variable) -> String {
        match variable {
            Variable::Uuid => "1-2".into(),
            Variable::Serial => "s&x ${uuid}".into(),
            Variable::Mac => "aa:bb".into(),
            Variable::Hostname => String::new(),
            Variable::Code => "c".into(),
        }
    }

    #[test]
    fn variables_are_filled_in_values_of_the_query_alone() {
        for (url, expected) in [
            ("http://a/x", "http://a/x"),
            ("http://a/${uuid}?u=${uuid}", "http://a/${uuid}?u=1-2"),
            ("http://a/?uuid=", "http://a/?uuid=1-2"),
            ("http://a/?uuid", "http://a/?uuid=1-2"),
            ("http://a/?uuid=given", "http://a/?uuid=given"),
            ("http://a/?u=${UUID}&m=x${Mac}y&k=1#f", "http://a/?u=1-2&m=xaa:bby&k=1#f"),
            ("http://a/?s=${serial}", "http://a/?s=s%26x%20%24%7Buuid%7D"),
            ("http://a/?h=${hostname}&c=${code}${code}", "http://a/?h=&c=cc"),
            ("http://a/?u=%24%7Buuid%7D", "http://a/?u=1-2"),
            ("http://a/?u=${other}", "http://a/?u=${other}"),
        ] {
            assert_eq!(fill(url, value), expected);
        }
    }

    #[test]
    fn only_the_variables_of_a_url_are_waited_for() {
        assert_eq!(variables("http://a/${mac}?u=${code}&v=${uuid}"), [Variable::Uuid, Variable::Code]);
        assert_eq!(variables("http://a/?uuid="), [Variable::Uuid]);
        assert_eq!(variables("http://a/?uuid=x"), []);
    }

    #[test]
    fn any_text_is_filled_without_harm() {
        for text in ["", "?", "?=", "?&&", "?a=${", "?ä=${uuıd}", "?a=$%7B", "?a=${uuid}${"] {
            drop(fill(text, value));
            drop(variables(text));
        }
    }
}
