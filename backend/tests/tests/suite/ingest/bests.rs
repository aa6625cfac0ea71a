//! Personal bests, weekly bests, whose row it is, and events too old to count.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use tbg_tests::{Game, TestDb, at, share};

use super::{best, day};
use crate::support::{USER, decoded, envelope, everything};

type Best = (String, Option<String>, f64, DateTime<Utc>, String);

async fn bests(db: &TestDb) -> Vec<Best> {
    sqlx::query_as(
        "SELECT timeframe, period_key, best_difficulty, share_time, worker_name
         FROM personal_bests ORDER BY timeframe, period_key",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap()
}

fn row(timeframe: &str, period: Option<&str>, difficulty: f64, time: &str, worker: &str) -> Best {
    (timeframe.to_owned(), period.map(str::to_owned), difficulty, at(time), worker.to_owned())
}

#[tokio::test]
async fn a_best_is_kept_for_the_week_the_month_and_all_time() {
    let mut game = Game::new().await;
    game.db.user(USER).await;

    // Sunday, Monday, and the Sunday that begins the next month.
    game.apply(&[share(USER, "rig1", "1771761600.0", 512.0, 3000.0, true)]).await;
    game.apply(&[share(USER, "rig2", "1771804800.0", 512.0, 1000.0, true)]).await;
    game.apply(&[share(USER, "rig3", "1772323200.0", 512.0, 2000.0, true)]).await;

    let expected = [
        row("alltime", None, 3000.0, "2026-02-22T12:00:00Z", "rig1"),
        row("month", Some("2026-02"), 3000.0, "2026-02-22T12:00:00Z", "rig1"),
        row("month", Some("2026-03"), 2000.0, "2026-03-01T00:00:00Z", "rig3"),
        row("week", Some("2026-W08"), 3000.0, "2026-02-22T12:00:00Z", "rig1"),
        row("week", Some("2026-W09"), 2000.0, "2026-03-01T00:00:00Z", "rig3"),
    ];
    assert_eq!(bests(&game.db).await, expected);
    game.close().await;
}

#[tokio::test]
async fn a_tie_keeps_the_earlier_share_in_whatever_order_the_two_arrive() {
    let earlier = share(USER, "rig1", "1771804800.0", 512.0, 4096.5, true);
    let later = share(USER, "rig2", "1771804810.0", 512.0, 4096.5, true);
    for [first, second] in [[&earlier, &later], [&later, &earlier]] {
        let mut game = Game::new().await;
        game.db.user(USER).await;

        game.apply(std::slice::from_ref(first)).await;
        game.apply(std::slice::from_ref(second)).await;

        let expected = [
            row("alltime", None, 4096.5, "2026-02-23T00:00:00Z", "rig1"),
            row("month", Some("2026-02"), 4096.5, "2026-02-23T00:00:00Z", "rig1"),
            row("week", Some("2026-W09"), 4096.5, "2026-02-23T00:00:00Z", "rig1"),
        ];
        assert_eq!(bests(&game.db).await, expected);
        let time: DateTime<Utc> = sqlx::query_scalar("SELECT best_share_time FROM weekly_best_diff")
            .fetch_one(&game.db.pool)
            .await
            .unwrap();
        assert_eq!(time, at("2026-02-23T00:00:00Z"));
        game.close().await;
    }
}

#[tokio::test]
async fn a_reported_best_raises_bests_and_counts_nowhere() {
    let mut game = Game::new().await;
    game.db.user(USER).await;

    game.apply(&[best("1771804800.0", 7000.0)]).await;
    game.apply(&[best("1771804900.0", 6000.0)]).await;

    let expected = [
        row("alltime", None, 7000.0, "2026-02-23T00:00:00Z", "rig1"),
        row("month", Some("2026-02"), 7000.0, "2026-02-23T00:00:00Z", "rig1"),
        row("week", Some("2026-W09"), 7000.0, "2026-02-23T00:00:00Z", "rig1"),
    ];
    assert_eq!(bests(&game.db).await, expected);
    let week: (f64, i64) = sqlx::query_as("SELECT best_difficulty, total_shares FROM weekly_best_diff")
        .fetch_one(&game.db.pool)
        .await
        .unwrap();
    assert_eq!(week, (7000.0, 0));
    assert_eq!(game.db.number("SELECT count(*) FROM mining_events").await, 2);
    for sql in [
        "SELECT count(*) FROM shares",
        "SELECT count(*) FROM hourly_shares",
        "SELECT count(*) FROM user_daily_stats",
    ] {
        assert_eq!(game.db.number(sql).await, 0, "{sql}");
    }
    game.close().await;
}

#[tokio::test]
async fn event_time_decides_the_week_to_the_microsecond() {
    let mut game = Game::new().await;
    let lines = [
        share(USER, "rig1", "1771804799.999999", 512.0, 1000.0, true),
        share(USER, "rig1", "1771804800.000000", 512.0, 2000.0, true),
    ];

    game.apply(&lines).await;

    let weeks: Vec<(NaiveDate, f64, i64)> = sqlx::query_as(
        "SELECT week_start, best_difficulty, total_shares FROM weekly_best_diff ORDER BY week_start",
    )
    .fetch_all(&game.db.pool)
    .await
    .unwrap();
    assert_eq!(weeks, [(day("2026-02-16"), 1000.0, 1), (day("2026-02-23"), 2000.0, 1)]);
    let time: DateTime<Utc> =
        sqlx::query_scalar("SELECT min(time) FROM shares").fetch_one(&game.db.pool).await.unwrap();
    assert_eq!(time, at("2026-02-22T23:59:59.999999Z"));
    game.close().await;
}

#[tokio::test]
async fn a_new_holder_gets_nothing_of_what_the_address_did_before() {
    let mut game = Game::new().await;
    let block = r#"{"user":"bc1qexample","height":900}"#;
    game.apply(&[
        share(USER, "rig1", "1771804800.0", 512.0, 9e9, true),
        envelope("block_found", "1771804801.0", block),
    ])
    .await;
    let user = game.db.user(USER).await;

    game.apply(&[
        share(USER, "rig1", "1771804900.0", 512.0, 100.0, true),
        share(USER, "rig1", "1771808400.0", 512.0, 50.0, true),
    ])
    .await;

    let difficulties: Vec<f64> =
        bests(&game.db).await.into_iter().map(|(_, _, difficulty, ..)| difficulty).collect();
    assert_eq!(difficulties, [100.0; 3]);
    let week: (Option<i64>, f64, i64) =
        sqlx::query_as("SELECT user_id, best_difficulty, total_shares FROM weekly_best_diff")
            .fetch_one(&game.db.pool)
            .await
            .unwrap();
    assert_eq!(week, (None, 9e9, 3));
    let hours: Vec<(Option<i64>, i64)> =
        sqlx::query_as("SELECT user_id, total FROM hourly_shares ORDER BY bucket")
            .fetch_all(&game.db.pool)
            .await
            .unwrap();
    assert_eq!(hours, [(None, 2), (Some(user), 1)]);
    assert_eq!(game.db.number("SELECT total_shares FROM user_daily_stats").await, 2);
    let owner: Option<i64> =
        sqlx::query_scalar("SELECT user_id FROM blocks").fetch_one(&game.db.pool).await.unwrap();
    assert_eq!(owner, None);
    assert_eq!(game.db.number("SELECT count(*) FROM block_celebrations").await, 0);
    let attributed = "SELECT count(*) FROM domain_outbox WHERE topic = 'BlockAttributed'";
    assert_eq!(game.db.number(attributed).await, 0);
    game.close().await;
}

#[tokio::test]
async fn an_event_older_than_ninety_days_takes_part_in_maxima_only() {
    let mut game = Game::new().await;
    game.db.user(USER).await;
    let old = decoded(&[
        share(USER, "rig1", "1771804800.0", 512.0, 5000.0, true),
        share(USER, "rig1", "1771804801.0", 512.0, 9e9, false),
        super::found("1771804802.0"),
    ]);
    let later = at("2026-02-23T00:00:00Z") + TimeDelta::days(91);

    let outcome = game.apply_at(old.clone(), later).await;
    let after_first = everything(&game.db).await;
    game.apply_at(old, later).await;
    game.apply_at(decoded(&[share(USER, "rig1", "1771804805.0", 512.0, 100.0, true)]), later).await;

    assert_eq!(outcome.applied, 3);
    assert_eq!(everything(&game.db).await, after_first, "once more, or lower, changes nothing");
    let difficulties: Vec<f64> =
        bests(&game.db).await.into_iter().map(|(_, _, difficulty, ..)| difficulty).collect();
    assert_eq!(difficulties, [5000.0; 3]);
    let week: (f64, i64) = sqlx::query_as("SELECT best_difficulty, total_shares FROM weekly_best_diff")
        .fetch_one(&game.db.pool)
        .await
        .unwrap();
    assert_eq!(week, (5000.0, 0));
    assert_eq!(game.db.number("SELECT count(*) FROM blocks").await, 1);
    for sql in [
        "SELECT count(*) FROM shares",
        "SELECT count(*) FROM mining_events",
        "SELECT count(*) FROM hourly_shares",
        "SELECT count(*) FROM user_daily_stats",
        "SELECT count(*) FROM ingest_ledger",
        "SELECT count(*) FROM activity_feed",
    ] {
        assert_eq!(game.db.number(sql).await, 0, "{sql}");
    }
    game.close().await;
}

#[tokio::test]
async fn an_event_of_exactly_ninety_days_still_counts_once() {
    let mut game = Game::new().await;
    let line = [share(USER, "rig1", "1771804800.0", 512.0, 5000.0, true)];
    let limit = at("2026-02-23T00:00:00Z") + TimeDelta::days(90);

    let first = game.apply_at(decoded(&line), limit).await;
    let second = game.apply_at(decoded(&line), limit).await;

    assert_eq!((first.applied, second.applied, second.duplicate), (1, 0, 1));
    assert_eq!(game.db.number("SELECT total FROM hourly_shares").await, 1);
    game.close().await;
}
