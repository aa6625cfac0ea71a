//! Shares through the engine into a real database (contract `mining.md` §3.3–3.5).

mod bests;
mod blocks;

use chrono::{DateTime, NaiveDate, Utc};
use tbg_tests::{Game, at, share};

use crate::support::{USER, envelope, everything};

#[tokio::test]
async fn one_share_sent_twice_within_two_seconds_counts_once() {
    let mut game = Game::new().await;
    game.db.user(USER).await;
    let lines = ["1771804800.250000", "1771804800.250150", "1771804803.000000"]
        .map(|ts| share(USER, "rig1", ts, 512.0, 4096.5, true));

    let first = game.apply(&lines).await;

    assert_eq!((first.applied, first.duplicate), (2, 1));
    assert_eq!(game.db.number("SELECT count(*) FROM shares").await, 2);
    assert_eq!(game.db.number("SELECT accepted FROM hourly_shares").await, 2);
    assert_eq!(game.db.number("SELECT accepted_shares FROM user_daily_stats").await, 2);
    assert_eq!(game.db.number("SELECT total_shares FROM weekly_best_diff").await, 2);
    assert_eq!(game.db.number("SELECT count(*) FROM ingest_ledger").await, 2);
    game.close().await;
}

#[tokio::test]
async fn copies_of_a_share_in_separate_batches_count_once() {
    let mut game = Game::new().await;
    let mut outcomes = Vec::new();

    for ts in ["1771804800.250000", "1771804800.250150", "1771804803.000000"] {
        let outcome = game.apply(&[share(USER, "rig1", ts, 512.0, 4096.5, true)]).await;
        outcomes.push((outcome.applied, outcome.duplicate));
    }

    assert_eq!(outcomes, [(1, 0), (0, 1), (1, 0)]);
    assert_eq!(game.db.number("SELECT accepted FROM hourly_shares").await, 2);
    game.close().await;
}

