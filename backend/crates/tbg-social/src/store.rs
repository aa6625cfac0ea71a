//! All SQL of the social domain.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tbg_core::UserId;
use tbg_core::outbox::Notification;

use crate::rules::{Gate, gate_of};

/// A notification that was stored.
pub(crate) struct Stored {
    pub id: i64,
    pub user_id: i64,
    pub kind: String,
    pub subtype: String,
    pub title: String,
    pub description: Option<String>,
    pub created_at: DateTime<Utc>,
    pub action_url: Option<String>,
    pub action_label: Option<String>,
}

/// Stores notices of one kind that pass the gate, counts them, and queues their mail: one statement. What was
/// told before is not told again. Returns what was stored.
pub(crate) async fn deliver(
    conn: &mut PgConnection,
    notices: &[Notification],
    now: DateTime<Utc>,
) -> Result<Vec<Stored>, sqlx::Error> {
    let Some(first) = notices.first() else { return Ok(Vec::new()) };
    let Gate { is_critical, preference, is_mailed } = gate_of(first);
    let (preference, default) = preference.unzip();
    let users: Vec<i64> = notices.iter().map(|notice| notice.user_id.0).collect();
    let descriptions: Vec<Option<String>> = notices.iter().map(|notice| notice.description.clone()).collect();
    let keys: Vec<String> = notices.iter().map(|notice| notice.dedupe_key.clone()).collect();
    let times: Vec<DateTime<Utc>> = notices.iter().map(|notice| notice.created_at).collect();
    sqlx::query_as!(
        Stored,
        r#"WITH told AS (
               INSERT INTO notifications (user_id, type, subtype, title, description, action_url, action_label,
                                          dedupe_key, created_at)
               SELECT u.id, $5, $6, $7, n.description, $8, $9, n.dedupe_key, n.created_at
               FROM unnest($1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::TIMESTAMPTZ[])
                    AS n (user_id, description, dedupe_key, created_at)
               JOIN users u ON u.id = n.user_id AND NOT u.is_banned AND u.deleted_at IS NULL
               LEFT JOIN user_settings s ON s.user_id = u.id
               WHERE $10 OR (coalesce((s.notifications ->> 'inApp')::BOOLEAN, TRUE)
                             AND ($11::TEXT IS NULL OR coalesce((s.notifications ->> $11)::BOOLEAN, $12::BOOLEAN)))
               ORDER BY u.id
               ON CONFLICT (user_id, dedupe_key) DO NOTHING
               RETURNING *
           ), counted AS (
               INSERT INTO user_social_counters AS c (user_id, notifications_total, notifications_unread)
               SELECT user_id, count(*), count(*) FROM told GROUP BY user_id ORDER BY user_id
               ON CONFLICT (user_id) DO UPDATE SET
                   notifications_total = c.notifications_total + EXCLUDED.notifications_total,
                   notifications_unread = c.notifications_unread + EXCLUDED.notifications_unread
           ), mailed AS (
               INSERT INTO email_outbox (id, user_id, to_address, template, context, next_attempt_at)
               SELECT gen_random_uuid(), t.user_id, a.address, 'notification',
                      jsonb_build_object('title', t.title, 'description', t.description, 'action_url', t.action_url), $13
               FROM told t JOIN users u ON u.id = t.user_id JOIN user_settings s ON s.user_id = t.user_id
               CROSS JOIN LATERAL (SELECT CASE
                   WHEN s.notification_email_verified_at IS NOT NULL THEN nullif(s.notifications ->> 'email', '')
                   WHEN u.email_verified THEN u.email END AS address) a
               WHERE $14 AND coalesce((s.notifications ->> 'emailNotifications')::BOOLEAN, FALSE) AND a.address IS NOT NULL
           )
           SELECT id AS "id!", user_id AS "user_id!", type AS "kind!", subtype AS "subtype!", title AS "title!",
                  description, created_at AS "created_at!", action_url, action_label FROM told"#,
        &users,
        &descriptions as &[Option<String>],
        &keys,
        &times,
        first.kind.as_ref(),
        first.subtype.as_ref(),
        first.title,
        first.action_url.as_deref(),
        first.action_label.as_deref(),
        is_critical,
        preference,
        default,
        now,
        is_mailed
    )
    .fetch_all(conn)
    .await
}

/// Users after `after` who want to hear of any block.
pub(crate) async fn any_block_listeners(
    conn: &mut PgConnection,
    after: i64,
    at_most: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT user_id FROM user_settings
         WHERE notifications ->> 'blockFoundAny' = 'true' AND user_id > $1 ORDER BY user_id LIMIT $2",
        after,
        at_most
    )
    .fetch_all(conn)
    .await
}

/// What nobody is called who hides, is banned or gone.
pub(crate) const ANONYMOUS: &str = "Anonymous";

