//! What each mail says (contract `auth-users.md` §5). Rendering is pure: the same input, the same mail.

use std::net::IpAddr;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::layout::{self, Brand, Button, Letter};

/// Whom a mail greets when the account has no name.
const NAMELESS: &str = "Miner";
/// Longest subject, in characters.
const MAX_SUBJECT_CHARS: usize = 150;

/// What a mail is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Registration; carries the link that proves the address.
    Welcome,
    /// That link again, or for another address.
    VerifyEmail,
    /// The link to a new password.
    PasswordReset,
    /// The password is another one now.
    PasswordChanged,
    /// Something happened in the game.
    Notification,
}

impl Template {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Welcome, Self::VerifyEmail, Self::PasswordReset, Self::PasswordChanged, Self::Notification];

    /// The name in `email_outbox.template`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::VerifyEmail => "verify_email",
            Self::PasswordReset => "password_reset",
            Self::PasswordChanged => "password_changed",
            Self::Notification => "notification",
        }
    }

    /// The template of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|template| template.as_str() == name)
    }

    /// Whether the recipient's limit applies. A security notice must arrive.
    pub(super) fn is_limited(self) -> bool {
        self != Self::PasswordChanged
    }
}

/// What a verified address is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// The account's own address.
    #[default]
    Account,
    /// The address that notifications go to.
    Notification,
}

impl Purpose {
    /// The name in `email_verification_tokens.purpose`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Notification => "notification",
        }
    }

    /// The purpose of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Account, Self::Notification].into_iter().find(|purpose| purpose.as_str() == name)
    }
}

/// What a mail says beyond its template: the keys of `email_outbox.context`, all optional. Never a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// Whom the mail greets.
    pub display_name: Option<String>,
    /// What the address is verified for (welcome, verify_email).
    pub purpose: Purpose,
    /// From where a password reset was asked for; stored with the token, not shown.
    pub requested_from: Option<IpAddr>,
    /// Headline of a notification.
    pub title: Option<String>,
    /// Text of a notification.
    pub description: Option<String>,
    /// Path in the client that a notification leads to.
    pub action_url: Option<String>,
}

/// A token that was minted for the mail.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The token itself.
    pub(super) text: String,
    /// How long it works.
    pub(super) valid_for: TimeDelta,
}

/// A mail that can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    /// Subject, one line.
    pub(super) subject: String,
    /// The HTML part.
    pub(super) html: String,
    /// The plain text part.
    pub(super) text: String,
    /// Where the button leads.
    pub(super) link: Option<String>,
}

/// Writes the mail. `token` is for the templates that carry one.
pub(super) fn render(
    template: Template,
    context: &Context,
    token: Option<&Token>,
    brand: &Brand,
) -> Rendered {
    let letter = match template {
        Template::Welcome => welcome(context, token, brand),
        Template::VerifyEmail => verify_email(context, token, brand),
        Template::PasswordReset => password_reset(context, token, brand),
        Template::PasswordChanged => password_changed(context, brand),
        Template::Notification => notification(context, brand),
    };
    Rendered {
        html: layout::html(&letter, brand),
        text: layout::text(&letter, brand),
        subject: letter.subject,
        link: letter.button.map(|button| button.url),
    }
}

fn welcome(context: &Context, token: Option<&Token>, brand: &Brand) -> Letter {
    let mut letter = verify_email(context, token, brand);
    letter.subject = one_line(&format!("Welcome to {}", brand.name));
    letter.paragraphs = vec![
        format!("Welcome to {}! Your account is ready.", brand.name),
        "Please confirm your e-mail address, so that we can reach you when your miner finds something."
            .to_owned(),
    ];
    letter
}

fn verify_email(context: &Context, token: Option<&Token>, brand: &Brand) -> Letter {
    let purpose = match context.purpose {
        Purpose::Account => "Please confirm that this is your e-mail address.",
        Purpose::Notification => "Please confirm that notifications may be sent to this e-mail address.",
    };
    Letter {
        subject: "Confirm your e-mail address".to_owned(),
        name: name(context),
        paragraphs: vec![purpose.to_owned()],
        button: token_button("Confirm E-mail Address", "/auth/verify-email", token, brand),
        notes: token_notes(token, "If this was not you, ignore this mail."),
    }
}

