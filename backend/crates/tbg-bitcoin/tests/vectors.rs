//! The published signatures: those of the contract (`auth-users.md` §2.6, §16), of BIP-322 and of
//! Bitcoin Core.

use std::collections::BTreeMap;

use serde_json::Value;
use tbg_bitcoin::wallet::Key;
use tbg_bitcoin::{AddressError, AddressType, BtcAddress, Network, verify_message};

const WIF: &str = "L3VFeEujGtevx9w18HD1fhRbCH67Az2dpCymeRE1SoPK6XQtaN2k";
const P2WPKH: &str = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l";
const P2TR: &str = "bc1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5sxq8lt3";

fn valid(network: Network, address: &str, message: &str, signature: &str) -> bool {
    match BtcAddress::parse(address, network) {
        Ok(address) => verify_message(&address, network, message, signature),
        Err(error) => panic!("{address}: {error}"),
    }
}

#[test]
fn contract_rows_v() {
    let v5 = "AkcwRAIgZRfIY3p7/DoVTty6YZbWS71bc5Vct9p9Fia83eRmw2QCICK/ENGfwLtptFluMGs2KsqoNSk89pO7F29zJLUx9a/sASECx/EgAxlkQpQ9hYjgGu6EBCPMVPwVIVJqO4XCsMvViHI=";
    let v10 = "AUDZwFXUp+adN+/UZj5dVrGAbB3zKs1Vcalz5fCF9srxS63eSWNGvH1NYbrBkPt1BJDUyWUz9zgUxfc63/QheT6M";
    let (v5_marked, v10_full, v10_simple) = (format!("smp{v5}"), format!("ful{v10}"), format!("smp{v10}"));
    let v10_address = "bc1pyrgrm6cu6n54jrvkdjd9rvyd3xfyu84s2623awu2srn6mxhscwpsm5644w";
    for (row, address, message, signature, expected) in [
        (
            "V1",
            "15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs",
            "Trust no one",
            "IPojfrX2dfPnH26UegfbGQQLrdK844DlHq5157/P6h57WyuS/Qsl+h/WSVGDF4MUi4rWSswW38oimDYfNNUBUOk=",
            true,
        ),
        (
            "V3",
            "3LbZqMMHu371r5Fjve9qNhSQzuNi7EzqUR",
            "test123",
            "I2ehXowFWMZohHrJN+1IRdDwqN/UILqVmhIOHpeBdS4BYDCQpfDL1tTH7mNg6eeypno+Is8ApgWinkPnnz1NEq8=",
            true,
        ),
        (
            "V4",
            "3LbZqMMHu371r5Fjve9qNhSQzuNi7EzqUR",
            "test123",
            "H2ehXowFWMZohHrJN+1IRdDwqN/UILqVmhIOHpeBdS4BYDCQpfDL1tTH7mNg6eeypno+Is8ApgWinkPnnz1NEq8=",
            true,
        ),
        ("V5", P2WPKH, "Hello World", v5_marked.as_str(), true),
        ("V5 without prefix", P2WPKH, "Hello World", v5, true),
        (
            "V6",
            P2TR,
            "Hello World",
            "AUHd69PrJQEv+oKTfZ8l+WROBHuy9HKrbFCJu7U1iK2iiEy1vMU5EfMtjc+VSHM7aU0SDbak5IUZRVno2P5mjSafAQ==",
            true,
        ),
        (
            "V7",
            "bc1pss0zhytly75awhm6x2hhvd5lnzv3vssgrf9axfheq8ldyzn88ges79fler",
            "No prefix fallback",
            "AUCJYOwOjxYAvatTAGYaVlNXBVyFuc4MwNQkOuK2tl8xhfKDONd0NjfYyNSYcRqeCp8hsAnCEPHAVEkO9h6vbQ/R",
            true,
        ),
        (
            "V8",
            "3HSVzEhCFuH9Z3wvoWTexy7BMVVp3PjS6f",
            "Hello World",
            "AkgwRQIhAMd2wZSY3x0V9Kr/NClochoTXcgDaGl3OObOR17yx3QQAiBVWxqNSS+CKen7bmJTG6YfJjsggQ4Fa2RHKgBKrdQQ+gEhAxa5UDdQCHSQHfKQv14ybcYm1C9y6b12xAuukWzSnS+w",
            true,
        ),
        (
            "V9",
            "164P4mbDkPcyvRnFGAZd1ThjxSj7Fbsywz",
            "GI2SVNWVCWTEEIMFZFFZYAQNSA",
            "AgAAAAGEmHuloQANVIqnpMegGLNFKwAGE0Urv0a/uMiHnJ+FQwAAAABrSDBFAiEAr8VdqPCZU/oVqKKj2WwHfeCX/lzp+Rfk8d59cS9xdGECIAar0nievDdeVstmIgjfM7kzMepL6HrecBuJtgEitFxBASECzgU8WF30ffzpbdClcw/0NBkTCkuRbiEzr+CTXePjiPfgBwAAAQAAAAAAAAAAAWrgBwAA",
            true,
        ),
        ("V10", v10_address, "incorrect prefix", v10_full.as_str(), false),
        ("V10 as simple", v10_address, "incorrect prefix", v10_simple.as_str(), true),
        ("V11", P2WPKH, "", "smpAA==", false),
    ] {
        assert_eq!(valid(Network::Mainnet, address, message, signature), expected, "{row}");
        assert!(!valid(Network::Mainnet, address, &format!("{message}."), signature), "{row}");
    }
    let v2 = "INbVnW4e6PeRmsv2Qgu8NuopvrVjkcxob+sX8OcZG0SALhWybUjzMLPdAsXI46YZGb0KQTRii+wWIQzRpG/U+S0=";
    let v2_address = "mpLQjfK79b7CCV4VMJWEWAj5Mpx8Up5zxB";
    assert!(valid(Network::Regtest, v2_address, "This is just a test message", v2));
}

