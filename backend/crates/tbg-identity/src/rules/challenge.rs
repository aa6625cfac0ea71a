//! The text that a wallet signs (contract §2.5).

use chrono::{DateTime, SecondsFormat, Utc};
use tbg_bitcoin::{BtcAddress, Network};
use tbg_core::UserId;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Signing in.
    SignIn,
    /// Adding a wallet to the account of a signed-in user.
    Link(UserId),
}

/// 16 random bytes as they stand in the text.
pub(crate) fn nonce_text(bytes: [u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The instant as it stands in the text.
pub(crate) fn timestamp_text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The whole text: ASCII, LF, no newline at the end, below the 240 bytes that hardware signers show.
pub(crate) fn message(
    purpose: Purpose,
    domain: &str,
    network: Network,
    address: &BtcAddress,
    nonce: &str,
    timestamp: &str,
) -> String {
    let first = match purpose {
        Purpose::SignIn => "sign-in",
        Purpose::Link(_) => "link-wallet",
    };
    let mut text = format!(
        "The Bitcoin Game {first}\n\nDomain: {domain}\nNetwork: {network}\nAddress: {address}\nNonce: {nonce}\nTimestamp: {timestamp}"
    );
    if let Purpose::Link(user) = purpose {
        text.push_str(&format!("\nAccount: {user}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(purpose: Purpose) -> String {
        let address =
            BtcAddress::parse("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", Network::Mainnet).unwrap();
        let nonce = nonce_text(0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0_u128.to_be_bytes());
        message(purpose, "thebitcoingame.com", Network::Mainnet, &address, &nonce, "2026-03-15T14:30:00Z")
    }

    #[test]
    fn the_text_is_that_of_the_contract() {
        let expected = "The Bitcoin Game sign-in\n\nDomain: thebitcoingame.com\nNetwork: mainnet\nAddress: bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l\nNonce: 0f1e2d3c4b5a69788796a5b4c3d2e1f0\nTimestamp: 2026-03-15T14:30:00Z";
        assert_eq!(text(Purpose::SignIn), expected);
        assert_eq!(expected.len(), 193);
    }

    #[test]
    fn the_text_of_a_link_names_the_account_and_still_fits_a_hardware_wallet() {
        let linked = text(Purpose::Link(UserId(42)));
        assert!(linked.starts_with("The Bitcoin Game link-wallet\n") && linked.ends_with("\nAccount: 42"));
        assert!(text(Purpose::Link(UserId(1_000_000_000_000))).len() < 240);
    }
}
