//! What a public profile may say (contract `auth-users.md` §6.2).
//!
//! Each value is checked where it is read: a [`DisplayName`] that exists is a valid one. A refusal
//! never repeats the refused text.

mod words;

use serde::de::{self, Unexpected};
use serde::{Deserialize, Deserializer};
use tbg_web::Patch;
use unicode_normalization::UnicodeNormalization as _;
use url::Url;
use utoipa::ToSchema;

pub(crate) use words::is_denied;
use words::{is_letter_or_number, is_reserved};

const NAME_MIN_CHARS: usize = 2;
const NAME_MAX_CHARS: usize = 50;
/// Width of `users.display_name_normalized`: a letter may have a longer lower-case form.
const NORMALIZED_MAX_CHARS: usize = 64;
const AVATAR_URL_MAX_CHARS: usize = 512;

/// Free text about oneself.
pub(crate) type Bio = tbg_web::Prose<0, 280>;

/// Which rule a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Fewer characters than required.
    TooShort,
    /// More characters than allowed.
    TooLong,
    /// Not of the required form, or a word that nobody may use.
    Pattern,
    /// Not one of the listed words.
    Unlisted,
    /// Not a text of the required kind.
    Type,
    /// A character from U+0000 to U+001F, or U+007F.
    Control,
}

impl Flaw {
    /// The `type` of the 422 item.
    fn word(self) -> &'static str {
        match self {
            Self::TooShort => "string_too_short",
            Self::TooLong => "string_too_long",
            Self::Pattern => "pattern_mismatch",
            Self::Unlisted => "invalid_enum",
            Self::Type => "type_error",
            Self::Control => "control_characters",
        }
    }
}

/// Reads a JSON string by a rule. `expected` is what the answer says; the refused text is never repeated.
pub(crate) fn read_text<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Result<T, Flaw>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(|flaw| de::Error::invalid_value(Unexpected::Other(flaw.word()), &expected))
}

fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_control())
}

/// A public name, unique by its [`normalized`](Self::normalized) form.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(min_length = 2, max_length = 50)]
pub(crate) struct DisplayName(String);

impl DisplayName {
    /// Brings a name into its stored form (NFKC, single spaces, none at the ends) and checks it.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        if has_control(text) {
            return Err(Flaw::Control);
        }
        let composed: String = text.nfkc().collect();
        let name = Self(composed.split_whitespace().collect::<Vec<_>>().join(" "));
        let chars = name.0.chars().count();
        if chars < NAME_MIN_CHARS {
            return Err(Flaw::TooShort);
        }
        let normalized = name.normalized();
        if chars > NAME_MAX_CHARS || normalized.chars().count() > NORMALIZED_MAX_CHARS {
            return Err(Flaw::TooLong);
        }
        if !has_form_of_name(&name.0) || is_reserved(&normalized) || is_denied(&normalized) {
            return Err(Flaw::Pattern);
        }
        Ok(name)
    }

    /// As it is shown.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As it is compared.
    pub(crate) fn normalized(&self) -> String {
        self.0.to_lowercase()
    }
}

/// Letters and numbers, between them also space, `_`, `.` and `-`.
fn has_form_of_name(name: &str) -> bool {
    name.starts_with(is_letter_or_number)
        && name.ends_with(is_letter_or_number)
        && name.chars().all(|c| is_letter_or_number(c) || matches!(c, ' ' | '_' | '.' | '-'))
}

impl<'de> Deserialize<'de> for DisplayName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, "must be 2 to 50 letters and numbers, and no reserved name", Self::parse)
    }
}

/// Where a picture lives. Stored only; the server never fetches it.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(min_length = 9, max_length = 512, pattern = "^https://")]
pub(crate) struct AvatarUrl(String);