/// The sign-in message of the rows S.
fn sign_in(network: Network, address: &str) -> String {
    format!(
        "The Bitcoin Game sign-in\n\nDomain: thebitcoingame.com\nNetwork: {network}\nAddress: {address}\n\
         Nonce: 0f1e2d3c4b5a69788796a5b4c3d2e1f0\nTimestamp: 2026-03-15T14:30:00Z"
    )
}

const S4: &str = "JwfZJm2/K8CKg6FjPz9ML75giZdlfuocIASSksbp2llXCtxLLBAWSh237HwkiUuJL+MIk6ZhoY1h7I4ARI9wScQ=";
const S5: &str = "AkgwRQIhALyIuePMrolb+j0idJDp9WaYAkg8Fxn3MGs6ORO5NxjfAiBlA1QZhXvTQieyp3oPqoj3H90m4miUreYL6t/j9RkuxgEhAsfxIAMZZEKUPYWI4BruhAQjzFT8FSFSajuFwrDL1Yhy";
const S8: &str = "AkgwRQIhAMVL8Lcx8X72Y4ksN7JcLiaIWh9I0LD3m0dtwWqKo6k8AiBxSTxsBY1mvzUfcdMe376W+mGLTStury/vffP08El8WAEhAsfxIAMZZEKUPYWI4BruhAQjzFT8FSFSajuFwrDL1Yhy";
/// Row, network, address, signature.
const SIGN_INS: [(&str, Network, &str, &str); 8] = [
    (
        "S1",
        Network::Mainnet,
        "169ojqRJ3d4f7aNMu86nAAwGJyeykmByFU",
        "HMmwEnB4V9OEDCcAAdADxyh1YQyWFsNjKbO8ms34ZcI6AMGowMIfVP/srmljPJVoffyY4hR14mTC8azIxvle4jU=",
    ),
    (
        "S2",
        Network::Mainnet,
        "14vV3aCHBeStb5bkenkNHbe2YAFinYdXgc",
        "H7pNLgMp9AOVPBnDwRPxvLejUquij2vfhG792mld8FjhDpjSB4CJguz1D7dOVskw/H1B3qv0N+UI6E/uwLovQVw=",
    ),
    (
        "S3",
        Network::Mainnet,
        "37qyp7jQAzqb2rCBpMvVtLDuuzKAUCVnJb",
        "JECfl0F6k131xOx+p2vyGMr0sp897zJSS6Ad35n/Oa5KMMHgTCYzUS/Ojg2vjDgQOWkETw9Zwh/X4dDIISv0ZBc=",
    ),
    ("S4", Network::Mainnet, P2WPKH, S4),
    ("S5", Network::Mainnet, P2WPKH, S5),
    (
        "S6",
        Network::Mainnet,
        P2TR,
        "AUDjc9mCoZDf4kLnJR09YNFYGrE6iYNH/Fd9Z8oBJocQMx7LC7QQnKUOwK7Fb0F7ZBPqbIUsOsqcMhtqQo/tarDd",
    ),
    (
        "S7",
        Network::Regtest,
        "bcrt1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5su3mkyy",
        "AUDHRmLdXb+x6KbgPMvdz9NPYM4pLLEmki6d2JYYshjAmup/Sj1IwV5ztt1MxxIvoOW0RKPoY1XYSeCRWHQtsURo",
    ),
    ("S8", Network::Signet, "tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v", S8),
];

