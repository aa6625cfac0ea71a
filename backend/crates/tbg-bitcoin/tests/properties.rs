//! What is signed verifies, what is changed does not, and nothing panics.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::absolute::LockTime;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tbg_bitcoin::wallet::Key;
use tbg_bitcoin::{AddressType, BtcAddress, Network, verify_message};

const SIGNABLE: [AddressType; 4] =
    [AddressType::P2pkh, AddressType::P2sh, AddressType::P2wpkh, AddressType::P2tr];

/// One of each type on mainnet, one whose taproot key is on no curve.
const ADDRESSES: [&str; 6] = [
    "15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs",
    "3LbZqMMHu371r5Fjve9qNhSQzuNi7EzqUR",
    "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l",
    "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
    "bc1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5sxq8lt3",
    "bc1pam775nxmvam4pfpqlm5q06k0y84e3x9w0xuhdpmxuna2qj3dfg6qnzh0s2",
];

fn keys() -> impl Strategy<Value = Key> {
    any::<[u8; 32]>().prop_filter_map("not a secret", Key::from_secret)
}

fn kinds() -> impl Strategy<Value = AddressType> {
    select(SIGNABLE.to_vec())
}

fn networks() -> impl Strategy<Value = Network> {
    select(Network::ALL.to_vec())
}

/// The signatures that a wallet makes for the type: BIP-322, and compact where there is one.
fn signatures(key: &Key, kind: AddressType, network: Network, message: &str) -> Vec<String> {
    let mut signatures: Vec<String> = key.sign_bip322(message, kind, network).into_iter().collect();
    if kind != AddressType::P2tr {
        signatures.push(key.sign_compact(message, kind));
    }
    signatures
}

/// Prefix and bytes of a signature that a wallet made.
fn split(signature: &str) -> (&str, Vec<u8>) {
    let at = if signature.starts_with("smp") || signature.starts_with("ful") { 3 } else { 0 };
    let (prefix, base64) = signature.split_at(at);
    (prefix, STANDARD.decode(base64).unwrap_or_default())
}

