//! Messages of D-Bus: reading what clients send, as far as methods here need it, and writing answers and signals.
//!
//! Pure. What is read is not trusted: lengths are checked before they are used, and a message has a limit.

/// The longest message. Those to logind are a few hundred bytes.
pub(crate) const LONGEST: usize = 64 << 10;
/// Bytes before the header's fields: they say how long a message is.
pub(crate) const FIXED: usize = 16;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const NO_REPLY_EXPECTED: u8 = 1;
const VERSION: u8 = 1;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;
const UNIX_FDS: u8 = 9;

/// What is wrong with a message: its sender is not talked to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedError {
    #[error("it is neither little nor big endian")]
    Endian,
    #[error("it is of another version of the protocol")]
    Version,
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    #[error("its header ends early, or is none")]
    Header,
}

/// A message of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) serial: u32,
    /// A method is called; otherwise it is an answer or a signal, which nobody here waits for.
    pub(crate) is_call: bool,
    pub(crate) wants_reply: bool,
    pub(crate) path: String,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(crate) destination: String,
    /// The texts of its body, in order; none where it has anything else before or between them.
    pub(crate) texts: Option<Vec<String>>,
}

#[derive(Clone, Copy)]
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    is_little: bool,
}

impl<'b> Reader<'b> {
    fn align(&mut self, to: usize) -> Option<()> {
        let end = self.at.checked_next_multiple_of(to)?;
        let padding = self.bytes.get(self.at..end)?;
        self.at = end;
        padding.iter().all(|byte| *byte == 0).then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// A text whose length was read.
    fn text_of(&mut self, length: usize) -> Option<&'b str> {
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0 && !text.contains('\0')).then_some(text)
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.text_of(length)
    }

    fn signature(&mut self) -> Option<&'b str> {
        let length = usize::from(self.byte()?);
        self.text_of(length)
    }
}

/// How long the message is that begins with these [`FIXED`] bytes.
pub(crate) fn length(fixed: &[u8; FIXED]) -> Result<usize, MalformedError> {
    let mut reader = Reader { bytes: fixed, at: 0, is_little: is_little(fixed)? };
    if fixed.get(3) != Some(&VERSION) {
        return Err(MalformedError::Version);
    }
    reader.at = 4;
    let mut number = || reader.u32().and_then(|number| usize::try_from(number).ok()).ok_or(MalformedError::Header);
    let (body, _serial, fields) = (number()?, number()?, number()?);
    let header = FIXED.saturating_add(fields).checked_next_multiple_of(8).ok_or(MalformedError::TooLong)?;
    let length = header.saturating_add(body);
    if length > LONGEST { Err(MalformedError::TooLong) } else { Ok(length) }
}

fn is_little(message: &[u8]) -> Result<bool, MalformedError> {
    match message.first() {
        Some(b'l') => Ok(true),
        Some(b'B') => Ok(false),
        _ => Err(MalformedError::Endian),
    }
}

/// Reads a whole message.
pub(crate) fn read(message: &[u8]) -> Result<Call, MalformedError> {
    let reader = Reader { bytes: message, at: 0, is_little: is_little(message)? };
    read_call(reader).ok_or(MalformedError::Header)
}

fn read_call(mut reader: Reader<'_>) -> Option<Call> {
    reader.at = 1;
    let (kind, flags) = (reader.byte()?, reader.byte()?);
    reader.at = 8;
    let serial = reader.u32().filter(|serial| *serial != 0)?;
    let fields = usize::try_from(reader.u32()?).ok()?;
    let end = FIXED.checked_add(fields)?;
    let is_call = kind == METHOD_CALL;
    let mut call = Call { serial, is_call, wants_reply: flags & NO_REPLY_EXPECTED == 0, ..Call::default() };
    let mut signature = "";
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        match reader.signature()? {
            "s" | "o" => {
                let text = reader.text()?;
                match code {
                    PATH => text.clone_into(&mut call.path),
                    INTERFACE => text.clone_into(&mut call.interface),
                    MEMBER => text.clone_into(&mut call.member),
                    DESTINATION => text.clone_into(&mut call.destination),
                    // The bus knows better who sent it.
                    _ => {}
                }
            }
            "g" => {
                let text = reader.signature()?;
                if code == SIGNATURE {
                    signature = text;
                }
            }
            "u" => drop(reader.u32()?),
            _ => return None,
        }
    }
    if reader.at != end || (is_call && (call.path.is_empty() || call.member.is_empty())) {
        return None;
    }
    reader.align(8)?;
    call.texts =
        signature.bytes().map(|kind| if kind == b's' { reader.text().map(str::to_owned) } else { None }).collect();
    Some(call)
}