#[test]
fn contract_rows_s() {
    for (row, network, address, signature) in SIGN_INS {
        assert!(valid(network, address, &sign_in(network, address), signature), "{row}");
        assert!(!valid(network, address, &sign_in(network, "1"), signature), "{row}");
    }
    let message = sign_in(Network::Mainnet, P2WPKH);
    assert_eq!(message.len(), 193);
    // The first letters that stand for the headers 27, 31, 35, 39 and 43.
    for (header, expected) in [("G", false), ("H", true), ("I", false), ("J", true), ("K", false)] {
        let signature = format!("{header}{}", &S4[1..]);
        assert_eq!(valid(Network::Mainnet, P2WPKH, &message, &signature), expected, "{header}");
    }
}

#[test]
fn the_wallet_signs_the_contract_rows() {
    let Ok(key) = Key::from_wif(WIF) else { panic!("not a private key") };
    // S1 is of an uncompressed key, which the wallet does not keep.
    for (row, network, address, expected) in &SIGN_INS[1..] {
        let message = sign_in(*network, address);
        let kind = match BtcAddress::parse(address, *network) {
            Ok(address) => address.address_type(),
            Err(error) => panic!("{address}: {error}"),
        };
        let signature = if expected.len() == 88 && kind != AddressType::P2tr {
            key.sign_compact(&message, kind)
        } else {
            let signature = key.sign_bip322(&message, kind, *network).unwrap_or_default();
            signature.trim_start_matches("smp").to_owned()
        };
        assert_eq!(signature, *expected, "{row}");
    }
}

