//! API keys: what they look like and what they allow (contract `auth-users.md` §8).

use chrono::{DateTime, TimeDelta, Utc};
use serde::de::{self, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tbg_core::random::Entropy;
use utoipa::ToSchema;

use crate::rules::profile::{Flaw, read_text};

const SCHEME: &str = "tbg_";
const SECRET_CHARS: usize = 40;
const KEY_CHARS: usize = SCHEME.len() + SECRET_CHARS;
/// Characters that are stored in the clear, to find the row.
const PREFIX_CHARS: usize = 12;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Bytes from here on would make the first characters of the alphabet more likely.
const FAIR_BELOW: u8 = 248;
const LONGEST_LIFE: TimeDelta = TimeDelta::days(366);

/// How many working keys a user can have.
pub(crate) const MAX_ACTIVE: i64 = 10;

/// A new key in the clear. It is answered once; nothing else may hold or print it.
pub(crate) struct ApiKey(String);

impl ApiKey {
    /// Draws a key: 40 characters of 62, each as likely as the others.
    pub(crate) fn generate(entropy: &dyn Entropy) -> Self {
        let mut text = String::with_capacity(KEY_CHARS);
        text.push_str(SCHEME);
        while text.len() < KEY_CHARS {
            let mut bytes = [0_u8; 64];
            entropy.fill(&mut bytes);
            let fair = bytes.into_iter().filter(|byte| *byte < FAIR_BELOW);
            let drawn = fair.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            text.extend(drawn.take(KEY_CHARS - text.len()));
        }
        debug_assert!(has_form_of_key(&text), "a new key has the form that is checked");
        Self(text)
    }

    /// By which the row is found.
    pub(crate) fn prefix(&self) -> &str {
        self.0.get(..PREFIX_CHARS).unwrap_or_default()
    }

    /// SHA-256 of the whole key in hex: 238 random bits need no slow hash.
    pub(crate) fn hash(&self) -> String {
        Sha256::digest(self.0.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// For the one answer that shows it.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// `^tbg_[0-9A-Za-z]{40}$`.
fn has_form_of_key(text: &str) -> bool {
    text.len() == KEY_CHARS
        && text
            .strip_prefix(SCHEME)
            .is_some_and(|secret| secret.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// One thing that a key may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ApiKeyPermission)]
pub(crate) enum Permission {
    /// GET and HEAD.
    Read,
    /// Every other method.
    Write,
}

/// What a key may do. Whoever may write may read, so there are only two answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Permissions {
    /// Look.
    #[default]
    Read,
    /// Look and change.
    ReadAndWrite,
}

impl Permissions {
    /// As stored and answered.
    pub(crate) fn list(self) -> &'static [Permission] {
        match self {
            Self::Read => &[Permission::Read],
            Self::ReadAndWrite => &[Permission::Read, Permission::Write],
        }
    }

    /// As read from the database.
    pub(crate) fn of(stored: &Value) -> Self {
        let mut words = stored.as_array().into_iter().flatten();
        if words.any(|word| word == "write") { Self::ReadAndWrite } else { Self::Read }
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Vec::<Permission>::deserialize(deserializer)?.as_slice() {
            [Permission::Read] => Ok(Self::Read),
            [Permission::Write]
            | [Permission::Read, Permission::Write]
            | [Permission::Write, Permission::Read] => Ok(Self::ReadAndWrite),
            _ => Err(de::Error::invalid_value(
                Unexpected::Other("out_of_range"),
                &"must be read, write or both, each once",
            )),
        }
    }
}

/// When a key shall end, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(as = ApiKeyExpiry)]
pub(crate) struct Expiry(DateTime<Utc>);

impl Expiry {
    /// The time, if it is after `now` and not more than 366 days away.
    pub(crate) fn within(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        (self.0 > now && self.0 - now <= LONGEST_LIFE).then_some(self.0)
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, "must be an RFC 3339 time with an offset", |text| {
            let time = DateTime::parse_from_rfc3339(text).map_err(|_| Flaw::Type)?;
            Ok(Self(time.with_timezone(&Utc)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use serde_json::json;
    use tbg_core::random::SeededEntropy;

    /// Repeats what it is given.
    struct Fixed(Vec<u8>);

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            for (byte, given) in bytes.iter_mut().zip(self.0.iter().cycle()) {
                *byte = *given;
            }
        }
    }

    #[test]
    fn a_key_has_44_characters_and_a_prefix_of_12() {
        let key = ApiKey::generate(&Fixed((0..62).collect()));
        assert_eq!(key.prefix(), "tbg_01234567");
        assert_eq!(key.hash().len(), 64);
        let text = key.into_text();
        assert_eq!(text, "tbg_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcd");
        assert_eq!(text.len(), 44);
    }

    #[test]
    fn a_hash_is_the_sha_256_of_the_whole_key() {
        assert_eq!(
            ApiKey("abc".to_owned()).hash(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn bytes_that_would_favour_a_character_are_thrown_away() {
        let key = ApiKey::generate(&Fixed(vec![255, 1, 248, 250]));
        assert_eq!(key.into_text(), format!("tbg_{}", "1".repeat(40)));
    }

    #[test]
    fn keys_differ_and_use_the_whole_alphabet() {
        let entropy = SeededEntropy::new(7);
        let mut counts = HashMap::new();
        let mut keys: Vec<String> = (0..2_000).map(|_| ApiKey::generate(&entropy).into_text()).collect();
        for c in keys.iter().flat_map(|key| key.chars().skip(4)) {
            *counts.entry(c).or_insert(0_u32) += 1;
        }
        assert!(keys.iter().all(|key| has_form_of_key(key)));
        assert_eq!(counts.len(), 62);
        // 80,000 draws: 1,290 of each, standard deviation 36.
        assert!(counts.values().all(|count| (1_060..=1_520).contains(count)), "{counts:?}");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 2_000);
    }

    #[test]
    fn only_the_keys_form_is_a_key() {
        let secret = "a".repeat(40);
        assert!(has_form_of_key(&format!("tbg_{secret}")));
        for text in [
            String::new(),
            "tbg_".to_owned(),
            format!("tbg_{secret}a"),
            format!("TBG_{secret}"),
            format!("tbg_{}-", "a".repeat(39)),
            format!("tbg_{}é", "a".repeat(38)),
        ] {
            assert!(!has_form_of_key(&text), "{text:?}");
        }
    }

    #[test]
    fn writing_implies_reading() {
        for (given, expected) in [
            (json!(["read"]), json!(["read"])),
            (json!(["write"]), json!(["read", "write"])),
            (json!(["read", "write"]), json!(["read", "write"])),
            (json!(["write", "read"]), json!(["read", "write"])),
        ] {
            let permissions: Permissions = serde_json::from_value(given).unwrap();
            assert_eq!(json!(permissions.list()), expected);
            assert_eq!(Permissions::of(&expected), permissions);
        }
        assert_eq!(Permissions::default(), Permissions::Read);
    }

    #[test]
    fn permissions_are_a_set_of_known_words_and_not_empty() {
        for given in [
            json!([]),
            json!(["read", "read"]),
            json!(["admin"]),
            json!(["read", "write", "admin"]),
            json!(["read", "write", "read"]),
            json!("read"),
            json!(null),
        ] {
            assert!(serde_json::from_value::<Permissions>(given.clone()).is_err(), "{given}");
        }
    }

    #[test]
    fn a_key_ends_in_the_future_and_within_366_days() {
        let now = DateTime::from_timestamp(1_771_804_800, 0).unwrap();
        for (after, is_allowed) in [
            (TimeDelta::zero(), false),
            (TimeDelta::microseconds(1), true),
            (TimeDelta::days(366), true),
            (TimeDelta::days(366) + TimeDelta::microseconds(1), false),
            (TimeDelta::days(-1), false),
        ] {
            assert_eq!(Expiry(now + after).within(now).is_some(), is_allowed, "{after}");
        }
    }

    #[test]
    fn a_time_has_an_offset() {
        let read = |text: &str| serde_json::from_value::<Expiry>(json!(text));
        assert_eq!(read("2026-03-15T14:30:00Z").unwrap(), read("2026-03-15T16:30:00+02:00").unwrap());
        for text in ["2026-03-15T14:30:00", "2026-03-15", "", "soon", "1771804800"] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("type_error"), "{error}");
        }
        assert!(serde_json::from_value::<Expiry>(json!(1_771_804_800)).is_err());
    }
}
