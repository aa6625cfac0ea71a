//! Message signatures: proof that somebody holds the key of an address (contract `auth-users.md`
//! §2.2 to §2.4).
//!
//! The text of a signature is hostile. Everything below answers `None` for any defect, so that the
//! caller learns valid or invalid and nothing else.

mod bip322;
pub(crate) mod compact;
pub(crate) mod decode;
pub(crate) mod to_sign;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use bitcoin::secp256k1::{All, Secp256k1};

use crate::{BtcAddress, Network};
use decode::Proof;

/// Longest signature text that is looked at, in bytes; every valid one is ASCII.
const MAX_SIGNATURE_LEN: usize = 2048;

/// Whether `signature` proves that the holder of the key of `address` signed exactly `message`.
///
/// Accepted are compact recoverable signatures (BIP-137 and the Electrum convention) and BIP-322
/// proofs of one key, simple and full. Blanks around the signature are dropped. The answer is
/// `false` for an address of another network than `network` and for any input that is not a
/// signature.
#[must_use]
pub fn verify_message(address: &BtcAddress, network: Network, message: &str, signature: &str) -> bool {
    check(address, network, message, signature).is_some()
}

fn check(address: &BtcAddress, network: Network, message: &str, signature: &str) -> Option<()> {
    let signature = signature.trim();
    ensure(signature.len() <= MAX_SIGNATURE_LEN)?;
    let kind = address.address_type();
    let script_pubkey = address.script_pubkey(network)?;
    match decode::proof(signature)? {
        Proof::Compact(signature) => compact::verify(kind, &script_pubkey, message, &signature),
        Proof::Simple(witness) => bip322::verify_simple(kind, &script_pubkey, message, witness),
        Proof::Full(transaction) => bip322::verify_full(kind, &script_pubkey, message, &transaction),
    }
}

/// Turns a condition into something that `?` can end a check with.
fn ensure(holds: bool) -> Option<()> {
    holds.then_some(())
}

/// The one context of libsecp256k1: making one takes longer than a verification does.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);
    &CONTEXT
}
