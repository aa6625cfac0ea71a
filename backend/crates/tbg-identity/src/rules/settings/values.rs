//! The values of the settings that are more than a switch (contract `auth-users.md` §7).

use serde::{Deserialize, Deserializer, Serialize};
use tbg_web::Int;
use utoipa::ToSchema;

use crate::rules::email::Email;
use crate::rules::profile::{Flaw, is_denied, read_text};

const COINBASE_MAX_CHARS: usize = 32;
const COINBASE_INNER_MAX_CHARS: usize = 15;
const TIMEZONE_MAX_CHARS: usize = 64;

/// How much the game is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SoundMode {
    /// Nothing.
    Off,
    /// Little.
    Subtle,
    /// Everything.
    Full,
}

/// Which start difficulty a miner would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DifficultyPreference {
    /// The pool decides.
    Auto,
    /// For small devices.
    Low,
    /// Between the two.
    Medium,
    /// For large farms.
    High,
}

/// How much the dashboard shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DisplayMode {
    /// Everything.
    Full,
    /// The essentials.
    Simple,
}

/// Loudness in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(minimum = 0, maximum = 100)]
pub(crate) struct Volume(i64);

impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Int::<0, 100>::deserialize(deserializer).map(|percent| Self(percent.get()))
    }
}

/// What a miner signs blocks with, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(max_length = 32, pattern = "^(/TheBitcoinGame:[A-Za-z0-9_.:!#-]{1,15}/)?$")]
pub(crate) struct CoinbaseSignature(String);

impl CoinbaseSignature {
    /// Accepts an empty text or `/TheBitcoinGame:<inner>/`.
    fn parse(text: &str) -> Result<Self, Flaw> {
        let signature = Self(text.to_owned());
        if text.is_empty() {
            return Ok(signature);
        }
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(Flaw::Control);
        }
        if text.chars().count() > COINBASE_MAX_CHARS {
            return Err(Flaw::TooLong);
        }
        let inner = signature.inner();
        let has_form = (1..=COINBASE_INNER_MAX_CHARS).contains(&inner.len())
            && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:!#-".contains(&byte));
        if !has_form || is_denied(inner) {
            return Err(Flaw::Pattern);
        }
        Ok(signature)
    }

    /// The part that the pool writes into the coinbase; empty when there is none.
    pub(crate) fn inner(&self) -> &str {
        let tail = self.0.strip_prefix("/TheBitcoinGame:");
        tail.and_then(|tail| tail.strip_suffix('/')).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for CoinbaseSignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, "must be empty or /TheBitcoinGame:<1 to 15 characters>/", Self::parse)
    }
}

/// Where notifications go, or nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(min_length = 0, max_length = 254)]
pub(crate) struct NotificationEmail(String);

impl NotificationEmail {
    fn parse(text: &str) -> Result<Self, Flaw> {
        if text.is_empty() {
            return Ok(Self(String::new()));
        }
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(Flaw::Control);
        }
        Email::parse(text).map(|email| Self(email.as_str().to_owned())).ok_or(Flaw::Pattern)
    }

    /// Lower case; empty for nowhere.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for NotificationEmail {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, "must be empty or an e-mail address", Self::parse)
    }
}

/// A zone of the IANA time zone database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(min_length = 1, max_length = 64)]
pub(crate) struct Timezone(String);

impl Timezone {
    fn parse(text: &str) -> Result<Self, Flaw> {
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(Flaw::Control);
        }
        if text.chars().count() > TIMEZONE_MAX_CHARS {
            return Err(Flaw::TooLong);
        }
        text.parse::<chrono_tz::Tz>().map(|zone| Self(zone.name().to_owned())).map_err(|_| Flaw::Unlisted)
    }
}

impl<'de> Deserialize<'de> for Timezone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, "must be an IANA time zone", Self::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_coinbase_signature_has_the_games_form() {
        let signature = CoinbaseSignature::parse("/TheBitcoinGame:SatoshiHunter/").unwrap();
        assert_eq!(signature.inner(), "SatoshiHunter");
        assert_eq!(CoinbaseSignature::parse("").unwrap().inner(), "");
        assert!(CoinbaseSignature::parse("/TheBitcoinGame:_.:!#-9/").is_ok());
        assert!(CoinbaseSignature::parse("/TheBitcoinGame:123456789012345/").is_ok());
        for (text, flaw) in [
            ("/TheBitcoinGame:1234567890123456/", Flaw::TooLong),
            ("/TheBitcoinGame://", Flaw::Pattern),
            ("/TheBitcoinGame:/", Flaw::Pattern),
            ("/TheBitcoinGame:a b/", Flaw::Pattern),
            ("/TheBitcoinGame:a/b/", Flaw::Pattern),
            ("/TheBitcoinGame:é/", Flaw::Pattern),
            ("/thebitcoingame:a/", Flaw::Pattern),
            ("SatoshiHunter", Flaw::Pattern),
            (" ", Flaw::Pattern),
            ("/TheBitcoinGame:a/\n", Flaw::Control),
            ("/TheBitcoinGame:Hit-ler/", Flaw::Pattern),
        ] {
            assert_eq!(CoinbaseSignature::parse(text), Err(flaw), "{text:?}");
        }
    }

    #[test]
    fn a_zone_is_one_of_the_iana_database() {
        for zone in ["UTC", "Europe/Zurich", "America/Argentina/Buenos_Aires", "Etc/GMT+12"] {
            assert_eq!(Timezone::parse(zone), Ok(Timezone(zone.to_owned())));
        }
        for zone in ["", "utc+1", "Europe/Atlantis", "europe/zurich", "../etc/passwd"] {
            assert_eq!(Timezone::parse(zone), Err(Flaw::Unlisted), "{zone:?}");
        }
        assert_eq!(Timezone::parse(&"a".repeat(65)), Err(Flaw::TooLong));
    }

    #[test]
    fn an_address_for_notifications_is_normalised() {
        let email = NotificationEmail::parse("Miner@Example.COM").ok().unwrap();
        assert_eq!(email.as_str(), "miner@example.com");
        assert!(NotificationEmail::parse("").is_ok_and(|email| email.as_str().is_empty()));
        assert!(NotificationEmail::parse("miner").is_err());
        assert!(NotificationEmail::parse(&format!("{}@example.com", "a".repeat(255))).is_err());
    }

    #[test]
    fn a_word_is_a_string_of_the_list() {
        assert_eq!(serde_json::from_value::<SoundMode>(json!("off")).unwrap(), SoundMode::Off);
        for value in [json!("loud"), json!("Off"), json!(""), json!(1), json!(null)] {
            assert!(serde_json::from_value::<SoundMode>(value.clone()).is_err(), "{value}");
        }
        assert_eq!(json!(DifficultyPreference::Auto), json!("auto"));
        assert_eq!(json!(DisplayMode::Simple), json!("simple"));
    }

    #[test]
    fn a_volume_is_a_whole_number_of_percent() {
        for value in [json!(0), json!(30), json!(100)] {
            assert_eq!(json!(serde_json::from_value::<Volume>(value.clone()).unwrap()), value);
        }
        for value in [json!(-1), json!(101), json!("30"), json!(5.0), json!(true), json!(null)] {
            assert!(serde_json::from_value::<Volume>(value.clone()).is_err(), "{value}");
        }
    }
}
