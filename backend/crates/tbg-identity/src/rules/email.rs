//! E-mail addresses as accounts know them, and the hashes that stand for what must not be stored or logged
//! (contract `auth-users.md` §4.4, §5).

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::rules::profile::{Flaw, read_text};

/// Longest address, in characters.
const MAX_CHARS: usize = 254;
/// Longest part before the `@`, in characters.
const MAX_LOCAL_CHARS: usize = 64;

/// An address in the one form in which it is stored and compared: trimmed, lower case. It has no `Debug`: an
/// address does not belong into a log.
#[derive(Clone, PartialEq, Eq, ToSchema)]
#[schema(min_length = 5, max_length = 254, format = Email)]
pub(crate) struct Email(String);

impl Email {
    /// Accepts an address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::check(text).ok()
    }

    /// Accepts an address, or says what is wrong with it.
    fn check(text: &str) -> Result<Self, Flaw> {
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(Flaw::Control);
        }
        let trimmed = text.trim();
        if trimmed.chars().count() > MAX_CHARS {
            return Err(Flaw::TooLong);
        }
        if well_formed(trimmed) { Ok(Self(trimmed.to_ascii_lowercase())) } else { Err(Flaw::Pattern) }
    }

    /// The address.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Email {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, "an e-mail address", Self::check)
    }
}

/// `^[^\s@]{1,64}@[^\s@.]+(\.[^\s@.]+)+$`, ASCII.
fn well_formed(email: &str) -> bool {
    let Some((local, domain)) = email.split_once('@') else { return false };
    email.is_ascii()
        && !email.contains(' ')
        && (1..=MAX_LOCAL_CHARS).contains(&local.len())
        && !domain.contains('@')
        && domain.contains('.')
        && domain.split('.').all(|label| !label.is_empty())
}

/// SHA-256 of an address in lower case, as 64 hex digits: how limits and lockouts know it.
pub(crate) fn email_hash(lower: &str) -> String {
    sha256_hex(lower)
}

/// SHA-256 of a token that was mailed, as 64 hex digits: all that is stored of it.
pub(crate) fn token_hash(token: &str) -> String {
    sha256_hex(token)
}

fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<String, Flaw> {
        Email::check(text).map(|email| email.as_str().to_owned())
    }

    #[test]
    fn an_address_is_trimmed_and_lower_case() {
        assert_eq!(checked("  CasE@Example.COM "), Ok("case@example.com".to_owned()));
        assert_eq!(checked("a.b+tag@sub.example.co"), Ok("a.b+tag@sub.example.co".to_owned()));
        assert!(
            Email::parse(" Miner@example.com").is_some_and(|email| email.as_str() == "miner@example.com")
        );
        let longest_local = format!("{}@example.com", "a".repeat(64));
        assert_eq!(checked(&longest_local), Ok(longest_local.clone()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        for text in [
            "",
            "@",
            "miner",
            "miner@",
            "@example.com",
            "miner@example",
            "miner@.com",
            "miner@example.",
            "miner@example..com",
            "mi ner@example.com",
            "miner@exam ple.com",
            "miner@@example.com",
            "miner@example.com@x.y",
            "mïner@example.com",
            "miner@exämple.com",
            "miner\u{a0}@example.com",
        ] {
            assert_eq!(checked(text), Err(Flaw::Pattern), "{text}");
        }
        assert_eq!(checked(&format!("{}@example.com", "a".repeat(65))), Err(Flaw::Pattern));
        assert_eq!(checked("miner@example.com\r\nBcc: x@y.z"), Err(Flaw::Control));
        assert_eq!(checked("\tminer@example.com"), Err(Flaw::Control));
        assert_eq!(checked(&format!("a@{}.com", "b".repeat(249))), Err(Flaw::TooLong));
        assert!(checked(&format!("a@{}.com", "b".repeat(248))).is_ok());
    }

    #[test]
    fn the_hash_is_that_of_the_contract() {
        let hash = "114e184d0d596a4f81aae2a113eeaa84e65edb582d88677bae82cc6345313416";
        assert_eq!(email_hash("miner@example.com"), hash);
        assert_eq!(token_hash("").len(), 64);
    }
}
