//! A change of settings: what a request may say, and what follows from it.

use serde::Deserialize;
use tbg_web::{ApiError, ErrorCode, FieldError, FieldErrorKind};
use utoipa::ToSchema;

use super::{
    CoinbaseSignature, DisplayPatch, MiningPatch, NotificationsPatch, PrivacyPatch, Sections, Settings,
    SoundMode, SoundPatch,
};
use crate::rules::profile::{CountryCode, DisplayName, ProfilePatch};

/// What a user changes. Absent keys stay as they are; `null` is refused.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsPatch {
    /// What a user hears of, and where.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    notifications: Option<NotificationsPatch>,
    /// What others see.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    privacy: Option<PrivacyPatch>,
    /// What the pool does for the miner.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    mining: Option<MiningPatch>,
    /// What is heard.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    sound: Option<SoundPatch>,
    /// How the dashboard looks.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    display: Option<DisplayPatch>,
    /// Public name, as in the profile.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    display_name: Option<DisplayName>,
    /// Country, as in the profile.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    country_code: Option<CountryCode>,
    /// The same as `sound.mode`.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    sound_mode: Option<SoundMode>,
    /// The same as `notifications`.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    notification_preferences: Option<NotificationsPatch>,
}

impl SettingsPatch {
    /// Brings the aliases home.
    ///
    /// # Errors
    /// 422 when an alias contradicts the key that it stands for.
    pub(crate) fn resolve(self) -> Result<Change, ApiError> {
        let mut refused = Vec::new();
        if self.notifications.is_some() && self.notification_preferences.is_some() {
            let message = "give notifications or notification_preferences, not both";
            refused.push(FieldError::new(
                "body.notification_preferences",
                FieldErrorKind::ExtraForbidden,
                message,
            ));
        }
        let mut sound = self.sound.unwrap_or_default();
        if let Some(mode) = self.sound_mode {
            if sound.mode.is_some_and(|other| other != mode) {
                let message = "says otherwise than sound.mode";
                refused.push(FieldError::new("body.sound_mode", FieldErrorKind::ExtraForbidden, message));
            }
            sound.mode = Some(mode);
        }
        if !refused.is_empty() {
            return Err(ApiError::validation(refused));
        }
        let notifications = self.notifications.or(self.notification_preferences).unwrap_or_default();
        let mining = self.mining.unwrap_or_default();
        let sections = Sections {
            notifications: serde_json::to_value(&notifications).map_err(ApiError::internal)?,
            privacy: serde_json::to_value(self.privacy.unwrap_or_default()).map_err(ApiError::internal)?,
            mining: serde_json::to_value(&mining).map_err(ApiError::internal)?,
            sound: serde_json::to_value(&sound).map_err(ApiError::internal)?,
            display: serde_json::to_value(self.display.unwrap_or_default()).map_err(ApiError::internal)?,
        };
        let profile = ProfilePatch::of(self.display_name, self.country_code);
        Ok(Change { sections, profile, notifications, coinbase: mining.coinbase_signature })
    }
}

/// A change without aliases.
pub(crate) struct Change {
    /// What goes into the row.
    pub(crate) sections: Sections,
    /// What goes into the profile.
    pub(crate) profile: ProfilePatch,
    notifications: NotificationsPatch,
    coinbase: Option<CoinbaseSignature>,
}

/// What of the account a change depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The current mining address.
    pub(crate) btc_address: Option<String>,
    /// Whether the account proved control of that address.
    pub(crate) is_verified: bool,
    /// The account's e-mail address, if it was verified.
    pub(crate) verified_email: Option<String>,
}

/// What becomes of `notifications.email`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EmailChange {
    /// Stays.
    Kept,
    /// Gone.
    Cleared,
    /// Is now the account's own, which is verified already.
    Proven,
    /// Is new and must be proven.
    Unproven(String),
}

/// What follows from a change, beside the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What becomes of `notifications.email`.
    pub(crate) email: EmailChange,
    /// What the pool shall write for the address, if that was given; empty for nothing.
    pub(crate) coinbase: Option<String>,
}

impl Change {
    /// Whether a key of `privacy` was given.
    pub(crate) fn concerns_privacy(&self) -> bool {
        self.sections.privacy.as_object().is_some_and(|privacy| !privacy.is_empty())
    }

