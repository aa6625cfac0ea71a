//! Games that were played.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tbg_core::UserId;

/// Plays are counted up to here.
const MAX_PLAYS: i32 = 1_000_000;

/// A session after a play.
pub(crate) struct Played {
    pub id: i64,
    pub plays: i32,
    pub is_first: bool,
}

/// A play to be.
pub(crate) struct Play<'a> {
    pub user: UserId,
    pub game: &'a str,
    pub week_iso: &'a str,
    pub week_start: NaiveDate,
    pub metadata: &'a Value,
    pub shared: bool,
    pub now: DateTime<Utc>,
}

/// Counts a play: the first makes the row, later ones add to it. One statement. `None` for a user who is gone: their
/// token may live a moment longer than they do, and nothing would delete the row.
pub(crate) async fn play(conn: &mut PgConnection, play: &Play<'_>) -> Result<Option<Played>, sqlx::Error> {
    let row = sqlx::query!(
        r#"INSERT INTO game_sessions AS s
               (user_id, game_type, week_iso, week_start, played_at, last_played_at, metadata, shared)
           SELECT id, $2, $3, $4, $5, $5, $6, $7 FROM users WHERE id = $1 AND deleted_at IS NULL FOR SHARE
           ON CONFLICT (user_id, game_type, week_start) DO UPDATE SET
               plays = least(s.plays + 1, $8), last_played_at = greatest(s.last_played_at, EXCLUDED.last_played_at),
               shared = s.shared OR EXCLUDED.shared
           RETURNING id, plays, (xmax = 0) AS "is_first!""#,
        play.user.0,
        play.game,
        play.week_iso,
        play.week_start,
        play.now,
        play.metadata,
        play.shared,
        MAX_PLAYS
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Played { id: row.id, plays: row.plays, is_first: row.is_first }))
}

/// Whether a user has a result of a completed week, with its rank.
pub(crate) async fn result_of(
    pool: &PgPool,
    user: UserId,
    week_start: NaiveDate,
) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT r.rank FROM lottery_draws d JOIN lottery_results r ON r.draw_id = d.id
         WHERE d.week_start = $2 AND d.status = 'completed' AND r.user_id = $1",
        user.0,
        week_start
    )
    .fetch_optional(pool)
    .await
}

/// A session.
pub(crate) struct SessionRow {
    pub id: i64,
    pub game_type: String,
    pub week_iso: String,
    pub played_at: DateTime<Utc>,
    pub last_played_at: DateTime<Utc>,
    pub plays: i32,
    pub metadata: Value,
    pub shared: bool,
}

/// A page of a user's sessions, the last played first.
pub(crate) async fn sessions(
    pool: &PgPool,
    user: UserId,
    game: Option<&str>,
    after: Option<(DateTime<Utc>, i64)>,
    at_most: i64,
) -> Result<Vec<SessionRow>, sqlx::Error> {
    let (time, id) = after.unzip();
    sqlx::query_as!(
        SessionRow,
        "SELECT id, game_type, week_iso, played_at, last_played_at, plays, metadata, shared FROM game_sessions
         WHERE user_id = $1 AND ($2::TEXT IS NULL OR game_type = $2)
           AND ($3::TIMESTAMPTZ IS NULL OR (last_played_at, id) < ($3, $4))
         ORDER BY last_played_at DESC, id DESC LIMIT $5",
        user.0,
        game,
        time,
        id,
        at_most
    )
    .fetch_all(pool)
    .await
}
