//! Where a request comes from.
//!
//! The peer of the connection, unless that is a trusted proxy: then the right-most hop of
//! `X-Forwarded-For` that is not one. What a client writes into the header itself stands further left and
//! is never looked at. Contract: `auth-users.md` §1.3.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::FromRequestParts;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;
use tbg_core::audit;

use crate::error::ApiError;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The other end of the connection, put into each request by [`crate::serve`].
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Client address and user agent, for the audit log. Extractor.
#[derive(Clone, Debug, Default)]
pub struct Origin(pub audit::Origin);

/// The client of a request.
pub(crate) fn client_ip(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let mut client = peer;
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        // A hop that is no address was not written by our proxy: the last good one is the client.
        let Some(ip) = parse_hop(hop) else { break };
        client = ip;
        if !is_trusted(ip, trusted) {
            break;
        }
    }
    client
}

fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&ip))
}

/// An address, alone or with a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let ip =
        hop.parse::<IpAddr>().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(ip.to_canonical())
}

pub(crate) fn origin_of(ip: IpAddr, headers: &HeaderMap) -> Origin {
    let user_agent =
        headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
    Origin(audit::Origin { ip: Some(ip), user_agent })
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &str) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(Peer(SocketAddr::new(peer.parse().unwrap(), 1)));
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.split(',').filter_map(|net| net.parse().ok()).collect();
        client_ip(&extensions, &headers, &trusted).to_string()
    }

    #[test]
    fn without_a_trusted_proxy_the_header_means_nothing() {
        assert_eq!(client("203.0.113.7", &["1.2.3.4"], ""), "203.0.113.7");
        assert_eq!(client("203.0.113.7", &["1.2.3.4"], "10.0.0.0/8"), "203.0.113.7");
    }

    #[test]
    fn behind_proxies_the_right_most_foreign_hop_is_the_client() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 203.0.113.7"], "10.0.0.0/8"), "203.0.113.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 203.0.113.7, 10.0.0.2"], "10.0.0.0/8"), "203.0.113.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "203.0.113.7"], "10.0.0.0/8"), "203.0.113.7");
        assert_eq!(client("10.0.0.1", &["203.0.113.7:1234"], "10.0.0.0/8"), "203.0.113.7");
        assert_eq!(client("10.0.0.1", &["::ffff:203.0.113.7"], "10.0.0.0/8"), "203.0.113.7");
        assert_eq!(client("::ffff:10.0.0.1", &["2001:db8::1"], "10.0.0.0/8"), "2001:db8::1");
    }

    #[test]
    fn nonsense_stops_the_walk_at_the_last_good_hop() {
        assert_eq!(client("10.0.0.1", &["203.0.113.7, nonsense"], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["nonsense, 10.0.0.9"], "10.0.0.0/8"), "10.0.0.9");
        assert_eq!(client("10.0.0.1", &[], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.0/8"), "10.0.0.3");
    }
}
