//! Who counts as one client by address.

use std::net::{IpAddr, Ipv6Addr};

/// The name of a client's bucket: an IPv4 address itself; of an IPv6 address its /64, because that is what
/// one customer gets and can walk through at will. An IPv4 address in IPv6 clothes is an IPv4 address.
#[must_use]
pub fn client_key(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> String {
        client_key(address.parse().unwrap())
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client() {
        assert_eq!(key("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(key("2001:db8:1:2:ffff::1"), "2001:db8:1:2::/64");
        assert_eq!(key("2001:db8:1:3::1"), "2001:db8:1:3::/64");
        assert_eq!(key("2001:db8::1"), "2001:db8::/64");
        assert_eq!(key("::1"), "::/64");
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert_eq!(key("203.0.113.7"), "203.0.113.7");
        assert_eq!(key("::ffff:203.0.113.7"), "203.0.113.7");
    }
}
