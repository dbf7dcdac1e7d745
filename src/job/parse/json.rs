//! JSON (RFC 8259) as a tree with places; a name that is given twice is refused.
//!
//! serde_json reads it first: what is no JSON is told with its words, and this reader meets only what is.

use serde_json::Value;

use super::tree::{Kind, Node};

/// The tree of a text that is JSON; where a name is given twice, and which one.
pub(super) fn tree(text: &str) -> Result<Node, (usize, String)> {
    let mut reader = Reader {
        text,
        at: 0,
        twice: None,
    };
    let node = reader.value();
    match reader.twice {
        Some(twice) => Err(twice),
        None => Ok(node),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    twice: Option<(usize, String)>,
}

impl Reader<'_> {
    fn next(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    fn value(&mut self) -> Node {
        let first = self.next();
        let at = self.at;
        let kind = match first {
            b'{' => Kind::Table(self.members()),
            b'[' => Kind::List(self.elements()),
            b'"' => Kind::Leaf(self.string().into()),
            _ => Kind::Leaf(self.word()),
        };
        Node { at, kind }
    }

    fn members(&mut self) -> Vec<(String, usize, Node)> {
        let mut members: Vec<(String, usize, Node)> = Vec::new();
        self.at += 1; // the brace
        while self.next() == b'"' {
            let at = self.at;
            let name = self.string();
            self.next();
            self.at += 1; // the colon
            let value = self.value();
            if members.iter().any(|(other, ..)| *other == name) {
                self.twice.get_or_insert((at, name.clone()));
            }
            members.push((name, at, value));
            if self.next() == b',' {
                self.at += 1;
            }
            self.next();
        }
        self.at += 1; // the brace
        members
    }

    fn elements(&mut self) -> Vec<(usize, Node)> {
        let mut elements = Vec::new();
        self.at += 1; // the bracket
        while !matches!(self.next(), b']' | 0) {
            elements.push((elements.len(), self.value()));
            if self.next() == b',' {
                self.at += 1;
            }
        }
        self.at += 1; // the bracket
        elements
    }

    fn string(&mut self) -> String {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let mut escaped = true; // as it were: the opening quote does not end it
        let end = rest.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let end = end.map_or(rest.len(), |end| end + 1);
        self.at += end;
        serde_json::from_str(&rest[..end]).unwrap_or_default()
    }

    fn word(&mut self) -> Value {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest.find(|c: char| c.is_ascii_whitespace() || ",]}".contains(c));
        let end = end.unwrap_or(rest.len());
        self.at += end;
        serde_json::from_str(&rest[..end]).unwrap_or_default()
    }
}
