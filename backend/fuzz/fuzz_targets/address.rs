//! Any text as an address of every network: parsing never panics, a normal form parses to itself, and
//! the networks agree on what is an address at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tbg_bitcoin::{AddressError, AddressType, BtcAddress, Network};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let results = Network::ALL.map(|network| BtcAddress::parse(&text, network));
    for (network, result) in Network::ALL.into_iter().zip(&results) {
        let Ok(address) = result else { continue };
        assert!(address.as_str().is_ascii() && address.as_str().len() <= 90);
        assert_eq!(address.can_sign(), address.address_type() != AddressType::P2wsh);
        assert_eq!(BtcAddress::parse(address.as_str(), network).as_ref(), Ok(address));
    }
    let invalid = results.iter().filter(|result| **result == Err(AddressError::Invalid)).count();
    assert!(invalid == 0 || invalid == results.len(), "{results:?}");

    let [mainnet, testnet, signet, regtest] = &results;
    assert_eq!(testnet, signet);
    assert!(mainnet.is_err() || (testnet.is_err() && regtest.is_err()), "{results:?}");
});
