//! The part of Protocol Buffers' wire format that CRIU's messages use: varints and length-delimited
//! fields (protobuf.dev, "Encoding").

use anyhow::{Context as _, Result, bail};

/// A message that is put together, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

/// How a field's value stands on the wire.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    /// Adds a number; for `bool` 0 or 1, for an enumeration the value's number.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value);
    }

    /// Adds text.
    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// Adds a message within this one.
    pub(super) fn message(&mut self, field: u32, value: &Message) {
        self.bytes(field, &value.0);
    }

    /// The message as it is sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// An `int32`; a negative one is sent as 64 bits.
    pub(super) fn int(self) -> i32 {
        match self {
            Value::Number(number) => number as i32,
            Value::Bytes(_) => 0,
        }
    }

    /// True for a `bool` that is.
    pub(super) fn is_true(self) -> bool {
        self.int() != 0
    }

    /// The bytes of text or of a message.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            Value::Number(_) => &[],
        }
    }

    /// Text, whatever bytes it has.
    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// The fields of a message in their order, each with its number. Those of a kind that CRIU does not use
/// are passed over.
///
/// # Errors
///
/// The message is cut off, or no message.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let field = u32::try_from(key >> 3).context("a field's number is too large")?;
        match key & 7 {
            VARINT => found.push((field, Value::Number(take_varint(&mut bytes)?))),
            DELIMITED => {
                let length = usize::try_from(take_varint(&mut bytes)?)?;
                found.push((field, Value::Bytes(take(&mut bytes, length)?)));
            }
            FIXED64 => drop(take(&mut bytes, 8)?),
            FIXED32 => drop(take(&mut bytes, 4)?),
            kind => bail!("field {field} is of kind {kind}, which does not exist"),
        }
    }
    Ok(found)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length).context("it is cut off")?;
    *bytes = rest;
    Ok(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number has more than ten bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_have_the_bytes_of_the_specification() {
        let mut inner = Message::default();
        inner.number(1, 150);
        let mut message = Message::default();
        message.number(1, 1);
        message.text(2, "testing");
        message.message(68, &inner);
        let mut expected = vec![0x08, 0x01, 0x12, 0x07];
        expected.extend_from_slice(b"testing");
        expected.extend_from_slice(&[0xa2, 0x04, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(message.as_bytes(), expected);
    }

    #[test]
    fn a_negative_number_has_ten_bytes() {
        let bytes = [
            0x10, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
        ];
        let read = fields(&bytes).unwrap();
        assert_eq!(read[0].0, 2);
        assert_eq!(read[0].1.int(), -2);
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_other_kinds_are_passed_over() {
        for cut in [&[0x08][..], &[0x12, 0x05, b'a'], &[0x80], &[0x0d, 1, 2]] {
            assert!(fields(cut).is_err(), "{cut:?}");
        }
        assert!(fields(&[0xff; 11]).is_err());
        assert!(fields(&[0x0b]).is_err(), "a group");
        let read = [0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x18, 5];
        assert_eq!(fields(&read).unwrap(), [(3, Value::Number(5))]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, field in 1..1_000_000_u32, text: String) {
            let mut message = Message::default();
            message.number(field, number);
            message.text(field, &text);
            let read = fields(message.as_bytes()).unwrap();
            prop_assert_eq!(read[0], (field, Value::Number(number)));
            prop_assert_eq!(read[1], (field, Value::Bytes(text.as_bytes())));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _read_or_not = fields(&bytes);
        }
    }
}