#[test]
fn contract_address_facts() {
    let test_key = "tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v";
    assert_eq!(BtcAddress::parse(test_key, Network::Mainnet), Err(AddressError::WrongNetwork));
    for (text, network, normal, kind) in [
        (test_key, Network::Signet, test_key, "p2wpkh"),
        (
            "bcrt1q9vza2e8x573nczrlzms0wvx3gsqjx7vay85cr9",
            Network::Regtest,
            "bcrt1q9vza2e8x573nczrlzms0wvx3gsqjx7vay85cr9",
            "p2wpkh",
        ),
        (
            "2MyQBsrfRnTLwEdpjVVYNWHDB8LXLJUcub9",
            Network::Testnet,
            "2MyQBsrfRnTLwEdpjVVYNWHDB8LXLJUcub9",
            "p2sh",
        ),
        (
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            Network::Mainnet,
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "p2pkh",
        ),
        (
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            Network::Mainnet,
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            "p2sh",
        ),
        (
            "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
            Network::Mainnet,
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "p2wpkh",
        ),
        (
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            Network::Mainnet,
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "p2tr",
        ),
    ] {
        match BtcAddress::parse(text, network) {
            Ok(address) => {
                assert_eq!((address.as_str(), address.address_type().as_str()), (normal, kind));
                assert!(address.can_sign());
            }
            Err(error) => panic!("{text}: {error}"),
        }
    }
    let odd = "bc1p5cyxnuxmeuwuvkwfem96lqzszee2457nxwprkfw";
    assert_eq!(BtcAddress::parse(odd, Network::Mainnet), Err(AddressError::Invalid));
}

/// `message_sign` and `message_verify` of Bitcoin Core's `util_tests.cpp`, and its functional test
/// of `signmessagewithprivkey`.
#[test]
fn bitcoin_core() {
    let trust = "IPojfrX2dfPnH26UegfbGQQLrdK844DlHq5157/P6h57WyuS/Qsl+h/WSVGDF4MUi4rWSswW38oimDYfNNUBUOk=";
    let zeros = format!("{}=", "A".repeat(87));
    assert_eq!(BtcAddress::parse("invalid address", Network::Mainnet), Err(AddressError::Invalid));
    for (address, signature, message, expected) in [
        ("3B5fQsEXEaV8v6U3ejYc8XaKXAkyQj2MjV", "signature should be irrelevant", "message too", false),
        (
            "1KqbBpLy5FARmTPD4VZnDDpYjkUvkr82Pm",
            "invalid signature, not in base64 encoding",
            "message should be irrelevant",
            false,
        ),
        ("1KqbBpLy5FARmTPD4VZnDDpYjkUvkr82Pm", zeros.as_str(), "message should be irrelevant", false),
        ("15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs", trust, "I never signed this", false),
        ("15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs", trust, "Trust no one", true),
        (
            "11canuhp9X2NocwCq7xNrQYTmUgZAnLK3",
            "IIcaIENoYW5jZWxsb3Igb24gYnJpbmsgb2Ygc2Vjb25kIGJhaWxvdXQgZm9yIGJhbmtzIAaHRtbCeDZINyavx14=",
            "Trust me",
            true,
        ),
    ] {
        assert_eq!(valid(Network::Mainnet, address, message, signature), expected, "{address} {message}");
    }

    let secret = [
        0xd9, 0x7f, 0x51, 0x08, 0xf1, 0x1c, 0xda, 0x6e, 0xee, 0xba, 0xaa, 0x42, 0x0f, 0xef, 0x07, 0x26, 0xb1,
        0xf8, 0x98, 0x06, 0x0b, 0x98, 0x48, 0x9f, 0xa3, 0x09, 0x84, 0x63, 0xc0, 0x03, 0x28, 0x66,
    ];
    let signed = Key::from_secret(secret).map(|key| key.sign_compact("Trust no one", AddressType::P2pkh));
    assert_eq!(signed.as_deref(), Some(trust));

    let key = Key::from_wif("cUeKHd5orzT3mz8P9pxyREHfsWtVfgsfDjiZZBcjUBAaGk1BTj7N");
    let signed = key.map(|key| key.sign_compact("This is just a test message", AddressType::P2pkh));
    let expected = "INbVnW4e6PeRmsv2Qgu8NuopvrVjkcxob+sX8OcZG0SALhWybUjzMLPdAsXI46YZGb0KQTRii+wWIQzRpG/U+S0=";
    assert_eq!(signed.as_deref(), Ok(expected));
}

const BASIC: &str = include_str!("vectors/basic-test-vectors.json");
const GENERATED: &str = include_str!("vectors/generated-test-vectors.json");

