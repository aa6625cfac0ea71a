//! What a handler takes from a request, strictly read.
//!
//! [`Body`], [`OptionalBody`], [`NoBody`], [`Query`] and [`Segment`] are the only ways in for what is text. A request type is a derived
//! struct whose fields carry their rules in their types: [`Text`], [`Prose`], [`Int`], enums, and [`present`]
//! or [`Patch`] for what may be absent. Whatever does not fit is answered 4xx with the field named.
//!
//! Reading order: `value` (the strict tree that a body becomes), `fault` (what is wrong, and where),
//! then `body` and `query`. To add a rule of its own, a `Deserialize` impl returns
//! `Error::invalid_value(Unexpected::Other("pattern_mismatch"), &"what is expected")`: the word is
//! the `type` of the 422 item, the text its message.
//!
//! Invariant: no value that the client sent comes back to it.
//! Contract: `auth-users.md` section 1.1, `production.md` section 4.

mod body;
mod fault;
mod number;
mod patch;
mod query;
mod segment;
mod text;
mod value;

pub use self::body::{Body, NoBody, OptionalBody};
pub use self::number::Int;
pub use self::patch::{Patch, present};
pub use self::query::Query;
pub use self::segment::Segment;
pub use self::text::{Prose, Text};
pub(crate) use self::value::from_slice;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::{Error as _, Unexpected};
    use serde::{Deserialize, Deserializer};

    use super::*;
    use crate::error::ErrorCode;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Order {
        name: Text<2, 5>,
        #[serde(default)]
        bio: Patch<Prose<0, 9>>,
        #[serde(default, deserialize_with = "present")]
        sound: Option<Sound>,
        #[serde(default)]
        permissions: Vec<Permission>,
        #[serde(default)]
        pair: Option<(u8, bool)>,
        #[serde(default)]
        plain: String,
        #[serde(default)]
        code: Option<Code>,
        #[serde(default)]
        ratio: Option<f64>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sound {
        #[serde(default, deserialize_with = "present")]
        volume: Option<Int<0, 100>>,
        #[serde(default, deserialize_with = "present")]
        on: Option<bool>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Permission {
        Read,
        Write,
        Since(u8),
    }

    #[derive(Debug, PartialEq)]
    struct Code(String);

    impl<'de> Deserialize<'de> for Code {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if text == "odd" {
                return Err(D::Error::custom("odd is quoted"));
            }
            if text != "AB" {
                return Err(D::Error::invalid_value(Unexpected::Other("pattern_mismatch"), &"must be AB"));
            }
            Ok(Self(text))
        }
    }

    fn refusal(json: &[u8]) -> [String; 3] {
        let error = from_slice::<Order>(json).unwrap_err().refuse("body");
        assert_eq!(error.code(), ErrorCode::ValidationError);
        let body = serde_json::to_value(error.into_body(String::new())).unwrap();
        ["field", "type", "message"].map(|name| body["errors"][0][name].as_str().unwrap().to_owned())
    }

    #[test]
    fn what_fits_is_read() {
        let json = r#"{
            "name": "S\u00e9b", "bio": "a\nb", "sound": {"volume": 0}, "pair": [1, true], "plain": "p",
            "permissions": ["read", "write", {"since": 3}], "code": "AB", "ratio": 2
        }"#;
        let order: Order = from_slice(json.as_bytes()).unwrap();
        assert_eq!(order.name.as_str(), "Séb");
        let Patch::Value(bio) = order.bio else { panic!("bio is there") };
        assert_eq!(&*bio, "a\nb");
        assert_eq!(order.sound.and_then(|sound| sound.volume).map(Int::get), Some(0));
        assert_eq!(order.permissions, [Permission::Read, Permission::Write, Permission::Since(3)]);
        assert_eq!((order.pair, order.plain.as_str()), (Some((1, true)), "p"));
        assert_eq!((order.code, order.ratio), (Some(Code("AB".to_owned())), Some(2.0)));

        let least: Order = from_slice(br#"{"name":"ab"}"#).unwrap();
        assert_eq!((least.bio, least.sound, least.permissions), (Patch::Absent, None, vec![]));
    }

    #[test]
    fn every_broken_rule_names_its_field_and_kind() {
        let cases = [
            ("{}", "body.name", "missing"),
            (r#"{"name":"ab","x_1":1}"#, "body.x_1", "extra_forbidden"),
            (r#"{"name":"ab","<b>":1}"#, "body", "extra_forbidden"),
            (r#"{"name":"ab","sound":{"x":1}}"#, "body.sound.x", "extra_forbidden"),
            (r#"{"name":"ab","name":"ab"}"#, "body.name", "extra_forbidden"),
            (r#"{"x":[{"y":1,"y":1}]}"#, "body.x.0.y", "extra_forbidden"),
            (r#"{"name":null}"#, "body.name", "type_error"),
            (r#"{"name":5}"#, "body.name", "type_error"),
            (r#"{"name":["ab"]}"#, "body.name", "type_error"),
            (r#"{"name":"ab","sound":null}"#, "body.sound", "type_error"),
            (r#"{"name":"ab","sound":[1]}"#, "body.sound", "type_error"),
            (r#"{"name":"ab","sound":{"volume":"30"}}"#, "body.sound.volume", "type_error"),
            (r#"{"name":"ab","sound":{"volume":5.0}}"#, "body.sound.volume", "type_error"),
            (r#"{"name":"ab","sound":{"volume":null}}"#, "body.sound.volume", "type_error"),
            (r#"{"name":"ab","sound":{"volume":true}}"#, "body.sound.volume", "type_error"),
            (r#"{"name":"ab","sound":{"on":1}}"#, "body.sound.on", "type_error"),
            (r#"{"name":"ab","permissions":{}}"#, "body.permissions", "type_error"),
            (r#"{"name":"ab","permissions":[1]}"#, "body.permissions.0", "type_error"),
            (r#"{"name":"ab","permissions":[{"read":null}]}"#, "body.permissions.0", "type_error"),
            (r#"{"name":"ab","permissions":["read","admin"]}"#, "body.permissions.1", "invalid_enum"),
            (r#"{"name":"ab","permissions":[{"since":300}]}"#, "body.permissions.0.since", "out_of_range"),
            (r#"{"name":"ab","sound":{"volume":101}}"#, "body.sound.volume", "out_of_range"),
            (r#"{"name":"ab","sound":{"volume":18446744073709551615}}"#, "body.sound.volume", "out_of_range"),
            (r#"{"name":"ab","pair":[1,true,2]}"#, "body.pair", "out_of_range"),
            (r#"{"name":"ab","pair":[1]}"#, "body.pair", "out_of_range"),
            (r#"{"name":"ab","pair":[256,true]}"#, "body.pair.0", "out_of_range"),
            (r#"{"name":"ab","ratio":1e999}"#, "body", "out_of_range"),
            (r#"{"name":"a"}"#, "body.name", "string_too_short"),
            (r#"{"name":"abcdef"}"#, "body.name", "string_too_long"),
            (r#"{"name":"a\u0000b"}"#, "body.name", "control_characters"),
            (r#"{"name":"a\nb"}"#, "body.name", "control_characters"),
            (r#"{"name":"ab","bio":"a\tb"}"#, "body.bio", "control_characters"),
            (r#"{"name":"ab","plain":"a\u0000b"}"#, "body.plain", "control_characters"),
            (r#"{"name":"ab","code":"odd"}"#, "body.code", "pattern_mismatch"),
            (r#"{"name":"ab","code":"ABC"}"#, "body.code", "pattern_mismatch"),
            (r#"[{"name":"ab"}]"#, "body", "type_error"),
            ("null", "body", "type_error"),
            ("", "body", "invalid_json"),
            (r#"{"name":"ab"} x"#, "body", "invalid_json"),
            (r#"{"name":"ab",}"#, "body", "invalid_json"),
            (r#"{"name":"\ud800"}"#, "body", "invalid_json"),
            (r#"{"name":NaN}"#, "body", "invalid_json"),
        ];
        for (json, field, kind) in cases {
            let [found, word, _] = refusal(json.as_bytes());
            assert_eq!((found.as_str(), word.as_str()), (field, kind), "{json}");
        }
        assert_eq!(refusal(b"{\"name\":\"a\xff\"}")[..2], ["body", "invalid_json"]);
    }

    #[test]
    fn messages_are_ours() {
        let message = |json: &str| refusal(json.as_bytes())[2].clone();
        assert_eq!(message("{}"), "required");
        assert_eq!(message(r#"{"name":"a"}"#), "at least 2 characters");
        assert_eq!(message(r#"{"name":true}"#), "must be a string");
        assert_eq!(message(r#"{"name":"ab","sound":[]}"#), "must be an object");
        assert_eq!(message(r#"{"name":"ab","sound":{"volume":101}}"#), "must be from 0 to 100");
        assert_eq!(message(r#"{"name":"ab","code":"ABC"}"#), "must be AB");
        assert_eq!(message(r#"{"name":"ab","code":"odd"}"#), "does not have the required form");
        assert_eq!(message(r#"{"name":"ab","permissions":["x"]}"#), "must be one of: read, write, since");
        assert_eq!(message("{\n\"name\"}"), "not valid JSON at line 2 column 7");
    }

    #[test]
    fn nesting_ends_at_32_levels() {
        let nested = |levels: usize| {
            format!(r#"{{"name":"ab","x":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        // At the limit it is only the unknown field that is refused.
        assert_eq!(refusal(nested(32).as_bytes())[..2], ["body.x", "extra_forbidden"]);
        let too_deep = ["body", "invalid_json", "nested more than 32 levels deep"];
        assert_eq!(refusal(nested(33).as_bytes()), too_deep);
        assert_eq!(refusal("[".repeat(60_000).as_bytes()), too_deep);
    }

    /// Pieces of bodies, in any order.
    const BODIES: &str = concat!(
        r"(\{|\}|\[|\]|,|:|null|true|-?[0-9]{1,20}(\.[0-9])?(e[0-9]{1,3})?|",
        r#""(name|bio|sound|volume|permissions|pair|plain|code|ratio|read|since|ab|\\u[0-9a-f]{4}|\PC)""#,
        r"){0,40}"
    );

    fn is_value_or_refusal(json: &[u8]) -> bool {
        let fault = from_slice::<Order>(json).err();
        fault.is_none_or(|fault| fault.refuse("body").code() == ErrorCode::ValidationError)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_a_value_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(is_value_or_refusal(&bytes));
        }

        #[test]
        fn any_pieces_are_a_value_or_a_refusal(body in BODIES) {
            prop_assert!(is_value_or_refusal(body.as_bytes()));
            let named = format!(r#"{{"name":"ab",{body}}}"#);
            prop_assert!(is_value_or_refusal(named.as_bytes()));
        }
    }
}
