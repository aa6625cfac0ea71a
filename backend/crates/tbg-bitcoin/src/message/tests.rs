//! Proofs that are wrong in one respect each, with all the rest in order and signed.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{Message, SecretKey, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache, TapSighashType};
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, CompressedPublicKey, PublicKey, ScriptBuf, Sequence, Transaction, WPubkeyHash, Witness,
};

use super::to_sign::{challenge, legacy_digest, nothing, push, segwit_digest, taproot_digest, to_sign};
use super::{secp, verify_message};
use crate::wallet::Key;
use crate::{AddressType, BtcAddress, Network};

const MESSAGE: &str = "The Bitcoin Game sign-in";
const SECRET: [u8; 32] = [0x42; 32];
const SIGNABLE: [AddressType; 4] =
    [AddressType::P2pkh, AddressType::P2sh, AddressType::P2wpkh, AddressType::P2tr];

/// Somebody who signs whatever they like with the key of their address.
struct Holder {
    address: BtcAddress,
    script: ScriptBuf,
}

fn secret() -> SecretKey {
    SecretKey::from_slice(&SECRET).unwrap()
}

fn key() -> CompressedPublicKey {
    CompressedPublicKey(secret().public_key(secp()))
}

fn program() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&key().wpubkey_hash())
}

fn wallet() -> Key {
    Key::from_secret(SECRET).unwrap()
}

impl Holder {
    fn of(kind: AddressType) -> Self {
        Self::at(wallet().address(kind, Network::Mainnet).unwrap())
    }

    fn at(address: BtcAddress) -> Self {
        let script = address.script_pubkey(Network::Mainnet).unwrap();
        Self { address, script }
    }

    fn unsigned(&self) -> Transaction {
        to_sign(challenge(&self.script, MESSAGE), ScriptBuf::new(), Witness::new())
    }

    fn signed(&self, mut transaction: Transaction) -> Transaction {
        match self.address.address_type() {
            AddressType::P2pkh => {
                let digest = legacy_digest(&transaction, &self.script).unwrap();
                transaction.input[0].script_sig = unlock(&ecdsa_all(&digest), &key().to_bytes());
            }
            AddressType::P2tr => {
                let digest = taproot_digest(&transaction, &self.script, TapSighashType::Default).unwrap();
                transaction.input[0].witness = Witness::from_slice(&[key_path(&digest)]);
            }
            kind => {
                if kind == AddressType::P2sh {
                    transaction.input[0].script_sig = push(&program()).unwrap();
                }
                let digest = segwit_digest(&transaction, &program()).unwrap();
                transaction.input[0].witness = stack(ecdsa_all(&digest));
            }
        }
        transaction
    }

    fn accepts(&self, signature: &str) -> bool {
        verify_message(&self.address, Network::Mainnet, MESSAGE, signature)
    }

    fn accepts_full(&self, transaction: &Transaction) -> bool {
        self.accepts(&format!("ful{}", STANDARD.encode(serialize(transaction))))
    }

    fn accepts_simple(&self, witness: &Witness) -> bool {
        self.accepts(&format!("smp{}", STANDARD.encode(serialize(witness))))
    }
}

fn ecdsa_all(digest: &Message) -> Vec<u8> {
    with_kind(&secp().sign_ecdsa(digest, &secret()).serialize_der(), 1)
}

fn with_kind(der: &[u8], kind: u8) -> Vec<u8> {
    [der, &[kind]].concat()
}

fn key_path(digest: &Message) -> Vec<u8> {
    let pair = Keypair::from(Keypair::from_secret_key(secp(), &secret()).tap_tweak(secp(), None));
    secp().sign_schnorr_no_aux_rand(digest, &pair).serialize().to_vec()
}

fn stack(signature: Vec<u8>) -> Witness {
    Witness::from_slice(&[signature, key().to_bytes().to_vec()])
}

fn unlock(signature: &[u8], key: &[u8]) -> ScriptBuf {
    let [signature, key] = [signature, key].map(|bytes| PushBytesBuf::try_from(bytes.to_vec()).unwrap());
    Builder::new().push_slice(signature).push_slice(key).into_script()
}

