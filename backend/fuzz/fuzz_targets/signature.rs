//! Any message and signature for addresses of every type: verification never panics, and whatever is
//! valid stops being so for another message or on a network of which the address is not.
//!
//! An input is a letter (which address), the message up to a NUL, and the signature.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use tbg_bitcoin::{AddressType, BtcAddress, Network, verify_message};

/// The letters a to q of the inputs.
const ADDRESSES: [(Network, &str); 17] = [
    (Network::Mainnet, "15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs"),
    (Network::Regtest, "mpLQjfK79b7CCV4VMJWEWAj5Mpx8Up5zxB"),
    (Network::Mainnet, "3LbZqMMHu371r5Fjve9qNhSQzuNi7EzqUR"),
    (Network::Mainnet, "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l"),
    (Network::Mainnet, "bc1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5sxq8lt3"),
    (Network::Mainnet, "bc1pss0zhytly75awhm6x2hhvd5lnzv3vssgrf9axfheq8ldyzn88ges79fler"),
    (Network::Mainnet, "3HSVzEhCFuH9Z3wvoWTexy7BMVVp3PjS6f"),
    (Network::Mainnet, "164P4mbDkPcyvRnFGAZd1ThjxSj7Fbsywz"),
    (Network::Mainnet, "bc1pyrgrm6cu6n54jrvkdjd9rvyd3xfyu84s2623awu2srn6mxhscwpsm5644w"),
    (Network::Mainnet, "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3"),
    (Network::Mainnet, "169ojqRJ3d4f7aNMu86nAAwGJyeykmByFU"),
    (Network::Mainnet, "14vV3aCHBeStb5bkenkNHbe2YAFinYdXgc"),
    (Network::Mainnet, "37qyp7jQAzqb2rCBpMvVtLDuuzKAUCVnJb"),
    (Network::Regtest, "bcrt1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5su3mkyy"),
    (Network::Signet, "tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v"),
    // A taproot output whose key is on no curve.
    (Network::Mainnet, "bc1pam775nxmvam4pfpqlm5q06k0y84e3x9w0xuhdpmxuna2qj3dfg6qnzh0s2"),
    (Network::Testnet, "2MyQBsrfRnTLwEdpjVVYNWHDB8LXLJUcub9"),
];

static PARSED: LazyLock<[(Network, BtcAddress); 17]> = LazyLock::new(|| {
    ADDRESSES.map(|(network, text)| (network, BtcAddress::parse(text, network).expect("a good address")))
});

fn check(network: Network, address: &BtcAddress, message: &str, signature: &str) {
    if !verify_message(address, network, message, signature) {
        return;
    }
    assert_ne!(address.address_type(), AddressType::P2wsh);
    assert!(!verify_message(address, network, &format!("{message}."), signature));
    for other in Network::ALL {
        let is_of_it = BtcAddress::parse(address.as_str(), other).is_ok();
        assert_eq!(verify_message(address, other, message, signature), is_of_it);
    }
}

// The signature is tried as text, and as the bytes inside one: the fuzzer cannot guess base64.
fuzz_target!(|bytes: &[u8]| {
    let Some((letter, rest)) = bytes.split_first() else { return };
    let (network, address) = &PARSED[usize::from(letter.wrapping_sub(b'a')) % PARSED.len()];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let message = String::from_utf8_lossy(&rest[..end]);
    let signature = rest.get(end + 1..).unwrap_or_default();

    check(*network, address, &message, &String::from_utf8_lossy(signature));
    let encoded = STANDARD.encode(signature);
    for prefix in ["", "smp", "ful", "pof"] {
        check(*network, address, &message, &format!("{prefix}{encoded}"));
    }
});
