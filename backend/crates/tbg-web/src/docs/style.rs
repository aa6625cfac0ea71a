//! The style of the API page, without what its Content-Security-Policy forbids.
//!
//! The policy allows images of our own host only, and Swagger UI's style carries its icons as `data:`
//! URLs. Here they become files: an icon that is dropped would be a button that cannot be seen.
//! Contract: `production.md` section 6.

use std::io::Read as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use flate2::read::GzDecoder;
use percent_encoding::percent_decode_str;
use utoipa_swagger_ui::Config;

const FILE: &str = "swagger-ui.css";

/// The style and its icons, under `root`. They take precedence over Swagger UI's own file.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(root: &str) -> Router<S> {
    let Some(original) = original() else { return Router::new() };
    let style = Style::of(&original);
    let files = style.icons.into_iter().enumerate().fold(Router::new(), |files, (number, icon)| {
        files.route(&format!("{root}/{}", icon_name(number)), get(file("image/svg+xml", icon)))
    });
    files.route(&format!("{root}/{FILE}"), get(file("text/css", style.text)))
}

fn file(content_type: &'static str, text: String) -> impl IntoResponse + Clone {
    ([(CONTENT_TYPE, content_type)], Bytes::from(text))
}

/// Swagger UI's own, which is compiled in with gzip. None if its next release calls or packs it otherwise: a test
/// would fail.
fn original() -> Option<String> {
    let file = utoipa_swagger_ui::serve(FILE, Arc::new(Config::default())).ok()??;
    let mut text = String::new();
    GzDecoder::new(file.bytes.as_ref()).read_to_string(&mut text).ok()?;
    Some(text)
}

struct Style {
    text: String,
    /// SVG documents, in the order of their names.
    icons: Vec<String>,
}

impl Style {
    /// Takes the icons out of `original`. Raster images belong to parts of Swagger UI that we do not show.
    fn of(original: &str) -> Self {
        let mut style = Self { text: String::with_capacity(original.len()), icons: Vec::new() };
        let mut rest = original;
        while let Some(at) = rest.find("url(") {
            let (before, from_url) = rest.split_at(at);
            style.text.push_str(before);
            rest = style.take_url(from_url);
        }
        style.text.push_str(rest);
        style
    }

    /// Writes what stands for the URL at the start of `text`, and returns what follows it.
    fn take_url<'a>(&mut self, text: &'a str) -> &'a str {
        const ICON: &str = "url(\"data:image/svg+xml;charset=utf-8,";
        const RASTER: &str = "url(data:";
        if let Some((icon, after)) = text.strip_prefix(ICON).and_then(|text| text.split_once("\")")) {
            let name = icon_name(self.icons.len());
            self.icons.push(percent_decode_str(&icon.replace("\\\"", "\"")).decode_utf8_lossy().into_owned());
            self.text.push_str(&format!("url({name})"));
            after
        } else if let Some((_, after)) = text.strip_prefix(RASTER).and_then(|text| text.split_once(')')) {
            self.text.push_str("none");
            after
        } else {
            let (word, after) = text.split_at("url(".len());
            self.text.push_str(word);
            after
        }
    }
}

fn icon_name(number: usize) -> String {
    format!("icon-{number}.svg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icons_become_files_and_raster_images_go() {
        let style = Style::of(
            r#"a{b:url("data:image/svg+xml;charset=utf-8,<svg x=\"1\" fill='%23fff' t='m(1)'/>") 1px}c{d:url(data:image/png;base64,AA==)}e{f:url(g.svg)}"#,
        );
        assert_eq!(style.text, "a{b:url(icon-0.svg) 1px}c{d:none}e{f:url(g.svg)}");
        assert_eq!(style.icons, [r#"<svg x="1" fill='#fff' t='m(1)'/>"#]);
    }

    #[test]
    fn nothing_of_the_real_style_is_left_that_the_policy_forbids() {
        let style = Style::of(&original().unwrap());
        assert!(!style.text.contains("data:"));
        assert_eq!(style.icons.len(), 8);
        for icon in style.icons {
            assert!(icon.starts_with("<svg") && icon.ends_with("</svg>"), "{icon}");
        }
    }
}
