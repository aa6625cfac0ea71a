//! A week's life (contract `games.md` §2.7): every step is one transaction that holds the draw's row.

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tbg_core::UserId;
use tbg_core::copy::{CopyRows, Hundredths};

use crate::rules::lottery::{Entrant, Hash};

/// The state of a draw.
#[derive(Clone, Debug)]
pub(crate) struct DrawState {
    pub id: i64,
    pub week_start: NaiveDate,
    pub status: String,
    pub due_seen_at: Option<DateTime<Utc>>,
    pub frozen_at: Option<DateTime<Utc>>,
}

/// The Monday from which weeks are drawn; none while nobody has mined.
pub(crate) async fn chain_start(pool: &PgPool) -> Result<Option<NaiveDate>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT coalesce((SELECT min(week_start) FROM lottery_draws), (SELECT min(week_start) FROM weekly_best_diff))"
    )
    .fetch_one(pool)
    .await
}

/// Makes rows for the weeks that have none.
pub(crate) async fn open(pool: &PgPool, weeks: &[NaiveDate], names: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO lottery_draws (week_iso, week_start, week_end)
         SELECT name, monday, monday + 6 FROM unnest($1::DATE[], $2::TEXT[]) AS w (monday, name) ORDER BY monday
         ON CONFLICT DO NOTHING",
        weeks,
        names
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The oldest draws that are not completed, of weeks before `before`.
pub(crate) async fn unfinished(
    pool: &PgPool,
    before: NaiveDate,
    at_most: i64,
) -> Result<Vec<NaiveDate>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT week_start FROM lottery_draws WHERE status <> 'completed' AND week_start < $1
         ORDER BY week_start LIMIT $2",
        before,
        at_most
    )
    .fetch_all(pool)
    .await
}

/// The newest week that has a row.
pub(crate) async fn newest(pool: &PgPool) -> Result<Option<NaiveDate>, sqlx::Error> {
    sqlx::query_scalar!("SELECT max(week_start) FROM lottery_draws").fetch_one(pool).await
}

/// A draw, held until the end of the transaction.
pub(crate) async fn hold(
    conn: &mut PgConnection,
    week_start: NaiveDate,
) -> Result<Option<DrawState>, sqlx::Error> {
    sqlx::query_as!(
        DrawState,
        "SELECT id, week_start, status, due_seen_at, frozen_at FROM lottery_draws WHERE week_start = $1 FOR UPDATE",
        week_start
    )
    .fetch_optional(conn)
    .await
}

/// Prepares a transaction for statements that touch everybody who takes part: with rows that came a minute ago no
/// statistics are to be trusted, and a plan for a few of them would take hours.
pub(crate) async fn plan_for_everybody(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT set_config('enable_nestloop', 'off', true) AS loops, set_config('work_mem', '128MB', true) AS memory")
        .fetch_one(conn)
        .await?;
    Ok(())
}

/// Notes that draws were seen to be due: those of weeks before `before`.
pub(crate) async fn note_due(
    pool: &PgPool,
    before: NaiveDate,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE lottery_draws SET due_seen_at = $2 WHERE status = 'open' AND due_seen_at IS NULL AND week_start < $1",
        before,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The newest share that was committed.
pub(crate) async fn watermark(conn: &mut PgConnection) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!("SELECT max_share_ts FROM lottery_watermark WHERE id = 1").fetch_optional(conn).await
}

/// Status and seal of the draw before a week.
pub(crate) async fn previous(
    conn: &mut PgConnection,
    week_start: NaiveDate,
) -> Result<Option<(String, Option<Vec<u8>>)>, sqlx::Error> {
    let row =
        sqlx::query!("SELECT status, seal FROM lottery_draws WHERE week_start = $1::DATE - 7", week_start)
            .fetch_optional(conn)
            .await?;
    Ok(row.map(|row| (row.status, row.seal)))
}

/// Everybody who takes part in a week, an entrant per address: those of a user follow each other.
pub(crate) fn entrants(
    conn: &mut PgConnection,
    week_start: NaiveDate,
    last_instant: DateTime<Utc>,
) -> BoxStream<'_, Result<Entrant, sqlx::Error>> {
    sqlx::query_as!(
        Entrant,
        r#"SELECT w.user_id AS "user_id!", w.btc_address AS "btc_address: Box<str>", w.best_difficulty,
                  coalesce(w.best_share_time, $2) AS "best_time!", w.total_shares
           FROM weekly_best_diff w
           WHERE w.week_start = $1 AND w.user_id IS NOT NULL AND w.best_difficulty > 0 AND w.best_difficulty < 'Infinity'
             AND NOT EXISTS (SELECT FROM users u WHERE u.id = w.user_id AND (u.is_banned OR u.is_test OR u.deleted_at IS NOT NULL))
           ORDER BY w.user_id"#,
        week_start,
        last_instant
    )
    .fetch(conn)
}