/// The same signature with the other S.
fn high_s(signature: &ecdsa::Signature) -> ecdsa::Signature {
    let mut bytes = signature.serialize_compact();
    let s = SecretKey::from_slice(&bytes[32..]).unwrap().negate();
    bytes[32..].copy_from_slice(&s.secret_bytes());
    ecdsa::Signature::from_compact(&bytes).unwrap()
}

#[test]
fn the_full_form_is_accepted_whatever_its_locks() {
    for kind in SIGNABLE {
        let holder = Holder::of(kind);
        assert!(holder.accepts_full(&holder.signed(holder.unsigned())), "{kind:?}");
        let mut locked = holder.unsigned();
        locked.version = Version(2);
        locked.lock_time = LockTime::from_consensus(2016);
        locked.input[0].sequence = Sequence(2016);
        let mut locked = holder.signed(locked);
        assert!(holder.accepts_full(&locked), "{kind:?}");
        locked.input[0].sequence = Sequence(2017);
        assert!(!holder.accepts_full(&locked), "{kind:?}");
    }
}

#[test]
fn another_transaction_than_to_sign_is_refused() {
    type Change = fn(&mut Transaction);
    let changes: [(&str, Change); 8] = [
        ("version 1", |t| t.version = Version(1)),
        ("version -1", |t| t.version = Version(-1)),
        ("other output spent", |t| t.input[0].previous_output.vout = 1),
        ("input added", |t| t.input.push(t.input[0].clone())),
        ("output added", |t| t.output.push(nothing())),
        ("no output", |t| t.output.clear()),
        ("value", |t| t.output[0].value = Amount::from_sat(1)),
        ("script", |t| t.output[0].script_pubkey.push_slice([1_u8, 2, 3])),
    ];
    for kind in [AddressType::P2pkh, AddressType::P2sh, AddressType::P2wpkh] {
        let holder = Holder::of(kind);
        for (what, change) in changes {
            let mut transaction = holder.unsigned();
            change(&mut transaction);
            assert!(!holder.accepts_full(&holder.signed(transaction)), "{kind:?}: {what}");
        }
    }
}

#[test]
fn the_input_has_exactly_the_form_of_its_type() {
    fn with(kind: AddressType, change: fn(&mut Transaction)) -> bool {
        let holder = Holder::of(kind);
        let mut transaction = holder.signed(holder.unsigned());
        change(&mut transaction);
        holder.accepts_full(&transaction)
    }
    let script_sig: fn(&mut Transaction) = |t| t.input[0].script_sig = push(&program()).unwrap();
    assert!(!with(AddressType::P2wpkh, script_sig));
    assert!(!with(AddressType::P2tr, script_sig));
    assert!(with(AddressType::P2sh, script_sig));
    assert!(!with(AddressType::P2sh, |t| t.input[0].script_sig = ScriptBuf::new()));
    assert!(!with(AddressType::P2sh, |t| t.input[0].script_sig.push_slice([1_u8, 2, 3])));
    assert!(!with(AddressType::P2pkh, |t| t.input[0].script_sig.push_slice([1_u8, 2, 3])));
    for kind in SIGNABLE {
        assert!(!with(kind, |t| t.input[0].witness.push([0x50_u8, 1])), "{kind:?}");
        let holder = Holder::of(kind);
        let other = if kind == AddressType::P2pkh { AddressType::P2wpkh } else { AddressType::P2pkh };
        assert!(!holder.accepts_full(&Holder::of(other).signed(holder.unsigned())), "{kind:?}");
    }
}

#[test]
fn p2pkh_has_a_full_form_only_and_takes_both_kinds_of_key() {
    let holder = Holder::of(AddressType::P2pkh);
    let digest = segwit_digest(&holder.unsigned(), &program()).unwrap();
    assert!(!holder.accepts_simple(&stack(ecdsa_all(&digest))));

    let long = PublicKey::new_uncompressed(key().0);
    let address = Address::p2pkh(long, bitcoin::Network::Bitcoin);
    let holder = Holder::at(BtcAddress::computed(&address, AddressType::P2pkh));
    let mut transaction = holder.unsigned();
    let signature = ecdsa_all(&legacy_digest(&transaction, &holder.script).unwrap());
    transaction.input[0].script_sig = unlock(&signature, &long.to_bytes());
    assert!(holder.accepts_full(&transaction));
    transaction.input[0].script_sig = unlock(&signature, &key().to_bytes());
    assert!(!holder.accepts_full(&transaction));
}

