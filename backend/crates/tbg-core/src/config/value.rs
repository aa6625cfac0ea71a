//! How the text of a setting becomes its value, and how it is shown.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use tbg_bitcoin::Network;

/// A type that a setting can have.
pub trait SettingValue: Sized {
    /// Whether production takes it from files only.
    const IS_SECRET: bool = false;

    /// Parses the text.
    ///
    /// # Errors
    /// What would have been accepted.
    fn parse(text: &str) -> Result<Self, &'static str>;
    /// The value as `tbg config` prints it.
    fn show(&self) -> String;
}

/// A text that is never shown.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// The text itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl SettingValue for Secret {
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, &'static str> {
        Ok(Self(text.to_owned().into()))
    }

    fn show(&self) -> String {
        if self.expose().is_empty() { "(not set)" } else { "(hidden)" }.to_owned()
    }
}

/// Defines an enum whose values are named by lower-case texts.
macro_rules! named_values {
    ($(#[doc = $doc:literal])+ $name:ident, $expected:literal, { $($(#[doc = $vdoc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $vdoc])+ $variant,)+ }

        impl $name {
            /// The text that names the value.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl SettingValue for $name {
            fn parse(text: &str) -> Result<Self, &'static str> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err($expected) }
            }

            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}

named_values! {
    /// What kind of deployment this is.
    Environment, "development, test, staging or production", {
        /// A developer's machine.
        Development = "development",
        /// Automated tests.
        Test = "test",
        /// Like production, for rehearsal.
        Staging = "staging",
        /// Real people.
        Production = "production",
    }
}

named_values! {
    /// Where events come from (contract `mining.md` §3.1).
    IngestMode, "embedded, streams or off", {
        /// Our own socket receiver fills the streams.
        Embedded = "embedded",
        /// An external collector fills the streams and writes raw rows.
        Streams = "streams",
        /// No ingest in this process.
        Off = "off",
    }
}

named_values! {
    /// How log lines look.
    LogFormat, "text, json or auto", {
        /// For people.
        Text = "text",
        /// For machines.
        Json = "json",
        /// JSON in production, text elsewhere.
        Auto = "auto",
    }
}

named_values! {
    /// How mail leaves the house (contract `auth-users.md` §5).
    MailProvider, "smtp, resend, ses or log", {
        /// A mail server.
        Smtp = "smtp",
        /// Resend.
        Resend = "resend",
        /// Amazon SES.
        Ses = "ses",
        /// The log, for everything but production.
        Log = "log",
    }
}

/// Networks in CIDR notation, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl SettingValue for Networks {
    fn parse(text: &str) -> Result<Self, &'static str> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)))
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|_| "networks such as 10.0.0.0/8,fd00::/8")
    }

    fn show(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl SettingValue for String {
    fn parse(text: &str) -> Result<Self, &'static str> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl SettingValue for PathBuf {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() { Err("a path") } else { Ok(Self::from(text)) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl SettingValue for bool {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("true or false"),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Values that `FromStr` and `Display` already describe.
macro_rules! plain_values {
    ($($type:ty, $expected:literal, $valid:expr;)+) => {
        $(impl SettingValue for $type {
            fn parse(text: &str) -> Result<Self, &'static str> {
                let valid: fn(&Self) -> bool = $valid;
                text.parse().ok().filter(valid).ok_or($expected)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        })+
    };
}

plain_values! {
    u16, "a whole number of at least 1", |n| *n >= 1;
    u32, "a whole number of at least 1", |n| *n >= 1;
    u64, "a whole number", |_| true;
    usize, "a whole number of at least 1", |n| *n >= 1;
    SocketAddr, "an address and port such as 0.0.0.0:8000", |_| true;
    Network, "mainnet, testnet, signet or regtest", |_| true;
}

impl<T: SettingValue> SettingValue for Option<T> {
    const IS_SECRET: bool = T::IS_SECRET;

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "(automatic)".to_owned(), SettingValue::show)
    }
}
