//! Throwaway keys: for people who try the game out without a wallet at hand, and for tests.
//!
//! Nothing here draws random numbers. The caller supplies the secret, and the same secret and message
//! always give the same signature (RFC 6979; Schnorr without auxiliary randomness). Keys live in
//! ordinary memory: do not keep funds on them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::serialize;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Message, PublicKey, SecretKey};
use bitcoin::{
    Address, CompressedPublicKey, PrivateKey, Script, ScriptBuf, TapSighashType, Transaction, Witness, ecdsa,
};

use crate::message::decode::{FULL_PREFIX, SIMPLE_PREFIX};
use crate::message::to_sign::{challenge, legacy_digest, push, segwit_digest, taproot_digest, to_sign};
use crate::message::{compact, secp};
use crate::{AddressType, BtcAddress, Network};

/// A secret key whose public key is written compressed.
#[derive(Clone)]
pub struct Key {
    secret: SecretKey,
}

/// Why a text is not the private key of a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WifError {
    /// Not a private key in wallet import format.
    #[error("not a private key in wallet import format")]
    Invalid,
    /// A key of the old kind, whose addresses are other than those of a [`Key`].
    #[error("private key of an uncompressed public key")]
    Uncompressed,
}

impl Key {
    /// The key of a secret; `None` for zero and for numbers beyond the order of the curve.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Option<Self> {
        SecretKey::from_slice(&secret).ok().map(|secret| Self { secret })
    }

    /// Reads a private key in wallet import format, of any network.
    ///
    /// # Errors
    /// [`WifError`] when the text is not one, or is one for an uncompressed public key.
    pub fn from_wif(wif: &str) -> Result<Self, WifError> {
        let key = PrivateKey::from_wif(wif.trim()).map_err(|_| WifError::Invalid)?;
        if key.compressed { Ok(Self { secret: key.inner }) } else { Err(WifError::Uncompressed) }
    }

    /// The private key in wallet import format, as wallets of `network` read it.
    #[must_use]
    pub fn to_wif(&self, network: Network) -> String {
        PrivateKey::new(self.secret, network.of_bitcoin()).to_wif()
    }

    /// The address of this key: P2SH wraps P2WPKH, P2TR is the key path without scripts (BIP-86).
    /// `None` for P2WSH, which is the address of a script.
    #[must_use]
    pub fn address(&self, kind: AddressType, network: Network) -> Option<BtcAddress> {
        let (key, network) = (self.public(), network.of_bitcoin());
        let address = match kind {
            AddressType::P2pkh => Address::p2pkh(key, network),
            AddressType::P2sh => Address::p2shwpkh(&key, network),
            AddressType::P2wpkh => Address::p2wpkh(&key, network),
            AddressType::P2tr => Address::p2tr(secp(), key.0.x_only_public_key().0, None, network),
            AddressType::P2wsh => return None,
        };
        Some(BtcAddress::computed(&address, kind))
    }

    /// A compact recoverable signature in base64, with the header of BIP-137 for the type. Taproot
    /// and P2WSH have no such signature: they get the header of P2PKH, which proves nothing for them.
    #[must_use]
    pub fn sign_compact(&self, message: &str, kind: AddressType) -> String {
        let signature = secp().sign_ecdsa_recoverable(&compact::digest(message), &self.secret);
        let (recovery, rs) = signature.serialize_compact();
        let style = match kind {
            AddressType::P2pkh | AddressType::P2tr | AddressType::P2wsh => 31,
            AddressType::P2sh => 35,
            AddressType::P2wpkh => 39,
        };
        let mut bytes = vec![style + recovery.to_i32() as u8];
        bytes.extend(rs);
        STANDARD.encode(bytes)
    }

    /// A BIP-322 signature with its prefix: the full form for P2PKH, which has no other, and the
    /// simple form for the rest. `None` for P2WSH.
    #[must_use]
    pub fn sign_bip322(&self, message: &str, kind: AddressType, network: Network) -> Option<String> {
        let script_pubkey = self.address(kind, network)?.script_pubkey(network)?;
        let program = ScriptBuf::new_p2wpkh(&self.public().wpubkey_hash());
        let script_sig = if kind == AddressType::P2sh { push(&program)? } else { ScriptBuf::new() };
        let mut unsigned = to_sign(challenge(&script_pubkey, message), script_sig, Witness::new());
        let witness = match kind {
            AddressType::P2pkh => {
                let signature = self.ecdsa(&legacy_digest(&unsigned, &script_pubkey)?);
                let key = bitcoin::PublicKey::from(self.public());
                let script_sig = Builder::new().push_slice(signature.serialize()).push_key(&key);
                unsigned.input.first_mut()?.script_sig = script_sig.into_script();
                return Some(format!("{FULL_PREFIX}{}", STANDARD.encode(serialize(&unsigned))));
            }
            AddressType::P2sh | AddressType::P2wpkh => {
                Witness::p2wpkh(&self.ecdsa(&segwit_digest(&unsigned, &program)?), &self.public().0)
            }
            AddressType::P2tr => self.key_path(&unsigned, &script_pubkey)?,
            AddressType::P2wsh => return None,
        };
        Some(format!("{SIMPLE_PREFIX}{}", STANDARD.encode(serialize(&witness))))
    }

    fn public(&self) -> CompressedPublicKey {
        CompressedPublicKey(PublicKey::from_secret_key(secp(), &self.secret))
    }

    fn ecdsa(&self, digest: &Message) -> ecdsa::Signature {
        ecdsa::Signature::sighash_all(secp().sign_ecdsa(digest, &self.secret))
    }

    fn key_path(&self, unsigned: &Transaction, script_pubkey: &Script) -> Option<Witness> {
        let digest = taproot_digest(unsigned, script_pubkey, TapSighashType::Default)?;
        let pair = Keypair::from(Keypair::from_secret_key(secp(), &self.secret).tap_tweak(secp(), None));
        let signature = secp().sign_schnorr_no_aux_rand(&digest, &pair);
        Some(Witness::from_slice(&[signature.serialize()]))
    }
}

