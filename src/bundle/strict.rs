//! JSON to a value, with every name in an object only once.
//!
//! Of a name that is given twice serde_json takes the last, other readers the first: who checks a
//! configuration and who runs it could see different ones.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use super::report::quote;

/// The value in `text`.
pub(super) fn from_str(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str::<Strict>(text).map(|strict| strict.0)
}

/// The value in `text` without what is at `hole`, names of objects inside each other; and the text of that,
/// if it is there. What is wrong inside it has not been looked for.
pub(super) fn from_str_around<'a>(
    text: &'a str,
    hole: &[&str],
) -> serde_json::Result<(Value, Option<&'a str>)> {
    let mut left_out = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let around = Around {
        hole,
        left_out: &mut left_out,
    };
    let value = around.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, left_out))
}

struct Strict(Value);

/// An object around the hole, or one above it; whatever else is there in its place is an error here.
struct Around<'p, 'a> {
    hole: &'p [&'p str],
    left_out: &'p mut Option<&'a str>,
}

impl<'a> DeserializeSeed<'a> for Around<'_, 'a> {
    type Value = Value;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Around<'_, 'a> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            refuse_twice(&object, &name)?;
            let value = match self.hole {
                [last] if name == *last => {
                    let raw: &RawValue = members.next_value()?;
                    if self.left_out.replace(raw.get()).is_some() {
                        return Err(twice(&name));
                    }
                    continue;
                }
                [first, hole @ ..] if name == *first => {
                    let left_out = &mut *self.left_out;
                    members.next_value_seed(Around { hole, left_out })?
                }
                _ => members.next_value::<Strict>()?.0,
            };
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

fn refuse_twice<E: Error>(object: &Map<String, Value>, name: &str) -> Result<(), E> {
    match object.contains_key(name) {
        true => Err(twice(name)),
        false => Ok(()),
    }
}

fn twice<E: Error>(name: &str) -> E {
    let name = quote(name);
    E::custom(format_args!("the name {name} is given twice"))
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            refuse_twice(&object, &name)?;
            let Strict(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}
