//! D-Bus messages as bytes, little-endian: as much as three methods of systemd need.

/// A value inside a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    Text(String),
    Texts(Vec<String>),
    Pids(Vec<u32>),
    Bytes(Vec<u8>),
    Pairs(Vec<(String, String)>),
}

/// A property of a unit.
pub(super) type Property = (String, Value);

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

/// Who is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// A message that came in; only the fields that are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    pub(super) reply_to: Option<u32>,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) body: Vec<u8>,
}

/// How long the fixed part of every message is.
pub(super) const FIXED_LENGTH: usize = 16;

const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR: u8 = 4;
const FIELD_REPLY: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;

/// Bytes being written, aligned as the message is: each value stands at a multiple of its size.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn align(&mut self, boundary: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(boundary), 0);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_le_bytes());
    }

    fn signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// An array: its length counts neither itself nor the padding before the first element.
    pub(super) fn array(&mut self, boundary: usize, write: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_place = self.bytes.len() - 4;
        self.align(boundary);
        let start = self.bytes.len();
        write(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_place..length_place + 4].copy_from_slice(&length.to_le_bytes());
    }

    pub(super) fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::U32(value) => self.u32(*value),
            Value::I32(value) => self.u32(value.cast_unsigned()),
            Value::U64(value) => self.u64(*value),
            Value::I64(value) => self.u64(value.cast_unsigned()),
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, |writer| texts.iter().for_each(|text| writer.text(text))),
            Value::Pids(pids) => self.array(4, |writer| pids.iter().for_each(|pid| writer.u32(*pid))),
            Value::Bytes(bytes) => self.array(1, |writer| writer.bytes.extend(bytes)),
            Value::Pairs(pairs) => self.array(8, |writer| {
                for (first, second) in pairs {
                    writer.align(8);
                    writer.text(first);
                    writer.text(second);
                }
            }),
        }
    }

    /// `a(sv)`
    pub(super) fn properties(&mut self, properties: &[Property]) {
        self.array(8, |writer| {
            for (name, value) in properties {
                writer.align(8);
                writer.text(name);
                writer.variant(value);
            }
        });
    }
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::U32(_) => "u",
            Self::I32(_) => "i",
            Self::U64(_) => "t",
            Self::I64(_) => "x",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Pids(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Pairs(_) => "a(ss)",
        }
    }
}

/// A whole method call.
pub(super) fn call(serial: u32, method: Method<'_>, signature: &str, body: &[u8]) -> Vec<u8> {
    message(Kind::Call, serial, body, |writer| {
        text_field(writer, FIELD_PATH, "o", method.path);
        text_field(writer, FIELD_DESTINATION, "s", method.destination);
        text_field(writer, FIELD_INTERFACE, "s", method.interface);
        text_field(writer, FIELD_MEMBER, "s", method.member);
        if !signature.is_empty() {
            field(writer, FIELD_SIGNATURE, "g", |writer| writer.signature(signature));
        }
    })
}

fn message(kind: Kind, serial: u32, body: &[u8], fields: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    let kind = match kind {
        Kind::Call => 1,
        Kind::Return => 2,
        Kind::Error => 3,
        Kind::Signal => 4,
    };
    // Little-endian, kind, no flags, protocol 1.
    writer.bytes.extend([b'l', kind, 0, 1]);
    writer.u32(body.len() as u32);
    writer.u32(serial);
    writer.array(8, fields);
    writer.align(8);
    writer.bytes.extend(body);
    writer.into_bytes()
}

fn field(writer: &mut Writer, code: u8, signature: &str, write: impl FnOnce(&mut Writer)) {
    writer.align(8);
    writer.byte(code);
    writer.signature(signature);
    write(writer);
}

fn text_field(writer: &mut Writer, code: u8, signature: &str, text: &str) {
    field(writer, code, signature, |writer| writer.text(text));
}

/// How long the rest of a message is, by its fixed part; `None` if this is no message that we understand.
pub(super) fn rest_length(fixed: &[u8; FIXED_LENGTH]) -> Option<usize> {
    if fixed[0] != b'l' || fixed[3] != 1 {
        return None;
    }
    let number = |place: usize| Some(u32::from_le_bytes(fixed[place..place + 4].try_into().ok()?) as usize);
    Some(number(12)?.next_multiple_of(8) + number(4)?)
}

/// Reads a whole message; `None` if it is malformed.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let mut reader = Reader { bytes, place: 0 };
    reader.place = 1;
    let kind = match reader.byte()? {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => return None,
    };
    reader.place = 4;
    let (body_length, serial) = (reader.u32()? as usize, reader.u32()?);
    let body_start = bytes.len().checked_sub(body_length)?;
    let body = bytes.get(body_start..)?.to_vec();
    let mut message = Message { kind, serial, reply_to: None, member: String::new(), error: String::new(), body };
    let end = reader.u32()? as usize + FIXED_LENGTH;
    while reader.place < end {
        reader.field(&mut message)?;
    }
    Some(message)
}

/// The texts at the start of a body; `u` and `o` count as what they are, and a variant `v` holds a text.
pub(super) fn body_texts(message: &Message, signature: &str) -> Option<Vec<String>> {
    let mut reader = Reader { bytes: &message.body, place: 0 };
    let read = |kind| match kind {
        'u' => reader.u32().map(|number| number.to_string()),
        'v' => reader.signature().filter(|signature| signature == "s").and_then(|_| reader.text()),
        _ => reader.text(),
    };
    signature.chars().map(read).collect()
}

