//! Integers with bounds.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::__dev::ComposeSchema;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Schema, Type};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, SchemaFormat};

use super::fault::broken_rule;
use crate::error::FieldErrorKind;

/// An integer from `MIN` to `MAX`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Int<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_i64(IntVisitor)?;
        i64::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number)).map(Self).ok_or_else(|| {
            let expected = format!("must be from {MIN} to {MAX}");
            broken_rule(FieldErrorKind::OutOfRange, &expected)
        })
    }
}

struct IntVisitor;

impl Visitor<'_> for IntVisitor {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i128, E> {
        Ok(number.into())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i128, E> {
        Ok(number.into())
    }
}

impl<const MIN: i64, const MAX: i64> ComposeSchema for Int<MIN, MAX> {
    fn compose(_: Vec<RefOr<Schema>>) -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(MIN))
            .maximum(Some(MAX))
            .into()
    }
}

impl<const MIN: i64, const MAX: i64> ToSchema for Int<MIN, MAX> {
    /// One name for each pair of bounds, where a field refers to the type instead of inlining it.
    fn name() -> Cow<'static, str> {
        format!("Int_{MIN}_{MAX}").into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};
    use utoipa::PartialSchema;

    use super::*;

    fn read(value: Value) -> Option<i64> {
        from_value::<Int<-5, 100>>(value).ok().map(Int::get)
    }

    #[test]
    fn both_bounds_belong_to_the_range() {
        assert_eq!([-6, -5, 0, 100, 101].map(|n| read(json!(n))), [None, Some(-5), Some(0), Some(100), None]);
        assert_eq!(read(json!(u64::MAX)), None);
    }

    #[test]
    fn nothing_is_turned_into_an_integer() {
        for other in [json!(5.0), json!("5"), json!(true), json!(null), json!([5])] {
            assert_eq!(read(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn the_document_knows_the_bounds() {
        let schema = to_value(Int::<0, 100>::schema()).unwrap();
        assert_eq!(schema, json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": 100}));
        assert_eq!(<Int<0, 100>>::name(), "Int_0_100");
    }
}
