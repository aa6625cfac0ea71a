//! Ids are echoed or replaced (contract `auth-users.md` section 1.3).

use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderValue, Request};
use axum::routing::get as on_get;
use tbg_web::auth::Class;
use tbg_web::{RequestId, Routes};

use crate::{Answer, send, service};

async fn own_id(Extension(id): Extension<RequestId>) -> String {
    id.as_str().to_owned()
}

async fn ask_with_id(path: &str, id: &[u8]) -> anyhow::Result<Answer> {
    let service = service(Routes::new().hidden(Class::None, "/own-id", on_get(own_id)))?;
    let request =
        Request::get(path).header("x-request-id", HeaderValue::from_bytes(id)?).body(Body::empty())?;
    send(&service, request).await
}

#[tokio::test]
async fn a_harmless_id_is_echoed_everywhere() -> anyhow::Result<()> {
    let success = ask_with_id("/own-id", b"Trace_1.a-b").await?;
    assert_eq!(success.header("x-request-id"), "Trace_1.a-b");
    assert_eq!(success.body, "Trace_1.a-b");

    let failure = ask_with_id("/nothing", b"Trace_1.a-b").await?;
    assert_eq!(failure.header("x-request-id"), "Trace_1.a-b");
    assert_eq!(failure.json()?["request_id"], "Trace_1.a-b");
    Ok(())
}

#[tokio::test]
async fn any_other_id_is_replaced() -> anyhow::Result<()> {
    let too_long = [b'x'; 65];
    let ids: [&[u8]; 4] = [b"", b"a b", "ä".as_bytes(), &too_long];
    for id in ids {
        let answer = ask_with_id("/own-id", id).await?;
        assert_eq!(answer.header("x-request-id").len(), 36);
        assert_eq!(answer.body, answer.header("x-request-id"));
    }
    Ok(())
}
