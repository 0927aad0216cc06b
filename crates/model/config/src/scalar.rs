//! Values that several documents share: secrets, sizes, port ranges, the type of a machine.

use std::fmt;
use std::str::FromStr;

use pki::pem::base64_text;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A free-form mapping, such as a Kubernetes object.
pub type Object = serde_json::Map<String, serde_json::Value>;

/// Text that never shows in debug output. Serializing writes it: a configuration is made of secrets.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretString(String);

impl SecretString {
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Into<String>> From<T> for SecretString {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

/// Role of a machine in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineType {
    /// Runs etcd and the Kubernetes control plane.
    ControlPlane,
    /// Runs workloads.
    Worker,
    /// A control plane that bootstraps etcd automatically: accepted for old configurations.
    Init,
}

impl MachineType {
    /// The name in configurations: `controlplane`, `worker`, `init`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::Worker => "worker",
            Self::Init => "init",
        }
    }

    /// Whether it runs the control plane.
    #[must_use]
    pub fn is_control_plane(self) -> bool {
        self != Self::Worker
    }
}

impl fmt::Display for MachineType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A size in bytes; read from a number or from a text such as `10 GB`, `512MiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DiskSize(pub u64);

impl FromStr for DiskSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        machine::size::parse(text).map(Self).map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for DiskSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(Self::NAME, deserializer)
    }
}

impl DiskSize {
    /// Its name for those who read shapes of types.
    pub(crate) const NAME: &'static str = "DiskSize";
}

/// One port or an inclusive range of ports: `80` or `8000-8080`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    pub low: u16,
    pub high: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |part: &str| part.trim().parse::<u16>().map_err(|_| format!("{part:?} is not a port (0 to 65535)"));
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let range = Self { low: port(low)?, high: port(high)? };
        if range.low > range.high { Err(format!("port range {text} ends before it starts")) } else { Ok(range) }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(Self::NAME, deserializer)
    }
}

impl PortRange {
    /// Its name for those who read shapes of types.
    pub(crate) const NAME: &'static str = "PortRange";
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.low == self.high {
            serializer.serialize_u16(self.low)
        } else {
            serializer.collect_str(&format_args!("{}-{}", self.low, self.high))
        }
    }
}

/// Reads a type by its text form. The name tells deserializers that the text is not any text.
fn parsed<'de, D, T>(name: &'static str, deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    struct Parsed<T>(std::marker::PhantomData<T>);

    impl<'de, T: FromStr<Err = String>> Visitor<'de> for Parsed<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a number")
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        }
    }

    deserializer.deserialize_newtype_struct(name, Parsed(std::marker::PhantomData))
}

/// A certificate that is accepted beside the issuing one, as base64 of PEM text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcceptedCa {
    #[serde(with = "base64_text")]
    pub crt: String,
}

/// A list, or a single element as a list of one.
pub(crate) fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct OneOrMany<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list or a single value")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                values.push(value);
            }
            Ok(values)
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(map)).map(|value| vec![value])
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(de::value::StrDeserializer::new(text)).map(|value| vec![value])
        }
    }

    deserializer.deserialize_any(OneOrMany(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_must_not_run_backwards() {
        assert_eq!("80".parse(), Ok(PortRange { low: 80, high: 80 }));
        assert_eq!("10-20".parse(), Ok(PortRange { low: 10, high: 20 }));
        assert_eq!("20-10".parse::<PortRange>(), Err("port range 20-10 ends before it starts".to_owned()));
        assert_eq!("x".parse::<PortRange>(), Err("\"x\" is not a port (0 to 65535)".to_owned()));
    }

    #[test]
    fn debug_output_hides_secrets() {
        assert_eq!(format!("{:?}", SecretString::from("tell nobody")), "hidden");
    }
}
