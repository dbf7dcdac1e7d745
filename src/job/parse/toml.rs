//! TOML 1.1 as a tree with places.

use serde_json::{Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::tree::{Kind, Node};

/// The tree of a text; or all that is wrong in it, each with its place.
pub(super) fn tree(text: &str) -> Result<Node, Vec<(usize, String)>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let place = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    let mut wrong: Vec<(usize, String)> = errors
        .iter()
        .map(|error| (place(error), error.message().to_owned()))
        .collect();
    let node = Node {
        at: 0,
        kind: table(root.get_ref(), &mut wrong),
    };
    if wrong.is_empty() {
        Ok(node)
    } else {
        Err(wrong)
    }
}

fn table(table: &DeTable<'_>, wrong: &mut Vec<(usize, String)>) -> Kind {
    let entries = table.iter().map(|(key, value)| {
        let at = key.span().start;
        (key.get_ref().to_string(), at, node(value, wrong))
    });
    Kind::Table(entries.collect())
}

fn node(value: &Spanned<DeValue<'_>>, wrong: &mut Vec<(usize, String)>) -> Node {
    let at = value.span().start;
    let mut refuse = |message: String| {
        wrong.push((at, message));
        Value::Null
    };
    let kind = match value.get_ref() {
        DeValue::String(text) => Kind::Leaf(text.as_ref().into()),
        DeValue::Boolean(truth) => Kind::Leaf((*truth).into()),
        // RFC 3339, as JSON has it in text.
        DeValue::Datetime(moment) => Kind::Leaf(moment.to_string().into()),
        DeValue::Integer(number) => {
            let read = i64::from_str_radix(number.as_str(), number.radix());
            Kind::Leaf(match read {
                Ok(number) => number.into(),
                Err(_) => refuse(format!("{number} is too large a number")),
            })
        }
        DeValue::Float(number) => {
            let read = number.as_str().parse().ok().and_then(Number::from_f64);
            Kind::Leaf(match read {
                Some(number) => number.into(),
                None => refuse(format!("{number} is no number that can be used")),
            })
        }
        DeValue::Array(list) => {
            let nodes = list.iter().map(|value| node(value, wrong));
            Kind::List(nodes.enumerate().collect())
        }
        DeValue::Table(entries) => table(entries, wrong),
    };
    Node { at, kind }
}
