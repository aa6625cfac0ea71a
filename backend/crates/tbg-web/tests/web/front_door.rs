//! Headers, origins, credentials and limits at the front door (contract `production.md` sections 3, 5, 6;
//! `auth-users.md` sections 1.3, 1.6, 3). Redis is away: the limiter counts in this process.

use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::{Request, request};
use axum::routing::{get as on_get, post as on_post};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tbg_core::config::Environment;
use tbg_web::auth::{Claims, Class, TokenFault, TokenKind};
use tbg_web::limit::Limits;
use tbg_web::{AuthMethod, Routes, SECURITY_HEADERS};
use uuid::Uuid;

use crate::{Answer, GENEROUS, SIGNING_KEY, Setup, get, keys, now, private_key, send, service};

async fn answers() -> &'static str {
    "{}"
}

async fn panics() -> &'static str {
    panic!("the secret is 42")
}

fn routes() -> Routes {
    Routes::new()
        .hidden(Class::None, "/open", on_get(answers).post(answers))
        .hidden(Class::User, "/private", on_get(answers))
        .hidden(Class::None, "/panics", on_get(panics))
        .hidden(Class::None, "/api/v1/auth/login", on_post(answers))
        .hidden(Class::None, "/api/v1/users/me", on_get(answers))
}

async fn ask(service: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
    let request = headers
        .iter()
        .fold(Request::builder().method(method).uri(path), |request: request::Builder, (name, value)| {
            request.header(*name, *value)
        });
    send(service, request.body(Body::empty())?).await
}

