//! Query strings: [`Query`] reads a request type from one.
//!
//! Contract: `auth-users.md` section 1.1.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::value::Fields;
use crate::error::{ApiError, FieldErrorKind};

/// The longest name or value of a parameter, in characters.
const MAX_CHARS: usize = 200;

/// The parameters in the query string. Unknown ones are ignored, but of any the value has at most
/// 200 characters, valid UTF-8 and no control characters; a known one is there once at most.
/// Integers are strictly decimal, booleans `true` or `false`. Whatever does not fit `T` is answered
/// 422 with the parameter named. `T` does without `deny_unknown_fields`; optional parameters are
/// `Option`s.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        decode(query).map(Self).map_err(|fault| fault.refuse("query"))
    }
}

fn decode<T: DeserializeOwned>(query: &str) -> Result<T, Fault> {
    let parameters = query.split('&').filter(|pair| !pair.is_empty()).map(parameter);
    let parameters = parameters.collect::<Result<Vec<_>, _>>()?;
    T::deserialize(MapAccessDeserializer::new(Fields::new(parameters.into_iter())))
}

fn parameter(pair: &str) -> Result<(String, Parameter), Fault> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let name = unescape(name)?;
    let value = unescape(value).map_err(|fault| fault.in_field(&name))?;
    Ok((name, Parameter(value)))
}

fn unescape(text: &str) -> Result<String, Fault> {
    let text = text.replace('+', " ");
    let text = percent_decode_str(&text)
        .decode_utf8()
        .map_err(|_| Fault::new(FieldErrorKind::PatternMismatch, "must be UTF-8"))?;
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err(Fault::control_characters());
    }
    if text.chars().count() > MAX_CHARS {
        return Err(Fault::new(FieldErrorKind::StringTooLong, "at most 200 characters"));
    }
    Ok(text.into_owned())
}

/// The value of one parameter, read as what the field asks for.
struct Parameter(String);

impl Parameter {
    fn visit_integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let digits = self.0.strip_prefix('-').unwrap_or(&self.0);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Fault::invalid_type(Unexpected::Str(&self.0), &visitor));
        }
        if let Ok(value) = self.0.parse() {
            visitor.visit_i64(value)
        } else if let Ok(value) = self.0.parse() {
            visitor.visit_u64(value)
        } else {
            Err(Fault::out_of_range())
        }
    }
}

macro_rules! integers {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
                self.visit_integer(visitor)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Parameter {
    type Error = Fault;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_string(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => Err(Fault::invalid_type(Unexpected::Str(other), &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(StringDeserializer::<Fault>::new(self.0))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::error::ErrorCode;
    use crate::extract::{Int, Text};

    /// Pieces of queries, in any order.
    const QUERIES: &str = r"(name|limit|after|live|order|x|%[0-9A-F]{2}|[&=+%]|\PC){0,60}";

    #[derive(Debug, Deserialize, PartialEq)]
    struct Search {
        name: Option<Text<2, 10>>,
        limit: Option<Int<1, 100>>,
        after: Option<u64>,
        live: Option<bool>,
        order: Option<Order>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Order {
        Newest,
        Oldest,
    }

    fn refusal(query: &str) -> (String, String) {
        let error = decode::<Search>(query).unwrap_err().refuse("query");
        assert_eq!(error.code(), ErrorCode::ValidationError);
        let body = serde_json::to_value(error.into_body(String::new())).unwrap();
        let word = |name: &str| body["errors"][0][name].as_str().map(str::to_owned).unwrap_or_default();
        (word("field"), word("type"))
    }

    #[test]
    fn parameters_are_read_and_strange_ones_ignored() {
        let query = "name=a+%C3%A9%26&limit=20&after=18446744073709551615&live=true&order=oldest&x=1&&x=2&y";
        let search: Search = decode(query).unwrap();
        assert_eq!(search.name.as_deref(), Some("a é&"));
        assert_eq!(search.limit.map(Int::get), Some(20));
        assert_eq!(search.after, Some(u64::MAX));
        assert_eq!((search.live, search.order), (Some(true), Some(Order::Oldest)));

        let nothing: Search = decode("").unwrap();
        assert_eq!(nothing, Search { name: None, limit: None, after: None, live: None, order: None });
    }

    #[test]
    fn a_parameter_that_does_not_fit_is_named() {
        let long = format!("name={}", "é".repeat(201));
        let long_unknown = format!("x={}", "y".repeat(201));
        let long_name = format!("{}=1", "y".repeat(201));
        let cases = [
            ("limit=", "query.limit", "type_error"),
            ("limit=%205", "query.limit", "type_error"),
            ("limit=+5", "query.limit", "type_error"),
            ("limit=%2B5", "query.limit", "type_error"),
            ("limit=5.0", "query.limit", "type_error"),
            ("limit=0x5", "query.limit", "type_error"),
            ("limit=-", "query.limit", "type_error"),
            ("limit=%D9%A5", "query.limit", "type_error"),
            ("limit=0", "query.limit", "out_of_range"),
            ("limit=-1", "query.limit", "out_of_range"),
            ("limit=99999999999999999999", "query.limit", "out_of_range"),
            ("limit=18446744073709551615", "query.limit", "out_of_range"),
            ("after=-1", "query.after", "out_of_range"),
            ("limit=1&limit=1", "query.limit", "extra_forbidden"),
            ("live=1", "query.live", "type_error"),
            ("live=TRUE", "query.live", "type_error"),
            ("order=x", "query.order", "invalid_enum"),
            ("name=a", "query.name", "string_too_short"),
            ("name=abcdefghijk", "query.name", "string_too_long"),
            (long.as_str(), "query.name", "string_too_long"),
            ("name=a%00b", "query.name", "control_characters"),
            ("name=a%7Fb", "query.name", "control_characters"),
            ("name=a%0Ab", "query.name", "control_characters"),
            ("name=%FF", "query.name", "pattern_mismatch"),
            (long_unknown.as_str(), "query.x", "string_too_long"),
            ("x=%00", "query.x", "control_characters"),
            ("a.b=%00", "query", "control_characters"),
            ("%00=1", "query", "control_characters"),
            ("%FF=1", "query", "pattern_mismatch"),
            (long_name.as_str(), "query", "string_too_long"),
        ];
        for (query, field, kind) in cases {
            assert_eq!(refusal(query), (field.to_owned(), kind.to_owned()), "{query}");
        }
    }

    #[test]
    fn a_required_parameter_is_missed() {
        #[derive(Debug, Deserialize)]
        struct Needs {
            #[serde(rename = "token")]
            _token: Text<1, 5>,
        }
        let error = decode::<Needs>("tokens=1").unwrap_err().refuse("query");
        let body: Value = serde_json::to_value(error.into_body(String::new())).unwrap();
        assert_eq!(body["errors"][0]["field"], "query.token");
        assert_eq!(body["errors"][0]["type"], "missing");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_query_is_a_value_or_a_fault(query in QUERIES) {
            if let Err(fault) = decode::<Search>(&query) {
                prop_assert_eq!(fault.refuse("query").code(), ErrorCode::ValidationError);
            }
        }
    }
}
