//! Sessions: opened by a sign-in, carried on by refreshes, ended by people, thefts and bans (contract §3).
//!
//! Whoever opens or carries on a session locks the user's row first and the tokens after it, like those who
//! end sessions: then a session that starts while an account is deleted or banned ends with it.

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use subtle::ConstantTimeEq as _;
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry, Origin};
use tbg_web::auth::{AuthMethod, Claims, TokenKind};
use tbg_web::{ApiError, ErrorCode};
use uuid::Uuid;

use crate::Identity;
use crate::store::sessions::{self as store, NewToken};
use crate::store::users;

/// `refresh_tokens.user_agent` holds as many characters.
const MAX_USER_AGENT_CHARS: usize = 512;

/// A pair of tokens.
pub(crate) struct Tokens {
    pub access: String,
    pub refresh: String,
}

/// What a session is and was.
struct Continued<'a> {
    user: UserId,
    address: Option<String>,
    sid: Uuid,
    method: AuthMethod,
    started_at: DateTime<Utc>,
    origin: &'a Origin,
}

/// Opens a session of `user` in the transaction of the sign-in, and returns its id.
pub(crate) async fn open(
    identity: &Identity,
    conn: &mut PgConnection,
    user: UserId,
    address: Option<String>,
    method: AuthMethod,
    origin: &Origin,
) -> Result<(Tokens, Uuid), ApiError> {
    let now = second(identity.clock.now());
    let session = Continued { user, address, sid: Uuid::now_v7(), method, started_at: now, origin };
    let (tokens, _) = issue(identity, conn, &session, now).await?;
    Ok((tokens, session.sid))
}

/// Makes a pair of tokens and stores the refresh token's hash; returns its id too.
async fn issue(
    identity: &Identity,
    conn: &mut PgConnection,
    session: &Continued<'_>,
    now: DateTime<Utc>,
) -> Result<(Tokens, Uuid), ApiError> {
    let config = &identity.config;
    let session_end = session.started_at + TimeDelta::seconds(config.session_max_seconds);
    let refresh_end = (now + TimeDelta::seconds(config.refresh_ttl_seconds)).min(session_end);
    let access_end = now + TimeDelta::seconds(config.access_ttl_seconds);
    let id = Uuid::now_v7();
    let access = sign(identity, session, TokenKind::Access, Uuid::now_v7(), now, access_end)?;
    let refresh = sign(identity, session, TokenKind::Refresh, id, now, refresh_end)?;
    let user_agent: Option<String> = session
        .origin
        .user_agent
        .as_ref()
        .map(|agent| agent.chars().filter(|c| !c.is_control()).take(MAX_USER_AGENT_CHARS).collect());
    let token = NewToken {
        id,
        user: session.user,
        family: session.sid,
        hash: &fingerprint(&refresh),
        auth_method: session.method.as_str(),
        session_started_at: session.started_at,
        issued_at: now,
        expires_at: refresh_end,
        ip: session.origin.ip,
        user_agent: user_agent.as_deref(),
    };
    store::insert(conn, &token).await?;
    Ok((Tokens { access, refresh }, id))
}

