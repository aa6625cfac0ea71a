//! The lottery of this deployment.

use anyhow::{Context as _, bail};
use chrono::TimeDelta;
use sqlx::PgPool;
use tbg_core::config::{Environment, Settings};
use tbg_core::live::LiveBus;
use tbg_games::rules::lottery::SaltKey;
use tbg_games::{Cycle, CycleConfig};

/// When draws are due here.
pub fn config(settings: &Settings) -> CycleConfig {
    CycleConfig {
        freeze_grace: TimeDelta::seconds(settings.lottery_freeze_grace_seconds.into()),
        reveal_delay: TimeDelta::seconds(settings.lottery_reveal_delay_seconds.into()),
        watermark_wait: TimeDelta::seconds(settings.lottery_watermark_wait_seconds.into()),
    }
}

/// The cycle of weeks.
///
/// # Errors
/// When the key of the salts is missing or is none.
pub fn cycle(settings: &Settings, pool: &PgPool, bus: &LiveBus) -> anyhow::Result<Cycle> {
    Ok(Cycle { pool: pool.clone(), bus: bus.clone(), key: salt_key(settings)?, config: config(settings) })
}

/// The key of salts. Development and tests may go without one, because their draws prove nothing to anybody.
///
/// # Errors
/// When the key is missing or is none.
pub fn salt_key(settings: &Settings) -> anyhow::Result<SaltKey> {
    let text = settings.lottery_salt_key.expose();
    match (text.is_empty(), settings.environment) {
        (false, _) => SaltKey::from_hex(text).context("TBG_LOTTERY_SALT_KEY is not 64 lower-case hex digits"),
        (true, Environment::Development | Environment::Test) => {
            tracing::warn!(
                "TBG_LOTTERY_SALT_KEY is not set: draws of this process prove nothing and hide no address"
            );
            Ok(SaltKey::new([0; 32]))
        }
        (true, _) => bail!(
            "TBG_LOTTERY_SALT_KEY_FILE is not set: `openssl rand -hex 32` makes a key; keep it for as long as the game runs"
        ),
    }
}
