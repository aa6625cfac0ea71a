//! Settings: five sections of typed keys with defaults (contract `auth-users.md` §7).
//!
//! The database holds only what a user changed ([`Stored`]); [`Settings::of`] lays it over the
//! defaults. A missing row, an empty section and a key that nobody set all read as the default, so a
//! new key needs no migration and nobody's profile turns private by accident.

mod patch;
mod values;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub(crate) use patch::{Account, Change, EmailChange, Plan, SettingsPatch};
use values::{
    CoinbaseSignature, DifficultyPreference, DisplayMode, NotificationEmail, SoundMode, Timezone, Volume,
};

/// A section twice: whole with its defaults, as it is read, and partial, as it is changed. `=>` parts
/// the type that is read from the type that checks a change: what was stored once stays readable when a
/// rule becomes stricter.
macro_rules! section {
    (
        $(#[$doc:meta])*
        $whole:ident, $partial:ident {
            $($(#[$key_doc:meta])* $key:ident: $checked:ident => $read:ident = $default:expr,)*
        }
        read_only { $($(#[$only_doc:meta])* $only:ident,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        pub(crate) struct $whole {
            $($(#[$key_doc])* pub(crate) $key: $read,)*
            $($(#[$only_doc])* pub(crate) $only: bool,)*
        }

        impl Default for $whole {
            fn default() -> Self {
                Self { $($key: $default,)* $($only: false,)* }
            }
        }

        $(#[$doc])*
        #[derive(Default, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(crate) struct $partial {
            $(
                $(#[$key_doc])*
                #[serde(
                    default,
                    deserialize_with = "tbg_web::present",
                    skip_serializing_if = "Option::is_none"
                )]
                #[schema(nullable = false)]
                pub(crate) $key: Option<$checked>,
            )*
        }
    };
}

section! {
    /// What a user hears of, and where.
    NotificationSettings, NotificationsPatch {
        /// A new personal best.
        personal_best: bool => bool = true,
        /// An earned badge.
        badge_earned: bool => bool = true,
        /// A match of the world cup.
        world_cup_match: bool => bool = true,
        /// Results of the lottery.
        lottery_results: bool => bool = true,
        /// A block found by anybody.
        block_found_any: bool => bool = false,
        /// A change of rank.
        leaderboard_change: bool => bool = false,
        /// News of one's cooperative.
        coop_activity: bool => bool = false,
        /// A lesson worth reading.
        education_recommendation: bool => bool = false,
        /// Show notices in the dashboard.
        in_app: bool => bool = true,
        /// Show notices through the browser.
        browser_push: bool => bool = false,
        /// Send notices by e-mail.
        email_notifications: bool => bool = false,
        /// Address for notices; empty for the account's.
        email: NotificationEmail => String = String::new(),
    }
    read_only {
        /// Whether `email` was proven.
        email_verified,
    }
}

section! {
    /// What others see.
    PrivacySettings, PrivacyPatch {
        /// The profile can be looked up.
        public_profile: bool => bool = true,
        /// The name stands on the leaderboards.
        show_on_leaderboard: bool => bool = true,
        /// The country is shown.
        show_country_flag: bool => bool = true,
        /// The name stands in cooperative rankings.
        show_in_coop_rankings: bool => bool = true,
    }
    read_only {}
}

section! {
    /// What the pool does for the miner.
    MiningSettings, MiningPatch {
        /// Text in the coinbase of a found block; empty for none.
        coinbase_signature: CoinbaseSignature => String = String::new(),
        /// Start difficulty.
        difficulty_preference: DifficultyPreference => DifficultyPreference = DifficultyPreference::Auto,
    }
    read_only {}
}

section! {
    /// What is heard.
    SoundSettings, SoundPatch {
        /// How much.
        mode: SoundMode => SoundMode = SoundMode::Subtle,
        /// Sounds of the mini games.
        game_sounds: bool => bool = true,
        /// Percent.
        volume: Volume => u8 = 80,
    }
    read_only {}
}

section! {
    /// How the dashboard looks.
    DisplaySettings, DisplayPatch {
        /// How much it shows.
        mode: DisplayMode => DisplayMode = DisplayMode::Full,
        /// Fewer animations.
        reduced_motion: bool => bool = false,
        /// Less space.
        compact_mode: bool => bool = false,
        /// IANA zone in which times are shown.
        timezone: Timezone => String = "UTC".to_owned(),
    }
    read_only {}
}

/// All settings of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = UserSettings)]
pub(crate) struct Settings {
    /// What a user hears of, and where.
    pub(crate) notifications: NotificationSettings,
    /// What others see.
    pub(crate) privacy: PrivacySettings,
    /// What the pool does for the miner.
    pub(crate) mining: MiningSettings,
    /// What is heard.
    pub(crate) sound: SoundSettings,
    /// How the dashboard looks.
    pub(crate) display: DisplaySettings,
}

impl Settings {
    /// What is stored, laid over the defaults.
    ///
    /// # Errors
    /// When a stored value is not of its key's type. A default in its place could show what was hidden.
    pub(crate) fn of(stored: &Stored) -> Result<Self, serde_json::Error> {
        let sections = &stored.sections;
        let mut settings = Self {
            notifications: over_defaults(&sections.notifications)?,
            privacy: over_defaults(&sections.privacy)?,
            mining: over_defaults(&sections.mining)?,
            sound: over_defaults(&sections.sound)?,
            display: over_defaults(&sections.display)?,
        };
        let email = &settings.notifications.email;
        settings.notifications.email_verified = !email.is_empty() && stored.email_verified_at.is_some();
        Ok(settings)
    }
}

fn over_defaults<T: Default + Serialize + DeserializeOwned>(stored: &Value) -> Result<T, serde_json::Error> {
    let mut whole = serde_json::to_value(T::default())?;
    if let (Value::Object(whole), Value::Object(stored)) = (&mut whole, stored) {
        whole.extend(stored.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    serde_json::from_value(whole)
}

/// One JSON object per section: of a row, what was ever changed; of a request, what changes now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sections {
    /// Overrides of [`NotificationSettings`].
    pub(crate) notifications: Value,
    /// Overrides of [`PrivacySettings`].
    pub(crate) privacy: Value,
    /// Overrides of [`MiningSettings`].
    pub(crate) mining: Value,
    /// Overrides of [`SoundSettings`].
    pub(crate) sound: Value,
    /// Overrides of [`DisplaySettings`].
    pub(crate) display: Value,
}

impl Default for Sections {
    fn default() -> Self {
        let empty = || Value::Object(Map::new());
        Self { notifications: empty(), privacy: empty(), mining: empty(), sound: empty(), display: empty() }
    }
}

impl Sections {
    /// The given keys as `section.key`.
    pub(crate) fn keys(&self) -> Vec<String> {
        let sections = [
            ("notifications", &self.notifications),
            ("privacy", &self.privacy),
            ("mining", &self.mining),
            ("sound", &self.sound),
            ("display", &self.display),
        ];
        let keys_of = |(section, value): (&str, &Value)| -> Vec<String> {
            value.as_object().into_iter().flat_map(Map::keys).map(|key| format!("{section}.{key}")).collect()
        };
        sections.into_iter().flat_map(keys_of).collect()
    }
}

/// A row of `user_settings`; the default is a user without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stored {
    /// What was ever changed.
    pub(crate) sections: Sections,
    /// When `notifications.email` was proven.
    pub(crate) email_verified_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::json;

    fn stored(sections: Sections) -> Stored {
        Stored { sections, email_verified_at: None }
    }

    #[test]
    fn a_user_without_a_row_has_the_defaults() {
        let settings = Settings::of(&Stored::default()).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(
            json!(settings),
            json!({
                "notifications": {
                    "personalBest": true, "badgeEarned": true, "worldCupMatch": true, "lotteryResults": true,
                    "blockFoundAny": false, "leaderboardChange": false, "coopActivity": false,
                    "educationRecommendation": false, "inApp": true, "browserPush": false,
                    "emailNotifications": false, "email": "", "emailVerified": false,
                },
                "privacy": {
                    "publicProfile": true, "showOnLeaderboard": true, "showCountryFlag": true,
                    "showInCoopRankings": true,
                },
                "mining": { "coinbaseSignature": "", "difficultyPreference": "auto" },
                "sound": { "mode": "subtle", "gameSounds": true, "volume": 80 },
                "display": { "mode": "full", "reducedMotion": false, "compactMode": false, "timezone": "UTC" },
            })
        );
    }

    #[test]
    fn an_address_is_verified_while_there_is_one() {
        let at = DateTime::from_timestamp(1_771_804_800, 0);
        let proven = |email: &str| {
            let sections = Sections { notifications: json!({ "email": email }), ..Sections::default() };
            let stored = Stored { sections, email_verified_at: at };
            Settings::of(&stored).unwrap().notifications.email_verified
        };
        assert!(proven("miner@example.com"));
        assert!(!proven(""));
    }

    #[test]
    fn a_stored_value_of_another_type_is_an_error_and_no_default() {
        let sections = Sections { privacy: json!({ "publicProfile": "no" }), ..Sections::default() };
        assert!(Settings::of(&stored(sections)).is_err());
    }

    #[test]
    fn a_key_of_a_later_version_is_passed_over() {
        let sections = Sections { privacy: json!({ "future": 1 }), ..Sections::default() };
        assert_eq!(Settings::of(&stored(sections)).unwrap(), Settings::default());
    }

    #[test]
    fn keys_are_named_by_section() {
        let sections = Sections {
            privacy: json!({ "publicProfile": false }),
            sound: json!({ "volume": 1 }),
            ..Sections::default()
        };
        assert_eq!(sections.keys(), ["privacy.publicProfile", "sound.volume"]);
        assert!(Sections::default().keys().is_empty());
    }

    fn given<T: Into<Value>>(key: &str, value: Option<T>) -> Map<String, Value> {
        value.into_iter().map(|value| (key.to_owned(), value.into())).collect()
    }

    prop_compose! {
        fn sound()(
            mode in option::of(prop::sample::select(vec!["off", "subtle", "full"])),
            sounds in option::of(any::<bool>()),
            volume in option::of(0_u8..=100),
        ) -> Map<String, Value> {
            let parts = [given("mode", mode), given("gameSounds", sounds), given("volume", volume)];
            parts.into_iter().flatten().collect()
        }
    }

    proptest! {
        /// The database merges like this: `section || patch`.
        #[test]
        fn a_patched_key_reads_as_patched_and_any_other_as_before(first in sound(), second in sound()) {
            let mut section = Map::new();
            let mut before = json!(Settings::default());
            for patch in [first, second] {
                section.extend(patch.clone());
                let sections = Sections { sound: Value::Object(section.clone()), ..Sections::default() };
                let after = json!(Settings::of(&stored(sections)).unwrap());
                for (key, was) in before["sound"].as_object().unwrap() {
                    prop_assert_eq!(&after["sound"][key], patch.get(key).unwrap_or(was));
                }
                for untouched in ["notifications", "privacy", "mining", "display"] {
                    prop_assert_eq!(&after[untouched], &before[untouched]);
                }
                before = after;
            }
        }
    }
}
