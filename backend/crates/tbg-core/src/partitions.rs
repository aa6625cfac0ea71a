//! Day partitions: created ahead, dropped when their retention ends (contract `mining.md` §5.1).
//!
//! The DDL lives in SQL functions of the schema (migration 0003); this module decides when.

use chrono::{DateTime, Days, NaiveDate, Utc};
use sqlx::{PgConnection, PgPool};

/// A table that is partitioned by UTC day.
#[derive(Clone, Copy, Debug)]
pub struct DayPartitioned {
    /// Table name.
    pub table: &'static str,
    /// Days of rows that are kept.
    pub keep_days: u64,
}

/// Days for which partitions exist ahead of time.
const DAYS_AHEAD: u64 = 7;
/// Rows deleted from a DEFAULT partition in one statement.
const PRUNE_CHUNK: i32 = 10_000;
const PRUNE_ROUNDS: u32 = 1_000;

/// What one maintenance run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Partitions created.
    pub created: u32,
    /// Partitions dropped.
    pub dropped: u32,
    /// Rows deleted from DEFAULT partitions.
    pub pruned: u64,
}

/// Creates what is missing for today and the week ahead, gives rows that fell into the DEFAULT
/// partition a partition of their day, and drops what is older than `keep_days`.
///
/// Safe to run at any time and twice: each step looks at the catalog. Lock waits are short
/// (2 s, because a running dump holds locks); the caller retries.
///
/// # Errors
/// When the database does not answer or a lock is not free within 2 s.
pub async fn maintain(
    pool: &PgPool,
    tables: &[DayPartitioned],
    now: DateTime<Utc>,
) -> Result<Maintained, sqlx::Error> {
    let mut conn = pool.acquire().await?;
    sqlx::query!("SELECT set_config('lock_timeout', '2000', false)").fetch_one(&mut *conn).await?;
    let mut done = Maintained::default();
    let mut result = Ok(());
    for table in tables {
        result = maintain_table(&mut conn, *table, now.date_naive(), &mut done).await;
        if result.is_err() {
            break;
        }
    }
    sqlx::query!("SELECT set_config('lock_timeout', '0', false)").fetch_one(&mut *conn).await?;
    result.map(|()| done)
}

async fn maintain_table(
    conn: &mut PgConnection,
    table: DayPartitioned,
    today: NaiveDate,
    done: &mut Maintained,
) -> Result<(), sqlx::Error> {
    let keep_from = today.checked_sub_days(Days::new(table.keep_days)).unwrap_or(NaiveDate::MIN);
    let strays = sqlx::query_scalar!(
        r#"SELECT day AS "day!" FROM tbg_default_partition_days($1, $2) AS day"#,
        table.table,
        keep_from
    )
    .fetch_all(&mut *conn)
    .await?;
    let ahead = (0..=DAYS_AHEAD).filter_map(|days| today.checked_add_days(Days::new(days)));
    for day in ahead.chain(strays) {
        let created = sqlx::query_scalar!("SELECT tbg_create_day_partition($1, $2)", table.table, day)
            .fetch_one(&mut *conn)
            .await?;
        done.created += u32::from(created == Some(true));
    }
    let expired = sqlx::query_scalar!(
        r#"SELECT name AS "name!" FROM tbg_expired_day_partitions($1, $2) AS name"#,
        table.table,
        keep_from
    )
    .fetch_all(&mut *conn)
    .await?;
    for child in expired {
        sqlx::query!("SELECT tbg_drop_partition($1, $2)", table.table, child).fetch_one(&mut *conn).await?;
        done.dropped += 1;
    }
    for _ in 0..PRUNE_ROUNDS {
        let pruned = sqlx::query_scalar!(
            "SELECT tbg_prune_default_partition($1, $2, $3)",
            table.table,
            keep_from,
            PRUNE_CHUNK
        )
        .fetch_one(&mut *conn)
        .await?
        .unwrap_or(0);
        done.pruned += u64::try_from(pruned).unwrap_or(0);
        if pruned < i64::from(PRUNE_CHUNK) {
            break;
        }
    }
    Ok(())
}
