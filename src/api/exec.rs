//! What both sides of an `exec` say after the HTTP upgrade: frames of one kind, a length and a payload.
//!
//! A frame is one byte for its kind, four for the length of the payload with the highest first, then the payload.

/// The name that the HTTP upgrade is asked for by.
pub const PROTOCOL: &str = "parhelion-exec";

/// The longest payload: what is longer is no frame.
pub const LONGEST: usize = 64 << 10;

/// How many bytes stand before a payload.
pub const HEADER: usize = 5;

/// What one side tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Input of the program; an empty one is its end.
    Input(Vec<u8>),
    /// What the program has printed; all of it where it has a terminal.
    Output(Vec<u8>),
    /// What the program has printed on stderr.
    Error(Vec<u8>),
    /// The terminal's new size, in characters.
    Size {
        /// How many stand beside each other.
        columns: u16,
        /// How many lines there are.
        rows: u16,
    },
    /// The program has ended with this code: the last frame.
    Exit(i32),
    /// A signal for the program, by its number.
    Signal(i32),
}

impl Frame {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Frame::Input(bytes) => (0, bytes.clone()),
            Frame::Output(bytes) => (1, bytes.clone()),
            Frame::Error(bytes) => (2, bytes.clone()),
            Frame::Size { columns, rows } => {
                (3, [columns.to_be_bytes(), rows.to_be_bytes()].concat())
            }
            Frame::Exit(code) => (4, code.to_be_bytes().to_vec()),
            Frame::Signal(number) => (5, number.to_be_bytes().to_vec()),
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![kind];
        bytes.extend(length.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// How long the payload is, by what stands before it; None when that is no frame's.
    #[must_use]
    pub fn length(header: [u8; HEADER]) -> Option<usize> {
        let [_, a, b, c, d] = header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        (length <= LONGEST).then_some(length)
    }

    /// The frame with this payload; None when it is none.
    #[must_use]
    pub fn parse(header: [u8; HEADER], payload: Vec<u8>) -> Option<Frame> {
        let number = |payload: &[u8]| Some(i32::from_be_bytes(payload.try_into().ok()?));
        match header[0] {
            0 => Some(Frame::Input(payload)),
            1 => Some(Frame::Output(payload)),
            2 => Some(Frame::Error(payload)),
            3 => match *payload {
                [a, b, c, d] => Some(Frame::Size {
                    columns: u16::from_be_bytes([a, b]),
                    rows: u16::from_be_bytes([c, d]),
                }),
                _ => None,
            },
            4 => number(&payload).map(Frame::Exit),
            5 => number(&payload).map(Frame::Signal),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_it_was() {
        for frame in [
            Frame::Input(vec![]),
            Frame::Output(b"text".to_vec()),
            Frame::Error(vec![0; LONGEST]),
            Frame::Size {
                columns: 80,
                rows: 24,
            },
            Frame::Exit(-1),
            Frame::Signal(15),
        ] {
            let bytes = frame.bytes();
            let header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
            assert_eq!(Frame::length(header), Some(bytes.len() - HEADER));
            assert_eq!(Frame::parse(header, bytes[HEADER..].to_vec()), Some(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_told() {
        assert_eq!(Frame::length([0, 0, 1, 0, 1]), None);
        assert_eq!(Frame::parse([9, 0, 0, 0, 0], vec![]), None);
        assert_eq!(Frame::parse([3, 0, 0, 0, 1], vec![1]), None);
        assert_eq!(Frame::parse([4, 0, 0, 0, 1], vec![1]), None);
    }
}