fn rows<'a>(file: &'a Value, class: &str) -> &'a [Value] {
    file[class].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn field<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}"))
}

/// The type whose signatures are valid here, of those that the official files name.
fn provable(kind: &str) -> Option<AddressType> {
    match kind {
        "p2pkh" => Some(AddressType::P2pkh),
        "p2wpkh" => Some(AddressType::P2wpkh),
        "p2sh-p2wpkh" => Some(AddressType::P2sh),
        "p2tr" => Some(AddressType::P2tr),
        _ => None,
    }
}

/// Checks all rows of a file and counts them: (class, type) to signatures.
fn run(text: &str) -> BTreeMap<(String, String), usize> {
    let Ok(file) = serde_json::from_str::<Value>(text) else { panic!("not JSON") };
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for class in ["simple", "full", "proof_of_funds"] {
        for row in rows(&file, class) {
            let (address, message) = (field(row, "address"), field(row, "message"));
            let kind = provable(field(row, "type")).filter(|_| class != "proof_of_funds");
            for signature in rows(row, "bip322_signatures").iter().filter_map(Value::as_str) {
                let expected = kind.is_some();
                assert_eq!(valid(Network::Mainnet, address, message, signature), expected, "{row}");
                let bare = signature.trim_start_matches("smp").trim_start_matches("ful");
                assert_eq!(valid(Network::Mainnet, address, message, bare), expected, "bare {row}");
                let swapped = if class == "simple" { "ful" } else { "smp" };
                assert!(!valid(Network::Mainnet, address, message, &format!("{swapped}{bare}")), "{row}");
                *counts.entry((class.to_owned(), field(row, "type").to_owned())).or_default() += 1;
            }
            if let Some(kind) = kind {
                let wif = row["private_keys"][0].as_str().unwrap_or_default();
                let own = Key::from_wif(wif).ok().and_then(|key| key.address(kind, Network::Mainnet));
                assert_eq!(own.as_ref().map(BtcAddress::as_str), Some(address), "{row}");
            }
        }
    }
    for row in rows(&file, "error") {
        let signature = field(row, "signature");
        let valid = valid(Network::Mainnet, field(row, "address"), field(row, "message"), signature);
        assert!(!valid, "{row}");
        *counts.entry(("error".to_owned(), String::new())).or_default() += 1;
    }
    counts
}

fn expected(rows: &[(&str, &str, usize)]) -> BTreeMap<(String, String), usize> {
    rows.iter().map(|&(class, kind, count)| ((class.to_owned(), kind.to_owned()), count)).collect()
}

#[test]
fn bip322_basic_file() {
    let expected = expected(&[
        ("simple", "p2wpkh", 4),
        ("simple", "p2tr", 1),
        ("simple", "p2wsh-multisig-3of3", 1),
        ("error", "", 8),
    ]);
    assert_eq!(run(BASIC), expected);
}

#[test]
fn bip322_generated_file() {
    let expected = expected(&[
        ("simple", "p2wpkh", 1),
        ("simple", "p2tr", 1),
        ("simple", "p2wsh-multisig-2of2", 1),
        ("simple", "p2wsh-multisig-3of3", 1),
        ("full", "p2pkh", 1),
        ("full", "p2wpkh", 1),
        ("full", "p2tr", 1),
        ("full", "p2sh-p2wpkh", 1),
        ("full", "p2tr-time-lock", 1),
        ("full", "p2wsh-time-lock", 1),
        ("full", "p2wsh-multisig-2of2", 1),
        ("full", "p2wsh-multisig-3of3", 1),
        ("full", "p2sh-p2wsh-multisig-2of2", 1),
        ("full", "p2sh-multisig-2of2", 1),
        ("proof_of_funds", "p2pkh", 2),
        ("proof_of_funds", "p2tr", 1),
        ("error", "", 28),
    ]);
    assert_eq!(run(GENERATED), expected);
}
