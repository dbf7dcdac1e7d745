//! D-Bus messages as bytes: the few types that systemd's manager is spoken to with.
//!
//! The format is that of the D-Bus specification, protocol version 1. What is sent is little-endian,
//! which every receiver takes; what is received may be either. Every length that is received is
//! checked before it is used. Knows no sockets.

use anyhow::{Context, Result, bail};

use super::value::Value;

/// A method call, to systemd or to the bus itself.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub body: Body,
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    pub(super) fn text(mut self, text: &str) -> Body {
        self.signature.push('s');
        put_text(&mut self.bytes, text);
        self
    }

    pub(super) fn bool(mut self, value: bool) -> Body {
        self.signature.push('b');
        put_u32(&mut self.bytes, value.into());
        self
    }

    /// `a(sv)`: names and values.
    pub(super) fn properties<'p>(
        mut self,
        properties: impl IntoIterator<Item = (&'p str, &'p Value)>,
    ) -> Body {
        self.signature.push_str("a(sv)");
        put_array(&mut self.bytes, 8, |bytes| {
            for (name, value) in properties {
                align(bytes, 8);
                put_text(bytes, name);
                put_signature(bytes, value.signature());
                put_value(bytes, value);
            }
        });
        self
    }

    /// `a(sa(sv))` without entries: systemd's auxiliary units, of which there are none.
    pub(super) fn no_units(mut self) -> Body {
        self.signature.push_str("a(sa(sv))");
        put_array(&mut self.bytes, 8, |_| {});
        self
    }
}

/// Header fields (D-Bus specification, "Header Fields").
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Message types.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Up to where the header has a fixed form: the length of its fields is the last of it.
const FIXED: usize = 16;

/// The largest message that is taken. systemd's answers here have some hundred bytes; the protocol
/// would allow 128 MiB.
const LARGEST: usize = 1 << 20;

impl Call<'_> {
    /// The message with number `serial`, which is never 0.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let length = u32::try_from(self.body.bytes.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![b'l', METHOD_CALL, 0, 1];
        put_u32(&mut bytes, length);
        put_u32(&mut bytes, serial);
        let names = [
            (PATH, "o", self.path),
            (DESTINATION, "s", self.destination),
            (INTERFACE, "s", self.interface),
            (MEMBER, "s", self.member),
        ];
        put_array(&mut bytes, 8, |bytes| {
            for (field, signature, name) in names {
                put_field(bytes, field, signature);
                put_text(bytes, name);
            }
            if !self.body.signature.is_empty() {
                put_field(bytes, SIGNATURE, "g");
                put_signature(bytes, &self.body.signature);
            }
        });
        align(&mut bytes, 8);
        bytes.extend_from_slice(&self.body.bytes);
        bytes
    }
}