struct Reader<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.place)?;
        self.place += 1;
        Some(byte)
    }

    fn align(&mut self, boundary: usize) {
        self.place = self.place.next_multiple_of(boundary);
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.bytes.get(self.place..self.place.checked_add(4)?)?;
        self.place += 4;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let end = self.place.checked_add(length)?;
        let text = std::str::from_utf8(self.bytes.get(self.place..end)?).ok()?.to_owned();
        self.place = end + 1;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let end = self.place + length;
        let text = std::str::from_utf8(self.bytes.get(self.place..end)?).ok()?.to_owned();
        self.place = end + 1;
        Some(text)
    }

    fn field(&mut self, message: &mut Message) -> Option<()> {
        self.align(8);
        let code = self.byte()?;
        match (code, self.signature()?.as_str()) {
            (FIELD_REPLY, "u") => message.reply_to = Some(self.u32()?),
            (FIELD_MEMBER, "s") => message.member = self.text()?,
            (FIELD_ERROR, "s") => message.error = self.text()?,
            (_, "u") => drop(self.u32()?),
            (_, "s" | "o") => drop(self.text()?),
            (_, "g") => drop(self.signature()?),
            _ => return None,
        }
        Some(())
    }
}

/// What a stand-in for systemd needs beside this.
#[cfg(test)]
pub(super) mod stand_in {
    use super::*;

    pub(crate) fn reply(serial: u32, to: u32, signature: &str, body: &[u8]) -> Vec<u8> {
        message(Kind::Return, serial, body, |writer| {
            field(writer, FIELD_REPLY, "u", |writer| writer.u32(to));
            if !signature.is_empty() {
                field(writer, FIELD_SIGNATURE, "g", |writer| writer.signature(signature));
            }
        })
    }

    pub(crate) fn error(serial: u32, to: u32, name: &str, text: &str) -> Vec<u8> {
        let mut body = Writer::default();
        body.text(text);
        message(Kind::Error, serial, &body.into_bytes(), |writer| {
            field(writer, FIELD_REPLY, "u", |writer| writer.u32(to));
            text_field(writer, FIELD_ERROR, "s", name);
            field(writer, FIELD_SIGNATURE, "g", |writer| writer.signature("s"));
        })
    }

    pub(crate) fn signal(serial: u32, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
        message(Kind::Signal, serial, body, |writer| {
            text_field(writer, FIELD_PATH, "o", "/org/freedesktop/systemd1");
            text_field(writer, FIELD_INTERFACE, "s", "org.freedesktop.systemd1.Manager");
            text_field(writer, FIELD_MEMBER, "s", member);
            field(writer, FIELD_SIGNATURE, "g", |writer| writer.signature(signature));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METHOD: Method<'_> = Method { destination: "a.b", path: "/p", interface: "c.d", member: "Do" };

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let bytes = call(7, METHOD, "", &[]);
        assert_eq!(&bytes[..12], b"l\x01\0\x01\0\0\0\0\x07\0\0\0");
        assert_eq!(&bytes[16..28], b"\x01\x01o\0\x02\0\0\0/p\0\0");
        assert_eq!(bytes.len() % 8, 0);
        let fixed: &[u8; FIXED_LENGTH] = bytes[..FIXED_LENGTH].try_into().unwrap();
        assert_eq!(rest_length(fixed).unwrap() + FIXED_LENGTH, bytes.len());
        let message = parse(&bytes).unwrap();
        assert_eq!((message.kind, message.serial, message.member.as_str()), (Kind::Call, 7, "Do"));
    }

    #[test]
    fn arrays_do_not_count_their_padding() {
        let mut writer = Writer::default();
        writer.properties(&[("A".to_owned(), Value::U64(5))]);
        // Length 16+8 = from the struct at 8 to its end: "A" is 4+2, the variant's signature 3, then the number at 24.
        assert_eq!(
            writer.into_bytes(),
            [24, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'A', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn bodies_are_read() {
        let mut body = Writer::default();
        body.u32(42);
        body.text("/job/1");
        let message = parse(&stand_in::signal(3, "JobRemoved", "uo", &body.into_bytes())).unwrap();
        assert_eq!(message.member, "JobRemoved");
        assert_eq!(body_texts(&message, "uo").unwrap(), ["42", "/job/1"]);
        assert_eq!(body_texts(&message, "uos"), None);
        let mut body = Writer::default();
        body.variant(&Value::Text("/x".to_owned()));
        let message = parse(&stand_in::reply(3, 1, "v", &body.into_bytes())).unwrap();
        assert_eq!(body_texts(&message, "v").unwrap(), ["/x"]);
        let mut body = Writer::default();
        body.variant(&Value::U32(5));
        assert_eq!(body_texts(&parse(&stand_in::reply(3, 1, "v", &body.into_bytes())).unwrap(), "v"), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            if bytes.len() > 4 {
                bytes[0] = b'l';
                bytes[3] = 1;
                bytes[1] = 2;
                if let Some(message) = parse(&bytes) {
                    let _ = body_texts(&message, "uoss");
                }
            }
        }
    }
}