/// An entrant with what is published of them.
pub(crate) struct Committed {
    pub entrant: Entrant,
    pub commitment: Hash,
}

/// Writes the entries in leaf order.
pub(crate) async fn insert_entries(
    conn: &mut PgConnection,
    draw: i64,
    entries: &[Committed],
    salt_of: impl Fn(i64) -> Hash,
) -> Result<(), sqlx::Error> {
    let statement = "COPY lottery_entries
                         (draw_id, leaf_index, user_id, btc_address, salt, commitment, best_difficulty, best_time, total_shares)
                     FROM STDIN (FORMAT binary)";
    let mut rows = CopyRows::begin(conn, statement, 9).await?;
    for (leaf, Committed { entrant, commitment }) in (0_i32..).zip(entries) {
        rows.row()
            .await?
            .field(draw)?
            .field(leaf)?
            .field(entrant.user_id)?
            .field(&*entrant.btc_address)?
            .field(salt_of(entrant.user_id).as_slice())?
            .field(commitment.as_slice())?
            .field(entrant.best_difficulty)?
            .field(entrant.best_time)?
            .field(entrant.total_shares)?;
    }
    rows.finish().await?;
    Ok(())
}

/// Writes a level of the tree, counted from the leaves.
pub(crate) async fn insert_level(
    conn: &mut PgConnection,
    draw: i64,
    level: i16,
    hashes: &[Hash],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO lottery_tree_levels (draw_id, level, hashes) VALUES ($1, $2, $3)",
        draw,
        level,
        hashes.as_flattened()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a freeze publishes.
pub(crate) struct Frozen {
    pub participants: i32,
    pub shares: i64,
    pub root: Hash,
    pub previous_seal: Hash,
    pub seal: Hash,
    pub key_id: String,
}

/// Marks a draw as frozen.
pub(crate) async fn set_frozen(
    conn: &mut PgConnection,
    draw: i64,
    frozen: &Frozen,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE lottery_draws SET status = 'processing', frozen_at = $2, total_participants = $3, total_shares = $4,
             merkle_root = $5, previous_seal = $6, seal = $7, salt_key_id = $8
         WHERE id = $1 AND status = 'open'",
        draw,
        now,
        frozen.participants,
        frozen.shares,
        frozen.root.as_slice(),
        frozen.previous_seal.as_slice(),
        frozen.seal.as_slice(),
        frozen.key_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes entries of deleted users unlinkable. A freeze sees users as they were when it began: whoever was deleted
/// while it ran had no entry yet that the deletion could have emptied.
pub(crate) async fn forget_the_deleted(conn: &mut PgConnection, draw: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE lottery_entries e SET btc_address = NULL, salt = NULL
         FROM users u WHERE u.id = e.user_id AND u.deleted_at IS NOT NULL AND e.draw_id = $1 AND e.salt IS NOT NULL",
        draw
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An entry of a draw.
pub(crate) struct EntryRow {
    pub user_id: i64,
    pub commitment: Hash,
    pub best_difficulty: f64,
    pub best_time: DateTime<Utc>,
    pub total_shares: i64,
    /// Whether experience is paid.
    pub is_paid: bool,
    /// The hash that the pool reported with the best.
    pub best_hash: Option<Box<str>>,
}

/// The entries of a draw, in leaf order.
pub(crate) async fn entries(
    conn: &mut PgConnection,
    draw: i64,
    week_start: NaiveDate,
) -> Result<Vec<EntryRow>, sqlx::Error> {
    sqlx::query_as!(
        EntryRow,
        r#"SELECT e.user_id, e.commitment AS "commitment: Hash", e.best_difficulty, e.best_time, e.total_shares,
                  (NOT u.is_banned AND u.deleted_at IS NULL) AS "is_paid!", h.hash AS "best_hash?: Box<str>"
           FROM lottery_entries e JOIN users u ON u.id = e.user_id
           LEFT JOIN weekly_best_hashes h
             ON h.user_id = e.user_id AND h.week_start = $2 AND h.best_difficulty = e.best_difficulty
           WHERE e.draw_id = $1 ORDER BY e.leaf_index"#,
        draw,
        week_start
    )
    .fetch(conn)
    .try_collect()
    .await
}

/// A participant's result.
pub(crate) struct ResultRow<'a> {
    pub entry: &'a EntryRow,
    pub rank: i32,
    pub xp: i32,
    /// Per cent, in hundredths.
    pub percentile_hundredths: u16,
}

/// Writes the results, best in the order of users: three of the table's indexes then grow at their ends.
pub(crate) async fn insert_results<'a>(
    conn: &mut PgConnection,
    draw: i64,
    results: impl Iterator<Item = ResultRow<'a>>,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let statement = "COPY lottery_results
                         (draw_id, user_id, rank, best_difficulty, best_hash, total_shares, xp_awarded, percentile, created_at)
                     FROM STDIN (FORMAT binary)";
    let mut rows = CopyRows::begin(conn, statement, 9).await?;
    for result in results {
        rows.row()
            .await?
            .field(draw)?
            .field(result.entry.user_id)?
            .field(result.rank)?
            .field(result.entry.best_difficulty)?
            .field(result.entry.best_hash.as_deref())?
            .field(result.entry.total_shares)?
            .field(result.xp)?
            .field(Hundredths(result.percentile_hundredths))?
            .field(now)?;
    }
    rows.finish().await?;
    Ok(())
}

/// Marks a draw as completed.
pub(crate) async fn set_completed(
    conn: &mut PgConnection,
    draw: i64,
    winner: Option<(UserId, f64)>,
    sum_best: f64,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE lottery_draws SET status = 'completed', drawn_at = $2, winner_user_id = $3, winning_difficulty = $4,
             sum_best_difficulty = $5
         WHERE id = $1 AND status = 'processing'",
        draw,
        now,
        winner.map(|(user, _)| user.0),
        winner.map(|(_, difficulty)| difficulty),
        sum_best
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The name under which a user may be shown in a draw.
pub(crate) async fn public_name(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(u.display_name, 'Miner-' || left(u.btc_address, 8), 'Miner') AS "name!"
           FROM users u LEFT JOIN user_settings s ON s.user_id = u.id
           WHERE u.id = $1 AND NOT u.is_banned AND u.deleted_at IS NULL
             AND coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE)
             AND coalesce((s.privacy ->> 'showOnLeaderboard')::BOOLEAN, TRUE)"#,
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// A row of the public feed about a draw; its id, if it is new.
pub(crate) async fn add_feed_row(
    conn: &mut PgConnection,
    winner: UserId,
    title: &str,
    metadata: &Value,
    key: &str,
    at: DateTime<Utc>,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "INSERT INTO activity_feed (event_type, user_id, title, metadata, created_at, dedupe_key)
         VALUES ('competition', $1, $2, $3, $4, $5) ON CONFLICT (dedupe_key) DO NOTHING RETURNING id",
        winner.0,
        title,
        metadata,
        at,
        key
    )
    .fetch_optional(conn)
    .await
}

/// A draw past its freeze.
pub(crate) struct SealedRow {
    pub id: i64,
    pub week_start: NaiveDate,
    pub status: String,
    pub merkle_root: Vec<u8>,
    pub previous_seal: Vec<u8>,
    pub seal: Vec<u8>,
    pub total_participants: i64,
    pub total_shares: i64,
    pub sum_best_difficulty: f64,
    pub winner_user_id: Option<i64>,
    pub winning_difficulty: Option<f64>,
}

/// All draws past their freeze, in the order of weeks.
pub(crate) async fn sealed(conn: &mut PgConnection) -> Result<Vec<SealedRow>, sqlx::Error> {
    sqlx::query_as!(
        SealedRow,
        r#"SELECT id, week_start, status, merkle_root AS "merkle_root!", previous_seal AS "previous_seal!", seal AS "seal!",
                  total_participants::BIGINT AS "total_participants!", total_shares, sum_best_difficulty, winner_user_id,
                  winning_difficulty
           FROM lottery_draws WHERE status <> 'open' ORDER BY week_start"#
    )
    .fetch_all(conn)
    .await
}

/// The stored levels of a draw's tree.
pub(crate) async fn levels(conn: &mut PgConnection, draw: i64) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!("SELECT hashes FROM lottery_tree_levels WHERE draw_id = $1 ORDER BY level", draw)
        .fetch_all(conn)
        .await
}

/// A result as it is stored.
pub(crate) struct StoredResult {
    pub user_id: i64,
    pub rank: i32,
    /// In hundredths.
    pub percentile: i32,
    pub best_difficulty: f64,
    pub total_shares: i64,
    pub xp_awarded: i32,
}

/// The results of a draw, by rank.
pub(crate) async fn stored_results(
    conn: &mut PgConnection,
    draw: i64,
) -> Result<Vec<StoredResult>, sqlx::Error> {
    sqlx::query_as!(
        StoredResult,
        r#"SELECT user_id, rank, (percentile * 100)::INT AS "percentile!", best_difficulty, total_shares, xp_awarded
           FROM lottery_results WHERE draw_id = $1 ORDER BY rank"#,
        draw
    )
    .fetch_all(conn)
    .await
}
