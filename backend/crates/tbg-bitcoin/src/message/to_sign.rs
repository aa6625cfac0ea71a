//! The two transactions of BIP-322, which nobody ever broadcasts, and what their signature signs.
//! `to_spend` commits to the message and the address; `to_sign` spends it.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytes};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

const TAG: &[u8] = b"BIP0322-signed-message";

/// The tagged hash of a message.
pub(crate) fn message_hash(message: &str) -> [u8; 32] {
    let tag = sha256::Hash::hash(TAG).to_byte_array();
    let mut engine = sha256::Hash::engine();
    engine.input(&tag);
    engine.input(&tag);
    engine.input(message.as_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// The transaction whose only output stands for the address.
pub(crate) fn to_spend(script_pubkey: &Script, message: &str) -> Transaction {
    Transaction {
        version: Version(0),
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(0).push_slice(message_hash(message)).into_script(),
            sequence: Sequence::ZERO,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: script_pubkey.to_owned() }],
    }
}

/// The output that a proof for this address and message must spend.
pub(crate) fn challenge(script_pubkey: &Script, message: &str) -> OutPoint {
    OutPoint::new(to_spend(script_pubkey, message).compute_txid(), 0)
}

/// The spending transaction of the simple form.
pub(crate) fn to_sign(challenge: OutPoint, script_sig: ScriptBuf, witness: Witness) -> Transaction {
    Transaction {
        version: Version(0),
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: challenge, script_sig, sequence: Sequence::ZERO, witness }],
        output: vec![nothing()],
    }
}

/// The only output of a spending transaction: no value, `OP_RETURN`.
pub(crate) fn nothing() -> TxOut {
    TxOut { value: Amount::ZERO, script_pubkey: Builder::new().push_opcode(OP_RETURN).into_script() }
}

/// The script that pushes the bytes of `script`, as a P2SH input does with what it redeems.
pub(crate) fn push(script: &Script) -> Option<ScriptBuf> {
    let bytes = <&PushBytes>::try_from(script.as_bytes()).ok()?;
    Some(Builder::new().push_slice(bytes).into_script())
}

/// What a P2PKH input signs.
pub(crate) fn legacy_digest(transaction: &Transaction, script_pubkey: &Script) -> Option<Message> {
    let all = EcdsaSighashType::All.to_u32();
    SighashCache::new(transaction).legacy_signature_hash(0, script_pubkey, all).ok().map(Message::from)
}

/// What a P2WPKH input signs, wrapped or not (BIP-143). `program` is the P2WPKH script.
pub(crate) fn segwit_digest(transaction: &Transaction, program: &Script) -> Option<Message> {
    SighashCache::new(transaction)
        .p2wpkh_signature_hash(0, program, Amount::ZERO, EcdsaSighashType::All)
        .ok()
        .map(Message::from)
}

/// What a taproot key path input signs (BIP-341).
pub(crate) fn taproot_digest(
    transaction: &Transaction,
    script_pubkey: &Script,
    kind: TapSighashType,
) -> Option<Message> {
    let spent = TxOut { value: Amount::ZERO, script_pubkey: script_pubkey.to_owned() };
    SighashCache::new(transaction)
        .taproot_key_spend_signature_hash(0, &Prevouts::All(std::slice::from_ref(&spent)), kind)
        .ok()
        .map(Message::from)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{BtcAddress, Network};

    const ADDRESS: &str = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l";

    fn script_of(address: &str) -> ScriptBuf {
        BtcAddress::parse(address, Network::Mainnet).unwrap().script_pubkey(Network::Mainnet).unwrap()
    }

    fn tagged(message: &str) -> String {
        sha256::Hash::from_byte_array(message_hash(message)).to_string()
    }

    #[test]
    fn hashes_match_the_contract() {
        for (message, hash, txid) in [
            (
                "",
                "c90c269c4f8fcbe6880f72a721ddfbf1914268a794cbb21cfafee13770ae19f1",
                "c5680aa69bb8d860bf82d4e9cd3504b55dde018de765a91bb566283c545a99a7",
            ),
            (
                "Hello World",
                "f0eb03b1a75ac6d9847f55c624a99169b5dccba2a31f5b23bea77ba270de0a7a",
                "b79d196740ad5217771c1098fc4a4b51e0535c32236c71f1ea4d61a2d603352b",
            ),
        ] {
            assert_eq!(tagged(message), hash);
            assert_eq!(challenge(&script_of(ADDRESS), message).txid.to_string(), txid);
        }
    }

    #[test]
    fn hashes_match_the_official_file() {
        let file = include_str!("../../tests/vectors/basic-test-vectors.json");
        let file: Value = serde_json::from_str(file).unwrap();
        let rows = file["tx_hashes"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        for row in rows {
            let message = row["message"].as_str().unwrap();
            let challenge = challenge(&script_of(row["address"].as_str().unwrap()), message);
            assert_eq!(tagged(message), row["message_hash"]);
            assert_eq!(challenge.txid.to_string(), row["to_spend_tx_hash"]);
            let spending = to_sign(challenge, ScriptBuf::new(), Witness::new());
            assert_eq!(spending.compute_txid().to_string(), row["to_sign_tx_hash"]);
        }
    }
}