impl AvatarUrl {
    /// Accepts an absolute `https://` URL without user or password.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        if has_control(text) {
            return Err(Flaw::Control);
        }
        if text.chars().count() > AVATAR_URL_MAX_CHARS {
            return Err(Flaw::TooLong);
        }
        if !is_plain_https(text) {
            return Err(Flaw::Pattern);
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A URL parser forgives much (`https:host`, `https:///host`, `\` for `/`, an empty user); the text is
/// stored as given and read by other parsers, so none of that is let through.
fn is_plain_https(text: &str) -> bool {
    if text.contains(|c: char| c.is_whitespace() || c == '\\') {
        return false;
    }
    let Some((scheme, rest)) = text.split_at_checked("https://".len()) else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("https://")
        && !authority.is_empty()
        && !authority.contains('@')
        && Url::parse(text).is_ok_and(|url| url.scheme() == "https" && url.has_host())
}

impl<'de> Deserialize<'de> for AvatarUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, "must be an absolute https:// URL without user or password", Self::parse)
    }
}

/// An assigned ISO 3166-1 alpha-2 code.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(min_length = 2, max_length = 2, pattern = "^[A-Z]{2}$")]
pub(crate) struct CountryCode(String);

impl CountryCode {
    /// Accepts an assigned code in capital letters.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        if has_control(text) {
            return Err(Flaw::Control);
        }
        if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Flaw::Pattern);
        }
        if rust_iso3166::from_alpha2(text).is_none() {
            return Err(Flaw::Unlisted);
        }
        Ok(Self(text.to_owned()))
    }

    /// The two letters.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for CountryCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, "must be an ISO 3166-1 alpha-2 code in capital letters", Self::parse)
    }
}

/// What a user changes about the profile. Absent leaves a field alone, `null` clears it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfilePatch {
    /// Public name.
    #[serde(default)]
    pub(crate) display_name: Patch<DisplayName>,
    /// Picture.
    #[serde(default)]
    pub(crate) avatar_url: Patch<AvatarUrl>,
    /// Free text about oneself.
    #[serde(default)]
    pub(crate) bio: Patch<Bio>,
    /// Country.
    #[serde(default)]
    pub(crate) country_code: Patch<CountryCode>,
}

impl ProfilePatch {
    /// The two fields that the settings page can set too.
    pub(crate) fn of(display_name: Option<DisplayName>, country_code: Option<CountryCode>) -> Self {
        Self {
            display_name: display_name.map_or(Patch::Absent, Patch::Value),
            avatar_url: Patch::Absent,
            bio: Patch::Absent,
            country_code: country_code.map_or(Patch::Absent, Patch::Value),
        }
    }

    /// Names of the fields that are given.
    pub(crate) fn fields(&self) -> Vec<&'static str> {
        let given = [
            ("display_name", !self.display_name.is_absent()),
            ("avatar_url", !self.avatar_url.is_absent()),
            ("bio", !self.bio.is_absent()),
            ("country_code", !self.country_code.is_absent()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_composed_trimmed_and_single_spaced() {
        for (given, stored) in [
            ("  Satoshi   Hunter ", "Satoshi Hunter"),
            ("Ｓａｔｏｓｈｉ", "Satoshi"),
            ("Satoshi\u{3000}Hunter", "Satoshi Hunter"),
            ("Zoe\u{301}", "Zoé"),
            ("ﬁsh", "fish"),
            ("a_b.c-d 9", "a_b.c-d 9"),
            ("中本", "中本"),
        ] {
            assert_eq!(DisplayName::parse(given).unwrap().as_str(), stored);
        }
    }

    #[test]
    fn names_differ_by_more_than_case() {
        let one = DisplayName::parse("Satoshi Hunter").unwrap();
        let other = DisplayName::parse("SATOSHI hunter").unwrap();
        assert_eq!(one.normalized(), other.normalized());
    }

    #[test]
    fn a_bad_name_is_refused_with_its_reason() {
        // Each İ has a lower-case form of two characters: together more than the column holds.
        let (long, long_in_lower_case) = ("a".repeat(51), "İ".repeat(40));
        for (given, flaw) in [
            ("A", Flaw::TooShort),
            ("", Flaw::TooShort),
            ("     ", Flaw::TooShort),
            (long.as_str(), Flaw::TooLong),
            (long_in_lower_case.as_str(), Flaw::TooLong),
            ("a\tb", Flaw::Control),
            ("a\u{7f}b", Flaw::Control),
            ("-ab", Flaw::Pattern),
            ("ab.", Flaw::Pattern),
            ("a+b", Flaw::Pattern),
            ("a\u{200b}b", Flaw::Pattern),
            ("<b>", Flaw::Pattern),
            ("a\u{93e}b", Flaw::Pattern),
            ("Admin", Flaw::Pattern),
            ("ADMINISTRATOR", Flaw::Pattern),
            ("The Bitcoin Game", Flaw::Pattern),
            ("s.y-s_t e m", Flaw::Pattern),
            ("ｓｕｐｐｏｒｔ", Flaw::Pattern),
            ("what the fu_ck", Flaw::Pattern),
            ("Nazi", Flaw::Pattern),
        ] {
            assert_eq!(DisplayName::parse(given), Err(flaw), "{given:?}");
        }
        assert!(DisplayName::parse(&"a".repeat(50)).is_ok());
        assert!(DisplayName::parse("ab").is_ok());
    }

    #[test]
    fn harmless_names_pass_the_lists() {
        for name in ["Support Team", "Scunthorpe", "Ashkenazi", "Grape Therapist", "Moderator2"] {
            assert!(DisplayName::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_picture_is_an_absolute_https_url() {
        for url in ["https://example.com/a.png", "HTTPS://example.com", "https://example.com:8443/a?b=c@d#e"]
        {
            assert_eq!(AvatarUrl::parse(url).unwrap().as_str(), url);
        }
        for url in [
            "",
            "example.com/a.png",
            "//example.com/a.png",
            "http://example.com/a.png",
            "javascript:alert(1)",
            "data:image/png;base64,AA",
            "https:example.com",
            "https://",
            "https:///example.com",
            "https://user@example.com/",
            "https://user:pass@example.com/",
            "https://@example.com/",
            "https://example.com\\@evil.example/",
            "https://exa mple.com/",
            " https://example.com/",
            "https://example.com:99999/",
        ] {
            assert_eq!(AvatarUrl::parse(url), Err(Flaw::Pattern), "{url:?}");
        }
        let at_most = format!("https://example.com/{}", "a".repeat(512 - 20));
        assert!(AvatarUrl::parse(&at_most).is_ok());
        assert_eq!(AvatarUrl::parse(&format!("{at_most}a")), Err(Flaw::TooLong));
    }

    #[test]
    fn a_country_is_an_assigned_code() {
        for code in ["CH", "US", "SV", "GB", "TW"] {
            assert_eq!(CountryCode::parse(code).unwrap().as_str(), code);
        }
        for (code, flaw) in [
            ("ch", Flaw::Pattern),
            ("CHE", Flaw::Pattern),
            ("C", Flaw::Pattern),
            ("ÄÖ", Flaw::Pattern),
            ("XX", Flaw::Unlisted),
            ("XK", Flaw::Unlisted),
            ("UK", Flaw::Unlisted),
            ("ZZ", Flaw::Unlisted),
        ] {
            assert_eq!(CountryCode::parse(code), Err(flaw), "{code}");
        }
    }

    #[test]
    fn absent_null_and_value_are_three_things() {
        let patch: ProfilePatch =
            serde_json::from_str(r#"{"display_name":"Satoshi Hunter","bio":null}"#).unwrap();
        assert_eq!(patch.fields(), ["display_name", "bio"]);
        assert!(matches!(patch.bio, Patch::Null));
        let empty: ProfilePatch = serde_json::from_str("{}").unwrap();
        assert!(empty.fields().is_empty());
        assert!(serde_json::from_str::<ProfilePatch>(r#"{"email":"a@b.example"}"#).is_err());
    }

    #[test]
    fn a_refusal_names_the_rule_and_not_the_text() {
        let error =
            serde_json::from_str::<ProfilePatch>(r#"{"country_code":"XX"}"#).err().unwrap().to_string();
        assert!(error.contains("invalid_enum") && !error.contains("XX"), "{error}");
    }

    proptest! {
        #[test]
        fn a_stored_name_parses_to_itself(text in "[ a-zA-ZÀ-ÿİﬁ中＿._-]{0,60}") {
            if let Ok(name) = DisplayName::parse(&text) {
                prop_assert_eq!(DisplayName::parse(name.as_str()), Ok(name.clone()));
                prop_assert!((2..=50).contains(&name.as_str().chars().count()));
                prop_assert!(name.normalized().chars().count() <= 64);
            }
        }
    }
}