/// Hides the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIF: &str = "L3VFeEujGtevx9w18HD1fhRbCH67Az2dpCymeRE1SoPK6XQtaN2k";

    #[test]
    fn addresses_match_the_contract() {
        let key = Key::from_wif(WIF).unwrap();
        for (kind, network, expected) in [
            (AddressType::P2pkh, Network::Mainnet, "14vV3aCHBeStb5bkenkNHbe2YAFinYdXgc"),
            (AddressType::P2sh, Network::Mainnet, "37qyp7jQAzqb2rCBpMvVtLDuuzKAUCVnJb"),
            (AddressType::P2sh, Network::Testnet, "2MyQBsrfRnTLwEdpjVVYNWHDB8LXLJUcub9"),
            (AddressType::P2wpkh, Network::Mainnet, "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l"),
            (AddressType::P2wpkh, Network::Signet, "tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v"),
            (AddressType::P2wpkh, Network::Regtest, "bcrt1q9vza2e8x573nczrlzms0wvx3gsqjx7vay85cr9"),
            (
                AddressType::P2tr,
                Network::Mainnet,
                "bc1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5sxq8lt3",
            ),
            (
                AddressType::P2tr,
                Network::Regtest,
                "bcrt1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5su3mkyy",
            ),
        ] {
            let address = key.address(kind, network).unwrap();
            assert_eq!(address.as_str(), expected);
            assert_eq!(BtcAddress::parse(expected, network).unwrap(), address);
        }
        assert_eq!(key.address(AddressType::P2wsh, Network::Mainnet), None);
        assert_eq!(key.sign_bip322("m", AddressType::P2wsh, Network::Mainnet), None);
    }

    #[test]
    fn private_keys_survive_the_round_trip() {
        let key = Key::from_wif(WIF).unwrap();
        assert_eq!(key.to_wif(Network::Mainnet), WIF);
        let test_networks = "cTrF79uahxMC7bQGWh2931vepWPWqS8KtF8EkqgWwv3KMGZNJ2yP";
        assert_eq!(key.to_wif(Network::Regtest), test_networks);
        assert_eq!(Key::from_wif(test_networks).unwrap().to_wif(Network::Mainnet), WIF);
        let uncompressed = "5KEeknHvz4zz5nyeBiHKH218kLWFYGBnx6tNtyh6zW64CHtjW6G";
        assert_eq!(Key::from_wif(uncompressed).unwrap_err(), WifError::Uncompressed);
        assert_eq!(Key::from_wif("L3VFeEuj").unwrap_err(), WifError::Invalid);
        assert!(Key::from_secret([0; 32]).is_none() && Key::from_secret([0xff; 32]).is_none());
        assert_eq!(format!("{key:?}"), "Key");
    }
}
