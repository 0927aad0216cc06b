//! Macros that turn a table of fields into a type.
//!
//! ```text
//! resource! {
//! /// Documentation.
//!     AddressStatus: "AddressStatuses.net.talos.dev" in "network", aliases ["address"],
//!     columns ["Address" => "{.address}"],
//!     {
//!         address: Option<IpNet> = 1 "address",            // rust name: type = protobuf number, YAML key
//!         local: Option<IpAddr> = 2 "local" omitempty,     // no key while empty; `inline` puts its keys here
//!     }
//! }
//! ```
//!
//! `omitempty` is that of Go's encoder: of an address, prefix or endpoint the key is never there.
//!
//! `sensitive` after the namespace lets only administrators read the type. `message!` is the same for parts of specs.

/// A part of a spec.
macro_rules! message {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty = $number:literal $key:literal $($flag:ident)?,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        #[cfg(test)]
        impl $crate::sample::Sample for $name {
            #[allow(unused_variables, reason = "a spec may have no fields")]
            fn sample(next: &mut $crate::sample::Numbers) -> Self {
                Self { $($field: $crate::sample::Sample::sample(next),)* }
            }
        }

        impl $crate::field::Message for $name {
            #[allow(unused_variables, reason = "a spec may have no fields")]
            fn write_yaml(&self, into: &mut $crate::object::Object) {
                $(write_key!(self, into, $field, $key $(, $flag)?);)*
            }
            fn timestamps() -> Vec<&'static str> {
                let keys: &[(&str, bool)] = &[$(($key, <$type as $crate::field::Field>::IS_TIMESTAMP)),*];
                keys.iter().filter(|(_, is_timestamp)| *is_timestamp).map(|(key, _)| *key).collect()
            }
            #[allow(unused_variables, reason = "a spec may have no fields")]
            fn write_proto(&self, out: &mut Vec<u8>) {
                $($crate::field::Field::encode(&self.$field, $number, out);)*
            }
            #[allow(unused_variables, reason = "a spec may have no fields")]
            fn merge_field(
                &mut self,
                number: u32,
                wire_type: ::prost::encoding::WireType,
                input: &mut &[u8],
            ) -> Result<bool, $crate::field::DecodeError> {
                match number {
                    $($number => $crate::field::Field::merge(&mut self.$field, wire_type, input)?,)*
                    _ => return Ok(false),
                }
                #[allow(unreachable_code, reason = "a spec may have no fields")]
                Ok(true)
            }
        }

        impl $crate::field::Element for $name {
            fn element_yaml(&self) -> ::serde_json::Value {
                let mut object = $crate::object::Object::new();
                $crate::field::Message::write_yaml(self, &mut object);
                ::serde_json::Value::Object(object)
            }
            fn encode_element(&self, number: u32, out: &mut Vec<u8>) {
                let mut payload = Vec::new();
                $crate::field::Message::write_proto(self, &mut payload);
                $crate::field::encode_payload(number, &payload, out);
            }
            fn decode_element(
                wire_type: ::prost::encoding::WireType,
                input: &mut &[u8],
            ) -> Result<Self, $crate::field::DecodeError> {
                $crate::field::decode($crate::field::take_payload(wire_type, input)?)
            }
        }

        impl $crate::field::Field for $name {
            fn yaml(&self) -> ::serde_json::Value {
                $crate::field::Element::element_yaml(self)
            }
            /// As Go's encoder has it: each field is.
            fn is_empty(&self) -> bool {
                true $(&& $crate::field::Field::is_empty(&self.$field))*
            }
            fn encode(&self, number: u32, out: &mut Vec<u8>) {
                if *self != Self::default() {
                    $crate::field::Element::encode_element(self, number, out);
                }
            }
            fn merge(
                &mut self,
                wire_type: ::prost::encoding::WireType,
                input: &mut &[u8],
            ) -> Result<(), $crate::field::DecodeError> {
                *self = $crate::field::Element::decode_element(wire_type, input)?;
                Ok(())
            }
        }
    };
}