    /// Decides on a change of the settings `before` of an `account`.
    ///
    /// # Errors
    /// 422 when notices would go by e-mail to nowhere, 409 `WALLET_UNVERIFIED` when a block would be
    /// signed for an address that was not proven.
    pub(crate) fn plan(&self, before: &Settings, account: &Account) -> Result<Plan, ApiError> {
        self.check_mail_has_an_address(before, account)?;
        let coinbase = self.coinbase.as_ref().map(|signature| signature.inner().to_owned());
        if coinbase.as_ref().is_some_and(|inner| !inner.is_empty()) && !account.is_verified {
            return Err(ApiError::new(
                ErrorCode::WalletUnverified,
                "Sign in with the mining wallet before setting a coinbase signature",
            ));
        }
        Ok(Plan { email: self.email_change(before, account), coinbase })
    }

    fn check_mail_has_an_address(&self, before: &Settings, account: &Account) -> Result<(), ApiError> {
        let patch = &self.notifications;
        let is_concerned = patch.email.is_some() || patch.email_notifications.is_some();
        let by_email = patch.email_notifications.unwrap_or(before.notifications.email_notifications);
        let email = patch.email.as_ref().map_or(before.notifications.email.as_str(), |email| email.as_str());
        if is_concerned && by_email && email.is_empty() && account.verified_email.is_none() {
            let message = "needed for emailNotifications, as the account has no verified e-mail address";
            return Err(ApiError::validation([FieldError::new(
                "body.notifications.email",
                FieldErrorKind::Missing,
                message,
            )]));
        }
        Ok(())
    }