fn put_field(bytes: &mut Vec<u8>, field: u8, signature: &str) {
    align(bytes, 8);
    bytes.push(field);
    put_signature(bytes, signature);
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    align(bytes, 4);
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_u32(bytes, u32::try_from(text.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

fn put_signature(bytes: &mut Vec<u8>, signature: &str) {
    bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(signature.as_bytes());
    bytes.push(0);
}

/// The padding before the first element does not count to an array's length.
fn put_array(bytes: &mut Vec<u8>, alignment: usize, elements: impl FnOnce(&mut Vec<u8>)) {
    put_u32(bytes, 0);
    let place = bytes.len() - 4;
    align(bytes, alignment);
    let start = bytes.len();
    elements(bytes);
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    bytes[place..place + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(value) => put_u32(bytes, (*value).into()),
        Value::I32(value) => put_u32(bytes, value.cast_unsigned()),
        Value::U32(value) => put_u32(bytes, *value),
        Value::U64(value) => {
            align(bytes, 8);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Value::Text(text) => put_text(bytes, text),
        Value::Texts(texts) => put_array(bytes, 4, |bytes| {
            texts.iter().for_each(|text| put_text(bytes, text));
        }),
        Value::Bytes(values) => put_array(bytes, 1, |bytes| bytes.extend_from_slice(values)),
        Value::U32s(values) => put_array(bytes, 4, |bytes| {
            values.iter().for_each(|&value| put_u32(bytes, value));
        }),
    }
}

/// What was received.
#[derive(Debug)]
pub(super) enum Message {
    /// The answer to the call of this number.
    Return { to: u32, body: Reader },
    /// The refusal of the call of this number, with systemd's words.
    Error { to: u32, name: String, text: String },
    /// An event.
    Signal {
        interface: String,
        member: String,
        body: Reader,
    },
    /// A call of others, or a type of a later protocol: to be passed over.
    Other,
}

/// How long the message is that begins with `bytes`; None when too little of it is there to tell.
///
/// # Errors
///
/// It is no message, or too long.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(fixed) = bytes.get(..FIXED) else {
        return Ok(None);
    };
    let big = is_big(fixed[0])?;
    let (body, fields) = (number(&fixed[4..8], big), number(&fixed[12..16], big));
    let total = (FIXED + fields as usize).next_multiple_of(8) + body as usize;
    if total > LARGEST {
        bail!("a message of {total} bytes came, of which no more than {LARGEST} are taken");
    }
    Ok(Some(total))
}

/// Reads one whole message.
///
/// # Errors
///
/// It is none.
pub(super) fn decode(bytes: &[u8]) -> Result<Message> {
    let big = is_big(*bytes.first().context("an empty message came")?)?;
    let mut reader = Reader {
        bytes: bytes.to_vec(),
        at: 12,
        big,
    };
    let end = reader.u32()? as usize + FIXED;
    let mut fields = Fields::default();
    while reader.at < end {
        reader.field(&mut fields)?;
    }
    let body = Reader {
        bytes: bytes
            .get(end.next_multiple_of(8)..)
            .unwrap_or_default()
            .to_vec(),
        at: 0,
        big,
    };
    Ok(fields.into_message(bytes[1], body))
}

#[derive(Default)]
struct Fields {
    interface: String,
    member: String,
    error: String,
    reply_to: u32,
    signature: String,
}

impl Fields {
    fn into_message(self, kind: u8, mut body: Reader) -> Message {
        match kind {
            METHOD_RETURN => Message::Return {
                to: self.reply_to,
                body,
            },
            ERROR => Message::Error {
                to: self.reply_to,
                name: self.error,
                text: match self.signature.starts_with('s') {
                    true => body.text().unwrap_or_default(),
                    false => String::new(),
                },
            },
            SIGNAL => Message::Signal {
                interface: self.interface,
                member: self.member,
                body,
            },
            _ => Message::Other,
        }
    }
}

fn is_big(endianness: u8) -> Result<bool> {
    match endianness {
        b'l' => Ok(false),
        b'B' => Ok(true),
        other => bail!("what came is not D-Bus: it begins with byte {other}"),
    }
}

fn number(bytes: &[u8], big: bool) -> u32 {
    let bytes = bytes.try_into().unwrap_or_default();
    if big {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    }
}

/// Takes values from a message, in their order.
#[derive(Debug)]
pub(super) struct Reader {
    bytes: Vec<u8>,
    at: usize,
    big: bool,
}

impl Reader {
    /// A number of 32 bits.
    ///
    /// # Errors
    ///
    /// The message ends before.
    pub(super) fn u32(&mut self) -> Result<u32> {
        self.at = self.at.next_multiple_of(4);
        let big = self.big;
        self.take(4).map(|bytes| number(bytes, big))
    }

    /// Text, or the path of an object.
    ///
    /// # Errors
    ///
    /// The message ends before, or it is not UTF-8.
    pub(super) fn text(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.text_of(length)
    }

    /// A text inside a variant, as the properties that are asked for have it.
    ///
    /// # Errors
    ///
    /// It is of another type, or as for [`Self::text`].
    pub(super) fn text_in_variant(&mut self) -> Result<String> {
        match self.signature()?.as_str() {
            "s" => self.text(),
            other => bail!("an answer of type {other:?} came instead of text"),
        }
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.take(1)?[0].into();
        self.text_of(length)
    }

    fn text_of(&mut self, length: usize) -> Result<String> {
        let bytes = self.take(length.saturating_add(1))?;
        let text = String::from_utf8(bytes[..length].to_vec());
        text.context("text that is not UTF-8 came")
    }

    fn take(&mut self, length: usize) -> Result<&[u8]> {
        let (start, end) = (self.at, self.at.saturating_add(length));
        self.at = end;
        let taken = self.bytes.get(start..end);
        taken.context("a message came that ends in the middle")
    }

    fn field(&mut self, fields: &mut Fields) -> Result<()> {
        self.at = self.at.next_multiple_of(8);
        let code = self.take(1)?[0];
        let signature = self.signature()?;
        let text = match signature.as_str() {
            "s" | "o" => self.text()?,
            "g" => self.signature()?,
            "u" => {
                let number = self.u32()?;
                if code == REPLY_SERIAL {
                    fields.reply_to = number;
                }
                return Ok(());
            }
            other => bail!("a header field of type {other:?} came"),
        };
        match code {
            INTERFACE => fields.interface = text,
            MEMBER => fields.member = text,
            ERROR_NAME => fields.error = text,
            SIGNATURE => fields.signature = text,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message as a server sends it: an answer, a refusal or a signal, with texts and numbers.
    pub(in super::super) fn sent(kind: u8, reply_to: u32, member: &str, body: Body) -> Vec<u8> {
        let mut bytes = vec![b'l', kind, 0, 1];
        put_u32(&mut bytes, u32::try_from(body.bytes.len()).unwrap());
        put_u32(&mut bytes, 77);
        put_array(&mut bytes, 8, |bytes| {
            if reply_to != 0 {
                put_field(bytes, REPLY_SERIAL, "u");
                put_u32(bytes, reply_to);
            }
            let names = match kind {
                ERROR => vec![(ERROR_NAME, member)],
                SIGNAL => vec![
                    (INTERFACE, "org.freedesktop.systemd1.Manager"),
                    (MEMBER, member),
                ],
                _ => vec![],
            };
            for (field, name) in names {
                put_field(bytes, field, "s");
                put_text(bytes, name);
            }
            put_field(bytes, SIGNATURE, "g");
            put_signature(bytes, &body.signature);
        });
        align(&mut bytes, 8);
        bytes.extend_from_slice(&body.bytes);
        bytes
    }

    impl Body {
        pub(in super::super) fn number(mut self, value: u32) -> Body {
            self.signature.push('u');
            put_u32(&mut self.bytes, value);
            self
        }

        pub(in super::super) fn variant(mut self, text: &str) -> Body {
            self.signature.push('v');
            put_signature(&mut self.bytes, "s");
            put_text(&mut self.bytes, text);
            self
        }
    }

    /// The member and the number of a call, as a server reads them.
    pub(in super::super) fn received(bytes: &[u8]) -> (String, u32) {
        let mut reader = Reader {
            bytes: bytes.to_vec(),
            at: 12,
            big: false,
        };
        let end = reader.u32().unwrap() as usize + FIXED;
        let mut fields = Fields::default();
        while reader.at < end {
            reader.field(&mut fields).unwrap();
        }
        (fields.member, number(&bytes[8..12], false))
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let call = Call {
            destination: "d",
            path: "/p",
            interface: "i",
            member: "m",
            body: Body::default().text("ab").bool(true),
        };
        let expected = [
            &b"l\x01\x00\x01\x0c\x00\x00\x00\x09\x00\x00\x00\x4c\x00\x00\x00"[..],
            b"\x01\x01o\x00\x02\x00\x00\x00/p\x00\x00\x00\x00\x00\x00",
            b"\x06\x01s\x00\x01\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00",
            b"\x02\x01s\x00\x01\x00\x00\x00i\x00\x00\x00\x00\x00\x00\x00",
            b"\x03\x01s\x00\x01\x00\x00\x00m\x00\x00\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x02sb\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x02\x00\x00\x00ab\x00\x00\x01\x00\x00\x00",
        ]
        .concat();
        // The signature's field ends the header: padding follows it that does not count.
        let bytes = call.encode(9);
        let header = FIXED + number(&bytes[12..16], false) as usize;
        assert_eq!(header.next_multiple_of(8) + 12, bytes.len());
        assert_eq!(&bytes[16..80], &expected[16..80]);
        assert_eq!(&bytes[bytes.len() - 12..], &expected[expected.len() - 12..]);
        assert_eq!(length(&bytes).unwrap(), Some(bytes.len()));
        assert_eq!(received(&bytes), ("m".into(), 9));
    }

    #[test]
    fn values_are_aligned_within_a_list_of_properties() {
        let properties = [
            ("A", &Value::U64(1)),
            ("B", &Value::Bytes(vec![7])),
            ("C", &Value::Texts(vec!["x".into(), "yz".into()])),
        ];
        let body = Body::default().properties(properties);
        assert_eq!(body.signature, "a(sv)");
        let expected = [
            &b"\x41\x00\x00\x00\x00\x00\x00\x00"[..],
            b"\x01\x00\x00\x00A\x00\x01t\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x01\x00\x00\x00\x00\x00\x00\x00",
            b"\x01\x00\x00\x00B\x00\x02ay\x00\x00\x00\x01\x00\x00\x00\x07",
            b"\x00\x00\x00\x00\x00\x00\x00",
        ]
        .concat();
        let start = &body.bytes[8..];
        assert!(start.starts_with(&expected[8..48]), "{start:?}");
        assert!(
            body.bytes
                .ends_with(b"\x01\x00\x00\x00x\x00\x00\x00\x02\x00\x00\x00yz\x00")
        );
    }

    #[test]
    fn answers_errors_and_signals_are_told_apart() {
        let answer = sent(METHOD_RETURN, 3, "", Body::default().text("/job/1"));
        let Ok(Message::Return { to: 3, mut body }) = decode(&answer) else {
            panic!("no answer")
        };
        assert_eq!(body.text().unwrap(), "/job/1");
        let error = sent(ERROR, 4, "a.b.C", Body::default().text("no such unit"));
        let Ok(Message::Error { to: 4, name, text }) = decode(&error) else {
            panic!("no error")
        };
        assert_eq!((name.as_str(), text.as_str()), ("a.b.C", "no such unit"));
        let signal = sent(SIGNAL, 0, "JobRemoved", Body::default().number(5).text("x"));
        let Ok(Message::Signal {
            member, mut body, ..
        }) = decode(&signal)
        else {
            panic!("no signal")
        };
        assert_eq!(member, "JobRemoved");
        assert_eq!((body.u32().unwrap(), body.text().unwrap()), (5, "x".into()));
    }

    #[test]
    fn a_message_that_is_cut_off_or_no_message_is_an_error_and_no_panic() {
        let whole = sent(METHOD_RETURN, 3, "", Body::default().text("/job/1"));
        assert_eq!(length(&whole[..10]).unwrap(), None);
        for end in 0..whole.len() {
            // The header must be whole; a body that is cut off is seen when it is read.
            if let Ok(Message::Return { mut body, .. }) = decode(&whole[..end]) {
                assert!(body.text().is_err(), "{end}");
            }
        }
        for place in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[place] = 0xff;
            if let Ok(Message::Return { mut body, .. }) = decode(&wrong) {
                let _any = body.text();
            }
            let _any = length(&wrong);
        }
        assert!(length(b"HTTP/1.1 400 Bad").is_err());
        assert!(length(b"l\x02\0\x01\0\0\0\x7f\0\0\0\0\0\0\0\0").is_err());
    }

    #[test]
    fn the_other_byte_order_is_read_too() {
        let mut reader = Reader {
            bytes: b"\0\0\0\x02ab\0".to_vec(),
            at: 0,
            big: true,
        };
        assert_eq!(reader.text().unwrap(), "ab");
    }
}