/// The public name of a user; none if they hide, are banned or gone.
pub(crate) async fn public_name(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(u.display_name, 'Miner-' || left(u.btc_address, 8), 'Miner') AS "name!"
           FROM users u LEFT JOIN user_settings s ON s.user_id = u.id
           WHERE u.id = $1 AND NOT u.is_banned AND NOT u.is_test AND u.deleted_at IS NULL
             AND coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE)"#,
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// Whether a user may stand in the feed, and the country that they show.
pub(crate) async fn newcomer(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Option<Option<String>>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT CASE WHEN coalesce((s.privacy ->> 'showCountryFlag')::BOOLEAN, TRUE) THEN u.country_code END AS country
         FROM users u LEFT JOIN user_settings s ON s.user_id = u.id
         WHERE u.id = $1 AND NOT u.is_banned AND NOT u.is_test AND u.deleted_at IS NULL
           AND coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE)",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| row.country))
}

/// Adds a public row to the feed; none if its key is there already.
pub(crate) async fn add_feed_row(
    conn: &mut PgConnection,
    user: UserId,
    event_type: &str,
    title: &str,
    metadata: &Value,
    key: &str,
    at: DateTime<Utc>,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "INSERT INTO activity_feed (event_type, user_id, title, metadata, created_at, dedupe_key)
         VALUES ($6, $1, $2, $3, $4, $5) ON CONFLICT (dedupe_key) DO NOTHING RETURNING id",
        user.0,
        title,
        metadata,
        at,
        key,
        event_type
    )
    .fetch_optional(conn)
    .await
}

/// Brings a user's rows of the feed in line with who may see them: blocks keep their row, under the name of now;
/// everything else is withdrawn from the public, for good, and what was won also when the user leaves the boards.
pub(crate) async fn apply_privacy(
    conn: &mut PgConnection,
    user: UserId,
    name: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE activity_feed SET
             title = CASE WHEN event_type = 'block' THEN $2 || substring(title FROM ' found block #[0-9,]+!$') ELSE title END,
             is_global = is_global AND (event_type = 'block' OR $3 AND (event_type <> 'competition' OR coalesce(
                 (SELECT (privacy ->> 'showOnLeaderboard')::BOOLEAN FROM user_settings WHERE user_id = $1), TRUE)))
         WHERE user_id = $1",
        user.0,
        name.unwrap_or(ANONYMOUS),
        name.is_some()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what was told to a user who is gone.
pub(crate) async fn forget(conn: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH told AS (DELETE FROM notifications WHERE user_id = $1)
         DELETE FROM user_social_counters WHERE user_id = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks one as read. The counters' row is locked first, so that a notice that comes in meanwhile stays unread.
pub(crate) async fn mark_read(
    conn: &mut PgConnection,
    user: UserId,
    notification: i64,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    sqlx::query!("SELECT user_id FROM user_social_counters WHERE user_id = $1 FOR UPDATE", user.0)
        .fetch_optional(&mut *conn)
        .await?;
    let is_theirs = sqlx::query_scalar!(
        r#"WITH marked AS (
               UPDATE notifications SET read = TRUE, read_at = $3
               WHERE id = $1 AND user_id = $2 AND NOT read RETURNING id
           ), counted AS (
               UPDATE user_social_counters
               SET notifications_unread = notifications_unread - (SELECT count(*)::INT FROM marked)
               WHERE user_id = $2 AND EXISTS (SELECT FROM marked)
           )
           SELECT EXISTS (SELECT FROM notifications WHERE id = $1 AND user_id = $2) AS "is_theirs!""#,
        notification,
        user.0,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(is_theirs)
}

/// Deletes up to `at_most` notifications from before `before` or past their end, and takes them out of the counts.
/// Counters are locked before rows, as whoever reads does it; a user whose counters are in use waits for the next
/// run.
pub(crate) async fn prune(
    pool: &PgPool,
    now: DateTime<Utc>,
    before: DateTime<Utc>,
    at_most: i64,
) -> Result<i64, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let old = sqlx::query!(
        "SELECT id, user_id FROM notifications WHERE created_at < $1 OR expires_at < $2 ORDER BY id LIMIT $3",
        before,
        now,
        at_most
    )
    .fetch_all(&mut *tx)
    .await?;
    let (ids, users): (Vec<i64>, Vec<i64>) = old.into_iter().map(|row| (row.id, row.user_id)).unzip();
    let locked = sqlx::query_scalar!(
        "SELECT user_id FROM user_social_counters WHERE user_id = ANY ($1) ORDER BY user_id FOR UPDATE SKIP LOCKED",
        &users
    )
    .fetch_all(&mut *tx)
    .await?;
    let pruned = sqlx::query_scalar!(
        r#"WITH old AS (
               DELETE FROM notifications WHERE id = ANY ($1) AND user_id = ANY ($2) RETURNING user_id, read
           ), counted AS (
               UPDATE user_social_counters c SET
                   notifications_total = c.notifications_total - gone.total,
                   notifications_unread = c.notifications_unread - gone.unread
               FROM (SELECT user_id, count(*)::INT AS total, (count(*) FILTER (WHERE NOT read))::INT AS unread
                     FROM old GROUP BY user_id) gone
               WHERE c.user_id = gone.user_id
           )
           SELECT count(*) AS "count!" FROM old"#,
        &ids,
        &locked
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(pruned)
}
