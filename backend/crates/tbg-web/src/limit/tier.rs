//! The tiers, their limits and the names of their buckets. Contract: `auth-users.md` section 1.3,
//! `realtime.md` section 1.

use std::net::IpAddr;

use tbg_core::UserId;
use uuid::Uuid;

use super::client_key;

/// What a request or message is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Requests without a valid credential, by address.
    Unauth,
    /// Requests with a valid access token, by user.
    User,
    /// Requests with a valid API key, by key.
    ApiKey,
    /// Requests under `/api/v1/auth/`, by address.
    AuthEndpoint,
    /// Messages on a socket.
    WebSocket,
    /// Attempts to open a socket: failed ones by address, all by user.
    WsHandshake,
}

impl Tier {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Unauth, Self::User, Self::ApiKey, Self::AuthEndpoint, Self::WebSocket, Self::WsHandshake];

    /// The value of the label `tier`.
    #[must_use]
    pub fn metric_label(self) -> &'static str {
        match self {
            Self::Unauth => "unauth",
            Self::User => "auth",
            Self::ApiKey => "api_key",
            Self::AuthEndpoint => "auth_endpoint",
            Self::WebSocket => "websocket",
            Self::WsHandshake => "ws_handshake",
        }
    }
}

/// Accepted requests or messages per 60 seconds. The default is what production runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Without a valid credential, per address.
    pub unauth: u32,
    /// With a valid access token, per user.
    pub user: u32,
    /// With a valid API key, per key.
    pub api_key: u32,
    /// Messages per socket.
    pub websocket: u32,
    /// Under `/api/v1/auth/`, per address.
    pub auth_endpoint: u32,
}

impl Limits {
    /// The limit of a tier; handshakes share that of sockets.
    #[must_use]
    pub fn of(self, tier: Tier) -> u32 {
        match tier {
            Tier::Unauth => self.unauth,
            Tier::User => self.user,
            Tier::ApiKey => self.api_key,
            Tier::AuthEndpoint => self.auth_endpoint,
            Tier::WebSocket | Tier::WsHandshake => self.websocket,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { unauth: 30, user: 120, api_key: 600, websocket: 60, auth_endpoint: 5 }
    }
}

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A client by address.
    Ip(IpAddr),
    /// A user.
    User(UserId),
    /// An API key, by its id; never by its secret.
    ApiKey(Uuid),
}

/// The Redis key of a bucket, such as `ratelimit:auth:42`.
#[must_use]
pub fn redis_key(tier: Tier, subject: Subject) -> String {
    let tier = match (tier, subject) {
        (Tier::WsHandshake, Subject::Ip(_)) => "ws_fail",
        (Tier::WsHandshake, _) => "ws_connect",
        (tier, _) => tier.metric_label(),
    };
    match subject {
        Subject::Ip(address) => format!("ratelimit:{tier}:{}", client_key(address)),
        Subject::User(user) => format!("ratelimit:{tier}:{user}"),
        Subject::ApiKey(key) => format!("ratelimit:{tier}:{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_have_the_names_of_the_contract() {
        let ipv4 = Subject::Ip("203.0.113.7".parse().unwrap());
        let ipv6 = Subject::Ip("2001:db8:1:2:3::4".parse().unwrap());
        let user = Subject::User(UserId(42));
        let id = "01936000-0000-7000-8000-000000000001";

        assert_eq!(redis_key(Tier::AuthEndpoint, ipv4), "ratelimit:auth_endpoint:203.0.113.7");
        assert_eq!(redis_key(Tier::Unauth, ipv6), "ratelimit:unauth:2001:db8:1:2::/64");
        assert_eq!(redis_key(Tier::User, user), "ratelimit:auth:42");
        let key = Subject::ApiKey(id.parse().unwrap());
        assert_eq!(redis_key(Tier::ApiKey, key), format!("ratelimit:api_key:{id}"));
        assert_eq!(redis_key(Tier::WsHandshake, ipv4), "ratelimit:ws_fail:203.0.113.7");
        assert_eq!(redis_key(Tier::WsHandshake, user), "ratelimit:ws_connect:42");
    }
}
