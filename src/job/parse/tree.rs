//! A file as a tree of values, each with its place in the text, whatever format it is in.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    /// Where, in bytes.
    pub at: usize,
    /// What.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind {
    /// Names, where each stands, and their values; no name is there twice.
    Table(Vec<(String, usize, Node)>),
    /// Values.
    List(Vec<Node>),
    /// Anything else.
    Leaf(Value),
}

/// One step from a value to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::job) enum Step {
    /// By a name.
    Key(String),
    /// By a number, from 0.
    Index(usize),
}

impl Node {
    /// Without places.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Table(entries) => {
                let entries = entries.iter();
                let object: Map<_, _> = entries
                    .map(|(name, _, node)| (name.clone(), node.value()))
                    .collect();
                object.into()
            }
            Kind::List(nodes) => nodes.iter().map(Node::value).collect(),
            Kind::Leaf(value) => value.clone(),
        }
    }

    /// Where in the text the value at this path is: the name of a member, or the value itself. Of a path that is not
    /// there, the place of what it is missing from.
    pub(super) fn place(&self, path: &[Step]) -> usize {
        let Some((step, rest)) = path.split_first() else {
            return self.at;
        };
        match (&self.kind, step) {
            (Kind::Table(entries), Step::Key(key)) => {
                match entries.iter().find(|(name, _, _)| name == key) {
                    Some((_, at, _)) if rest.is_empty() => *at,
                    Some((_, at, node)) if node.has(&rest[0]) => node.place(rest),
                    Some((_, at, _)) => *at,
                    None => self.at,
                }
            }
            (Kind::List(nodes), Step::Index(index)) => {
                nodes.get(*index).map_or(self.at, |node| node.place(rest))
            }
            (Kind::Table(_) | Kind::List(_) | Kind::Leaf(_), _) => self.at,
        }
    }

    fn has(&self, step: &Step) -> bool {
        match (&self.kind, step) {
            (Kind::Table(entries), Step::Key(key)) => entries.iter().any(|(name, ..)| name == key),
            (Kind::List(nodes), Step::Index(index)) => *index < nodes.len(),
            (Kind::Table(_) | Kind::List(_) | Kind::Leaf(_), _) => false,
        }
    }
}

/// Takes away what is at a path; false where there is nothing.
pub(super) fn remove(value: &mut Value, path: &[Step]) -> bool {
    let Some((last, above)) = path.split_last() else {
        return false;
    };
    let mut value = value;
    for step in above {
        let inner = match step {
            Step::Key(key) => value.get_mut(key),
            Step::Index(index) => value.get_mut(*index),
        };
        let Some(inner) = inner else {
            return false;
        };
        value = inner;
    }
    match (value, last) {
        (Value::Object(object), Step::Key(key)) => object.remove(key).is_some(),
        (Value::Array(list), Step::Index(index)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => false,
    }
}

/// A path as people write it: `tasks.web.command[0]`.
pub(in crate::job) fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Index(index) => write!(text, "[{index}]"),
            Step::Key(key) if !is_plain(key) => write!(text, "[{key:?}]"),
            Step::Key(key) if text.is_empty() => write!(text, "{key}"),
            Step::Key(key) => write!(text, ".{key}"),
        };
    }
    text
}

fn is_plain(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    !key.is_empty() && key.len() <= 80 && key.bytes().all(plain)
}

/// Line and column of a place, both from 1; a column is a character.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}
