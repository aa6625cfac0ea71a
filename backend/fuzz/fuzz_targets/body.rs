//! Any bytes as a request body: the extractors never panic, what they accept keeps every rule of its
//! type and is JSON to a lenient parser too, and what they refuse is a 4xx that repeats nothing.
#![no_main]

use std::sync::LazyLock;

use axum::body::Body as RawBody;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::{Value, json};
use tbg_web::{ApiError, Body, ErrorCode, Int, NoBody, Patch, Prose, Text, present};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// A request type with one field of each kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    name: Text<2, 20>,
    #[serde(default)]
    bio: Patch<Prose<0, 280>>,
    #[serde(default, deserialize_with = "present")]
    sound: Option<Sound>,
    #[serde(default)]
    permissions: Vec<Permission>,
    #[serde(default)]
    tags: Vec<Text<1, 9>>,
    #[serde(default)]
    ratio: Option<f64>,
    #[serde(default)]
    pair: Option<(Int<0, 9>, bool)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sound {
    volume: Int<0, 100>,
    #[serde(default, deserialize_with = "present")]
    offset: Option<Int<-5, 5>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Permission {
    Read,
    Write,
    Since(Int<0, 99>),
}

fn extract<E: FromRequest<(), Rejection = ApiError>>(bytes: &[u8]) -> Result<E, ApiError> {
    let mut request = Request::new(RawBody::from(bytes.to_vec()));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    RUNTIME.block_on(E::from_request(request, &()))
}

fn is_text(text: &str, min: usize, max: usize, lines: bool) -> bool {
    let is_clean = !text.chars().any(|c| c.is_control() && !(lines && c == '\n'));
    is_clean && (min..=max).contains(&text.chars().count())
}

fn check_profile(profile: &Profile) {
    assert!(is_text(&profile.name, 2, 20, false));
    if let Patch::Value(bio) = &profile.bio {
        assert!(is_text(bio, 0, 280, true));
    }
    if let Some(sound) = &profile.sound {
        assert!((0..=100).contains(&sound.volume.get()));
        assert!(sound.offset.is_none_or(|offset| (-5..=5).contains(&offset.get())));
    }
    for permission in &profile.permissions {
        match permission {
            Permission::Read | Permission::Write => {}
            Permission::Since(days) => assert!((0..=99).contains(&days.get())),
        }
    }
    assert!(profile.tags.iter().all(|tag| is_text(tag, 1, 9, false)));
    assert!(profile.ratio.is_none_or(f64::is_finite));
    assert!(profile.pair.is_none_or(|(number, _)| (0..=9).contains(&number.get())));
}

fn check_refusal(error: &ApiError) {
    assert!(matches!(error.code(), ErrorCode::ValidationError | ErrorCode::PayloadTooLarge), "{error:?}");
    // Paths hold harmless names and messages are ours; anything else would have been repeated.
    assert!(format!("{error:?}").is_ascii(), "{error:?}");
}

fuzz_target!(|bytes: &[u8]| {
    let lenient: Result<Value, _> = serde_json::from_slice(bytes);
    match extract::<Body<Profile>>(bytes) {
        Ok(Body(profile)) => {
            assert!(lenient.as_ref().is_ok_and(Value::is_object));
            check_profile(&profile);
        }
        Err(error) => check_refusal(&error),
    }
    match extract::<NoBody>(bytes) {
        Ok(NoBody) => assert!(bytes.is_empty() || lenient.is_ok_and(|value| value == json!({}))),
        Err(error) => check_refusal(&error),
    }
});
