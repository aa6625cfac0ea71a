//! JSON as the contract wants it: one object, no key twice at any level, bounded depth, no coercion.
//!
//! The bytes become a tree first, because only a tree can refuse a duplicate key inside of a field
//! that nobody reads. The tree is then what the request types are read from: it knows the place of
//! every value, and it refuses control characters even where a field is a plain `String`.
//!
//! Contract: `auth-users.md` section 1.1, `production.md` section 4.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::vec;

use serde::de::value::{MapAccessDeserializer, StrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::{Fault, duplicate};
use crate::error::FieldErrorKind;

/// Objects and lists within one another, the outermost included.
const MAX_DEPTH: u8 = 32;

const TOO_DEEP: &str = "nested more than 32 levels deep";

/// Reads a `T` from the text of one JSON object.
pub(crate) fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Fault> {
    T::deserialize(parse(json)?)
}

fn parse(json: &[u8]) -> Result<Node, Fault> {
    let found = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let tree = Tree { depth: MAX_DEPTH, found: &found }
        .deserialize(&mut deserializer)
        .and_then(|node| deserializer.end().map(|()| node));
    match tree {
        Ok(object @ Node::Object(_)) => Ok(object),
        Ok(_) => Err(Fault::new(FieldErrorKind::TypeError, "must be an object")),
        Err(error) => Err(found.take().unwrap_or_else(|| malformed(&error))),
    }
}

/// The parser's own text may quote a key; its position cannot.
fn malformed(error: &serde_json::Error) -> Fault {
    let place = format!("line {} column {}", error.line(), error.column());
    let text = error.to_string();
    if text.starts_with(TOO_DEEP) {
        Fault::new(FieldErrorKind::InvalidJson, TOO_DEEP)
    } else if text.starts_with("number out of range") {
        Fault::new(FieldErrorKind::OutOfRange, format!("a number is out of range at {place}"))
    } else {
        Fault::new(FieldErrorKind::InvalidJson, format!("not valid JSON at {place}"))
    }
}

/// A parsed value. Keys are sorted, so that of several faults always the same one is reported.
enum Node {
    Null,
    Bool(bool),
    Int(i64),
    /// Above the range of [`Node::Int`].
    UInt(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Object(BTreeMap<String, Node>),
}

/// Builds the tree. The parser's error type has no room for a place, so a fault travels in `found`.
#[derive(Clone, Copy)]
struct Tree<'a> {
    depth: u8,
    found: &'a RefCell<Option<Fault>>,
}

impl Tree<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom(TOO_DEEP))?;
        Ok(Self { depth, ..self })
    }

    /// Adds a step to the fault that is on its way out, if one is.
    fn place(self, step: impl FnOnce(Fault) -> Fault) {
        let fault = self.found.take().map(step);
        *self.found.borrow_mut() = fault;
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::UInt(value), Node::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut items = Vec::new();
        while let Some(item) =
            seq.next_element_seed(inner).inspect_err(|_| self.place(|fault| fault.in_item(items.len())))?
        {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut object = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if object.contains_key(&name) {
                *self.found.borrow_mut() = Some(duplicate().in_field(&name));
                return Err(A::Error::custom("duplicate key"));
            }
            let value =
                map.next_value_seed(inner).inspect_err(|_| self.place(|fault| fault.in_field(&name)))?;
            object.insert(name, value);
        }
        Ok(Node::Object(object))
    }
}

impl Node {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Int(value) => Unexpected::Signed(*value),
            Self::UInt(value) => Unexpected::Unsigned(*value),
            Self::Float(value) => Unexpected::Float(*value),
            Self::Text(value) => Unexpected::Str(value),
            Self::List(_) => Unexpected::Seq,
            Self::Object(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Int(value) => visitor.visit_i64(value),
            Self::UInt(value) => visitor.visit_u64(value),
            Self::Float(value) => visitor.visit_f64(value),
            // A line feed is for the field to judge: `Prose` allows it.
            Self::Text(text) if text.chars().any(|c| c.is_ascii_control() && c != '\n') => {
                Err(Fault::control_characters())
            }
            Self::Text(text) => visitor.visit_string(text),
            Self::List(items) => visit_list(items, visitor),
            Self::Object(fields) => visitor.visit_map(Fields::new(fields.into_iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_none(),
            present => visitor.visit_some(present),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// Only from an object: derived structs would take a list of their fields as well.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Self::Object(_) => self.deserialize_any(visitor),
            other => Err(Fault::invalid_type(other.unexpected(), &visitor)),
        }
    }

    /// A word, or an object with the word as its only key. `{"word":null}` is not another spelling
    /// of the word.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Self::Text(word) => visitor.visit_enum(StringDeserializer::<Fault>::new(word)),
            Self::Object(fields)
                if fields.len() == 1 && !fields.values().any(|value| matches!(value, Self::Null)) =>
            {
                visitor.visit_enum(MapAccessDeserializer::new(Fields::new(fields.into_iter())))
            }
            other => Err(Fault::invalid_type(other.unexpected(), &visitor)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

fn visit_list<'de, V: Visitor<'de>>(items: Vec<Node>, visitor: V) -> Result<V::Value, Fault> {
    let mut items = Items { rest: items.into_iter(), index: 0 };
    let value = visitor.visit_seq(&mut items)?;
    // A tuple takes what it needs and leaves the rest.
    if !items.rest.as_slice().is_empty() {
        return Err(Fault::invalid_length(items.index, &"fewer items"));
    }
    Ok(value)
}

struct Items {
    rest: vec::IntoIter<Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.rest.next() else { return Ok(None) };
        let value = seed.deserialize(item).map_err(|fault| fault.in_item(self.index))?;
        self.index += 1;
        Ok(Some(value))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The named values of an object or of a query string.
pub(super) struct Fields<I, D> {
    rest: I,
    current: Option<(String, D)>,
}

impl<I: Iterator<Item = (String, D)>, D> Fields<I, D> {
    pub(super) fn new(rest: I) -> Self {
        Self { rest, current: None }
    }
}

impl<'de, I, D> MapAccess<'de> for Fields<I, D>
where
    I: Iterator<Item = (String, D)>,
    D: Deserializer<'de, Error = Fault>,
{
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::<Fault>::new(&name))?;
        self.current = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, value) = self.current.take().ok_or_else(|| Fault::custom("a value before its key"))?;
        seed.deserialize(value).map_err(|fault| fault.in_field(&name))
    }
}
