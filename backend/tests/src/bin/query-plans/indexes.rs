//! The four indexes of production.md §13: what each is for, without it and with it.

use sqlx::{AssertSqlSafe, Connection as _};
use tbg_tests::TestDb;

/// One of them.
pub struct Comparison {
    /// The index.
    pub name: &'static str,
    /// Its own name and those of its parts, where the table has partitions.
    pub parts: Vec<String>,
    /// What is asked.
    pub question: &'static str,
    /// The plan without it.
    pub before: String,
    /// The plan with it.
    pub after: String,
}

/// Index and a question that it answers. None is one of the program's own: its reads have rows of their own
/// (design §2), and these are for people who look into the archive and for evaluations.
const QUESTIONS: [(&str, &str); 4] = [
    (
        "idx_events_user_ts",
        "SELECT ts, payload FROM mining_events
         WHERE event_type = 'share_submitted' AND payload ->> 'user' = 'bench7' ORDER BY ts DESC LIMIT 50",
    ),
    (
        "idx_events_accepted_shares",
        "SELECT payload ->> 'user', count(*) FROM mining_events
         WHERE event_type = 'share_submitted' AND (payload ->> 'accepted')::boolean = true
           AND ts > now() - interval '15 minutes' GROUP BY 1",
    ),
    (
        "idx_lottery_results_user_time",
        "SELECT draw_id, rank, xp_awarded FROM lottery_results
         WHERE user_id = (SELECT min(id) + 7 FROM users) ORDER BY created_at DESC LIMIT 10",
    ),
    (
        "idx_game_sessions_analytics",
        "SELECT game_type, count(*) FROM game_sessions
         WHERE game_type = 'hammer' AND week_start = (date_trunc('week', now()) - interval '4 weeks')::date
         GROUP BY game_type",
    ),
];

/// Runs each question without its index, in a transaction that is rolled back, and with it. Twice each: the second
/// time everything is in memory.
pub async fn compare(db: &TestDb) -> anyhow::Result<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    for (name, question) in QUESTIONS {
        let mut conn = db.connect().await;
        let parts = sqlx::query_scalar(
            "SELECT $1::text UNION ALL SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass($1::text)",
        )
        .bind(name)
        .fetch_all(&mut conn)
        .await?;
        let mut without = conn.begin().await?;
        // sql-audit: allow(S1, S2) a name from the table above
        sqlx::query(AssertSqlSafe(format!("DROP INDEX {name}"))).execute(&mut *without).await?;
        let _ = plan(&mut without, question).await?;
        let before = plan(&mut without, question).await?;
        without.rollback().await?;
        let _ = plan(&mut conn, question).await?;
        let after = plan(&mut conn, question).await?;
        comparisons.push(Comparison { name, parts, question, before, after });
    }
    Ok(comparisons)
}

async fn plan(conn: &mut sqlx::PgConnection, question: &'static str) -> anyhow::Result<String> {
    // sql-audit: allow(S1) a question from the table above
    let explained = format!("EXPLAIN (ANALYZE, BUFFERS) {question}");
    // sql-audit: allow(S2) the same
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explained)).fetch_all(conn).await?;
    Ok(lines.join("\n"))
}