#[tokio::test]
async fn the_second_pass_of_everything_changes_nothing() {
    let mut game = Game::new().await;
    game.db.user(USER).await;
    let lines = [
        share(USER, "rig1", "1771804800.250000", 512.0, 4096.5, true),
        share(USER, "rig1", "1771804801.000000", 512.0, 9999.0, false),
        share("bc1qstranger", "rig1", "1771804801.500000", 512.0, 800.0, true),
        share(USER, "rig1", "1771804801.600000", 512.0, 0.0, true),
        envelope("miner_connected", "1771804799.000000", r#"{"user":"bc1qexample","worker":"rig1"}"#),
        envelope("share_best_diff", "1771804802.000000", r#"{"user":"bc1qexample","new_best":5000}"#),
        envelope("block_found", "1771804803.000000", r#"{"user":"bc1qexample","height":900}"#),
        envelope("new_block_network", "1771804804.000000", r#"{"height":901,"hash":"aa","diff":7}"#),
        envelope("solo_dance", "1771804805.000000", r#"{"user":"bc1qexample"}"#),
    ];
    let first = game.apply(&lines).await;
    let before = everything(&game.db).await;

    let second = game.apply(&lines).await;

    assert_eq!((first.applied, first.duplicate), (lines.len(), 0));
    assert_eq!((second.applied, second.duplicate), (0, lines.len()));
    assert_eq!(second.pushes.len(), 0);
    assert_eq!(everything(&game.db).await, before);
    game.close().await;
}

#[tokio::test]
async fn an_event_id_identifies_an_event_whatever_it_says() {
    let mut game = Game::new().await;
    let line = |sdiff: f64| {
        format!(
            r#"{{"event":"share_submitted","ts":1771804800.25,"event_id":"0190a3b4-7c8d-7000-b123-456789abcdef","data":{{"user":"{USER}","sdiff":{sdiff}}}}}"#
        )
    };

    let outcome = game.apply(&[line(100.0), line(200.0)]).await;

    assert_eq!((outcome.applied, outcome.duplicate), (1, 1));
    assert_eq!(game.db.number("SELECT count(*) FROM shares").await, 1);
    game.close().await;
}

#[tokio::test]
async fn hours_days_and_weeks_add_up_exactly_in_one_batch_and_in_many() {
    let lines = [
        share(USER, "rig1", "1771804800.500000", 512.0, 1000.0, true),
        share(USER, "rig1", "1771806000.000000", 1024.0, 3000.0, true),
        share(USER, "rig2", "1771808400.000000", 2048.0, 2000.5, true),
        share(USER, "rig2", "1771808401.000000", 512.0, 9e9, false),
        share(USER, "rig1", "1771891200.000000", 512.0, 500.0, true),
    ];
    for size in [lines.len(), 1] {
        let mut game = Game::new().await;
        let user = game.db.user(USER).await;

        for batch in lines.chunks(size) {
            game.apply(batch).await;
        }

        type Hour = (DateTime<Utc>, Option<i64>, i64, i64, i64, f64, f64, f64);
        let hours: Vec<Hour> = sqlx::query_as(
            "SELECT bucket, user_id, total, accepted, rejected, work, sum_share_diff, best_diff
             FROM hourly_shares ORDER BY bucket",
        )
        .fetch_all(&game.db.pool)
        .await
        .unwrap();
        let expected = [
            (at("2026-02-23T00:00:00Z"), Some(user), 2, 2, 0, 1536.0, 4000.0, 3000.0),
            (at("2026-02-23T01:00:00Z"), Some(user), 2, 1, 1, 2048.0, 2000.5, 2000.5),
            (at("2026-02-24T00:00:00Z"), Some(user), 1, 1, 0, 512.0, 500.0, 500.0),
        ];
        assert_eq!(hours, expected);

        type Day = (NaiveDate, i64, i64, i64, f64, f64, f64, f64);
        let days: Vec<Day> = sqlx::query_as(
            "SELECT day, total_shares, accepted_shares, rejected_shares, best_diff, avg_diff, sum_share_diff, work
             FROM user_daily_stats ORDER BY day",
        )
        .fetch_all(&game.db.pool)
        .await
        .unwrap();
        let (monday, tuesday) = (day("2026-02-23"), day("2026-02-24"));
        let expected = [
            (monday, 4, 3, 1, 3000.0, 6000.5 / 3.0, 6000.5, 3584.0),
            (tuesday, 1, 1, 0, 500.0, 500.0, 500.0, 512.0),
        ];
        assert_eq!(days, expected);

        type Week = (NaiveDate, Option<i64>, f64, DateTime<Utc>, i64);
        let weeks: Vec<Week> = sqlx::query_as(
            "SELECT week_start, user_id, best_difficulty, best_share_time, total_shares FROM weekly_best_diff",
        )
        .fetch_all(&game.db.pool)
        .await
        .unwrap();
        assert_eq!(weeks, [(monday, Some(user), 3000.0, at("2026-02-23T00:20:00Z"), 4)]);
        game.close().await;
    }
}

#[tokio::test]
async fn a_rejected_share_counts_in_totals_only() {
    let mut game = Game::new().await;
    game.db.user(USER).await;
    let data = r#"{"user":"bc1qexample","worker":"bc1qexample.rig1","diff":512,"sdiff":9e9,"accepted":false,"reject_reason":"Stale"}"#;

    game.apply(&[envelope("share_submitted", "1771804800.25", data)]).await;

    let hour: (i64, i64, i64, f64, f64, f64) = sqlx::query_as(
        "SELECT total, accepted, rejected, work, sum_share_diff, best_diff FROM hourly_shares",
    )
    .fetch_one(&game.db.pool)
    .await
    .unwrap();
    assert_eq!(hour, (1, 0, 1, 0.0, 0.0, 0.0));
    let day: (i64, i64, i64, f64, f64) = sqlx::query_as(
        "SELECT total_shares, accepted_shares, rejected_shares, best_diff, avg_diff FROM user_daily_stats",
    )
    .fetch_one(&game.db.pool)
    .await
    .unwrap();
    assert_eq!(day, (1, 0, 1, 0.0, 0.0));
    assert_eq!(game.db.number("SELECT count(*) FROM weekly_best_diff").await, 0);
    assert_eq!(game.db.number("SELECT count(*) FROM personal_bests").await, 0);
    let row: (bool, String) =
        sqlx::query_as("SELECT is_valid, reject_reason FROM shares").fetch_one(&game.db.pool).await.unwrap();
    assert_eq!(row, (false, "Stale".to_owned()));
    game.close().await;
}

#[tokio::test]
async fn an_unknown_event_is_archived_and_has_no_other_effect() {
    let mut game = Game::new().await;
    game.db.user(USER).await;

    game.apply(&[envelope("solo_dance", "1771804800.25", r#"{"user":"bc1qexample","steps":[1,2]}"#)]).await;

    let archived: (String, bool) = sqlx::query_as(
        r#"SELECT event_type, payload = '{"user":"bc1qexample","steps":[1,2]}' FROM mining_events"#,
    )
    .fetch_one(&game.db.pool)
    .await
    .unwrap();
    assert_eq!(archived, ("solo_dance".to_owned(), true));
    for sql in [
        "SELECT count(*) FROM shares",
        "SELECT count(*) FROM hourly_shares",
        "SELECT count(*) FROM weekly_best_diff",
        "SELECT count(*) FROM personal_bests",
        "SELECT count(*) FROM blocks",
    ] {
        assert_eq!(game.db.number(sql).await, 0, "{sql}");
    }
    game.close().await;
}

#[tokio::test]
async fn the_archive_stores_accepted_as_a_boolean_and_keeps_unknown_keys() {
    let mut game = Game::new().await;
    let data = r#"{"user":"bc1qexample","sdiff":100,"accepted":"1","job_id":"7f","extra":{"deep":[1,null]}}"#;

    game.apply(&[envelope("share_submitted", "1771804800.25", data)]).await;

    let kept = "SELECT count(*) FROM mining_events WHERE payload -> 'accepted' = 'true'::JSONB
                AND payload ->> 'job_id' = '7f' AND payload -> 'extra' = '{\"deep\":[1,null]}'::JSONB";
    assert_eq!(game.db.number(kept).await, 1);
    let indexed = "SELECT count(*) FROM mining_events
                   WHERE event_type = 'share_submitted' AND (payload ->> 'accepted')::BOOLEAN = TRUE";
    assert_eq!(game.db.number(indexed).await, 1);
    game.close().await;
}

#[tokio::test]
async fn the_archive_and_the_shares_hold_the_short_worker_name_and_the_source() {
    let mut game = Game::new().await;
    let line = r#"{"region":"eu-west","event":"share_submitted","ts":1771804800.25,"source":"proxy","data":{"user":"bc1qexample","worker":"bc1qexample_rig.1","diff":512,"sdiff":4096.5,"ip":"192.0.2.7","nonce":"00ff"}}"#;

    game.apply(&[line.to_owned()]).await;

    let row: (DateTime<Utc>, String, f64, f64, String, String, String, String) = sqlx::query_as(
        "SELECT time, worker_name, difficulty, share_diff, source, region, host(ip_address), nonce FROM shares",
    )
    .fetch_one(&game.db.pool)
    .await
    .unwrap();
    let text = str::to_owned;
    let expected = (
        at("2026-02-23T00:00:00.25Z"),
        text("rig.1"),
        512.0,
        4096.5,
        text("proxy"),
        text("eu-west"),
        text("192.0.2.7"),
        text("00ff"),
    );
    assert_eq!(row, expected);
    game.close().await;
}

#[tokio::test]
async fn nobody_gets_rows_for_shares_of_the_pool_itself() {
    let mut game = Game::new().await;
    let lines = ["unknown", "pool", ""].map(|user| share(user, "x", "1771804800.25", 512.0, 9e9, true));

    let outcome = game.apply(&lines).await;

    assert_eq!(outcome.applied, 3);
    assert_eq!(game.db.number("SELECT count(*) FROM mining_events").await, 3);
    assert_eq!(game.db.number("SELECT count(*) FROM hourly_shares").await, 0);
    assert_eq!(game.db.number("SELECT count(*) FROM weekly_best_diff").await, 0);
    game.close().await;
}

#[tokio::test]
async fn browsers_hear_of_shares_records_and_blocks_and_never_of_duplicates() {
    let mut game = Game::new().await;
    game.db.user(USER).await;
    let at = |second: u32| format!("17718048{second:02}.000000");
    let record = share(USER, "rig1", &at(0), 512.0, 4096.5, true);
    let steps = [
        ("a first share is news, a record, a badge, a milestone and experience", record.clone(), 5),
        ("the same share again is nothing", record, 0),
        ("a lower share is news", share(USER, "rig1", &at(3), 512.0, 4000.0, true), 1),
        ("a rejected share is news", share(USER, "rig1", &at(4), 512.0, 9e9, false), 1),
        ("a stranger's share is nothing", share("bc1qstranger", "r", &at(5), 512.0, 9e9, true), 0),
        ("a reported best below is nothing", best(&at(6), 4000.0), 0),
        ("a reported best above is a record", best(&at(7), 5000.0), 1),
        ("a block is published, found, in the feed, a badge, a level and experience", found(&at(8)), 6),
        ("a connection is nothing yet", envelope("miner_connected", &at(9), r#"{"user":"bc1qexample"}"#), 0),
    ];

    for (rule, line, expected) in steps {
        let outcome = game.apply(&[line]).await;

        assert_eq!(outcome.pushes.len(), expected, "{rule}");
    }
    game.close().await;
}

fn best(ts: &str, new_best: f64) -> String {
    let data = format!(r#"{{"user":"{USER}","worker":"{USER}.rig1","new_best":{new_best}}}"#);
    envelope("share_best_diff", ts, &data)
}

fn found(ts: &str) -> String {
    envelope("block_found", ts, r#"{"user":"bc1qexample","height":900}"#)
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}
