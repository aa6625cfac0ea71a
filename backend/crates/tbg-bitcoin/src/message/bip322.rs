//! BIP-322 proofs of one key (contract `auth-users.md` §2.4).
//!
//! No script is run: each address type has one form of input, and that form is checked. Whatever
//! else could spend such an output (P2WSH, other P2SH, taproot scripts) is refused.

use bitcoin::script::Instruction;
use bitcoin::secp256k1::{self, Message, ecdsa, schnorr};
use bitcoin::{
    CompressedPublicKey, PublicKey, Script, ScriptBuf, TapSighashType, Transaction, TxIn, Witness,
    XOnlyPublicKey,
};

use super::to_sign::{challenge, legacy_digest, nothing, push, segwit_digest, taproot_digest, to_sign};
use super::{ensure, secp};
use crate::AddressType;

/// The byte behind a signature over all inputs and outputs, the only kind that is accepted.
const SIGHASH_ALL: u8 = 0x01;

/// Checks a witness stack, with the transaction around it rebuilt.
pub(super) fn verify_simple(
    kind: AddressType,
    script_pubkey: &Script,
    message: &str,
    witness: Witness,
) -> Option<()> {
    let script_sig = match kind {
        AddressType::P2wpkh | AddressType::P2tr => ScriptBuf::new(),
        AddressType::P2sh => push(&program(&stack(&witness)?.1))?,
        AddressType::P2pkh | AddressType::P2wsh => return None,
    };
    let transaction = to_sign(challenge(script_pubkey, message), script_sig, witness);
    verify_input(kind, script_pubkey, &transaction)
}

/// Checks a whole transaction. Its lock time and sequence are free: they gate nothing where one key
/// decides, and the signature covers them.
pub(super) fn verify_full(
    kind: AddressType,
    script_pubkey: &Script,
    message: &str,
    transaction: &Transaction,
) -> Option<()> {
    ensure(matches!(transaction.version.0, 0 | 2))?;
    let [input] = transaction.input.as_slice() else { return None };
    ensure(input.previous_output == challenge(script_pubkey, message))?;
    ensure(transaction.output == [nothing()])?;
    verify_input(kind, script_pubkey, transaction)
}

fn verify_input(kind: AddressType, script_pubkey: &Script, transaction: &Transaction) -> Option<()> {
    let input = transaction.input.first()?;
    match kind {
        AddressType::P2pkh => verify_p2pkh(script_pubkey, transaction, input),
        AddressType::P2wpkh => {
            let (signature, key) = stack(&input.witness)?;
            let program = program(&key);
            ensure(input.script_sig.is_empty() && *script_pubkey == program)?;
            verify_ecdsa(signature, &segwit_digest(transaction, &program)?, &key.0)
        }
        AddressType::P2sh => {
            let (signature, key) = stack(&input.witness)?;
            let program = program(&key);
            ensure(input.script_sig == push(&program)? && *script_pubkey == program.to_p2sh())?;
            verify_ecdsa(signature, &segwit_digest(transaction, &program)?, &key.0)
        }
        AddressType::P2tr => verify_p2tr(script_pubkey, transaction, input),
        AddressType::P2wsh => None,
    }
}

fn verify_p2pkh(script_pubkey: &Script, transaction: &Transaction, input: &TxIn) -> Option<()> {
    ensure(input.witness.is_empty())?;
    let [signature, key] = pushes(&input.script_sig)?;
    let key = PublicKey::from_slice(key).ok()?;
    ensure(*script_pubkey == ScriptBuf::new_p2pkh(&key.pubkey_hash()))?;
    verify_ecdsa(signature, &legacy_digest(transaction, script_pubkey)?, &key.inner)
}

/// Key path only: a second element would be an annex or belong to a script path.
fn verify_p2tr(script_pubkey: &Script, transaction: &Transaction, input: &TxIn) -> Option<()> {
    ensure(input.script_sig.is_empty() && input.witness.len() == 1)?;
    let element = input.witness.nth(0)?;
    let (signature, kind) = match element {
        [signature @ .., SIGHASH_ALL] if signature.len() == 64 => (signature, TapSighashType::All),
        signature => (signature, TapSighashType::Default),
    };
    let signature = schnorr::Signature::from_slice(signature).ok()?;
    let key = XOnlyPublicKey::from_slice(script_pubkey.as_bytes().get(2..)?).ok()?;
    secp().verify_schnorr(&signature, &taproot_digest(transaction, script_pubkey, kind)?, &key).ok()
}

/// The P2WPKH script of a key.
fn program(key: &CompressedPublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&key.wpubkey_hash())
}

/// The two elements of a P2WPKH witness: a signature and a compressed key.
fn stack(witness: &Witness) -> Option<(&[u8], CompressedPublicKey)> {
    ensure(witness.len() == 2)?;
    let key = witness.nth(1)?;
    ensure(key.len() == 33)?;
    Some((witness.nth(0)?, CompressedPublicKey::from_slice(key).ok()?))
}

/// The two things that a P2PKH input pushes, each in its shortest encoding.
fn pushes(script: &Script) -> Option<[&[u8]; 2]> {
    let mut pushes = script.instructions_minimal().map(|instruction| match instruction {
        Ok(Instruction::PushBytes(bytes)) => Some(bytes.as_bytes()),
        _ => None,
    });
    let pair = [pushes.next()??, pushes.next()??];
    ensure(pushes.next().is_none())?;
    Some(pair)
}

/// Checks an ECDSA signature: strict DER, low S, over all inputs and outputs.
fn verify_ecdsa(signature: &[u8], digest: &Message, key: &secp256k1::PublicKey) -> Option<()> {
    let [der @ .., SIGHASH_ALL] = signature else { return None };
    let signature = ecdsa::Signature::from_der(der).ok()?;
    let mut low = signature;
    low.normalize_s();
    // libsecp256k1 reads numbers that are out of range as zero; only its own spelling counts.
    ensure(low == signature && signature.serialize_der()[..] == *der)?;
    secp().verify_ecdsa(digest, &signature, key).ok()
}
