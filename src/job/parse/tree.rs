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
    /// Values, each with its number in the text: others may have been taken away.
    List(Vec<(usize, Node)>),
    /// Anything else.
    Leaf(Value),
    /// What stands in the place of something that is missing: its number in [`STAND_INS`].
    StandIn(usize),
}

/// What is put where something is missing, one after the other until one fits: text, a table, a list.
const STAND_INS: [fn() -> Value; 3] = [
    || Value::String("x".to_owned()),
    || Value::Object(Map::new()),
    || Value::Array(Vec::new()),
];

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
            Kind::List(nodes) => nodes.iter().map(|(_, node)| node.value()).collect(),
            Kind::Leaf(value) => value.clone(),
            Kind::StandIn(number) => STAND_INS[*number](),
        }
    }

    /// A path with the numbers that elements of lists have in the text.
    pub(super) fn in_text(&self, path: &[Step]) -> Vec<Step> {
        self.renumbered(path, |nodes, index| {
            let found = nodes.get(index);
            found.map_or((index, None), |(number, node)| (*number, Some(node)))
        })
    }

    /// A path of the text with the numbers that elements of lists have now; those that were taken away have a number
    /// that none has.
    pub(super) fn now(&self, path: &[Step]) -> Vec<Step> {
        self.renumbered(path, |nodes, number| {
            let mut all = nodes.iter().enumerate();
            let found = all.find(|(_, (own, _))| *own == number);
            found.map_or((usize::MAX, None), |(index, (_, node))| (index, Some(node)))
        })
    }

    fn renumbered<'a>(
        &'a self,
        path: &[Step],
        other: impl Fn(&'a [(usize, Node)], usize) -> (usize, Option<&'a Node>),
    ) -> Vec<Step> {
        let mut node = Some(self);
        let mut steps = Vec::new();
        for step in path {
            let (step, next) = match (node.map(|node| &node.kind), step) {
                (Some(Kind::List(nodes)), Step::Index(index)) => {
                    let (new, node) = other(nodes, *index);
                    (Step::Index(new), node)
                }
                (Some(Kind::Table(entries)), Step::Key(key)) => {
                    let entry = entries.iter().find(|(name, ..)| name == key);
                    (step.clone(), entry.map(|(.., node)| node))
                }
                (_, step) => (step.clone(), None),
            };
            steps.push(step);
            node = next;
        }
        steps
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
            (Kind::List(nodes), Step::Index(index)) => nodes
                .get(*index)
                .map_or(self.at, |(_, node)| node.place(rest)),
            (Kind::Table(_) | Kind::List(_) | Kind::Leaf(_) | Kind::StandIn(_), _) => self.at,
        }
    }

    fn has(&self, step: &Step) -> bool {
        match (&self.kind, step) {
            (Kind::Table(entries), Step::Key(key)) => entries.iter().any(|(name, ..)| name == key),
            (Kind::List(nodes), Step::Index(index)) => *index < nodes.len(),
            (Kind::Table(_) | Kind::List(_) | Kind::Leaf(_) | Kind::StandIn(_), _) => false,
        }
    }

    fn find(&mut self, path: &[Step]) -> Option<&mut Node> {
        let Some((step, rest)) = path.split_first() else {
            return Some(self);
        };
        let inner = match (&mut self.kind, step) {
            (Kind::Table(entries), Step::Key(key)) => {
                let entry = entries.iter_mut().find(|(name, ..)| name == key);
                entry.map(|(.., node)| node)
            }
            (Kind::List(nodes), Step::Index(index)) => nodes.get_mut(*index).map(|(_, node)| node),
            (Kind::Table(_) | Kind::List(_) | Kind::Leaf(_) | Kind::StandIn(_), _) => None,
        };
        inner.and_then(|node| node.find(rest))
    }

    /// Takes away what is at a path; false where there is nothing.
    pub(super) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, above)) = path.split_last() else {
            return false;
        };
        match (self.find(above).map(|node| &mut node.kind), last) {
            (Some(Kind::Table(entries)), Step::Key(key)) => {
                let before = entries.len();
                entries.retain(|(name, ..)| name != key);
                entries.len() < before
            }
            (Some(Kind::List(nodes)), Step::Index(index)) if *index < nodes.len() => {
                nodes.remove(*index);
                true
            }
            _ => false,
        }
    }

    /// Puts something in the place of what is missing at a path; false where there is no such place.
    pub(super) fn stand_in(&mut self, above: &[Step], field: &str) -> bool {
        let Some(Node {
            at,
            kind: Kind::Table(entries),
        }) = self.find(above)
        else {
            return false;
        };
        let is_new = entries.iter().all(|(name, ..)| name != field);
        let node = Node {
            at: *at,
            kind: Kind::StandIn(0),
        };
        entries.push((field.to_owned(), *at, node));
        is_new
    }

    /// Whether something stands in at a path, or above it.
    pub(super) fn stands_in(&self, path: &[Step]) -> bool {
        let inner = match (&self.kind, path.split_first()) {
            (Kind::StandIn(_), _) => return true,
            (Kind::Table(entries), Some((Step::Key(key), rest))) => {
                let entry = entries.iter().find(|(name, ..)| name == key);
                entry.map(|(.., node)| (node, rest))
            }
            (Kind::List(nodes), Some((Step::Index(index), rest))) => {
                nodes.get(*index).map(|(_, node)| (node, rest))
            }
            (Kind::Table(_) | Kind::List(_) | Kind::Leaf(_), _) => None,
        };
        inner.is_some_and(|(node, rest)| node.stands_in(rest))
    }

    /// Lets the next one stand in at a path; false where nothing does, or there is none.
    pub(super) fn stand_in_next(&mut self, path: &[Step]) -> bool {
        match self.find(path).map(|node| &mut node.kind) {
            Some(Kind::StandIn(number)) if *number + 1 < STAND_INS.len() => {
                *number += 1;
                true
            }
            _ => false,
        }
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