#[test]
fn witness_programs_take_compressed_keys_only() {
    let long = PublicKey::new_uncompressed(key().0).to_bytes();
    let hash = WPubkeyHash::from_byte_array(hash160::Hash::hash(&long).to_byte_array());
    let script = ScriptBuf::new_p2wpkh(&hash);
    for (kind, script_pubkey) in
        [(AddressType::P2wpkh, script.clone()), (AddressType::P2sh, script.to_p2sh())]
    {
        let address = Address::from_script(&script_pubkey, bitcoin::Network::Bitcoin).unwrap();
        let holder = Holder::at(BtcAddress::computed(&address, kind));
        let mut transaction = holder.unsigned();
        let signature = ecdsa_all(&segwit_digest(&transaction, &script).unwrap());
        let witness = Witness::from_slice(&[signature, long.clone()]);
        assert!(!holder.accepts_simple(&witness), "{kind:?}");
        if kind == AddressType::P2sh {
            transaction.input[0].script_sig = push(&script).unwrap();
        }
        transaction.input[0].witness = witness;
        assert!(!holder.accepts_full(&transaction), "{kind:?}");
    }
}

#[test]
fn ecdsa_is_strict() {
    let holder = Holder::of(AddressType::P2wpkh);
    let unsigned = holder.unsigned();
    let digest = segwit_digest(&unsigned, &program()).unwrap();
    let signature = secp().sign_ecdsa(&digest, &secret());
    let der = signature.serialize_der().to_vec();
    let accepts = |signature: Vec<u8>| holder.accepts_simple(&stack(signature));
    assert!(accepts(with_kind(&der, 1)));
    assert!(!accepts(with_kind(&high_s(&signature).serialize_der(), 1)));
    for kind in [0, 2, 3, 0x41, 0x81] {
        assert!(!accepts(with_kind(&der, kind)), "{kind}");
    }
    assert!(!accepts(der.clone()));
    assert!(!accepts(Vec::new()));
    assert!(!accepts(vec![1]));

    // R with a needless zero in front, the lengths around it adjusted.
    let mut padded = der.clone();
    padded[1] += 1;
    padded[3] += 1;
    padded.insert(4, 0);
    assert!(!accepts(with_kind(&padded, 1)));
    let trailing = with_kind(&[der.as_slice(), &[0]].concat(), 1);
    assert!(!accepts(trailing));

    for kind in [EcdsaSighashType::None, EcdsaSighashType::Single, EcdsaSighashType::AllPlusAnyoneCanPay] {
        let digest =
            SighashCache::new(&unsigned).p2wpkh_signature_hash(0, &program(), Amount::ZERO, kind).unwrap();
        let der = secp().sign_ecdsa(&Message::from(digest), &secret()).serialize_der();
        assert!(!accepts(with_kind(&der, kind.to_u32() as u8)), "{kind}");
    }
}

#[test]
fn taproot_takes_one_element_of_64_or_65_bytes() {
    let holder = Holder::of(AddressType::P2tr);
    let sign = |kind| key_path(&taproot_digest(&holder.unsigned(), &holder.script, kind).unwrap());
    let accepts = |elements: Vec<Vec<u8>>| holder.accepts_simple(&Witness::from_slice(&elements));
    let default = sign(TapSighashType::Default);
    let all = with_kind(&sign(TapSighashType::All), 1);
    assert!(accepts(vec![default.clone()]) && accepts(vec![all.clone()]));
    for kind in [0, 1, 2, 3, 0x81] {
        assert!(!accepts(vec![with_kind(&default, kind)]), "{kind}");
    }
    for kind in [TapSighashType::None, TapSighashType::Single, TapSighashType::AllPlusAnyoneCanPay] {
        assert!(!accepts(vec![with_kind(&sign(kind), kind as u8)]), "{kind}");
    }
    assert!(!accepts(vec![all[..64].to_vec()]));
    assert!(!accepts(vec![]) && !accepts(vec![Vec::new()]) && !accepts(vec![default[..63].to_vec()]));
    assert!(!accepts(vec![default.clone(), vec![0x50]]) && !accepts(vec![vec![], default]));
}

