//! Strings with bounds.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::__dev::ComposeSchema;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Schema, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};

use super::fault::broken_rule;
use crate::error::FieldErrorKind;

/// A string of `MIN` to `MAX` Unicode scalars without control characters. `LINES` allows the line
/// feed; it is spelled [`Prose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Text<const MIN: usize, const MAX: usize, const LINES: bool = false>(String);

/// A [`Text`] that may have several lines.
pub type Prose<const MIN: usize, const MAX: usize> = Text<MIN, MAX, true>;

impl<const MIN: usize, const MAX: usize, const LINES: bool> Text<MIN, MAX, LINES> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<const MIN: usize, const MAX: usize, const LINES: bool> Deref for Text<MIN, MAX, LINES> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Without the text: a password may be one.
impl<const MIN: usize, const MAX: usize, const LINES: bool> fmt::Debug for Text<MIN, MAX, LINES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(..)")
    }
}

impl<const MIN: usize, const MAX: usize, const LINES: bool> Serialize for Text<MIN, MAX, LINES> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MIN: usize, const MAX: usize, const LINES: bool> Deserialize<'de> for Text<MIN, MAX, LINES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        check::<D::Error>(&text, MIN, MAX, LINES)?;
        Ok(Self(text))
    }
}

fn check<E: de::Error>(text: &str, min: usize, max: usize, lines: bool) -> Result<(), E> {
    if text.chars().any(|c| c.is_ascii_control() && !(lines && c == '\n')) {
        return Err(broken_rule(FieldErrorKind::ControlCharacters, "no control characters"));
    }
    let length = text.chars().count();
    if length < min {
        return Err(broken_rule(FieldErrorKind::StringTooShort, &format!("at least {min} characters")));
    }
    if length > max {
        return Err(broken_rule(FieldErrorKind::StringTooLong, &format!("at most {max} characters")));
    }
    Ok(())
}

impl<const MIN: usize, const MAX: usize, const LINES: bool> ComposeSchema for Text<MIN, MAX, LINES> {
    fn compose(_: Vec<RefOr<Schema>>) -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).min_length(Some(MIN)).max_length(Some(MAX)).into()
    }
}

impl<const MIN: usize, const MAX: usize, const LINES: bool> ToSchema for Text<MIN, MAX, LINES> {
    /// One name for each pair of bounds, where a field refers to the type instead of inlining it.
    fn name() -> Cow<'static, str> {
        let kind = if LINES { "Prose" } else { "Text" };
        format!("{kind}_{MIN}_{MAX}").into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};
    use utoipa::PartialSchema;

    use super::*;

    fn reads<T: de::DeserializeOwned>(text: &str) -> bool {
        from_value::<T>(json!(text)).is_ok()
    }

    #[test]
    fn bounds_count_characters_not_bytes() {
        assert!(reads::<Text<2, 3>>("éé") && reads::<Text<2, 3>>("₿₿₿"));
        assert!(!reads::<Text<2, 3>>("é") && !reads::<Text<2, 3>>("₿₿₿₿"));
        assert!(reads::<Text<0, 3>>(""));
    }

    #[test]
    fn control_characters_are_refused_and_only_prose_has_lines() {
        for bad in ["a\0", "a\u{1f}", "a\u{7f}", "a\t", "a\r\n"] {
            assert!(!reads::<Text<0, 9>>(bad) && !reads::<Prose<0, 9>>(bad), "{bad:?}");
        }
        assert!(!reads::<Text<0, 9>>("a\nb") && reads::<Prose<0, 9>>("a\nb"));
        assert!(reads::<Text<0, 9>>("a\u{85}"), "the contract names U+0000 to U+001F and U+007F");
    }

    #[test]
    fn the_text_comes_out_as_it_went_in_but_not_into_logs() {
        let text: Text<1, 9> = from_value(json!("hunter2")).unwrap();
        assert_eq!(to_value(&text).unwrap(), "hunter2");
        assert_eq!((text.as_str(), text.len()), ("hunter2", 7));
        assert_eq!(format!("{text:?}"), "Text(..)");
        assert_eq!(text.into_string(), "hunter2");
    }

    #[test]
    fn the_document_knows_the_bounds() {
        let schema = to_value(<Text<2, 50>>::schema()).unwrap();
        assert_eq!(schema, json!({"type": "string", "minLength": 2, "maxLength": 50}));
        assert_eq!(<Text<2, 50>>::name(), "Text_2_50");
        assert_eq!(<Prose<0, 280>>::name(), "Prose_0_280");
    }
}
