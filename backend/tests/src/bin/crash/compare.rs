//! Whether two databases hold the same rows.
//!
//! A row is read as a key, which must be equal, and as numbers and times, which must be close:
//!
//! * Sums of floats depend on the order of their terms, hence a relative tolerance of 1e-9.
//! * The pool emits some shares two or three times within half a millisecond, and copies may arrive out
//!   of order. Which copy comes first, and so gives the row its time, depends on how batches were cut.
//!   Hence two milliseconds for times that come from shares. (The copies of one share could fall into
//!   two hours, and then the rollups would rightly differ; with the default settings that happens once
//!   in thousands of runs.)
//!
//! Everything else is equal or wrong. Row ids are left out: a transaction that did not commit uses ids
//! up. Both sides come in the order of their keys, so that millions of rows need no memory.

use std::cmp::Ordering;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{Stream, TryStreamExt as _, stream};
use sqlx::PgPool;

const RELATIVE_TOLERANCE: f64 = 1e-9;
const TIME_TOLERANCE: TimeDelta = TimeDelta::milliseconds(2);
/// Differing rows of each table that the report shows.
const EXAMPLES: usize = 3;

/// Key, numbers, times.
pub type Row = (String, Vec<f64>, Vec<Option<DateTime<Utc>>>);

/// What is compared of a table.
pub struct Table {
    /// The table's name.
    pub name: &'static str,
    sql: &'static str,
}

macro_rules! table {
    ($name:literal, $select:literal) => {
        Table {
            name: $name,
            sql: concat!(
                "SELECT key, numbers, times FROM (",
                $select,
                ") AS entry (key, numbers, times) ORDER BY key COLLATE \"C\", times"
            ),
        }
    };
}

const HOURLY: Table = table!(
    "hourly_shares",
    "SELECT ROW(bucket, btc_address, user_id, total, accepted, rejected, best_diff)::TEXT,
            ARRAY[work, sum_share_diff]::FLOAT8[], ARRAY[]::TIMESTAMPTZ[]
     FROM hourly_shares"
);
const DAILY: Table = table!(
    "user_daily_stats",
    "SELECT ROW(user_id, day, total_shares, accepted_shares, rejected_shares, best_diff, uptime_minutes,
                workers_seen)::TEXT,
            ARRAY[avg_diff, sum_share_diff, work]::FLOAT8[], ARRAY[]::TIMESTAMPTZ[]
     FROM user_daily_stats"
);
const WEEKLY: Table = table!(
    "weekly_best_diff",
    "SELECT ROW(user_id, btc_address, week_start, best_difficulty, total_shares)::TEXT,
            ARRAY[]::FLOAT8[], ARRAY[best_share_time]::TIMESTAMPTZ[]
     FROM weekly_best_diff"
);
const BESTS: Table = table!(
    "personal_bests",
    "SELECT ROW(user_id, timeframe, period_key, best_difficulty, worker_name, percentile)::TEXT,
            ARRAY[]::FLOAT8[], ARRAY[share_time]::TIMESTAMPTZ[]
     FROM personal_bests"
);

/// What a rebuild recomputes.
pub static ROLLUPS: [Table; 4] = [HOURLY, DAILY, WEEKLY, BESTS];

/// The ledger, whose differences are events lost or counted twice.
pub const LEDGER: &str = "ingest_ledger";

/// Everything that ingest writes. The users come first: the rest can agree only if their ids do.
pub static TABLES: [Table; 18] = [
    table!(
        "users",
        "SELECT ROW(id, btc_address)::TEXT, ARRAY[]::FLOAT8[], ARRAY[]::TIMESTAMPTZ[] FROM users"
    ),
    table!(
        "ingest_ledger",
        "SELECT event_key::TEXT, ARRAY[]::FLOAT8[], ARRAY[ts]::TIMESTAMPTZ[] FROM ingest_ledger"
    ),
    table!(
        "ingest_dead_letters",
        "SELECT ROW(stream, event_type, payload, reason, detail)::TEXT, ARRAY[]::FLOAT8[],
                ARRAY[]::TIMESTAMPTZ[]
         FROM ingest_dead_letters"
    ),
    table!(
        "mining_events",
        "SELECT ROW(event_type, source, payload, region, event_key, user_id)::TEXT, ARRAY[]::FLOAT8[],
                ARRAY[ts]::TIMESTAMPTZ[]
         FROM mining_events"
    ),
    table!(
        "shares",
        "SELECT ROW(btc_address, worker_name, difficulty, share_diff, is_valid, is_block, ip_address, nonce,
                    nonce2, block_hash, reject_reason, source, region)::TEXT,
                ARRAY[]::FLOAT8[], ARRAY[time]::TIMESTAMPTZ[]
         FROM shares"
    ),
    HOURLY,
    DAILY,
    WEEKLY,
    BESTS,
    table!(
        "blocks",
        "SELECT ROW(block_height, block_hash, prev_hash, user_id, worker_id, worker_name, btc_address,
                    reward_btc, fees_btc, difficulty, network_difficulty, confirmations, confirmed,
                    coinbase_sig, source, region)::TEXT,
                ARRAY[]::FLOAT8[], ARRAY[found_at]::TIMESTAMPTZ[]
         FROM blocks"
    ),
    table!(
        "block_celebrations",
        "SELECT ROW(b.block_height, c.user_id, c.celebrated)::TEXT, ARRAY[]::FLOAT8[],
                ARRAY[c.created_at]::TIMESTAMPTZ[]
         FROM block_celebrations c JOIN blocks b ON b.id = c.block_id"
    ),
    table!(
        "activity_feed",
        "SELECT ROW(event_type, user_id, title, is_global)::TEXT, ARRAY[]::FLOAT8[],
                ARRAY[]::TIMESTAMPTZ[]
         FROM activity_feed"
    ),
    table!(
        "network_difficulty",
        "SELECT ROW(block_height, time, difficulty, block_hash)::TEXT, ARRAY[]::FLOAT8[],
                ARRAY[]::TIMESTAMPTZ[]
         FROM network_difficulty"
    ),
    table!(
        "domain_outbox",
        "SELECT ROW(topic, consumer, user_id, payload - 'block_id' - 'created_at' - 'earned_at' - 'description')::TEXT, ARRAY[]::FLOAT8[],
                ARRAY[]::TIMESTAMPTZ[]
         FROM domain_outbox"
    ),
    // Which of two shares of one instant crosses a threshold is the order of their arrival: times are left out.
    table!(
        "xp_ledger",
        "SELECT ROW(user_id, amount, source, idempotency_key)::TEXT, ARRAY[]::FLOAT8[], ARRAY[]::TIMESTAMPTZ[]
         FROM xp_ledger"
    ),
    table!(
        "user_badges",
        "SELECT ROW(user_id, badge_id, period_key)::TEXT, ARRAY[]::FLOAT8[], ARRAY[]::TIMESTAMPTZ[]
         FROM user_badges"
    ),
    table!(
        "user_gamification",
        "SELECT ROW(user_id, total_xp, level, badges_earned, current_streak, longest_streak, last_active_week,
                    freezes, total_shares, best_difficulty, blocks_found, first_share_day, xp_entries)::TEXT,
                ARRAY[]::FLOAT8[], ARRAY[]::TIMESTAMPTZ[]
         FROM user_gamification"
    ),
    table!(
        "streak_calendar",
        "SELECT ROW(user_id, week_iso, share_count, best_diff, active_days, is_active, is_frozen)::TEXT,
                ARRAY[]::FLOAT8[], ARRAY[]::TIMESTAMPTZ[]
         FROM streak_calendar"
    ),
];