    fn email_change(&self, before: &Settings, account: &Account) -> EmailChange {
        match self.notifications.email.as_ref().map(|email| email.as_str()) {
            None => EmailChange::Kept,
            Some(email) if email == before.notifications.email => EmailChange::Kept,
            Some("") => EmailChange::Cleared,
            Some(email) if account.verified_email.as_deref() == Some(email) => EmailChange::Proven,
            Some(email) => EmailChange::Unproven(email.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<Change, ErrorCode> {
        let patch: SettingsPatch = serde_json::from_value(body).map_err(|_| ErrorCode::ValidationError)?;
        patch.resolve().map_err(|error| error.code())
    }

    fn change(body: Value) -> Change {
        read(body).ok().unwrap()
    }

    fn account(verified_email: Option<&str>, is_verified: bool) -> Account {
        Account {
            btc_address: Some("bc1qexample".to_owned()),
            is_verified,
            verified_email: verified_email.map(str::to_owned),
        }
    }

    fn with_email(email: &str, by_email: bool) -> Settings {
        let mut settings = Settings::default();
        settings.notifications.email = email.to_owned();
        settings.notifications.email_notifications = by_email;
        settings
    }

    #[test]
    fn a_change_holds_what_was_given_and_nothing_else() {
        let change = change(json!({ "sound": { "volume": 30 }, "privacy": { "publicProfile": false } }));
        assert_eq!(change.sections.sound, json!({ "volume": 30 }));
        assert_eq!(change.sections.notifications, json!({}));
        assert_eq!(change.sections.keys(), ["privacy.publicProfile", "sound.volume"]);
        assert!(change.concerns_privacy());
        assert!(change.profile.fields().is_empty());
    }

    #[test]
    fn an_empty_change_has_no_keys() {
        for body in [json!({}), json!({ "sound": {}, "privacy": {} })] {
            let change = change(body);
            assert_eq!(change.sections, Sections::default());
            assert!(change.sections.keys().is_empty() && !change.concerns_privacy());
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for body in [
            json!({ "sound": { "volume": 101 } }),
            json!({ "sound": { "volume": "30" } }),
            json!({ "sound": { "volume": 30.0 } }),
            json!({ "sound": { "volume": null } }),
            json!({ "sound": { "x": 1 } }),
            json!({ "sound": { "mode": "loud" } }),
            json!({ "sound": { "gameSounds": 1 } }),
            json!({ "sound": null }),
            json!({ "sound": "off" }),
            json!({ "sound_mode": "loud" }),
            json!({ "sound_mode": null }),
            json!({ "unknown": {} }),
            json!({ "notifications": { "emailVerified": true } }),
            json!({ "notifications": { "email": "nobody" } }),
            json!({ "notification_preferences": null }),
            json!({ "mining": { "coinbaseSignature": "/TheBitcoinGame:1234567890123456/" } }),
            json!({ "mining": { "difficultyPreference": "max" } }),
            json!({ "display": { "timezone": "Moon/Base" } }),
            json!({ "display": { "mode": "off" } }),
            json!({ "display_name": "A" }),
            json!({ "display_name": null }),
            json!({ "country_code": "XX" }),
        ] {
            assert_eq!(read(body.clone()).err(), Some(ErrorCode::ValidationError), "{body}");
        }
    }

    #[test]
    fn aliases_stand_for_their_keys() {
        assert_eq!(change(json!({ "sound_mode": "off" })).sections.sound, json!({ "mode": "off" }));
        let both = change(json!({ "sound_mode": "off", "sound": { "mode": "off", "volume": 1 } }));
        assert_eq!(both.sections.sound, json!({ "mode": "off", "volume": 1 }));
        let preferences = change(json!({ "notification_preferences": { "inApp": false } }));
        assert_eq!(preferences.sections.notifications, json!({ "inApp": false }));
        let flat = change(json!({ "display_name": " Satoshi  Hunter", "country_code": "CH" }));
        assert_eq!(flat.profile.fields(), ["display_name", "country_code"]);
    }

    #[test]
    fn contradicting_aliases_are_refused() {
        for body in [
            json!({ "sound_mode": "off", "sound": { "mode": "full" } }),
            json!({ "notification_preferences": {}, "notifications": {} }),
        ] {
            assert_eq!(read(body.clone()).err(), Some(ErrorCode::ValidationError), "{body}");
        }
    }

    #[test]
    fn notices_by_email_need_an_address() {
        let on = json!({ "emailNotifications": true });
        let off = json!({ "emailNotifications": false });
        let to = json!({ "emailNotifications": true, "email": "miner@example.com" });
        let nowhere = json!({ "email": "" });
        let (bare, own) = (account(None, true), account(Some("own@example.com"), true));
        for (patch, before, account, is_allowed) in [
            (&on, with_email("", false), &bare, false),
            (&on, with_email("", false), &own, true),
            (&on, with_email("miner@example.com", false), &bare, true),
            (&to, with_email("", false), &bare, true),
            (&off, with_email("", true), &bare, true),
            (&nowhere, with_email("miner@example.com", true), &bare, false),
            (&nowhere, with_email("miner@example.com", true), &own, true),
            (&nowhere, with_email("miner@example.com", false), &bare, true),
        ] {
            let plan = change(json!({ "notifications": patch })).plan(&before, account);
            assert_eq!(plan.is_ok(), is_allowed, "{patch} {before:?}");
        }
        // A user without any address can still change the rest.
        assert!(change(json!({ "sound_mode": "off" })).plan(&with_email("", true), &bare).is_ok());
    }

    #[test]
    fn a_new_address_must_be_proven_unless_it_is_the_accounts() {
        let own = account(Some("own@example.com"), true);
        let before = with_email("old@example.com", false);
        for (email, expected) in [
            ("old@example.com", EmailChange::Kept),
            ("OLD@example.com", EmailChange::Kept),
            ("", EmailChange::Cleared),
            ("Own@Example.com", EmailChange::Proven),
            ("New@Example.com", EmailChange::Unproven("new@example.com".to_owned())),
        ] {
            let plan = change(json!({ "notifications": { "email": email } })).plan(&before, &own).unwrap();
            assert_eq!(plan.email, expected, "{email}");
        }
        assert_eq!(change(json!({})).plan(&before, &own).unwrap().email, EmailChange::Kept);
    }

    #[test]
    fn only_a_proven_address_signs_blocks() {
        let set = json!({ "mining": { "coinbaseSignature": "/TheBitcoinGame:SatoshiHunter/" } });
        let cleared = json!({ "mining": { "coinbaseSignature": "" } });
        let (proven, typed_in) = (account(None, true), account(None, false));
        let coinbase = |body: &Value, account: &Account| {
            let plan = change(body.clone()).plan(&Settings::default(), account);
            plan.map(|plan| plan.coinbase).map_err(|error| error.code())
        };
        assert_eq!(coinbase(&set, &proven), Ok(Some("SatoshiHunter".to_owned())));
        assert_eq!(coinbase(&set, &typed_in), Err(ErrorCode::WalletUnverified));
        assert_eq!(coinbase(&cleared, &typed_in), Ok(Some(String::new())));
        assert_eq!(coinbase(&json!({}), &typed_in), Ok(None));
    }
}