fn sign(
    identity: &Identity,
    session: &Continued<'_>,
    kind: TokenKind,
    id: Uuid,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<String, ApiError> {
    let keys = identity.auth.keys();
    let (issuer, audience) = keys.issuer_and_audience();
    let claims = Claims {
        iss: issuer.to_owned(),
        aud: audience.to_owned(),
        sub: session.user.to_string(),
        address: session.address.clone(),
        auth_method: session.method,
        kind,
        iat: now.timestamp(),
        exp: expires_at.timestamp(),
        jti: id,
        sid: session.sid,
        auth_time: session.started_at.timestamp(),
    };
    keys.sign(&claims).map_err(ApiError::internal)
}

/// How a refresh ends.
pub(crate) enum Refreshed {
    /// New tokens for this user.
    Renewed(UserId, Tokens),
    /// The token was used before: all sessions of the user were ended.
    Reused,
    /// The user is banned: the session was ended.
    Banned,
    /// Not a live token.
    Invalid(&'static str),
}

/// Exchanges a refresh token for new tokens, once.
pub(crate) async fn refresh(
    identity: &Identity,
    token: &str,
    origin: &Origin,
) -> Result<Refreshed, ApiError> {
    let now = identity.clock.now();
    let Ok(claims) = identity.auth.keys().verify(token, TokenKind::Refresh, now) else {
        return Ok(Refreshed::Invalid("not_a_token"));
    };
    let mut tx = identity.pool.begin().await?;
    let Ok(user) = claims.sub.parse().map(UserId) else { return Ok(Refreshed::Invalid("not_a_token")) };
    let Some(account) = users::lock(&mut tx, user).await? else {
        return Ok(Refreshed::Invalid("no_account"));
    };
    let stored = store::find(&mut tx, claims.jti).await?;
    let Some(stored) = stored.filter(|row| row.user_id == user.0 && is_same(&row.token_hash, token)) else {
        return Ok(Refreshed::Invalid("unknown"));
    };
    let reason = stored.revoke_reason.as_deref();
    if reason == Some("rotated") {
        end_after_theft(identity, tx, user, stored.family_id, origin).await?;
        return Ok(Refreshed::Reused);
    }
    // A ban has ended the session already; its owner learns why.
    let ended_by_ban = account.is_banned && reason == Some("banned");
    if !ended_by_ban && (stored.is_revoked || stored.expires_at <= now) {
        return Ok(Refreshed::Invalid("ended"));
    }
    if account.is_banned {
        store::revoke_family(&mut tx, stored.family_id, "banned", now).await?;
        tx.commit().await?;
        identity.auth.revoke_sessions(user, &[stored.family_id]).await;
        return Ok(Refreshed::Banned);
    }
    let method = if stored.auth_method == "email" { AuthMethod::Email } else { AuthMethod::Wallet };
    let session = Continued {
        user,
        address: account.btc_address,
        sid: stored.family_id,
        method,
        started_at: stored.session_started_at,
        origin,
    };
    let (tokens, successor) = issue(identity, &mut tx, &session, second(now)).await?;
    if !store::rotate(&mut tx, claims.jti, successor, now).await? {
        return Ok(Refreshed::Invalid("ended"));
    }
    let entry = Entry::new(Action::AuthTokenRefresh, "session").by(user).on(stored.family_id).from(origin);
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(Refreshed::Renewed(user, tokens))
}

/// A token that was rotated comes back: one of the two who hold it is a thief, so everybody signs in again.
async fn end_after_theft(
    identity: &Identity,
    mut tx: sqlx::Transaction<'_, sqlx::Postgres>,
    user: UserId,
    sid: Uuid,
    origin: &Origin,
) -> Result<(), ApiError> {
    let now = identity.clock.now();
    let live = store::revoke_all(&mut tx, user, "reuse", None, now).await?;
    users::reject_tokens_before(&mut tx, user, now).await?;
    let entry = Entry::new(Action::AuthTokenReuseDetected, "session").by(user).on(sid).from(origin).denied();
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    identity.auth.revoke_sessions(user, &live).await;
    identity.auth.forget_user(user).await;
    Ok(())
}

/// Ends the session of a refresh token, however old. Nothing happens if it is not one of ours.
pub(crate) async fn end(identity: &Identity, token: &str, origin: &Origin) -> Result<(), ApiError> {
    let Ok(claims) = identity.auth.keys().verify_at_any_age(token, TokenKind::Refresh) else { return Ok(()) };
    let Ok(user) = claims.sub.parse().map(UserId) else { return Ok(()) };
    let entry = Entry::new(Action::AuthLogout, "session").by(user).on(claims.sid).from(origin);
    let identity = identity.clone();
    // A page that closes ends its session and does not wait for the answer: what has begun is not dropped with it.
    let ending = tokio::spawn(async move {
        let mut tx = identity.pool.begin().await?;
        if store::revoke_family(&mut tx, claims.sid, "logout", identity.clock.now()).await? {
            audit::record(&mut tx, &entry).await?;
            tx.commit().await?;
        }
        // Also of one that had ended: perhaps nobody heard of it.
        identity.auth.revoke_sessions(user, &[claims.sid]).await;
        Ok(())
    });
    ending.await.map_err(ApiError::internal)?
}

/// Ends all sessions of a user; returns how many were live.
pub(crate) async fn end_all(
    identity: &Identity,
    user: UserId,
    sid: Uuid,
    origin: &Origin,
) -> Result<usize, ApiError> {
    let now = identity.clock.now();
    let mut tx = identity.pool.begin().await?;
    users::lock(&mut tx, user).await?;
    let live = store::revoke_all(&mut tx, user, "logout_all", None, now).await?;
    users::reject_tokens_before(&mut tx, user, now).await?;
    let entry = Entry::new(Action::AuthLogoutAll, "session").by(user).on(sid).from(origin);
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    identity.auth.revoke_sessions(user, &live).await;
    identity.auth.forget_user(user).await;
    Ok(live.len())
}

/// The refusal of a refresh.
pub(crate) fn refusal(refreshed: &Refreshed) -> ApiError {
    match refreshed {
        Refreshed::Reused => {
            ApiError::new(ErrorCode::AuthRefreshReused, "Refresh token was used before: sign in again")
        }
        Refreshed::Banned => ApiError::new(ErrorCode::AccountBanned, "Account is banned"),
        _ => ApiError::new(ErrorCode::AuthRefreshInvalid, "Refresh token is invalid"),
    }
}

/// Tokens count in whole seconds.
fn second(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at)
}

/// SHA-256, hex.
pub(crate) fn fingerprint(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_same(stored: &str, token: &str) -> bool {
    stored.as_bytes().ct_eq(fingerprint(token).as_bytes()).into()
}
