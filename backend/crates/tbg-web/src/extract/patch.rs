//! Fields that may be absent: [`present`] for those that are never null, [`Patch`] for those that
//! null clears.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use utoipa::__dev::ComposeSchema;
use utoipa::ToSchema;
use utoipa::openapi::schema::{OneOfBuilder, Schema, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};

/// For `#[serde(default, deserialize_with = "tbg_web::present")] field: Option<T>`: the field may be
/// absent, but null is refused.
///
/// # Errors
/// Whatever `T` refuses.
pub fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// For `#[serde(default)] field: Patch<T>`: absent, null and a value mean three things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Leave it.
    #[default]
    Absent,
    /// Clear it.
    Null,
    /// Set it.
    Value(T),
}

impl<T> Patch<T> {
    /// Whether the request does not speak of the field.
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The new value if there is to be one: `Some(None)` clears.
    pub fn into_change(self) -> Option<Option<T>> {
        match self {
            Self::Absent => None,
            Self::Null => Some(None),
            Self::Value(value) => Some(Some(value)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<T>::deserialize(deserializer).map(|value| value.map_or(Self::Null, Self::Value))
    }
}

impl<T: ToSchema> ComposeSchema for Patch<T> {
    fn compose(inner: Vec<RefOr<Schema>>) -> RefOr<Schema> {
        let value = inner.into_iter().next().unwrap_or_else(T::schema);
        let null = ObjectBuilder::new().schema_type(Type::Null);
        OneOfBuilder::new().item(null).item(value).into()
    }
}

impl<T: ToSchema> ToSchema for Patch<T> {
    /// Only the prefix: the name of `T` is added by whoever refers to this type.
    fn name() -> Cow<'static, str> {
        "Patch".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};
    use utoipa::PartialSchema;

    use super::*;
    use crate::extract::Text;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Change {
        #[serde(default)]
        bio: Patch<String>,
        #[serde(default, deserialize_with = "present")]
        live: Option<bool>,
    }

    #[test]
    fn absent_null_and_a_value_are_three_things() {
        let read = |value| from_value::<Change>(value).unwrap().bio;
        assert_eq!(read(json!({})), Patch::Absent);
        assert_eq!(read(json!({"bio": null})), Patch::Null);
        assert_eq!(read(json!({"bio": "x"})), Patch::Value("x".to_owned()));

        assert!(Patch::<()>::Absent.is_absent() && !Patch::<()>::Null.is_absent());
        let changes = [Patch::Absent, Patch::Null, Patch::Value(1)].map(Patch::into_change);
        assert_eq!(changes, [None, Some(None), Some(Some(1))]);
    }

    #[test]
    fn a_field_that_is_never_null_refuses_null() {
        let read = |value| from_value::<Change>(value).ok().map(|change| change.live);
        assert_eq!(read(json!({})), Some(None));
        assert_eq!(read(json!({"live": true})), Some(Some(true)));
        assert_eq!(read(json!({"live": null})), None);
    }

    #[test]
    fn the_document_allows_null() {
        let schema = to_value(Patch::<Text<2, 50>>::schema()).unwrap();
        let text = json!({"type": "string", "minLength": 2, "maxLength": 50});
        assert_eq!(schema, json!({"oneOf": [{"type": "null"}, text]}));
    }
}