impl Table {
    /// How `actual` differs from `expected`.
    pub async fn compare(&self, expected: &PgPool, actual: &PgPool) -> Result<Difference, sqlx::Error> {
        let expected = sqlx::query_as::<_, Row>(self.sql).fetch(expected);
        let actual = sqlx::query_as::<_, Row>(self.sql).fetch(actual);
        merge(self.name, expected, actual).await
    }

    /// All rows.
    pub async fn rows(&self, pool: &PgPool) -> Result<Vec<Row>, sqlx::Error> {
        sqlx::query_as::<_, Row>(self.sql).fetch_all(pool).await
    }

    /// How the rows of `pool` differ from `expected`, which [`Table::rows`] gave.
    pub async fn compare_with(&self, expected: Vec<Row>, pool: &PgPool) -> Result<Difference, sqlx::Error> {
        let expected = stream::iter(expected.into_iter().map(Ok));
        merge(self.name, expected, sqlx::query_as::<_, Row>(self.sql).fetch(pool)).await
    }
}

/// How two sides of a table differ.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// The table's name.
    pub table: &'static str,
    /// Rows that were expected.
    pub rows: u64,
    /// Expected rows that are not there.
    pub lost: u64,
    /// Rows that were not expected.
    pub extra: u64,
    /// Rows whose numbers or times are not close.
    pub unequal: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

impl Difference {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.lost + self.extra + self.unequal == 0
    }

    fn show(&mut self, example: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example);
        }
    }
}

/// Walks both sides in the order of their keys.
async fn merge(
    table: &'static str,
    mut expected: impl Stream<Item = Result<Row, sqlx::Error>> + Unpin,
    mut actual: impl Stream<Item = Result<Row, sqlx::Error>> + Unpin,
) -> Result<Difference, sqlx::Error> {
    let mut difference = Difference { table, ..Difference::default() };
    let (mut left, mut right) = (expected.try_next().await?, actual.try_next().await?);
    loop {
        let order = match (&left, &right) {
            (None, None) => return Ok(difference),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.0.cmp(&right.0),
        };
        if order == Ordering::Equal
            && let (Some(left), Some(right)) = (&left, &right)
            && !are_close(left, right)
        {
            difference.unequal += 1;
            difference.show(format!("expected {left:?}, found {right:?}"));
        }
        if order.is_le() {
            difference.rows += 1;
            if order.is_lt() {
                difference.lost += 1;
                difference.show(format!("lost {left:?}"));
            }
            left = expected.try_next().await?;
        }
        if order.is_ge() {
            if order.is_gt() {
                difference.extra += 1;
                difference.show(format!("extra {right:?}"));
            }
            right = actual.try_next().await?;
        }
    }
}

fn are_close(left: &Row, right: &Row) -> bool {
    left.1.len() == right.1.len()
        && left.2.len() == right.2.len()
        && left.1.iter().zip(&right.1).all(|(left, right)| numbers_are_close(*left, *right))
        && left.2.iter().zip(&right.2).all(|(left, right)| match (left, right) {
            (Some(left), Some(right)) => (*left - *right).abs() <= TIME_TOLERANCE,
            (left, right) => left == right,
        })
}

fn numbers_are_close(left: f64, right: f64) -> bool {
    (left - right).abs() <= RELATIVE_TOLERANCE * left.abs().max(right.abs())
}
