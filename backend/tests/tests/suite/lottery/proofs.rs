//! Public files and proofs, and their verification by the program (contract `games.md` §2.9).

use std::process::Stdio;

use serde_json::{Value, json};
use tbg_core::UserId;
use tbg_games::rules::proof::verify;
use tbg_tests::app::App;
use tbg_tests::program::binary;
use tokio::io::AsyncWriteExt as _;

use super::drawn;

/// A user's own proof of a week, which verifies without us.
pub(super) async fn own(app: &App, user: i64, week: &str) -> Value {
    let path = format!("/api/v1/lottery/proofs/{week}/me");
    let proof = app.get(&path, Some(&app.token(user))).await;
    assert_eq!(proof.status, 200, "{}", proof.text);
    let report = verify(proof.text.as_bytes()).expect("a proof");
    assert_eq!((report.ok, report.commitment_ok, report.week_iso), (true, Some(true), week.to_owned()));
    assert_eq!(proof.json["entries_count"], report.entries);
    proof.json
}

/// `tbg lottery verify -` on a text: exit code and report.
pub(super) async fn verified(text: &str) -> (Option<i32>, Value) {
    verified_from("-", text).await
}

/// `tbg lottery verify` on a file, which may be the text of its standard input.
async fn verified_from(file: &str, text: &str) -> (Option<i32>, Value) {
    let mut child = tokio::process::Command::new(binary())
        .args(["lottery", "verify", file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[tokio::test]
async fn examples_4_7_and_22_files_and_proofs_verify_without_us() {
    let app = drawn().await;
    let file = app.get("/api/v1/lottery/proofs/2026-W09/file", None).await;
    assert_eq!(file.header("cache-control"), "public, immutable, max-age=31536000");
    let (code, report) = verified(&file.text).await;
    assert_eq!((code, &report["ok"], &report["entries"]), (Some(0), &json!(true), &json!(5)), "{report}");
    let (code, report) = verified(&file.text.replace("\"total_shares\":1200", "\"total_shares\":1201")).await;
    assert_eq!((code, &report["root_ok"]), (Some(1), &json!(false)));
    let swapped = file
        .text
        .replace("\"rank\":1}", "\"rank\":9}")
        .replace("\"rank\":2}", "\"rank\":1}")
        .replace("\"rank\":9}", "\"rank\":2}");
    let (code, report) = verified(&swapped).await;
    assert_eq!((code, &report["ranking_ok"], &report["root_ok"]), (Some(1), &json!(false), &json!(true)));
    assert_eq!(verified(&file.text.replacen("{", "{\"format\":\"tbg-lottery-v1\",", 1)).await.0, Some(2));
    assert_eq!(verified("no file").await.0, Some(2));

    let proof = app.get("/api/v1/lottery/proofs/2026-W09/me", Some(&app.token(3))).await;
    assert_eq!((proof.header("cache-control"), &proof.json["leaf_index"]), ("no-store", &json!(3)));
    assert_eq!(proof.json["siblings"].as_array().unwrap().len(), 3);
    let (code, report) = verified(&proof.text).await;
    assert_eq!((code, &report["commitment_ok"]), (Some(0), &json!(true)), "{report}");
    // Whose address is unknown says so; a key that is not there is no proof.
    for key in ["btc_address", "salt", "rank", "xp_awarded"] {
        let mut cut = proof.json.clone();
        cut.as_object_mut().unwrap().remove(key);
        assert_eq!(verified(&cut.to_string()).await.0, Some(2), "{key}");
    }
    let stranger = app.db.user("bc1qstranger").await;
    let none = app.get("/api/v1/lottery/proofs/2026-W09/me", Some(&app.token(stranger))).await;
    assert_eq!(none.outcome(), (404, "LOTTERY_ENTRY_NOT_FOUND"));

    let mut conn = app.db.connect().await;
    let gone = tbg_core::outbox::DomainEvent::UserDeleted { user_id: UserId(3), btc_address: None };
    tbg_core::outbox::write(&mut conn, &[gone]).await.unwrap();
    app.consume().await;
    assert_eq!(
        app.db
            .number("SELECT count(*) FROM lottery_entries WHERE btc_address IS NULL AND salt IS NULL")
            .await,
        1
    );
    let again = app.get("/api/v1/lottery/proofs/2026-W09/file", None).await;
    assert_eq!(again.text, file.text, "the person is unlinkable, the file is as it was");
    assert!(!file.text.contains("bc1q9vza2") && verify(file.text.as_bytes()).unwrap().ok);
}

#[tokio::test]
async fn the_public_file_is_compressed_and_verifies_by_its_address() {
    let app = drawn().await;
    let replica = app.serve().await;
    let url = format!("{}/api/v1/lottery/proofs/2026-W09/file", replica.base);
    let plain = app.get("/api/v1/lottery/proofs/2026-W09/file", None).await.text;

    let raw = reqwest::Client::builder().no_gzip().build().unwrap();
    let sent = raw.get(&url).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(sent.headers()["content-encoding"], "gzip");
    assert!(sent.bytes().await.unwrap().len() < plain.len());
    assert_eq!(reqwest::get(&url).await.unwrap().text().await.unwrap(), plain);

    let (code, report) = verified_from(&url, "").await;
    assert_eq!((code, &report["ok"], &report["entries"]), (Some(0), &json!(true), &json!(5)), "{report}");
    assert_eq!(verified_from(&url.replace("W09", "W08"), "").await.0, Some(2), "not drawn");
    assert_eq!(verified_from("http://127.0.0.1:1/file", "").await.0, Some(2), "nobody there");
}
