//! What never reaches a challenge: addresses that cannot sign here, and bodies of another shape (contract
//! `auth-users.md` §1.1, §2.1, §4).

use serde_json::json;
use tbg_bitcoin::wallet::Key;
use tbg_bitcoin::{AddressType, Network};
use tbg_tests::app::{App, GENEROUS};
use tbg_tests::now;
use tbg_tests::people::{address_of, wallet};

use super::{WIF, and, ask_challenge, challenge, verify};

const P2WSH: &str = "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3";

#[tokio::test]
async fn an_address_that_cannot_sign_here_gets_no_challenge() {
    let (app, regtest) = tokio::join!(App::new(), App::with(now(), Network::Regtest, GENEROUS));
    let signet = "tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v";
    let taproot = "bcrt1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5su3mkyy";
    let bad_checksum = "bc1p5cyxnuxmeuwuvkwfem96lqzszee2457nxwprkfw";
    for (app, address, code) in [
        (&app, P2WSH, "ADDRESS_NOT_SIGNABLE"),
        (&app, signet, "ADDRESS_WRONG_NETWORK"),
        (&app, taproot, "ADDRESS_WRONG_NETWORK"),
        (&app, bad_checksum, "ADDRESS_INVALID"),
        (&app, "bc1qtest", "ADDRESS_INVALID"),
        (&app, " ", "ADDRESS_INVALID"),
        (&regtest, P2WSH, "ADDRESS_WRONG_NETWORK"),
        (&regtest, signet, "ADDRESS_WRONG_NETWORK"),
    ] {
        let asked = ask_challenge(app, address).await;

        assert_eq!(asked.outcome(), (400, code), "{address}");
        if code != "ADDRESS_NOT_SIGNABLE" {
            let body = json!({ "btc_address": address, "signature": "x", "nonce": "0".repeat(32) });
            assert_eq!(verify(app, body).await.outcome(), (400, code), "{address}");
        }
    }

    let key = Key::from_wif(WIF).unwrap();
    let challenge = challenge(&regtest, taproot).await;
    assert!(challenge.message.contains("\nNetwork: regtest\n") && challenge.message.len() < 240);
    let signature = key.sign_bip322(&challenge.message, AddressType::P2tr, Network::Regtest).unwrap();
    let user = verify(&regtest, challenge.with(taproot, &signature)).await.ok()["user"].clone();
    assert_eq!(user["btc_address"], taproot);
}

#[tokio::test]
async fn a_body_of_another_shape_is_refused_before_the_challenge_is_touched() {
    let app = App::new().await;
    let key = wallet(1);
    let challenge = challenge(&app, &address_of(&key)).await;
    let good = challenge.signed_by(&key);
    let without = |name: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        body
    };
    for (body, field, kind) in [
        (without("btc_address"), "body.btc_address", "missing"),
        (without("signature"), "body.signature", "missing"),
        (without("nonce"), "body.nonce", "missing"),
        (
            and(good.clone(), "nonce", json!(challenge.nonce.to_uppercase() + "0")),
            "body.nonce",
            "pattern_mismatch",
        ),
        (and(good.clone(), "nonce", json!("0")), "body.nonce", "pattern_mismatch"),
        (and(good.clone(), "signature", json!("")), "body.signature", "string_too_short"),
        (and(good.clone(), "signature", json!("A".repeat(2049))), "body.signature", "string_too_long"),
        (and(good.clone(), "btc_address", json!("b".repeat(91))), "body.btc_address", "string_too_long"),
        (and(good.clone(), "timestamp", json!(null)), "body.timestamp", "type_error"),
        (and(good.clone(), "timestamp", json!("0".repeat(41))), "body.timestamp", "string_too_long"),
        (and(good.clone(), "claim", json!(1)), "body.claim", "type_error"),
        (and(good.clone(), "address", json!("x")), "body.address", "extra_forbidden"),
    ] {
        let answer = verify(&app, body).await;

        assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"), "{field} {kind}");
        let error = &answer.json["errors"][0];
        assert_eq!((&error["field"], &error["type"]), (&json!(field), &json!(kind)));
    }

    assert_eq!(verify(&app, good).await.status, 200);
}
