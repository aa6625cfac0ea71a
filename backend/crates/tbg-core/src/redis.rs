//! Redis connections. Redis is never the only home of a fact.

use std::time::Duration;

use anyhow::{Context as _, bail};
use redis::Client;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};

use crate::config::Settings;

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The client for `TBG_REDIS_URL`; connects to nothing yet.
///
/// # Errors
/// When the setting is missing or is not a Redis URL. The message does not quote it.
pub fn client(settings: &Settings) -> anyhow::Result<Client> {
    let url = settings.redis_url.expose();
    if url.is_empty() {
        bail!("TBG_REDIS_URL is not set: give it, or TBG_REDIS_URL_FILE, a redis:// URL");
    }
    Client::open(url).map_err(|_| anyhow::anyhow!("TBG_REDIS_URL is not a redis:// or unix:// URL"))
}

/// A multiplexed connection that reconnects by itself and is made when first used.
///
/// # Errors
/// When the client cannot be configured.
pub fn manager(client: &Client) -> anyhow::Result<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_number_of_retries(1);
    ConnectionManager::new_lazy_with_config(client.clone(), config).context("cannot set up Redis")
}

/// A connection of one's own, without a response time-out, for blocking reads.
///
/// # Errors
/// When Redis does not answer.
pub async fn dedicated(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}
