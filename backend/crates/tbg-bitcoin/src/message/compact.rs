//! Compact recoverable ECDSA signatures (contract `auth-users.md` §2.3).

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Message;
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use bitcoin::sign_message::signed_msg_hash;
use bitcoin::{CompressedPublicKey, PublicKey, Script, ScriptBuf};

use super::{ensure, secp};
use crate::AddressType;

/// The lowest header byte; four headers, one per recovery number, make up a style.
const FIRST_HEADER: u8 = 27;

/// What is hashed and signed for `message`.
pub(crate) fn digest(message: &str) -> Message {
    Message::from_digest(signed_msg_hash(message).to_byte_array())
}

/// Recovers the key and compares the output script it makes with the one of the address.
///
/// A high S is accepted: it could only matter where a signature must not be presented twice in two
/// spellings, and the challenges are for single use.
pub(super) fn verify(
    kind: AddressType,
    script_pubkey: &Script,
    message: &str,
    signature: &[u8; 65],
) -> Option<()> {
    let [header, rs @ ..] = signature;
    let header = header.checked_sub(FIRST_HEADER)?;
    let (style, recovery) = (header / 4, header % 4);
    let recovery = RecoveryId::from_i32(i32::from(recovery)).ok()?;
    let signature = RecoverableSignature::from_compact(rs, recovery).ok()?;
    let key = CompressedPublicKey(secp().recover_ecdsa(&digest(message), &signature).ok()?);
    let expected = match (kind, style) {
        (AddressType::P2pkh, 0) => ScriptBuf::new_p2pkh(&PublicKey::new_uncompressed(key.0).pubkey_hash()),
        (AddressType::P2pkh, 1) => ScriptBuf::new_p2pkh(&key.pubkey_hash()),
        (AddressType::P2wpkh, 1 | 3) => ScriptBuf::new_p2wpkh(&key.wpubkey_hash()),
        (AddressType::P2sh, 1 | 2) => ScriptBuf::new_p2wpkh(&key.wpubkey_hash()).to_p2sh(),
        _ => return None,
    };
    ensure(*script_pubkey == expected)
}