/// One key of the YAML form.
macro_rules! write_key {
    ($self:ident, $into:ident, $field:ident, $key:literal) => {
        $into.insert($key.to_owned(), $crate::field::Field::yaml(&$self.$field));
    };
    ($self:ident, $into:ident, $field:ident, $key:literal, omitempty) => {
        if !$crate::field::Field::is_empty(&$self.$field) {
            write_key!($self, $into, $field, $key);
        }
    };
    ($self:ident, $into:ident, $field:ident, $key:literal, inline) => {
        if let ::serde_json::Value::Object(keys) = $crate::field::Field::yaml(&$self.$field) {
            $into.extend(keys);
        }
    };
}

/// The definition of a resource type.
macro_rules! definition {
    ($type:literal in $namespace:literal $($sensitive:ident)?, aliases [$($alias:literal),*],
     columns [$($column:literal => $path:literal),*]) => {
        $crate::spec::Definition {
            type_name: $type,
            namespace: $namespace,
            aliases: &[$($alias),*],
            columns: &[$($crate::spec::Column { name: $column, json_path: $path }),*],
            sensitivity: sensitivity!($($sensitive)?),
        }
    };
}

macro_rules! sensitivity {
    () => {
        $crate::spec::Sensitivity::NonSensitive
    };
    (sensitive) => {
        $crate::spec::Sensitivity::Sensitive
    };
}