/// A value of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    U32(u32),
    U64(u64),
    Text(String),
    Texts(Vec<String>),
    /// The first descriptor that comes with the message.
    Descriptor,
    Variant(Box<Self>),
    /// `a{sv}`.
    Properties(Vec<(&'static str, Self)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::U32(_) => "u",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Descriptor => "h",
            Self::Variant(_) => "v",
            Self::Properties(_) => "a{sv}",
        }
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or_default());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or_default());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// Something whose length in bytes stands before it; `align` is that of its items.
    fn sized(&mut self, align: usize, write: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let begin = self.0.len();
        write(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or_default().to_le_bytes();
        if let Some(place) = self.0.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::U32(number) => self.u32(*number),
            Value::U64(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.sized(4, |writer| texts.iter().for_each(|text| writer.text(text))),
            Value::Descriptor => self.u32(0),
            Value::Variant(value) => self.variant(value),
            Value::Properties(properties) => self.sized(8, |writer| {
                for (name, value) in properties {
                    writer.align(8);
                    writer.text(name);
                    writer.variant(value);
                }
            }),
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        self.value(value);
    }
}

/// A message of the bus. Serial numbers are given when it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    kind: u8,
    fields: Vec<(u8, Field)>,
    body: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Text(String),
    Path(String),
    Number(u32),
}

impl Message {
    /// The answer to a call.
    pub(crate) fn reply(call: &Call, sender: &str, body: Vec<Value>) -> Self {
        let fields = vec![(REPLY_SERIAL, Field::Number(call.serial)), (SENDER, Field::Text(sender.to_owned()))];
        Self { kind: METHOD_RETURN, fields, body }
    }

    /// The refusal of a call.
    pub(crate) fn error(call: &Call, sender: &str, name: &str, text: &str) -> Self {
        let mut message = Self::reply(call, sender, vec![Value::Text(text.to_owned())]);
        message.kind = ERROR;
        message.fields.push((ERROR_NAME, Field::Text(name.to_owned())));
        message
    }

    pub(crate) fn signal(sender: &str, path: &str, interface: &str, member: &str, body: Vec<Value>) -> Self {
        let fields = vec![
            (PATH, Field::Path(path.to_owned())),
            (INTERFACE, Field::Text(interface.to_owned())),
            (MEMBER, Field::Text(member.to_owned())),
            (SENDER, Field::Text(sender.to_owned())),
        ];
        Self { kind: SIGNAL, fields, body }
    }

    /// To the client of this name.
    pub(crate) fn to(mut self, destination: &str) -> Self {
        self.fields.push((DESTINATION, Field::Text(destination.to_owned())));
        self
    }

