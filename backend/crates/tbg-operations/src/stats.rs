//! The overview for administrators (contract `production.md` §9): one cheap look at everything.

use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::{Cmd, FromRedisValue, InfoDict, cmd};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tbg_core::audit::{Action, Entry, Origin};
use tbg_core::{UserId, told};
use tbg_web::ApiError;
use utoipa::ToSchema;

use crate::routes::{Operations, record};
use crate::store::stats as store;

/// Where an answer is kept.
const KEY: &str = "admin:stats";
/// How long.
const TTL_SECONDS: u64 = 10;
/// How long Redis may take for what the answer can do without.
const REDIS_DEADLINE: Duration = Duration::from_secs(1);

/// Everything at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminStats {
    /// When the numbers were taken; an answer is kept for 10 seconds.
    pub generated_at: DateTime<Utc>,
    /// People.
    pub users: AdminUserStats,
    /// Who mines now.
    pub miners: AdminMinerStats,
    /// What they sent.
    pub shares: AdminShareStats,
    /// What they found.
    pub blocks: AdminBlockStats,
    /// What they were given.
    pub game: AdminGameStats,
    /// The machinery.
    pub system: AdminSystemStats,
    /// The audit log.
    pub audit: AdminAuditStats,
    /// Version of the program.
    pub version: String,
    /// Name of the deployment.
    pub environment: String,
}

/// People whose account is not deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminUserStats {
    /// All of them.
    pub total: i64,
    /// Who sign in with a wallet only.
    pub wallet: i64,
    /// Who sign in with an e-mail only.
    pub email: i64,
    /// Who can do both.
    pub both: i64,
    /// Who proved their address.
    pub verified: i64,
    /// Who are banned.
    pub banned: i64,
    /// Who registered within 24 hours.
    pub new_24h: i64,
    /// Who were here within 24 hours.
    pub active_24h: i64,
}

/// Who mines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminMinerStats {
    /// Machines that are online.
    pub workers_online: i64,
    /// Users with an accepted share in an hour that began within 24 hours.
    pub users_mining_24h: i64,
    /// Of all accepted shares of the last whole hour, in TH/s.
    pub pool_hashrate_ths: f64,
}

/// Shares of the pool; up to a minute behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminShareStats {
    /// All of them.
    pub total: i64,
    /// Good ones.
    pub accepted: i64,
    /// Others.
    pub rejected: i64,
    /// Good ones since midnight UTC.
    pub accepted_today: i64,
    /// Others since midnight UTC.
    pub rejected_today: i64,
}

/// Blocks of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminBlockStats {
    /// All of them.
    pub total: i64,
    /// Those that the chain has built upon.
    pub confirmed: i64,
    /// Height of the newest.
    #[schema(required)]
    pub last_height: Option<i32>,
    /// When the newest was found.
    #[schema(required)]
    pub last_found_at: Option<DateTime<Utc>>,
}

/// What the game gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminGameStats {
    /// Experience points.
    pub xp_awarded: i64,
    /// Badges.
    pub badges_awarded: i64,
    /// Completed draws of the lottery.
    pub lottery_draws: i64,
}

/// The machinery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminSystemStats {
    /// Size of the database.
    pub database_bytes: i64,
    /// Memory that Redis uses; 0 while it is away.
    pub redis_used_bytes: i64,
    /// How far ingest is behind.
    pub ingest_lag_seconds: f64,
    /// Events that were given up within 24 hours.
    pub dead_letters_24h: i64,
    /// Domain events that wait for their consumer.
    pub outbox_pending: i64,
    /// Open sockets.
    pub ws_connections: i64,
    /// When the newest backup was made.
    #[schema(required)]
    pub last_backup_at: Option<DateTime<Utc>>,
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminAuditStats {
    /// Rows of the last 24 hours.
    pub rows_24h: i64,
    /// Rows that no seal covers yet.
    pub unsealed_rows: i64,
    /// Number of the newest seal; 0 before the first.
    pub head_seal: i64,
    /// Its hash, in hex.
    #[schema(required)]
    pub head_hash: Option<String>,
}

/// The overview, at most 10 seconds old. That `admin` has seen it is in the audit log before it is returned.
///
/// # Errors
/// 503 when the look cannot be recorded; what the database says when it does not answer. Redis may be away.
pub async fn stats(operations: &Operations, admin: UserId, origin: &Origin) -> Result<AdminStats, ApiError> {
    let stats = match kept(operations).await {
        Some(stats) => stats,
        None => {
            let stats = gather(operations).await?;
            keep(operations, &stats).await;
            stats
        }
    };
    let entry = Entry::new(Action::AdminStatsViewed, "stats").by(admin).from(origin);
    record(operations, &entry.details(json!({ "filters": {} }))).await?;
    Ok(stats)
}

async fn gather(operations: &Operations) -> Result<AdminStats, ApiError> {
    let now = operations.clock.now();
    let redis_used_bytes = redis_used_bytes(operations).await;
    let known = told_by_processes(operations, now).await;
    let mut conn = operations.pool.acquire().await?;
    let system = store::system(&mut conn, now).await?;
    Ok(AdminStats {
        generated_at: now,
        users: store::users(&mut conn, now).await?,
        miners: store::miners(&mut conn, now).await?,
        shares: store::shares(&mut conn, now).await?,
        blocks: store::blocks(&mut conn).await?,
        game: store::game(&mut conn).await?,
        system: AdminSystemStats {
            database_bytes: system.database_bytes,
            redis_used_bytes,
            ingest_lag_seconds: known.ingest_lag_seconds.unwrap_or(0.0),
            dead_letters_24h: system.dead_letters_24h,
            outbox_pending: system.outbox_pending,
            ws_connections: known.sockets,
            last_backup_at: known.last_backup_at,
        },
        audit: store::audit(&mut conn, now).await?,
        version: operations.version.to_owned(),
        environment: operations.environment.to_owned(),
    })
}

async fn kept(operations: &Operations) -> Option<AdminStats> {
    let json: Option<String> = ask(operations, cmd("GET").arg(KEY)).await?;
    // Another version of the program may have written it.
    serde_json::from_str(&json?).ok()
}

async fn keep(operations: &Operations, stats: &AdminStats) {
    let Ok(json) = serde_json::to_string(stats) else { return };
    ask::<()>(operations, cmd("SETEX").arg(KEY).arg(TTL_SECONDS).arg(json)).await;
}

async fn redis_used_bytes(operations: &Operations) -> i64 {
    let memory: Option<InfoDict> = ask(operations, cmd("INFO").arg("memory")).await;
    memory.and_then(|memory| memory.get("used_memory")).unwrap_or_default()
}

/// What only other processes know; zeros while Redis is away.
async fn told_by_processes(operations: &Operations, now: DateTime<Utc>) -> told::Known {
    let mut redis = operations.redis.clone();
    match tokio::time::timeout(REDIS_DEADLINE, told::ask(&mut redis, now)).await {
        Ok(Ok(known)) => known,
        _ => told::Known::default(),
    }
}

/// What Redis says, if it says anything soon.
async fn ask<T: FromRedisValue>(operations: &Operations, command: &Cmd) -> Option<T> {
    let mut redis = operations.redis.clone();
    match tokio::time::timeout(REDIS_DEADLINE, command.query_async(&mut redis)).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the overview does without Redis");
            None
        }
        Err(_) => {
            tracing::warn!("the overview does without Redis, which takes too long");
            None
        }
    }
}
