//! Whatever goes wrong, the client sees the one body (contract `auth-users.md` section 1.2).

use axum::body::Body;
use axum::extract::Path;
use axum::http::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::routing::{get as on_get, post as on_post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tbg_web::auth::Class;
use tbg_web::{ApiError, ErrorCode, FieldError, FieldErrorKind, MAX_BODY_BYTES, Routes};

use crate::{Answer, get, send, service};

#[derive(serde::Deserialize)]
struct Number {
    #[serde(rename = "number")]
    _number: u8,
}

async fn panics() -> &'static str {
    panic!("the secret is 42")
}

async fn fails() -> Result<(), ApiError> {
    Err(ApiError::internal(anyhow::anyhow!("the secret is 42")))
}

async fn lost_database() -> Result<(), ApiError> {
    Err(sqlx::Error::PoolTimedOut.into())
}

async fn refuses() -> Result<(), ApiError> {
    let too_long = FieldError::new("body.name", FieldErrorKind::StringTooLong, "at most 20");
    Err(ApiError::validation([too_long]))
}

async fn refuses_with_header() -> ([(&'static str, &'static str); 1], ApiError) {
    let gone = ApiError::new(ErrorCode::NotFound, "No such player");
    ([("x-hint", "kept")], gone)
}

async fn reads(Json(_): Json<Number>) {}

async fn names(Path(_): Path<u8>) {}

async fn waits() {
    std::future::pending::<()>().await;
}

fn faulty_service() -> anyhow::Result<Router> {
    service(
        Routes::new()
            .hidden(Class::None, "/panics", on_get(panics))
            .hidden(Class::None, "/fails", on_get(fails))
            .hidden(Class::None, "/lost-database", on_get(lost_database))
            .hidden(Class::None, "/refuses", on_get(refuses))
            .hidden(Class::None, "/refuses-with-header", on_get(refuses_with_header))
            .hidden(Class::None, "/reads", on_post(reads))
            .hidden(Class::None, "/names/{number}", on_get(names))
            .hidden(Class::None, "/waits", on_get(waits)),
    )
}

/// The body is exactly `expected` and the request id of the header.
fn assert_error(answer: &Answer, status: u16, mut expected: Value) -> anyhow::Result<()> {
    expected["request_id"] = answer.header("x-request-id").into();
    assert_eq!(answer.status.as_u16(), status);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()?, expected);
    assert_eq!(answer.header("x-request-id").len(), 36);
    Ok(())
}

fn internal() -> Value {
    json!({"detail": "Internal server error", "code": "INTERNAL"})
}

fn unavailable() -> Value {
    json!({"detail": "Service temporarily unavailable", "code": "SERVICE_UNAVAILABLE"})
}

fn too_large() -> Value {
    json!({"detail": "Request body is too large", "code": "PAYLOAD_TOO_LARGE"})
}

fn invalid(field: &str, kind: &str, message: &str) -> Value {
    json!({
        "detail": "Request is not valid",
        "code": "VALIDATION_ERROR",
        "errors": [{"field": field, "type": kind, "message": message}],
    })
}

#[tokio::test]
async fn an_unknown_route_is_not_found() -> anyhow::Result<()> {
    let answer = get(&faulty_service()?, "/api/v1/nothing?token=1").await?;
    assert_error(&answer, 404, json!({"detail": "Not Found", "code": "NOT_FOUND"}))
}

#[tokio::test]
async fn a_wrong_method_says_which_are_right() -> anyhow::Result<()> {
    let request = Request::delete("/version").body(Body::empty())?;
    let answer = send(&faulty_service()?, request).await?;
    assert_eq!(answer.header("allow"), "GET,HEAD");
    let expected = json!({"detail": "Method Not Allowed", "code": "METHOD_NOT_ALLOWED"});
    assert_error(&answer, 405, expected)
}

#[tokio::test]
async fn an_announced_large_body_is_refused_unread() -> anyhow::Result<()> {
    let request = Request::post("/reads").header(CONTENT_LENGTH, MAX_BODY_BYTES + 1).body(Body::empty())?;
    let answer = send(&faulty_service()?, request).await?;
    assert_error(&answer, 413, too_large())
}

#[tokio::test]
async fn an_unannounced_large_body_is_refused_while_reading() -> anyhow::Result<()> {
    let request = Request::post("/reads")
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(vec![b' '; MAX_BODY_BYTES + 1]))?;
    let answer = send(&faulty_service()?, request).await?;
    assert_error(&answer, 413, too_large())
}

#[tokio::test]
async fn a_body_of_another_type_is_unsupported() -> anyhow::Result<()> {
    let request = Request::post("/reads").body(Body::from("number=1"))?;
    let answer = send(&faulty_service()?, request).await?;
    let expected = json!({
        "detail": "Request body must be application/json",
        "code": "UNSUPPORTED_MEDIA_TYPE",
    });
    assert_error(&answer, 415, expected)
}

#[tokio::test]
async fn rejected_extractors_are_validation_errors_that_echo_nothing() -> anyhow::Result<()> {
    let service = faulty_service()?;
    let post = |body: &'static str| {
        Request::post("/reads").header(CONTENT_TYPE, "application/json").body(Body::from(body))
    };

    let malformed = send(&service, post("{number")?).await?;
    let mistyped = send(&service, post(r#"{"number":"secret"}"#)?).await?;
    let misnamed = get(&service, "/names/secret").await?;

    let form = "does not have the required form";
    assert_error(&malformed, 422, invalid("body", "invalid_json", "is not valid JSON"))?;
    assert_error(&mistyped, 422, invalid("body", "type_error", form))?;
    assert_error(&misnamed, 422, invalid("path", "type_error", form))
}

#[tokio::test]
async fn a_handler_names_the_broken_rule() -> anyhow::Result<()> {
    let answer = get(&faulty_service()?, "/refuses").await?;
    assert_error(&answer, 422, invalid("body.name", "string_too_long", "at most 20"))
}

#[tokio::test]
async fn headers_beside_an_error_are_kept() -> anyhow::Result<()> {
    let answer = get(&faulty_service()?, "/refuses-with-header").await?;
    assert_eq!(answer.header("x-hint"), "kept");
    assert_error(&answer, 404, json!({"detail": "No such player", "code": "NOT_FOUND"}))
}

#[tokio::test]
async fn a_panic_and_an_internal_error_say_nothing() -> anyhow::Result<()> {
    let service = faulty_service()?;
    assert_error(&get(&service, "/panics").await?, 500, internal())?;
    assert_error(&get(&service, "/fails").await?, 500, internal())
}

#[tokio::test]
async fn a_lost_database_says_when_to_come_back() -> anyhow::Result<()> {
    let answer = get(&faulty_service()?, "/lost-database").await?;
    assert_eq!(answer.header("retry-after"), "5");
    assert_error(&answer, 503, unavailable())
}

/// The clock is tokio's paused one, which jumps to the deadline.
#[tokio::test(start_paused = true)]
async fn a_request_past_its_deadline_is_unavailable() -> anyhow::Result<()> {
    let answer = get(&faulty_service()?, "/waits").await?;
    assert_eq!(answer.header("retry-after"), "5");
    assert_error(&answer, 503, unavailable())
}