    /// Its bytes.
    pub(crate) fn bytes(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.value(value));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let mut writer = Writer(vec![b'l', self.kind, NO_REPLY_EXPECTED, VERSION]);
        writer.u32(u32::try_from(body.0.len()).unwrap_or_default());
        writer.u32(serial);
        writer.sized(8, |writer| {
            for (code, field) in &self.fields {
                writer.align(8);
                writer.0.push(*code);
                match field {
                    Field::Text(text) => writer.variant(&Value::Text(text.clone())),
                    Field::Number(number) => writer.variant(&Value::U32(*number)),
                    Field::Path(path) => {
                        writer.signature("o");
                        writer.text(path);
                    }
                }
            }
            if !signature.is_empty() {
                writer.align(8);
                writer.0.push(SIGNATURE);
                writer.signature("g");
                writer.signature(&signature);
            }
            if self.body.contains(&Value::Descriptor) {
                writer.align(8);
                writer.0.push(UNIX_FDS);
                writer.variant(&Value::U32(1));
            }
        });
        writer.align(8);
        writer.0.extend(body.0);
        writer.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `Inhibit` as the kubelet's library writes it, by hand.
    fn inhibit() -> Vec<u8> {
        let mut body = Writer::default();
        ["shutdown", "kubelet", "why", "delay"].iter().for_each(|text| body.text(text));
        let mut writer = Writer(vec![b'l', METHOD_CALL, 0, VERSION]);
        writer.u32(u32::try_from(body.0.len()).unwrap());
        writer.u32(7);
        writer.sized(8, |writer| {
            let text = |writer: &mut Writer, code: u8, kind: &str, text: &str| {
                writer.align(8);
                writer.0.push(code);
                writer.signature(kind);
                if kind == "g" { writer.signature(text) } else { writer.text(text) }
            };
            text(writer, PATH, "o", "/org/freedesktop/login1");
            text(writer, DESTINATION, "s", "org.freedesktop.login1");
            text(writer, MEMBER, "s", "Inhibit");
            text(writer, SIGNATURE, "g", "ssss");
        });
        writer.align(8);
        writer.0.extend(body.0);
        writer.0
    }

    #[test]
    fn a_call_is_read_with_its_texts() {
        let bytes = inhibit();
        assert_eq!(length(bytes[..FIXED].try_into().unwrap()), Ok(bytes.len()));
        let call = read(&bytes).unwrap();
        assert_eq!((call.serial, call.is_call, call.wants_reply), (7, true, true));
        assert_eq!((call.path.as_str(), call.member.as_str()), ("/org/freedesktop/login1", "Inhibit"));
        assert_eq!(call.destination, "org.freedesktop.login1");
        assert_eq!(call.texts.unwrap(), ["shutdown", "kubelet", "why", "delay"]);
        for end in 0..bytes.len() {
            let cut = read(&bytes[..end]);
            assert!(cut.is_err() || cut.unwrap().texts.is_none(), "{end}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_or_none_is_refused_by_its_beginning() {
        let mut fixed: [u8; FIXED] = inhibit()[..FIXED].try_into().unwrap();
        fixed[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length(&fixed), Err(MalformedError::TooLong));
        fixed[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length(&fixed), Err(MalformedError::TooLong));
        fixed[3] = 2;
        assert_eq!(length(&fixed), Err(MalformedError::Version));
        fixed[0] = b'x';
        assert_eq!(length(&fixed), Err(MalformedError::Endian));
    }

    /// By the specification: header fields begin at multiples of eight, and so does the body.
    #[test]
    fn an_answer_has_the_bytes_of_the_specification() {
        let call = Call { serial: 3, is_call: true, ..Call::default() };
        let bytes = Message::reply(&call, ":1.0", vec![Value::Variant(Box::new(Value::U64(1_200_000_000)))]).bytes(9);
        let mut expected = vec![b'l', 2, 1, 1, 16, 0, 0, 0, 9, 0, 0, 0, 30, 0, 0, 0];
        expected.extend([5, 1, b'u', 0, 3, 0, 0, 0]);
        expected.extend([7, 1, b's', 0, 4, 0, 0, 0, b':', b'1', b'.', b'0', 0, 0, 0, 0]);
        expected.extend([8, 1, b'g', 0, 1, b'v', 0, 0]);
        expected.extend([1, b't', 0, 0, 0, 0, 0, 0]);
        expected.extend(1_200_000_000u64.to_le_bytes());
        expected[12] = 31;
        assert_eq!(bytes, expected);
        assert_eq!(length(bytes[..FIXED].try_into().unwrap()), Ok(bytes.len()));
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_ends_this_program(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..180, byte: u8) {
            drop(read(&bytes));
            bytes.insert(0, b'l');
            drop(read(&bytes));
            let mut near = inhibit();
            if let Some(place) = near.get_mut(at) {
                *place = byte;
            }
            drop(read(&near));
            let _length = length(near[..FIXED].try_into().unwrap());
        }
    }
}