/// Nobody's signature for any address, in all spellings.
fn refused_everywhere(bytes: &[u8]) -> bool {
    let text = STANDARD.encode(bytes);
    ["", "smp", "ful", "pof"].iter().all(|prefix| {
        ADDRESSES.iter().all(|address| match BtcAddress::parse(address, Network::Mainnet) {
            Ok(address) => !verify_message(&address, Network::Mainnet, "message", &format!("{prefix}{text}")),
            Err(_) => false,
        })
    })
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

fn witnesses() -> impl Strategy<Value = Witness> {
    vec(bytes(80), 0..4).prop_map(|elements| Witness::from_slice(&elements))
}

/// Witnesses of almost the right shape: the right number of elements, of about the right lengths.
fn close_witnesses() -> impl Strategy<Value = Witness> {
    let signature = vec(any::<u8>(), 60..74).prop_map(|mut bytes| {
        bytes[0] = 0x30;
        bytes[1] = u8::try_from(bytes.len() - 3).unwrap_or(0);
        if let Some(last) = bytes.last_mut() {
            *last = 1;
        }
        bytes
    });
    let key = vec(any::<u8>(), 33).prop_map(|mut bytes| {
        bytes[0] = 2 + bytes[0] % 2;
        bytes
    });
    prop_oneof![
        (signature, key).prop_map(|(signature, key)| Witness::from_slice(&[signature, key])),
        vec(any::<u8>(), 64..66).prop_map(|signature| Witness::from_slice(&[signature])),
    ]
}

fn transactions() -> impl Strategy<Value = Transaction> {
    let input = (bytes(120), any::<u32>(), any::<u32>(), witnesses()).prop_map(
        |(script_sig, vout, sequence, witness)| TxIn {
            previous_output: OutPoint { vout, ..OutPoint::null() },
            script_sig: ScriptBuf::from_bytes(script_sig),
            sequence: Sequence(sequence),
            witness,
        },
    );
    let output = (any::<u64>(), bytes(40)).prop_map(|(value, script)| TxOut {
        value: Amount::from_sat(value),
        script_pubkey: ScriptBuf::from_bytes(script),
    });
    (select(vec![0, 1, 2, -1]), any::<u32>(), vec(input, 0..3), vec(output, 0..3)).prop_map(
        |(version, lock_time, input, output)| Transaction {
            version: Version(version),
            lock_time: LockTime::from_consensus(lock_time),
            input,
            output,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_signed_verifies(
        key in keys(),
        kind in kinds(),
        network in networks(),
        message in any::<String>(),
    ) {
        let address = key.address(kind, network).unwrap();
        prop_assert_eq!(&BtcAddress::parse(address.as_str(), network).unwrap(), &address);
        prop_assert_eq!(address.address_type(), kind);
        for signature in signatures(&key, kind, network, &message) {
            prop_assert!(verify_message(&address, network, &message, &signature));
            for other in Network::ALL {
                let same_prefix = BtcAddress::parse(address.as_str(), other).is_ok();
                prop_assert_eq!(verify_message(&address, other, &message, &signature), same_prefix);
            }
        }
    }

    #[test]
    fn another_message_or_address_is_invalid(
        key in keys(),
        stranger in keys(),
        kind in kinds(),
        network in networks(),
        message in any::<String>(),
        end in any::<char>(),
    ) {
        let address = key.address(kind, network).unwrap();
        prop_assume!(stranger.address(kind, network).unwrap() != address);
        for signature in signatures(&key, kind, network, &message) {
            let longer = format!("{message}{end}");
            prop_assert!(!verify_message(&address, network, &longer, &signature));
            for kind in SIGNABLE {
                let address = stranger.address(kind, network).unwrap();
                prop_assert!(!verify_message(&address, network, &message, &signature));
            }
        }
        for other in SIGNABLE.into_iter().filter(|other| *other != kind) {
            let signature = key.sign_bip322(&message, other, network).unwrap();
            prop_assert!(!verify_message(&address, network, &message, &signature));
        }
    }

    #[test]
    fn a_flipped_bit_is_invalid(
        key in keys(),
        kind in kinds(),
        network in networks(),
        message in any::<String>(),
        byte in any::<Index>(),
        bit in 0_u8..8,
    ) {
        let address = key.address(kind, network).unwrap();
        for signature in signatures(&key, kind, network, &message) {
            let (prefix, mut bytes) = split(&signature);
            // Two headers of a compact signature can differ by one bit and both be right.
            let first = usize::from(prefix.is_empty());
            let at = first + byte.index(bytes.len() - first);
            bytes[at] ^= 1 << bit;
            let changed = format!("{prefix}{}", STANDARD.encode(&bytes));
            prop_assert!(!verify_message(&address, network, &message, &changed), "byte {at} of {signature}");
        }
    }

    #[test]
    fn a_shorter_or_longer_signature_is_invalid(
        key in keys(),
        kind in kinds(),
        message in any::<String>(),
        cut in any::<Index>(),
        more in vec(any::<u8>(), 1..20),
    ) {
        let address = key.address(kind, Network::Signet).unwrap();
        for signature in signatures(&key, kind, Network::Signet, &message) {
            let (prefix, bytes) = split(&signature);
            for changed in [bytes[..cut.index(bytes.len())].to_vec(), [bytes, more.clone()].concat()] {
                let changed = format!("{prefix}{}", STANDARD.encode(&changed));
                prop_assert!(!verify_message(&address, Network::Signet, &message, &changed));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_refused(
        text in any::<String>(),
        message in any::<String>(),
        prefix in select(vec!["", "smp", "ful", "pof"]),
    ) {
        for address in ADDRESSES {
            let address = BtcAddress::parse(address, Network::Mainnet).unwrap();
            let signature = format!("{prefix}{text}");
            prop_assert!(!verify_message(&address, Network::Mainnet, &message, &signature));
        }
        prop_assert!(Key::from_wif(&text).is_err());
    }

    #[test]
    fn any_bytes_are_refused(bytes in bytes(200), compact in vec(any::<u8>(), 65), header in 27_u8..43) {
        prop_assert!(refused_everywhere(&bytes));
        let mut compact = compact;
        compact[0] = header;
        prop_assert!(refused_everywhere(&compact));
    }

    #[test]
    fn any_witness_is_refused(witness in witnesses(), close in close_witnesses()) {
        prop_assert!(refused_everywhere(&serialize(&witness)));
        prop_assert!(refused_everywhere(&serialize(&close)));
    }

    #[test]
    fn any_transaction_is_refused(transaction in transactions()) {
        prop_assert!(refused_everywhere(&serialize(&transaction)));
    }

    #[test]
    fn another_input_that_spends_the_challenge_is_refused(
        key in keys(),
        script_sig in bytes(160),
        witness in witnesses(),
    ) {
        let address = key.address(AddressType::P2pkh, Network::Mainnet).unwrap();
        let signature = key.sign_bip322("m", AddressType::P2pkh, Network::Mainnet).unwrap();
        let (prefix, bytes) = split(&signature);
        let mut transaction: Transaction = deserialize(&bytes).unwrap();
        transaction.input[0].script_sig = ScriptBuf::from_bytes(script_sig);
        transaction.input[0].witness = witness;
        let changed = format!("{prefix}{}", STANDARD.encode(serialize(&transaction)));
        prop_assert!(!verify_message(&address, Network::Mainnet, "m", &changed));
    }
}
