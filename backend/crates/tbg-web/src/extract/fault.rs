//! What is wrong with one field, as serde reports it.
//!
//! A [`Fault`] keeps the kind and the place as data, so nothing is read back out of a message. Its
//! path is built from the inside out: every object and list that a fault leaves adds its step.
//!
//! Invariant: neither path nor message holds anything of the client's but the names of fields that
//! are harmless to repeat. Contract: `auth-users.md` sections 1.1 and 1.2.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::error::{ApiError, FieldError, FieldErrorKind};

/// Names that are longer are not repeated.
const MAX_NAME_LENGTH: usize = 64;

const WRONG_FORM: &str = "does not have the required form";

/// The words by which a `Deserialize` impl names a kind; equal to the words on the wire.
const WORDS: [(FieldErrorKind, &str); 10] = [
    (FieldErrorKind::Missing, "missing"),
    (FieldErrorKind::ExtraForbidden, "extra_forbidden"),
    (FieldErrorKind::TypeError, "type_error"),
    (FieldErrorKind::StringTooShort, "string_too_short"),
    (FieldErrorKind::StringTooLong, "string_too_long"),
    (FieldErrorKind::PatternMismatch, "pattern_mismatch"),
    (FieldErrorKind::OutOfRange, "out_of_range"),
    (FieldErrorKind::InvalidEnum, "invalid_enum"),
    (FieldErrorKind::InvalidJson, "invalid_json"),
    (FieldErrorKind::ControlCharacters, "control_characters"),
];

/// The error by which a `Deserialize` impl names the broken rule: `expected` is the message.
pub(super) fn broken_rule<E: de::Error>(kind: FieldErrorKind, expected: &str) -> E {
    let word = WORDS.iter().find(|(known, _)| *known == kind).map_or("pattern_mismatch", |(_, word)| *word);
    E::invalid_value(Unexpected::Other(word), &expected)
}

fn kind_of(word: &str) -> Option<FieldErrorKind> {
    WORDS.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind)
}

/// One broken rule and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Innermost step first.
    path: Vec<Step>,
    kind: FieldErrorKind,
    message: Cow<'static, str>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Item(usize),
}

impl Fault {
    /// A fault of the value at hand.
    pub(super) fn new(kind: FieldErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { path: Vec::new(), kind, message: message.into() }
    }

    pub(super) fn control_characters() -> Self {
        Self::new(FieldErrorKind::ControlCharacters, "no control characters")
    }

    pub(super) fn out_of_range() -> Self {
        Self::new(FieldErrorKind::OutOfRange, "out of range")
    }

    /// The same fault seen from the object that holds the field `name`. A name that is not harmless
    /// ends the path before it.
    pub(super) fn in_field(mut self, name: &str) -> Self {
        if is_harmless(name) {
            self.path.push(Step::Field(name.to_owned()));
        } else {
            self.path.clear();
        }
        self
    }

    /// The same fault seen from the list that holds the item.
    pub(super) fn in_item(mut self, index: usize) -> Self {
        self.path.push(Step::Item(index));
        self
    }

    /// The 422 whose field starts at `root`: `body` or `query`.
    pub(super) fn refuse(self, root: &'static str) -> ApiError {
        ApiError::validation([FieldError::new(self.field(root), self.kind, self.message)])
    }

    fn field(&self, root: &'static str) -> Cow<'static, str> {
        self.path.iter().rev().fold(Cow::Borrowed(root), |path, step| match step {
            Step::Field(name) => format!("{path}.{name}").into(),
            Step::Item(index) => format!("{path}.{index}").into(),
        })
    }
}

fn is_harmless(name: &str) -> bool {
    (1..=MAX_NAME_LENGTH).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    /// The text is dropped: it may quote the value.
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::new(FieldErrorKind::PatternMismatch, WRONG_FORM)
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(FieldErrorKind::TypeError, required_type(&expected.to_string()))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match unexpected {
            Unexpected::Other(word) => match kind_of(word) {
                Some(kind) => Self::new(kind, expected.to_string()),
                None => Self::new(FieldErrorKind::PatternMismatch, WRONG_FORM),
            },
            Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_) => Self::out_of_range(),
            _ => Self::new(FieldErrorKind::PatternMismatch, WRONG_FORM),
        }
    }

    fn invalid_length(_: usize, _: &dyn Expected) -> Self {
        Self::new(FieldErrorKind::OutOfRange, "wrong number of items")
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(FieldErrorKind::InvalidEnum, format!("must be one of: {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::new(FieldErrorKind::ExtraForbidden, "not a field of this request").in_field(field)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(FieldErrorKind::Missing, "required").in_field(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        duplicate().in_field(field)
    }
}

/// A field that is there twice; the caller adds its name.
pub(super) fn duplicate() -> Fault {
    Fault::new(FieldErrorKind::ExtraForbidden, "given twice")
}

/// What serde expected, in the words of JSON instead of those of Rust.
fn required_type(expected: &str) -> Cow<'static, str> {
    match expected.split_once(' ').map_or(expected, |(first, _)| first) {
        "struct" => "must be an object".into(),
        "enum" | "variant" => "must be one of the allowed words".into(),
        "tuple" => "must be an array".into(),
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => "must be an integer".into(),
        "f32" | "f64" => "must be a number".into(),
        "a" | "an" => match expected {
            "a map" => "must be an object".into(),
            "a sequence" => "must be an array".into(),
            _ if expected.starts_with("a tuple") => "must be an array".into(),
            _ => format!("must be {expected}").into(),
        },
        _ => "must be of another type".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_wire() {
        for (kind, word) in WORDS {
            assert_eq!(serde_json::to_value(kind).unwrap(), word);
            let fault: Fault = broken_rule(kind, "as told");
            assert_eq!((fault.kind, fault.message.as_ref()), (kind, "as told"));
        }
    }

    #[test]
    fn a_path_reads_from_the_outside_in() {
        let fault = Fault::out_of_range().in_item(3).in_field("list").in_field("sound");
        assert_eq!(fault.field("body"), "body.sound.list.3");
        assert_eq!(Fault::out_of_range().field("query"), "query");
    }

    #[test]
    fn a_name_that_is_not_harmless_ends_the_path_before_it() {
        let too_long = "x".repeat(MAX_NAME_LENGTH + 1);
        for name in ["", "a.b", "a b", "<b>", "naïve", "a\n", too_long.as_str()] {
            let fault = Fault::out_of_range().in_field("inner").in_field(name).in_field("outer");
            assert_eq!(fault.field("body"), "body.outer", "{name}");
        }
    }

    #[test]
    fn messages_speak_of_json_and_repeat_nothing() {
        let words: [(&str, &str); 9] = [
            ("struct Order", "must be an object"),
            ("a map", "must be an object"),
            ("a sequence", "must be an array"),
            ("a tuple of size 2", "must be an array"),
            ("tuple struct Pair", "must be an array"),
            ("u8", "must be an integer"),
            ("f64", "must be a number"),
            ("a boolean", "must be a boolean"),
            ("unit", "must be of another type"),
        ];
        for (expected, message) in words {
            assert_eq!(required_type(expected), message);
        }
        let quoting: Fault = de::Error::custom("the secret is 42");
        assert_eq!(quoting.message, WRONG_FORM);
        let strange: Fault = de::Error::invalid_value(Unexpected::Other("the secret"), &"42");
        assert_eq!(strange.message, WRONG_FORM);
    }
}