#[test]
fn compact_headers_are_those_of_the_table() {
    for kind in SIGNABLE {
        let holder = Holder::of(kind);
        let mut bytes = STANDARD.decode(wallet().sign_compact(MESSAGE, kind)).unwrap();
        let recovery = (bytes[0] - 27) % 4;
        let styles: &[u8] = match kind {
            AddressType::P2pkh => &[31],
            AddressType::P2sh => &[31, 35],
            AddressType::P2wpkh => &[31, 39],
            AddressType::P2tr | AddressType::P2wsh => &[],
        };
        for header in 0..=255 {
            bytes[0] = header;
            let expected = styles.iter().any(|style| style + recovery == header);
            assert_eq!(holder.accepts(&STANDARD.encode(&bytes)), expected, "{kind:?} {header}");
        }
    }
}

#[test]
fn compact_signatures_may_have_a_high_s() {
    let holder = Holder::of(AddressType::P2wpkh);
    let mut bytes = STANDARD.decode(wallet().sign_compact(MESSAGE, AddressType::P2wpkh)).unwrap();
    let low = ecdsa::Signature::from_compact(&bytes[1..]).unwrap();
    bytes[1..].copy_from_slice(&high_s(&low).serialize_compact());
    assert!(!holder.accepts(&STANDARD.encode(&bytes)));
    bytes[0] = 27 + ((bytes[0] - 27) ^ 1);
    assert!(holder.accepts(&STANDARD.encode(&bytes)));
}

#[test]
fn the_text_is_strict_base64_with_the_right_prefix() {
    for kind in SIGNABLE {
        let holder = Holder::of(kind);
        let text = wallet().sign_bip322(MESSAGE, kind, Network::Mainnet).unwrap();
        let (prefix, bare) = text.split_at(3);
        let swapped = if prefix == "smp" { "ful" } else { "smp" };
        let bytes = STANDARD.decode(bare).unwrap();
        for good in [text.clone(), bare.to_owned(), format!(" \r\n{text}\t\n")] {
            assert!(holder.accepts(&good), "{good:?}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        for bad in [
            String::new(),
            " ".to_owned(),
            prefix.to_owned(),
            format!("{swapped}{bare}"),
            format!("pof{bare}"),
            format!("{prefix}{prefix}{bare}"),
            format!("SMP{bare}"),
            format!("{prefix} {bare}"),
            format!("{prefix}{}\n{}", &bare[..8], &bare[8..]),
            format!("{text}="),
            format!("{text}===="),
            format!("{prefix}{}", STANDARD.encode(&longer)),
            STANDARD.encode(&longer),
            STANDARD.encode(&bytes[..bytes.len() - 1]),
            format!("{text}{}", "A".repeat(2048)),
        ] {
            assert!(!holder.accepts(&bad), "{bad:?}");
        }
        for other in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE.encode(&bytes)] {
            assert_eq!(holder.accepts(&other), other == bare, "{other:?}");
        }
    }
}

#[test]
fn addresses_without_a_key_have_no_signature() {
    for (text, kind) in [
        ("bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3", AddressType::P2wsh),
        // The x coordinate of no point of the curve.
        ("bc1pam775nxmvam4pfpqlm5q06k0y84e3x9w0xuhdpmxuna2qj3dfg6qnzh0s2", AddressType::P2tr),
        ("3Nye4j1GUFqCEBR3do2KEFZAs9oLe8NZ6X", AddressType::P2sh),
    ] {
        let holder = Holder::at(BtcAddress::parse(text, Network::Mainnet).unwrap());
        assert_eq!(holder.address.address_type(), kind);
        for signer in SIGNABLE {
            assert!(!holder.accepts(&wallet().sign_compact(MESSAGE, signer)));
            let signature = wallet().sign_bip322(MESSAGE, signer, Network::Mainnet).unwrap();
            assert!(!holder.accepts(&signature));
            assert!(!holder.accepts_full(&Holder::of(signer).signed(holder.unsigned())));
        }
    }
}