fn password_reset(context: &Context, token: Option<&Token>, brand: &Brand) -> Letter {
    Letter {
        subject: "Reset your password".to_owned(),
        name: name(context),
        paragraphs: vec![format!("Somebody asked for a new password for your account at {}.", brand.name)],
        button: token_button("Choose a New Password", "/auth/reset-password", token, brand),
        notes: token_notes(token, "If this was not you, ignore this mail: your password stays as it is."),
    }
}

fn password_changed(context: &Context, brand: &Brand) -> Letter {
    Letter {
        subject: "Your password was changed".to_owned(),
        name: name(context),
        paragraphs: vec![
            format!(
                "The password of your account at {} was changed. Other devices are signed out.",
                brand.name
            ),
            format!("If this was not you, write to {} at once.", brand.support_email),
        ],
        button: Some(Button { label: "Contact Support", url: format!("mailto:{}", brand.support_email) }),
        notes: Vec::new(),
    }
}

fn notification(context: &Context, brand: &Brand) -> Letter {
    let title = one_line(context.title.as_deref().unwrap_or_default());
    let subject = if title.is_empty() { one_line(&brand.name) } else { title };
    let description = context.description.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let path = context.action_url.as_deref().filter(|path| is_client_path(path));
    Letter {
        name: name(context),
        paragraphs: [Some(subject.clone()), description.map(str::to_owned)].into_iter().flatten().collect(),
        button: path.map(|path| Button { label: "Open the Game", url: format!("{}{path}", brand.frontend) }),
        notes: Vec::new(),
        subject,
    }
}

/// A path on our own site, whatever is appended to its base: it cannot change the host.
fn is_client_path(path: &str) -> bool {
    path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && c != '\\')
}

fn token_button(label: &'static str, path: &str, token: Option<&Token>, brand: &Brand) -> Option<Button> {
    token.map(|token| Button { label, url: format!("{}{path}?token={}", brand.frontend, token.text) })
}

fn token_notes(token: Option<&Token>, otherwise: &str) -> Vec<String> {
    let validity = token.map(|token| format!("The link works once, for {}.", lasting(token.valid_for)));
    validity.into_iter().chain([otherwise.to_owned()]).collect()
}

fn name(context: &Context) -> String {
    let name = one_line(context.display_name.as_deref().unwrap_or_default());
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}

/// The text without line breaks and other control characters, not longer than a subject may be.
fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().chars().take(MAX_SUBJECT_CHARS).collect()
}

