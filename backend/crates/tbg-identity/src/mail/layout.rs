//! How a letter looks, as HTML and as plain text. Letters hold plain text only: this is the one place that
//! writes HTML, so nothing reaches it without being escaped. No image, no script, nothing remote.

/// Background of the page.
const BACKGROUND: &str = "#06080C";
/// Everything that is read.
const TEXT: &str = "#E6EDF3";
/// The one button.
const ACCENT: &str = "#F7931A";

/// In whose name a letter is written.
#[derive(Clone, Debug)]
pub(super) struct Brand {
    /// Name of the game.
    pub(super) name: String,
    /// Base of all links, without a slash at its end.
    pub(super) frontend: String,
    /// Address for help.
    pub(super) support_email: String,
}

impl Brand {
    /// A brand whose links start with `frontend_base_url`.
    pub(super) fn new(name: &str, frontend_base_url: &str, support_email: &str) -> Self {
        Self {
            name: name.to_owned(),
            frontend: frontend_base_url.trim_end_matches('/').to_owned(),
            support_email: support_email.to_owned(),
        }
    }

    fn preferences_url(&self) -> String {
        format!("{}/settings/notifications", self.frontend)
    }
}

/// The call to action.
#[derive(Clone, Debug)]
pub(super) struct Button {
    /// What it says.
    pub(super) label: &'static str,
    /// Where it leads.
    pub(super) url: String,
}

/// What a mail says, in plain text.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// Subject, one line.
    pub(super) subject: String,
    /// Whom it greets.
    pub(super) name: String,
    /// What is said before the button.
    pub(super) paragraphs: Vec<String>,
    /// The call to action.
    pub(super) button: Option<Button>,
    /// What is said after the button.
    pub(super) notes: Vec<String>,
}

impl Letter {
    fn greeting(&self) -> String {
        format!("Hi {},", self.name)
    }
}

/// The letter as HTML.
pub(super) fn html(letter: &Letter, brand: &Brand) -> String {
    let mut body = paragraph(&letter.greeting());
    letter.paragraphs.iter().for_each(|text| body.push_str(&paragraph(text)));
    if let Some(button) = &letter.button {
        body.push_str(&call_to_action(button));
    }
    letter.notes.iter().for_each(|text| body.push_str(&paragraph(text)));
    let (subject, name) = (escape(&letter.subject), escape(&brand.name));
    let preferences = escape(&brand.preferences_url());
    format!(
        "<!doctype html>\n\
         <html lang=\"en\">\n\
         <head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{subject}</title></head>\n\
         <body style=\"margin:0;padding:0;background:{BACKGROUND};color:{TEXT}\">\n\
         <table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" \
         bgcolor=\"{BACKGROUND}\">\n\
         <tr><td align=\"center\" style=\"padding:32px 16px\">\n\
         <div style=\"max-width:560px;text-align:left;color:{TEXT};\
         font-family:Arial,Helvetica,sans-serif;font-size:16px;line-height:24px\">\n\
         <p style=\"margin:0 0 24px;font-size:20px;font-weight:bold;color:{TEXT}\">{name}</p>\n\
         {body}\
         <p style=\"margin:32px 0 0;font-size:13px;line-height:20px;color:{TEXT}\">\
         You get this mail because of your account at {name}.<br>\
         <a href=\"{preferences}\" style=\"color:{TEXT}\">Notification preferences</a></p>\n\
         </div>\n\
         </td></tr>\n\
         </table>\n\
         </body>\n\
         </html>\n"
    )
}

fn paragraph(text: &str) -> String {
    let text = escape(text).replace('\n', "<br>");
    format!("<p style=\"margin:0 0 16px;color:{TEXT}\">{text}</p>\n")
}

/// The button, and its address for readers whose program does not show it.
fn call_to_action(button: &Button) -> String {
    let (label, url) = (escape(button.label), escape(&button.url));
    format!(
        "<p style=\"margin:24px 0\"><a href=\"{url}\" style=\"display:inline-block;padding:12px 24px;\
         border-radius:6px;background:{ACCENT};color:{BACKGROUND};font-weight:bold;text-decoration:none\">\
         {label}</a></p>\n\
         <p style=\"margin:0 0 16px;font-size:13px;line-height:20px;word-break:break-all;color:{TEXT}\">\
         Or open {url}</p>\n"
    )
}

/// The letter as plain text.
pub(super) fn text(letter: &Letter, brand: &Brand) -> String {
    let mut blocks = vec![letter.greeting()];
    blocks.extend(letter.paragraphs.iter().cloned());
    blocks.extend(letter.button.iter().map(|button| format!("{}:\n{}", button.label, button.url)));
    blocks.extend(letter.notes.iter().cloned());
    blocks.push(format!(
        "-- \n{}\nYou get this mail because of your account.\nNotification preferences: {}",
        brand.name,
        brand.preferences_url()
    ));
    blocks.join("\n\n") + "\n"
}

/// Text that is safe between tags and in double or single quotes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}
