//! Mining addresses: parsed, checked for their network, normalised (contract `auth-users.md` §2.1).

use std::fmt;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, ScriptBuf, WitnessVersion};

use crate::Network;

/// Longest input that is looked at, in bytes; the columns are `VARCHAR(90)`.
const MAX_LEN: usize = 90;

/// An address that is valid for a known network, in its normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BtcAddress {
    text: String,
    kind: AddressType,
}

/// The five address types that miners may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressType {
    /// Pay to public key hash, Base58Check.
    P2pkh,
    /// Pay to script hash, Base58Check.
    P2sh,
    /// Witness version 0, 20-byte program (BIP-173).
    P2wpkh,
    /// Witness version 0, 32-byte program (BIP-173).
    P2wsh,
    /// Witness version 1, 32-byte program (BIP-350).
    P2tr,
}

impl AddressType {
    /// The name used on the wire and in `address_type` columns.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P2pkh => "p2pkh",
            Self::P2sh => "p2sh",
            Self::P2wpkh => "p2wpkh",
            Self::P2wsh => "p2wsh",
            Self::P2tr => "p2tr",
        }
    }
}

/// Why a text is not an address of this deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an address at all, or of a type that no wallet uses for mining.
    #[error("not a valid Bitcoin address")]
    Invalid,
    /// A good address of another network.
    #[error("address belongs to another network")]
    WrongNetwork,
}

impl BtcAddress {
    /// Parses an address of `network`; surrounding blanks are dropped and an upper-case bech32
    /// address becomes lower case.
    ///
    /// # Errors
    /// [`AddressError::Invalid`] for anything that is not one of the five types,
    /// [`AddressError::WrongNetwork`] for a well-formed address of another network.
    pub fn parse(text: &str, network: Network) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(AddressError::Invalid);
        }
        let unchecked: Address<NetworkUnchecked> = text.parse().map_err(|_| AddressError::Invalid)?;
        let kind = address_type(unchecked.assume_checked_ref()).ok_or(AddressError::Invalid)?;
        let checked =
            unchecked.require_network(network.of_bitcoin()).map_err(|_| AddressError::WrongNetwork)?;
        Ok(Self { text: checked.to_string(), kind })
    }

    /// An address that was computed rather than read, so there is nothing to check.
    pub(crate) fn computed(address: &Address, kind: AddressType) -> Self {
        Self { text: address.to_string(), kind }
    }

    /// What the load test signs in with instead of an address: `bc1qtest` and four digits (contract
    /// `auth-users.md` §4.2). No address of any network.
    #[cfg(feature = "loadtest-auth")]
    #[must_use]
    pub fn of_load_test(text: &str) -> Self {
        Self { text: text.to_owned(), kind: AddressType::P2wpkh }
    }

    /// The normal form, at most 64 characters today.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What kind of output the address names.
    #[must_use]
    pub fn address_type(&self) -> AddressType {
        self.kind
    }

    /// Whether [`crate::verify_message`] can accept a signature for this type of address. A P2SH
    /// address counts, although only one that wraps P2WPKH has a key to sign with: the address alone
    /// does not tell.
    #[must_use]
    pub fn can_sign(&self) -> bool {
        self.kind != AddressType::P2wsh
    }

    /// The output script; `None` when the address belongs to another network.
    pub(crate) fn script_pubkey(&self, network: Network) -> Option<ScriptBuf> {
        let unchecked: Address<NetworkUnchecked> = self.text.parse().ok()?;
        Some(unchecked.require_network(network.of_bitcoin()).ok()?.script_pubkey())
    }
}

impl fmt::Display for BtcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn address_type(address: &Address) -> Option<AddressType> {
    if let Some(program) = address.witness_program() {
        return match (program.version(), program.program().len()) {
            (WitnessVersion::V0, 20) => Some(AddressType::P2wpkh),
            (WitnessVersion::V0, 32) => Some(AddressType::P2wsh),
            (WitnessVersion::V1, 32) => Some(AddressType::P2tr),
            _ => None,
        };
    }
    if address.pubkey_hash().is_some() {
        Some(AddressType::P2pkh)
    } else {
        address.script_hash().map(|_| AddressType::P2sh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_types_are_recognised() {
        for (text, kind) in [
            ("15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs", AddressType::P2pkh),
            ("3LbZqMMHu371r5Fjve9qNhSQzuNi7EzqUR", AddressType::P2sh),
            ("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", AddressType::P2wpkh),
            ("bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3", AddressType::P2wsh),
            ("bc1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5sxq8lt3", AddressType::P2tr),
        ] {
            let address = BtcAddress::parse(text, Network::Mainnet).unwrap();
            assert_eq!((address.as_str(), address.address_type()), (text, kind));
            assert_eq!(address.can_sign(), kind.as_str() != "p2wsh");
        }
    }

    #[test]
    fn upper_case_bech32_and_blanks_are_normalised() {
        let address = BtcAddress::parse(" BC1Q9VZA2E8X573NCZRLZMS0WVX3GSQJX7VAVGKX0L\n", Network::Mainnet);
        assert_eq!(address.unwrap().as_str(), "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l");
    }

    #[test]
    fn other_networks_and_nonsense_are_told_apart() {
        let of = |text, network| BtcAddress::parse(text, network).unwrap_err();
        let mainnet = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l";
        assert_eq!(of(mainnet, Network::Signet), AddressError::WrongNetwork);
        assert_eq!(of(mainnet, Network::Regtest), AddressError::WrongNetwork);
        for bad in ["", "bc1qtest", "bC1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", &"1".repeat(91)] {
            assert_eq!(of(bad, Network::Mainnet), AddressError::Invalid, "{bad}");
        }
    }
}