fn lasting(time: TimeDelta) -> String {
    match time.num_minutes() {
        minutes if minutes >= 120 && minutes % 60 == 0 => format!("{} hours", minutes / 60),
        minutes => format!("{minutes} minutes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brand() -> Brand {
        Brand::new("The Bitcoin Game", "https://game.test/", "support@game.test")
    }

    fn token(minutes: i64) -> Token {
        Token { text: "T".repeat(64), valid_for: TimeDelta::minutes(minutes) }
    }

    fn hostile() -> Context {
        let evil = "<script>alert('x')</script>\"&\r\nBcc: a@b.c";
        Context {
            display_name: Some(evil.to_owned()),
            title: Some(evil.to_owned()),
            description: Some(evil.to_owned()),
            action_url: Some("/coop?a=\"><script>&b='1'".to_owned()),
            ..Context::default()
        }
    }

    #[test]
    fn names_are_those_of_the_outbox_and_unknown_ones_are_none() {
        let names = Template::ALL.map(Template::as_str);
        assert_eq!(names, ["welcome", "verify_email", "password_reset", "password_changed", "notification"]);
        assert!(
            Template::ALL.into_iter().all(|template| Template::parse(template.as_str()) == Some(template))
        );
        assert_eq!(Template::parse("newsletter"), None);
        assert_eq!(Purpose::parse("notification"), Some(Purpose::Notification));
        assert_eq!(Purpose::parse("x"), None);
    }

    #[test]
    fn every_value_is_escaped_and_no_header_can_be_smuggled_in() {
        for template in Template::ALL {
            let mail = render(template, &hostile(), Some(&token(60)), &brand());
            assert!(!mail.html.contains("<script"), "{}", mail.html);
            assert!(mail.html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
            assert!(!mail.subject.contains(['\r', '\n']), "{:?}", mail.subject);
        }
        let odd = Brand::new("A & <B>", "https://game.test", "a&b@game.test");
        let mail = render(Template::PasswordChanged, &Context::default(), None, &odd);
        assert!(mail.html.contains("A &amp; &lt;B&gt;") && mail.html.contains("mailto:a&amp;b@game.test"));
    }

    #[test]
    fn a_mail_loads_nothing_and_links_to_us_alone() {
        let context = Context {
            title: Some("Title".to_owned()),
            action_url: Some("/mining/blocks".to_owned()),
            ..Context::default()
        };
        for template in Template::ALL {
            let html = render(template, &context, Some(&token(60)), &brand()).html;
            for word in ["src=", "<img", "<script", "<link", "<iframe", "url(", "@import", "background="] {
                assert!(!html.contains(word), "{word} in {html}");
            }
            let allowed = html.matches("https://game.test/").count();
            assert_eq!(html.matches("http").count(), allowed, "{html}");
            assert!(html.contains("href=\"https://game.test/settings/notifications\""));
        }
    }

    #[test]
    fn the_colours_are_those_of_the_game_and_the_accent_is_the_button_only() {
        for template in Template::ALL {
            let context = Context { action_url: Some("/coop".to_owned()), ..Context::default() };
            let html = render(template, &context, Some(&token(60)), &brand()).html;
            assert_eq!(html.matches("#F7931A").count(), 1, "{html}");
            assert!(html.contains("background:#06080C") && html.contains("color:#E6EDF3"));
        }
    }

    #[test]
    fn the_link_stands_in_both_parts() {
        let token = token(60);
        for (template, path) in [
            (Template::Welcome, "/auth/verify-email"),
            (Template::VerifyEmail, "/auth/verify-email"),
            (Template::PasswordReset, "/auth/reset-password"),
        ] {
            let mail = render(template, &Context::default(), Some(&token), &brand());
            let link = format!("https://game.test{path}?token={}", token.text);
            assert_eq!(mail.link.as_deref(), Some(link.as_str()));
            assert!(mail.text.contains(&link) && mail.html.contains(&format!("href=\"{link}\"")));
            assert!(mail.text.contains("60 minutes"), "{}", mail.text);
        }
        let changed = render(Template::PasswordChanged, &Context::default(), None, &brand());
        assert_eq!(changed.link.as_deref(), Some("mailto:support@game.test"));
        assert!(changed.text.contains("support@game.test"));
    }

    #[test]
    fn validity_is_told_in_hours_where_it_is_whole_hours() {
        let mail = render(Template::Welcome, &Context::default(), Some(&token(24 * 60)), &brand());
        assert!(mail.text.contains("24 hours"));
        assert_eq!(lasting(TimeDelta::minutes(90)), "90 minutes");
    }

    #[test]
    fn the_greeting_falls_back_to_miner() {
        let greeted = |name: Option<&str>| {
            let context = Context { display_name: name.map(str::to_owned), ..Context::default() };
            render(Template::PasswordChanged, &context, None, &brand()).text
        };
        assert!(greeted(Some("Satoshi Hunter")).starts_with("Hi Satoshi Hunter,\n"));
        for nameless in [None, Some(""), Some("  ")] {
            assert!(greeted(nameless).starts_with("Hi Miner,\n"));
        }
    }

    #[test]
    fn a_notification_links_to_paths_of_the_client_only() {
        let linked = |path: Option<&str>| {
            let context = Context {
                title: Some("You Found a Block!".to_owned()),
                description: Some("Block #900000".to_owned()),
                action_url: path.map(str::to_owned),
                ..Context::default()
            };
            render(Template::Notification, &context, None, &brand())
        };
        let mail = linked(Some("/mining/blocks"));
        assert_eq!(mail.link.as_deref(), Some("https://game.test/mining/blocks"));
        assert_eq!(mail.subject, "You Found a Block!");
        assert!(mail.text.contains("Block #900000") && mail.text.contains("https://game.test/mining/blocks"));
        for path in
            [None, Some(""), Some(".evil.test"), Some("@evil.test"), Some("https://evil.test"), Some("/a b")]
        {
            let mail = linked(path);
            assert_eq!(mail.link, None);
            assert!(!mail.html.contains("evil"));
        }
    }

    #[test]
    fn a_context_may_lack_any_key_and_have_more() {
        let context: Context =
            serde_json::from_str(r#"{"purpose":"notification","display_name":null,"later":1}"#).unwrap();
        assert_eq!(context, Context { purpose: Purpose::Notification, ..Context::default() });
        assert!(serde_json::from_str::<Context>(r#"{"purpose":"spam"}"#).is_err());
    }
}
