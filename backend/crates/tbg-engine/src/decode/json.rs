//! JSON as the contract wants it: one object, no duplicate keys at any level, bounded depth.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Reason, Refusal};

/// Levels of nesting that are read.
const MAX_DEPTH: u8 = 32;

/// Parses a line or datagram: one JSON object.
pub(super) fn parse_object(text: &str) -> Result<Map<String, Value>, Refusal> {
    parse(text, MAX_DEPTH)
}

/// Parses a `data` object by itself; one level less, so that an envelope around it can be read back.
pub(super) fn parse_data(text: &str) -> Result<Map<String, Value>, Refusal> {
    parse(text, MAX_DEPTH - 1)
}

fn parse(text: &str, depth: u8) -> Result<Map<String, Value>, Refusal> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { depth }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            // The parser's own text may quote a key; its position cannot.
            let place = format!("line {} column {}", error.line(), error.column());
            if error.to_string().starts_with("number out of range") {
                Refusal::new(Reason::BadValue, format!("{place}: a number is out of range"))
            } else {
                Refusal::new(Reason::MalformedJson, format!("{place}: not a valid JSON object"))
            }
        })?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Refusal::new(Reason::MalformedJson, "not a JSON object")),
    }
}

/// Whether any text or key within holds a control character. JSON itself admits them only escaped, as
/// DEL, or as U+0080 to U+009F (two bytes, C2 first), so most texts are cleared by one look at the bytes.
pub(super) fn has_control_characters(text: &str, object: &Map<String, Value>) -> bool {
    text.bytes().any(|byte| matches!(byte, b'\\' | 0x7f | 0xc2))
        && object.iter().any(|(key, value)| is_dirty(key) || value_is_dirty(value))
}

fn value_is_dirty(value: &Value) -> bool {
    match value {
        Value::String(text) => is_dirty(text),
        Value::Array(items) => items.iter().any(value_is_dirty),
        Value::Object(object) => object.iter().any(|(key, value)| is_dirty(key) || value_is_dirty(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

pub(super) fn is_dirty(text: &str) -> bool {
    text.chars().any(char::is_control)
}

struct Strict {
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("nested too deeply"))?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict { depth })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("nested too deeply"))?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict { depth })?;
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Value::Object(object))
    }
}