#[tokio::test]
async fn every_answer_has_the_seven_security_headers_once() -> anyhow::Result<()> {
    let service = service(routes())?;
    for (method, path, status) in [
        ("GET", "/open", 200),
        ("GET", "/nothing", 404),
        ("DELETE", "/open", 405),
        ("GET", "/private", 401),
        ("GET", "/panics", 500),
        ("GET", "/health", 503),
        ("GET", "/metrics", 200),
        ("GET", "/docs/", 200),
    ] {
        let answer = ask(&service, method, path, &[]).await?;
        assert_eq!(answer.status, status, "{path}");
        for (name, value) in SECURITY_HEADERS {
            // Their values stand in the suite's `security_headers`, asked of the real program.
            let values: Vec<_> = answer.headers.get_all(&name).iter().collect();
            assert_eq!(values, [value], "{method} {path} {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_counted_answer_tells_the_limit() -> anyhow::Result<()> {
    let service = service(routes())?;
    let long = format!("/open?{}", "x".repeat(9_000));
    for (path, told) in [
        ("/open", true),
        (long.as_str(), true),
        ("/nothing", true),
        ("/private", true),
        ("/panics", true),
        ("/version", true),
        ("/health", false),
        ("/ready", false),
        ("/metrics", false),
    ] {
        let answer = get(&service, path).await?;
        for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
            assert_eq!(answer.headers.contains_key(name), told, "{path} {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn answers_about_a_person_are_not_stored() -> anyhow::Result<()> {
    let service = service(routes())?;
    assert_eq!(ask(&service, "POST", "/api/v1/auth/login", &[]).await?.header("cache-control"), "no-store");
    assert_eq!(get(&service, "/api/v1/users/me").await?.header("cache-control"), "no-store");
    assert_eq!(get(&service, "/open").await?.header("cache-control"), "");
    Ok(())
}

#[tokio::test]
async fn a_production_page_is_told_apart_from_others_byte_by_byte() -> anyhow::Result<()> {
    let service = Setup { environment: Environment::Production, ..Setup::default() }.service(routes())?;
    let preflight = [("access-control-request-method", "POST")];
    for (origin, allowed) in [
        ("https://thebitcoingame.com", true),
        ("https://www.thebitcoingame.com", true),
        ("https://app.thebitcoingame.com", true),
        ("https://app.thebitcoingame.com.evil.example", false),
        ("https://evilthebitcoingame.com", false),
        ("http://thebitcoingame.com", false),
        ("HTTPS://thebitcoingame.com", false),
        ("https://thebitcoingame.com:443", false),
        ("http://localhost:5173", false),
        ("null", false),
        ("", false),
    ] {
        let with_origin = [(ORIGIN.as_str(), origin)];
        let read = ask(&service, "GET", "/open", &with_origin).await?;
        let write = ask(&service, "POST", "/open", &with_origin).await?;
        let asked = ask(&service, "OPTIONS", "/open", &[with_origin[0], preflight[0]]).await?;

        assert_eq!(read.status, 200, "{origin}");
        assert_eq!(write.status, if allowed { 200 } else { 403 }, "{origin}");
        assert_eq!(asked.status, if allowed { 200 } else { 403 }, "{origin}");
        for answer in [&read, &write, &asked] {
            let echo = if allowed { origin } else { "" };
            assert_eq!(answer.header("access-control-allow-origin"), echo, "{origin}");
            assert_eq!(answer.headers.contains_key("access-control-allow-credentials"), allowed, "{origin}");
            assert_eq!(answer.header("vary"), "Origin", "{origin}");
        }
        if allowed {
            assert_eq!(asked.json()?, json!({}));
            assert_eq!(asked.header("access-control-max-age"), "3600");
            assert_eq!(
                asked.header("access-control-allow-methods"),
                "GET, POST, PUT, PATCH, DELETE, OPTIONS"
            );
            assert!(read.header("access-control-expose-headers").contains("X-RateLimit-Remaining"));
        } else {
            assert_eq!(write.json()?["code"], "ORIGIN_NOT_ALLOWED");
        }
    }
    let own = ask(&service, "POST", "/open", &[(ORIGIN.as_str(), "https://api.example")]).await?;
    assert_eq!((own.status.as_u16(), own.header("access-control-allow-origin")), (200, ""));
    Ok(())
}

#[tokio::test]
async fn a_developers_page_may_call_a_developers_deployment() -> anyhow::Result<()> {
    let service = service(routes())?;
    for origin in ["http://localhost:5173", "http://127.0.0.1:5173", "https://thebitcoingame.com"] {
        let answer = ask(&service, "POST", "/nothing", &[(ORIGIN.as_str(), origin)]).await?;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("access-control-allow-origin"), origin, "errors can be read too");
    }
    Ok(())
}

#[tokio::test]
async fn refused_and_asking_pages_are_not_counted() -> anyhow::Result<()> {
    let limits = Limits { unauth: 2, ..GENEROUS };
    let service = Setup { limits, ..Setup::default() }.service(routes())?;
    let preflight = [(ORIGIN.as_str(), "http://localhost:3000"), ("access-control-request-method", "POST")];
    for _ in 0..5 {
        assert_eq!(ask(&service, "OPTIONS", "/open", &preflight).await?.status, 200);
        let evil = [(ORIGIN.as_str(), "https://evil.example")];
        assert_eq!(ask(&service, "POST", "/open", &evil).await?.status, 403);
    }
    assert_eq!(get(&service, "/open").await?.header("x-ratelimit-remaining"), "1");
    Ok(())
}

#[tokio::test]
async fn one_more_than_the_limit_is_refused_and_told_when_to_come_back() -> anyhow::Result<()> {
    let limits = Limits { unauth: 3, auth_endpoint: 2, ..GENEROUS };
    let service = Setup { limits, ..Setup::default() }.service(routes())?;
    for (path, method, limit) in [("/open", "GET", 3), ("/api/v1/auth/login", "POST", 2)] {
        for left in (0..limit).rev() {
            let answer = ask(&service, method, path, &[]).await?;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-ratelimit-remaining")),
                (200, &*left.to_string())
            );
        }
        let refused = ask(&service, method, path, &[]).await?;
        assert_eq!(refused.status, 429);
        assert_eq!(refused.json()?["code"], "RATE_LIMITED");
        assert_eq!(refused.header("x-ratelimit-limit"), limit.to_string());
        assert_eq!(refused.header("x-ratelimit-remaining"), "0");
        let wait: u64 = refused.header("retry-after").parse()?;
        assert!((1..=60).contains(&wait), "{wait}");
    }
    Ok(())
}

#[tokio::test]
async fn bad_credentials_count_for_the_address_and_not_for_a_user_of_their_choice() -> anyhow::Result<()> {
    let limits = Limits { unauth: 3, user: 50, ..GENEROUS };
    let service = Setup { limits, ..Setup::default() }.service(routes())?;
    for n in 0..3 {
        let token = format!("Bearer nonsense.{n}");
        let answer = ask(&service, "GET", "/private", &[("authorization", &token)]).await?;
        assert_eq!((answer.status.as_u16(), answer.header("x-ratelimit-limit")), (401, "3"));
    }
    let refused = ask(&service, "GET", "/private", &[("authorization", "Bearer other")]).await?;
    assert_eq!(refused.status, 429);

    let good = format!("Bearer {}", keys()?.sign(&claims(TokenKind::Access))?);
    let answer = ask(&service, "GET", "/open", &[("authorization", &good)]).await?;
    assert_eq!((answer.status.as_u16(), answer.header("x-ratelimit-limit")), (200, "50"));
    Ok(())
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_limits_of_their_own() -> anyhow::Result<()> {
    let limits = Limits { unauth: 1, ..GENEROUS };
    let setup = Setup { limits, trusted_proxies: "0.0.0.0/0", ..Setup::default() };
    let service = setup.service(routes())?;
    for client in ["203.0.113.7", "203.0.113.8", "2001:db8:1:2::1"] {
        let from = [("x-forwarded-for", client)];
        assert_eq!(ask(&service, "GET", "/open", &from).await?.status, 200, "{client}");
        assert_eq!(ask(&service, "GET", "/open", &from).await?.status, 429, "{client}");
    }
    let same_network = [("x-forwarded-for", "2001:db8:1:2:ffff::2")];
    assert_eq!(ask(&service, "GET", "/open", &same_network).await?.status, 429);
    Ok(())
}

#[tokio::test]
async fn too_large_a_head_is_refused() -> anyhow::Result<()> {
    let service = service(routes())?;
    let long = get(&service, &format!("/open?{}", "x".repeat(8 * 1024))).await?;
    assert_eq!((long.status.as_u16(), long.json()?["code"].as_str()), (414, Some("URI_TOO_LONG")));
    let large = ask(&service, "GET", "/open", &[("x-filler", &"x".repeat(17 * 1024))]).await?;
    assert_eq!((large.status.as_u16(), large.json()?["code"].as_str()), (431, Some("HEADERS_TOO_LARGE")));
    assert!(large.headers.contains_key("x-ratelimit-limit"), "it is counted like all others");
    Ok(())
}

fn claims(kind: TokenKind) -> Claims {
    Claims {
        iss: "thebitcoingame.com".to_owned(),
        aud: "api.thebitcoingame.com".to_owned(),
        sub: "42".to_owned(),
        address: None,
        auth_method: AuthMethod::Wallet,
        kind,
        iat: now().timestamp(),
        exp: now().timestamp() + 3600,
        jti: Uuid::nil(),
        sid: Uuid::nil(),
        auth_time: now().timestamp(),
    }
}

fn kid() -> anyhow::Result<String> {
    let public = serde_json::to_value(keys()?.public())?;
    Ok(public[0]["kid"].as_str().unwrap_or_default().to_owned())
}

fn encode(header: &Header, claims: &impl serde::Serialize, key: &EncodingKey) -> anyhow::Result<String> {
    Ok(jsonwebtoken::encode(header, claims, key)?)
}

#[tokio::test]
async fn a_token_that_we_did_not_sign_like_this_is_401() -> anyhow::Result<()> {
    let service = service(routes())?;
    let own = EncodingKey::from_rsa_pem(SIGNING_KEY.as_bytes())?;
    let other = EncodingKey::from_rsa_pem(private_key().as_bytes())?;
    let header = |alg, kid: Option<String>| Header { kid, ..Header::new(alg) };
    let (kid, good) = (kid()?, claims(TokenKind::Access));
    let rs256 = header(Algorithm::RS256, Some(kid.clone()));
    let public = serde_json::to_string(keys()?.public())?;
    let with = |change: fn(&mut Claims)| {
        let mut changed = claims(TokenKind::Access);
        change(&mut changed);
        encode(&rs256, &changed, &own)
    };
    let valid = encode(&rs256, &good, &own)?;
    let mut parts = valid.split('.');
    let (head, payload, signature) =
        (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let none_header = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let mut tampered = payload.to_owned().into_bytes();
    tampered[10] ^= 1;
    let mut no_audience = serde_json::to_value(&good)?;
    if let Value::Object(fields) = &mut no_audience {
        fields.remove("aud");
    }
    let mut with_jku = rs256.clone();
    with_jku.jku = Some("https://evil.example/jwks.json".to_owned());

    let bad = [
        ("alg none", format!("{none_header}.{payload}.")),
        ("alg none, signature kept", format!("{none_header}.{payload}.{signature}")),
        (
            "HS256 with the public key",
            encode(
                &header(Algorithm::HS256, Some(kid.clone())),
                &good,
                &EncodingKey::from_secret(public.as_bytes()),
            )?,
        ),
        ("no kid", encode(&header(Algorithm::RS256, None), &good, &own)?),
        ("unknown kid", encode(&header(Algorithm::RS256, Some("x".to_owned())), &good, &own)?),
        ("RS512", encode(&header(Algorithm::RS512, Some(kid.clone())), &good, &own)?),
        ("another key", encode(&rs256, &good, &other)?),
        ("a key of its own choice", encode(&with_jku, &good, &other)?),
        ("another audience", with(|claims| claims.aud = "elsewhere".to_owned())?),
        ("another issuer", with(|claims| claims.iss = "elsewhere".to_owned())?),
        ("no audience", encode(&rs256, &no_audience, &own)?),
        ("a refresh token", encode(&rs256, &claims(TokenKind::Refresh), &own)?),
        ("not a user", with(|claims| claims.sub = "bob".to_owned())?),
        ("tampered", format!("{head}.{}.{signature}", String::from_utf8_lossy(&tampered))),
        ("cut", valid[..valid.len() - 5].to_owned()),
        ("empty", String::new()),
        ("long", "x".repeat(5000)),
    ];
    for (what, token) in bad {
        let bearer = format!("Bearer {token}");
        let answer = ask(&service, "GET", "/private", &[(AUTHORIZATION.as_str(), &bearer)]).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.json()?["code"].as_str()),
            (401, Some("AUTH_TOKEN_INVALID")),
            "{what}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            r#"Bearer realm="tbg", error="invalid_token""#,
            "{what}"
        );
    }
    let expired = format!("Bearer {}", with(|claims| claims.exp = now().timestamp() - 6)?);
    let answer = ask(&service, "GET", "/private", &[("authorization", &expired)]).await?;
    assert_eq!((answer.status.as_u16(), answer.json()?["code"].as_str()), (401, Some("AUTH_TOKEN_EXPIRED")));
    let nothing = get(&service, "/private").await?;
    assert_eq!((nothing.status.as_u16(), nothing.json()?["code"].as_str()), (401, Some("AUTH_REQUIRED")));
    Ok(())
}

#[test]
fn an_expired_token_has_five_seconds_of_grace() -> anyhow::Result<()> {
    let keys = keys()?;
    let token = |exp| keys.sign(&Claims { exp, ..claims(TokenKind::Access) });
    let verify = |token: &str| keys.verify(token, TokenKind::Access, now());
    assert!(verify(&token(now().timestamp() - 4)?).is_ok());
    assert_eq!(verify(&token(now().timestamp() - 6)?), Err(TokenFault::Expired));
    let future = Claims { iat: now().timestamp() + 600, ..claims(TokenKind::Access) };
    assert!(verify(&keys.sign(&future)?).is_ok(), "a future iat is no reason to refuse");
    Ok(())
}