/// A resource: its spec and its definition.
macro_rules! resource {
    ($(#[$meta:meta])* $name:ident: $type:literal in $namespace:literal $($sensitive:ident)?
     $(, aliases [$($alias:literal),*])? $(, columns [$($column:literal => $path:literal),* $(,)?])?,
     { $($fields:tt)* }) => {
        message! { $(#[$meta])* $name { $($fields)* } }

        impl $crate::spec::Spec for $name {
            const DEFINITION: $crate::spec::Definition = definition!(
                $type in $namespace $($sensitive)?, aliases [$($($alias),*)?], columns [$($($column => $path),*)?]
            );
            fn to_yaml(&self) -> ::serde_json::Value {
                $crate::field::Element::element_yaml(self)
            }
            fn to_yaml_text(&self) -> String {
                let timestamps = <Self as $crate::field::Message>::timestamps();
                ::yaml::to_text_with_timestamps(&$crate::spec::Spec::to_yaml(self), &timestamps)
            }
            fn to_proto(&self) -> Vec<u8> {
                let mut out = Vec::new();
                $crate::field::Message::write_proto(self, &mut out);
                out
            }
        }
    };
}

/// An enumeration with a closed set of values: `Name { Variant = number "text", ... }`; the first is the default.
macro_rules! closed_enum {
    ($(#[$meta:meta])* $name:ident { $first:ident = $first_number:literal $first_text:literal,
      $($variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            #[default]
            #[doc = concat!("`", $first_text, "`")]
            $first = $first_number,
            $(#[doc = concat!("`", $text, "`")] $variant = $number,)*
        }

        impl $name {
            /// All values, in order of their numbers.
            pub const ALL: &'static [Self] = &[Self::$first, $(Self::$variant,)*];

            /// The text that is printed.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $(Self::$variant => $text,)*
                }
            }
            fn number(self) -> i32 {
                self as i32
            }
            fn from_number(number: i32) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.number() == number)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        #[cfg(test)]
        impl $crate::sample::Sample for $name {
            fn sample(next: &mut $crate::sample::Numbers) -> Self {
                Self::ALL[1 + next.below(Self::ALL.len() - 1)]
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::field::DecodeError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    $crate::field::DecodeError::Unknown { what: stringify!($name), value: text.to_owned() }
                })
            }
        }

        enum_encoding!($name);
    };
}

/// A number with names for the values that are known: `Name { CONSTANT = number "text", ... }`.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($constant:ident = $number:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i32);

        impl $name {
            $(#[doc = concat!("`", $text, "`")] pub const $constant: Self = Self($number);)*

            const NAMES: &'static [(i32, &'static str)] = &[$(($number, $text),)*];

            fn number(self) -> i32 {
                self.0
            }
            fn from_number(number: i32) -> Option<Self> {
                Some(Self(number))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match Self::NAMES.iter().find(|(number, _)| *number == self.0) {
                    Some((_, name)) => f.pad(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        #[cfg(test)]
        impl $crate::sample::Sample for $name {
            fn sample(next: &mut $crate::sample::Numbers) -> Self {
                let set: Vec<i32> = Self::NAMES.iter().map(|(number, _)| *number).filter(|number| *number != 0).collect();
                Self(set[next.below(set.len())])
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::field::DecodeError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let named = Self::NAMES.iter().find(|(_, name)| *name == text).map(|(number, _)| *number);
                named.or_else(|| text.parse().ok()).map(Self).ok_or_else(|| $crate::field::DecodeError::Unknown {
                    what: stringify!($name),
                    value: text.to_owned(),
                })
            }
        }

        enum_encoding!($name);
    };
}

/// Both enumerations on the wire: a varint; text in YAML.
macro_rules! enum_encoding {
    ($name:ident) => {
        impl $crate::field::Element for $name {
            fn element_yaml(&self) -> ::serde_json::Value {
                ::serde_json::Value::from(self.to_string())
            }
            fn encode_element(&self, number: u32, out: &mut Vec<u8>) {
                ::prost::encoding::int32::encode(number, &self.number(), out);
            }
            fn decode_element(
                wire_type: ::prost::encoding::WireType,
                input: &mut &[u8],
            ) -> Result<Self, $crate::field::DecodeError> {
                let mut number = 0;
                let context = ::prost::encoding::DecodeContext::default();
                ::prost::encoding::int32::merge(wire_type, &mut number, input, context)?;
                Self::from_number(number)
                    .ok_or($crate::field::DecodeError::OutOfRange { what: stringify!($name), value: number.into() })
            }
            fn decode_repeated(
                wire_type: ::prost::encoding::WireType,
                input: &mut &[u8],
                into: &mut Vec<Self>,
            ) -> Result<(), $crate::field::DecodeError> {
                if wire_type != ::prost::encoding::WireType::LengthDelimited {
                    into.push(Self::decode_element(wire_type, input)?);
                    return Ok(());
                }
                let mut packed = $crate::field::take_payload(wire_type, input)?;
                while !packed.is_empty() {
                    into.push(Self::decode_element(::prost::encoding::WireType::Varint, &mut packed)?);
                }
                Ok(())
            }
        }

        impl $crate::field::Field for $name {
            fn yaml(&self) -> ::serde_json::Value {
                $crate::field::Element::element_yaml(self)
            }
            fn is_empty(&self) -> bool {
                self.number() == 0
            }
            fn encode(&self, number: u32, out: &mut Vec<u8>) {
                if self.number() != 0 {
                    $crate::field::Element::encode_element(self, number, out);
                }
            }
            fn merge(
                &mut self,
                wire_type: ::prost::encoding::WireType,
                input: &mut &[u8],
            ) -> Result<(), $crate::field::DecodeError> {
                *self = $crate::field::Element::decode_element(wire_type, input)?;
                Ok(())
            }
        }
    };
}

/// A set of bits with names, joined by commas: `Name { CONSTANT = bits "text", ... }`, in the order of printing.
macro_rules! flags {
    ($(#[$meta:meta])* $name:ident { $($constant:ident = $bits:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            $(#[doc = concat!("`", $text, "`")] pub const $constant: Self = Self($bits);)*

            const NAMES: &'static [(u32, &'static str)] = &[$(($bits, $text),)*];

            /// Whether all bits of `other` are set.
            pub fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let names = Self::NAMES.iter().filter(|(bits, _)| self.0 & bits != 0).map(|(_, name)| *name);
                f.pad(&names.collect::<Vec<_>>().join(","))
            }
        }

        #[cfg(test)]
        impl $crate::sample::Sample for $name {
            fn sample(next: &mut $crate::sample::Numbers) -> Self {
                let bit = |at: usize| Self::NAMES[at % Self::NAMES.len()].0;
                let at = next.below(Self::NAMES.len());
                Self(bit(at) | bit(at + 1))
            }
        }

        impl $crate::field::Field for $name {
            fn yaml(&self) -> ::serde_json::Value {
                ::serde_json::Value::from(self.to_string())
            }
            fn is_empty(&self) -> bool {
                self.0 == 0
            }
            fn encode(&self, number: u32, out: &mut Vec<u8>) {
                self.0.encode(number, out);
            }
            fn merge(
                &mut self,
                wire_type: ::prost::encoding::WireType,
                input: &mut &[u8],
            ) -> Result<(), $crate::field::DecodeError> {
                self.0.merge(wire_type, input)
            }
        }
    };
}
