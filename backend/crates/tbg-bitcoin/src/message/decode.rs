//! From the text of a signature to its form (contract `auth-users.md` §2.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::deserialize;
use bitcoin::{Transaction, Witness};

/// Marks a BIP-322 signature of the simple form.
pub(crate) const SIMPLE_PREFIX: &str = "smp";
/// Marks a BIP-322 signature of the full form.
pub(crate) const FULL_PREFIX: &str = "ful";
/// Marks a proof of funds, which is never a sign-in.
const PROOF_OF_FUNDS_PREFIX: &str = "pof";

/// A signature that is well-formed and nothing more.
pub(super) enum Proof {
    /// Header, r and s.
    Compact([u8; 65]),
    /// The witness stack of a transaction that the verifier rebuilds.
    Simple(Witness),
    /// The whole transaction.
    Full(Transaction),
}

/// Reads a signature. Base64 is the padded standard alphabet with nothing left over.
pub(super) fn proof(signature: &str) -> Option<Proof> {
    if let Some(rest) = signature.strip_prefix(SIMPLE_PREFIX) {
        return simple(&STANDARD.decode(rest).ok()?);
    }
    if let Some(rest) = signature.strip_prefix(FULL_PREFIX) {
        return full(&STANDARD.decode(rest).ok()?);
    }
    if signature.starts_with(PROOF_OF_FUNDS_PREFIX) {
        return None;
    }
    let bytes = STANDARD.decode(signature).ok()?;
    match <[u8; 65]>::try_from(bytes.as_slice()) {
        Ok(compact) => Some(Proof::Compact(compact)),
        Err(_) => simple(&bytes).or_else(|| full(&bytes)),
    }
}

/// A witness stack that takes up all bytes.
fn simple(bytes: &[u8]) -> Option<Proof> {
    deserialize(bytes).ok().map(Proof::Simple)
}

/// A transaction that takes up all bytes.
fn full(bytes: &[u8]) -> Option<Proof> {
    deserialize(bytes).ok().map(Proof::Full)
}
