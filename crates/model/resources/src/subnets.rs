//! Lists of networks in which `!` excludes, as several fields of the configuration have them.

use std::net::IpAddr;

use ipnet::IpNet;

/// A text of such a list that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading network {text:?}")]
pub struct SubnetError {
    /// The text without `!`.
    pub text: String,
    /// Why.
    #[source]
    pub source: ipnet::AddrParseError,
}

/// Which addresses a list accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetFilter {
    include: Vec<IpNet>,
    exclude: Vec<IpNet>,
}

impl SubnetFilter {
    /// `valid` includes, and excludes with `!` before a network; `excluded` excludes. A plain address is the network of
    /// that address alone.
    ///
    /// # Errors
    /// The first text that is no network.
    pub fn parse(valid: &[String], excluded: &[String]) -> Result<Self, SubnetError> {
        let parse = |text: &str| match text.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address)),
            Err(_) => text.parse().map_err(|source| SubnetError { text: text.to_owned(), source }),
        };
        let mut filter = Self::default();
        for text in valid {
            match text.strip_prefix('!') {
                Some(negated) => filter.exclude.push(parse(negated)?),
                None => filter.include.push(parse(text)?),
            }
        }
        for text in excluded {
            filter.exclude.push(parse(text)?);
        }
        Ok(filter)
    }

    /// Whether an address is in an included network, or in any where none is named, and in no excluded one.
    #[must_use]
    pub fn accepts(&self, address: IpAddr) -> bool {
        (self.include.is_empty() || self.include.iter().any(|net| net.contains(&address)))
            && !self.exclude.iter().any(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(valid: &[&str], excluded: &[&str], addresses: &[&str]) -> Vec<String> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let filter = SubnetFilter::parse(&texts(valid), &texts(excluded)).unwrap();
        addresses.iter().filter(|text| filter.accepts(text.parse().unwrap())).map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_list_includes_and_excludes() {
        let all = ["10.5.0.2", "192.0.2.1", "fd00::1"];
        assert_eq!(accepted(&[], &[], &all), all);
        assert_eq!(accepted(&["10.0.0.0/8", "fd00::/8"], &[], &all), ["10.5.0.2", "fd00::1"]);
        assert_eq!(accepted(&["0.0.0.0/0", "!10.0.0.0/8"], &[], &all), ["192.0.2.1"]);
        assert_eq!(accepted(&["!10.0.0.0/8"], &["192.0.2.0/24"], &all), ["fd00::1"]);
    }

    #[test]
    fn a_plain_address_is_a_network_of_one() {
        let all = ["10.0.0.4", "10.0.0.5", "fd00::1"];
        assert_eq!(accepted(&["10.0.0.0/8", "!10.0.0.4"], &[], &all), ["10.0.0.5"]);
        assert_eq!(accepted(&["10.0.0.4", "fd00::1"], &[], &all), ["10.0.0.4", "fd00::1"]);
    }

    #[test]
    fn a_text_that_is_no_network_is_named() {
        assert_eq!(SubnetFilter::parse(&["!10.5.0.0/99".to_owned()], &[]).unwrap_err().text, "10.5.0.0/99");
    }
}
