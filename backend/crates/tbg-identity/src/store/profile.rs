//! The profile columns of `users`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_web::Patch;

use crate::rules::profile::{DisplayName, ProfilePatch};

/// What a user sees of the own row.
#[derive(Debug)]
pub(crate) struct MeRow {
    pub(crate) id: i64,
    pub(crate) btc_address: Option<String>,
    pub(crate) auth_method: String,
    pub(crate) email: Option<String>,
    pub(crate) email_verified: bool,
    pub(crate) display_name: Option<String>,
    pub(crate) country_code: Option<String>,
    pub(crate) avatar_url: Option<String>,
    pub(crate) bio: Option<String>,
    pub(crate) is_verified: bool,
    pub(crate) is_admin: bool,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) last_login: Option<DateTime<Utc>>,
    pub(crate) login_count: i32,
    /// With workers only.
    pub(crate) workers_online: Option<i64>,
    /// With workers only.
    pub(crate) workers_total: Option<i64>,
}

/// The row of a user who is not deleted; `with_workers` counts the workers seen since `seen_since`.
pub(crate) async fn me(
    conn: &mut PgConnection,
    user: UserId,
    with_workers: bool,
    seen_since: DateTime<Utc>,
) -> Result<Option<MeRow>, sqlx::Error> {
    sqlx::query_as!(
        MeRow,
        r#"SELECT u.id, u.btc_address, u.auth_method, u.email, u.email_verified, u.display_name,
                  u.country_code, u.avatar_url, u.bio, u.is_verified, u.is_admin, u.created_at,
                  u.last_login, u.login_count,
                  w.online AS "workers_online?", w.total AS "workers_total?"
           FROM users u
           LEFT JOIN LATERAL
             (SELECT count(*) FILTER (WHERE is_online) AS online, count(*) AS total
              FROM workers
              WHERE workers.user_id = u.id AND workers.last_seen >= $3) w ON $2
           WHERE u.id = $1 AND u.deleted_at IS NULL"#,
        user.0,
        with_workers,
        seen_since
    )
    .fetch_optional(conn)
    .await
}

/// The public name of a user, if there is one.
pub(crate) async fn display_name(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Option<String>, sqlx::Error> {
    let name = sqlx::query_scalar!("SELECT display_name FROM users WHERE id = $1", user.0)
        .fetch_optional(conn)
        .await?;
    Ok(name.flatten())
}

/// A row that was changed.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The user's mining address.
    pub(crate) btc_address: Option<String>,
}

/// Writes the given fields; `None` when the user is gone. A name that another user has breaks
/// `users_display_name_unique`.
pub(crate) async fn update(
    conn: &mut PgConnection,
    user: UserId,
    patch: &ProfilePatch,
    now: DateTime<Utc>,
) -> Result<Option<Changed>, sqlx::Error> {
    let (has_name, name) = column(&patch.display_name, |name| name.as_str());
    let (has_avatar, avatar) = column(&patch.avatar_url, |avatar| avatar.as_str());
    let (has_bio, bio) = column(&patch.bio, |bio| bio.as_str());
    let (has_country, country) = column(&patch.country_code, |country| country.as_str());
    let normalized = match &patch.display_name {
        Patch::Value(name) => Some(DisplayName::normalized(name)),
        Patch::Absent | Patch::Null => None,
    };
    sqlx::query_as!(
        Changed,
        "UPDATE users
         SET display_name = CASE WHEN $2 THEN $3::TEXT ELSE display_name END,
             display_name_normalized = CASE WHEN $2 THEN $4::TEXT ELSE display_name_normalized END,
             avatar_url = CASE WHEN $5 THEN $6::TEXT ELSE avatar_url END,
             bio = CASE WHEN $7 THEN $8::TEXT ELSE bio END,
             country_code = CASE WHEN $9 THEN $10::TEXT ELSE country_code END,
             updated_at = $11
         WHERE id = $1 AND deleted_at IS NULL
         RETURNING btc_address",
        user.0,
        has_name,
        name,
        normalized.as_deref(),
        has_avatar,
        avatar,
        has_bio,
        bio,
        has_country,
        country,
        now
    )
    .fetch_optional(conn)
    .await
}

/// Whether a field is given, and its new value.
fn column<'a, T>(patch: &'a Patch<T>, text: impl FnOnce(&'a T) -> &'a str) -> (bool, Option<&'a str>) {
    match patch {
        Patch::Absent => (false, None),
        Patch::Null => (true, None),
        Patch::Value(value) => (true, Some(text(value))),
    }
}
