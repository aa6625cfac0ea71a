//! What a handler takes from a request (contract `auth-users.md` section 1.1, `production.md`
//! section 4): whatever does not fit is a 4xx that names the field and repeats nothing.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body as RawBody, Bytes};
use axum::http::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::routing::{get as on_get, post as on_post};
use axum::{Json, Router};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tbg_web::auth::Class;
use tbg_web::{Body, Int, MAX_BODY_BYTES, NoBody, Patch, Prose, Query, Routes, Text, present};

use crate::{Answer, get, send, service};

const SECRET: &str = "hunter2";

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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sound {
    volume: Int<0, 100>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Permission {
    Read,
    Write,
}

#[derive(Deserialize)]
struct Listing {
    limit: Option<Int<1, 100>>,
    cursor: Option<Text<1, 200>>,
}

async fn save(Body(profile): Body<Profile>) -> Json<Value> {
    let words = profile.permissions.iter().map(|permission| match permission {
        Permission::Read => "read",
        Permission::Write => "write",
    });
    Json(json!({
        "name": profile.name.as_str(),
        "bio_is_absent": profile.bio.is_absent(),
        "volume": profile.sound.map(|sound| sound.volume.get()),
        "permissions": words.collect::<Vec<_>>(),
    }))
}

async fn poke(_: NoBody) -> Json<Value> {
    Json(json!({}))
}

async fn list(Query(listing): Query<Listing>) -> Json<Value> {
    Json(json!({"limit": listing.limit.map(Int::get), "has_cursor": listing.cursor.is_some()}))
}

fn strict_service() -> anyhow::Result<Router> {
    service(
        Routes::new()
            .hidden(Class::None, "/save", on_post(save))
            .hidden(Class::None, "/poke", on_post(poke))
            .hidden(Class::None, "/list", on_get(list)),
    )
}

/// Posts JSON.
async fn post(service: &Router, path: &str, body: impl Into<RawBody>) -> anyhow::Result<Answer> {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    send(service, request.body(body.into())?).await
}

/// A 422 for exactly this field and kind, without the secret.
fn assert_refused(answer: &Answer, field: &str, kind: &str) -> anyhow::Result<()> {
    let body = answer.json()?;
    assert_eq!(answer.status, 422, "{body}");
    assert_eq!(body["code"], "VALIDATION_ERROR");
    assert_eq!(body["errors"].as_array().map(Vec::len), Some(1));
    assert_eq!((&body["errors"][0]["field"], &body["errors"][0]["type"]), (&json!(field), &json!(kind)));
    assert!(!body.to_string().contains(SECRET), "{body}");
    Ok(())
}

fn assert_code(answer: &Answer, status: u16, code: &str) -> anyhow::Result<()> {
    let body = answer.json()?;
    assert_eq!((answer.status.as_u16(), &body["code"]), (status, &json!(code)), "{body}");
    assert!(!body.to_string().contains(SECRET), "{body}");
    Ok(())
}

#[tokio::test]
async fn what_fits_is_read() -> anyhow::Result<()> {
    let body = r#"{"name":"Satoshi","sound":{"volume":30},"permissions":["read","write"]}"#;
    let answer = post(&strict_service()?, "/save", body).await?;
    assert_eq!(answer.status, 200);
    let expected = json!({
        "name": "Satoshi", "bio_is_absent": true, "volume": 30, "permissions": ["read", "write"],
    });
    assert_eq!(answer.json()?, expected);
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_is_named_and_not_repeated() -> anyhow::Result<()> {
    let service = strict_service()?;
    let too_deep = format!(r#"{{"name":"ab","x":{}{}}}"#, "[".repeat(32), "]".repeat(32));
    let cases = [
        (r#"{"hunter2":"hunter2"#, "body", "invalid_json"),
        (r#""hunter2""#, "body", "type_error"),
        (r#"{"sound":{"volume":1}}"#, "body.name", "missing"),
        (r#"{"name":"ab","extra":"hunter2"}"#, "body.extra", "extra_forbidden"),
        (r#"{"name":"ab","hunter2 <b>":1}"#, "body", "extra_forbidden"),
        (r#"{"name":"hunter2","name":"hunter2"}"#, "body.name", "extra_forbidden"),
        (r#"{"name":["hunter2"]}"#, "body.name", "type_error"),
        (r#"{"name":"hunter2hunter2hunter2"}"#, "body.name", "string_too_long"),
        (r#"{"name":"hunter2\u0000"}"#, "body.name", "control_characters"),
        (r#"{"name":"hunter2\u007f"}"#, "body.name", "control_characters"),
        (r#"{"name":"ab","bio":"hunter2\t"}"#, "body.bio", "control_characters"),
        (r#"{"name":"ab","sound":{"volume":"hunter2"}}"#, "body.sound.volume", "type_error"),
        (r#"{"name":"ab","sound":{"volume":101}}"#, "body.sound.volume", "out_of_range"),
        (r#"{"name":"ab","permissions":["hunter2"]}"#, "body.permissions.0", "invalid_enum"),
        (too_deep.as_str(), "body", "invalid_json"),
    ];
    for (body, field, kind) in cases {
        assert_refused(&post(&service, "/save", body.to_owned()).await?, field, kind)?;
    }
    let broken = post(&service, "/save", &b"{\"name\":\"hunter2\xff\"}"[..]).await?;
    assert_refused(&broken, "body", "invalid_json")
}

#[tokio::test]
async fn a_body_of_another_type_or_a_compressed_one_is_unsupported() -> anyhow::Result<()> {
    let service = strict_service()?;
    let body = || RawBody::from(r#"{"name":"hunter2"}"#);
    let foreign = ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"];
    for content_type in foreign {
        let request = Request::post("/save").header(CONTENT_TYPE, content_type).body(body())?;
        assert_code(&send(&service, request).await?, 415, "UNSUPPORTED_MEDIA_TYPE")?;
    }
    let untyped = send(&service, Request::post("/save").body(body())?).await?;
    assert_code(&untyped, 415, "UNSUPPORTED_MEDIA_TYPE")?;

    let request = Request::post("/save").header(CONTENT_TYPE, "application/json");
    let request = request.header(CONTENT_ENCODING, "gzip").body(body())?;
    assert_code(&send(&service, request).await?, 415, "UNSUPPORTED_MEDIA_TYPE")?;

    let request = Request::post("/save").header(CONTENT_TYPE, "APPLICATION/JSON; Charset=UTF-8");
    assert_eq!(send(&service, request.body(body())?).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_body_ends_at_64_kib() -> anyhow::Result<()> {
    let service = strict_service()?;
    let of_length = |length: usize| {
        let start = r#"{"name":"hunter2"}"#;
        format!("{start}{}", " ".repeat(length - start.len()))
    };
    assert_eq!(post(&service, "/save", of_length(MAX_BODY_BYTES)).await?.status, 200);
    for path in ["/save", "/poke"] {
        let answer = post(&service, path, of_length(MAX_BODY_BYTES + 1)).await?;
        assert_code(&answer, 413, "PAYLOAD_TOO_LARGE")?;
    }
    Ok(())
}

/// The clock is tokio's paused one. The body sends a byte each second, so no single read is slow.
#[tokio::test(start_paused = true)]
async fn a_slow_body_is_given_up() -> anyhow::Result<()> {
    let service = strict_service()?;
    for path in ["/save", "/poke"] {
        let drips = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        });
        let started = tokio::time::Instant::now();
        let answer = post(&service, path, RawBody::from_stream(drips)).await?;
        assert_code(&answer, 408, "REQUEST_TIMEOUT")?;
        assert_eq!(started.elapsed().as_secs(), 15);
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() -> anyhow::Result<()> {
    let start = Ok(Bytes::from_static(b"{\"name\":\"hunter2"));
    let broken = stream::iter([start, Err(std::io::Error::other("hunter2"))]);
    let answer = post(&strict_service()?, "/save", RawBody::from_stream(broken)).await?;
    assert_refused(&answer, "body", "invalid_json")
}

#[tokio::test]
async fn an_endpoint_without_a_body_takes_none() -> anyhow::Result<()> {
    let service = strict_service()?;
    for content_type in [None, Some("application/json"), Some("text/plain")] {
        let mut request = Request::post("/poke");
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        assert_eq!(send(&service, request.body(RawBody::empty())?).await?.status, 200, "{content_type:?}");
    }
    assert_eq!(post(&service, "/poke", "{}").await?.status, 200);

    assert_refused(&post(&service, "/poke", r#"{"x":"hunter2"}"#).await?, "body.x", "extra_forbidden")?;
    assert_refused(&post(&service, "/poke", "[]").await?, "body", "type_error")?;
    assert_refused(&post(&service, "/poke", "hunter2").await?, "body", "invalid_json")?;
    let untyped = send(&service, Request::post("/poke").body(RawBody::from("{}"))?).await?;
    assert_code(&untyped, 415, "UNSUPPORTED_MEDIA_TYPE")
}

#[tokio::test]
async fn a_query_is_read_as_strictly() -> anyhow::Result<()> {
    let service = strict_service()?;
    let answer = get(&service, "/list?limit=20&cursor=abc&unknown=x").await?;
    assert_eq!(answer.json()?, json!({"limit": 20, "has_cursor": true}));
    assert_eq!(get(&service, "/list").await?.json()?, json!({"limit": null, "has_cursor": false}));

    let long = format!("/list?cursor={}", SECRET.repeat(29));
    let cases = [
        ("/list?limit=hunter2", "query.limit", "type_error"),
        ("/list?limit=+5", "query.limit", "type_error"),
        ("/list?limit=", "query.limit", "type_error"),
        ("/list?limit=101", "query.limit", "out_of_range"),
        ("/list?limit=1&limit=2", "query.limit", "extra_forbidden"),
        ("/list?cursor=hunter2%00", "query.cursor", "control_characters"),
        ("/list?cursor=hunter2%FF", "query.cursor", "pattern_mismatch"),
        ("/list?hunter2%20=%0A", "query", "control_characters"),
        (long.as_str(), "query.cursor", "string_too_long"),
    ];
    for (path, field, kind) in cases {
        assert_refused(&get(&service, path).await?, field, kind)?;
    }
    Ok(())
}
