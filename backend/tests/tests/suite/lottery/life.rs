//! A week's life when something goes wrong: broken steps, downtimes, deletions in the middle.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_core::period::IsoWeek;
use tbg_core::{Clock as _, SystemClock};
use tbg_games::Waits;
use tbg_tests::app::App;
use tbg_tests::{TestDb, TestRedis, at};

use crate::support::tbg;

use super::{MONDAY, best, drawn, five, get, watermark};

/// Every table that a step writes refuses it once; the step is whole or not there.
#[tokio::test]
async fn a_draw_that_breaks_off_anywhere_is_redone_whole() {
    let app = five().await;
    watermark(&app, "2026-03-02T00:05:00Z").await;
    let freeze: &[&str] = &["lottery_tree_levels", "lottery_entries", "lottery_draws", "audit_log"];
    let draw: &[&str] = &["lottery_results", "lottery_draws", "domain_outbox", "activity_feed", "audit_log"];
    for (tables, status, time) in [(freeze, "processing", "00:10:00"), (draw, "completed", "00:15:00")] {
        app.clock.set(at(&format!("{MONDAY}T{time}Z")));
        for table in tables {
            let condition =
                if *table == "lottery_draws" { format!("status <> '{status}'") } else { "FALSE".to_owned() };
            // sql-audit: allow(S1) names and conditions of this test
            app.db
                .execute(format!("ALTER TABLE {table} ADD CONSTRAINT broken CHECK ({condition}) NOT VALID"))
                .await;
            assert!(app.cycle().run(app.clock.now(), Waits::Kept).await.is_err(), "{table} {status}");
            // sql-audit: allow(S1) the same
            app.db.execute(format!("ALTER TABLE {table} DROP CONSTRAINT broken")).await;
            let left = "SELECT (SELECT count(*) FROM lottery_draws WHERE status = 'completed')
                        + (SELECT count(*) FROM lottery_results) + (SELECT count(*) FROM activity_feed)";
            assert_eq!(app.db.number(left).await, 0, "{table} {status}");
        }
        app.run_job("lottery_cycle").await;
    }
    app.consume().await;
    let seal = get(&app, "/lottery/proofs/2026-W09").await["seal"].clone();
    assert_eq!(seal, "661ec9634bbcc5868972ccebe5b6e5489b89bf14c986cc9f59b6ae5d3b25d73e");
    assert_eq!(app.db.number("SELECT count(*) FROM xp_ledger").await, 5);
    assert_eq!(app.db.number("SELECT count(*) FROM audit_log WHERE action LIKE 'lottery.%'").await, 2);
}

/// Down for three weeks, and no share since: all of them wait the same hour.
#[tokio::test]
async fn the_wait_for_shares_is_one_hour_for_all_weeks_together() {
    let app = five().await;
    for (user, monday) in [(1, "2026-03-02"), (2, "2026-03-09")] {
        best(&app, Some(user), "bc1qlater", monday, (5.0, None, 1)).await;
    }
    watermark(&app, "2026-02-28T00:00:00Z").await;
    app.clock.set(at("2026-03-18T12:00:00Z"));
    app.run_job("lottery_cycle").await;
    let open = "SELECT count(*) FROM lottery_draws WHERE status = 'open'";
    assert_eq!(app.db.number(open).await, 4, "three weeks wait, the fourth goes on");

    app.clock.advance(TimeDelta::hours(1));
    app.run_job("lottery_cycle").await;
    assert_eq!(app.db.number(open).await, 1);
    app.clock.advance(TimeDelta::minutes(5));
    app.run_job("lottery_cycle").await;
    assert_eq!(app.db.number("SELECT count(*) FROM lottery_draws WHERE status = 'completed'").await, 3);
}

/// The deletion is consumed before the freeze that did not see it commits.
#[tokio::test]
async fn who_is_deleted_while_a_week_is_frozen_is_unlinkable_after_the_draw() {
    let app = five().await;
    watermark(&app, "2026-03-02T00:05:00Z").await;
    app.clock.set(at("2026-03-02T00:10:00Z"));
    app.run_job("lottery_cycle").await;
    let deletes = "UPDATE users SET deleted_at = now(), btc_address = NULL WHERE id = 3";
    sqlx::query(deletes).execute(&app.db.pool).await.unwrap();
    app.clock.set(at("2026-03-02T00:15:00Z"));
    app.run_job("lottery_cycle").await;

    let linkable = "SELECT count(*) FROM lottery_entries WHERE salt IS NOT NULL OR btc_address IS NOT NULL";
    assert_eq!(app.db.number(linkable).await, 4);
    assert_eq!(app.db.number("SELECT xp_awarded::BIGINT FROM lottery_results WHERE user_id = 3").await, 0);
    let (_, wrong) = tbg_games::check(&app.db.pool).await.unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
}

async fn wrong_after(app: &App, change: &'static str) -> Vec<String> {
    sqlx::query(change).execute(&app.db.pool).await.unwrap();
    tbg_games::check(&app.db.pool).await.unwrap().1
}

#[tokio::test]
async fn whatever_is_changed_in_a_draw_is_told() {
    for change in [
        "UPDATE lottery_results SET best_difficulty = 1 WHERE user_id = 1",
        "UPDATE lottery_results SET total_shares = 0 WHERE user_id = 1",
        "UPDATE lottery_results SET xp_awarded = 99 WHERE user_id = 1",
        "UPDATE lottery_results SET percentile = 1 WHERE user_id = 1",
        "DELETE FROM lottery_results WHERE user_id = 1",
        "UPDATE lottery_draws SET winner_user_id = 3",
        "UPDATE lottery_draws SET winning_difficulty = 3",
        "UPDATE lottery_draws SET sum_best_difficulty = 3",
        "UPDATE lottery_draws SET total_participants = 3",
        "UPDATE lottery_draws SET total_shares = 3",
        "UPDATE lottery_draws SET merkle_root = previous_seal",
        "UPDATE lottery_entries SET best_difficulty = 7 WHERE user_id = 2",
        "DELETE FROM lottery_tree_levels WHERE level = 1",
    ] {
        assert_eq!(wrong_after(&drawn().await, change).await, ["2026-W09"], "{change}");
    }
}

#[tokio::test]
async fn an_operator_may_skip_the_waits_and_the_audit_log_knows() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let user = db.user("bc1qminer").await;
    let monday = IsoWeek::of(SystemClock.now()).minus(1).monday();
    sqlx::query(
        "INSERT INTO weekly_best_diff (user_id, btc_address, week_start, best_difficulty, total_shares)
         VALUES ($1, 'bc1qminer', $2, 5, 1)",
    )
    .bind(user)
    .bind(monday)
    .execute(&db.pool)
    .await
    .unwrap();
    let (url, redis_url, key) = (db.url(), redis.server.url(), "AB".repeat(32));
    let settings = [
        ("TBG_DATABASE_URL", url.as_str()),
        ("TBG_REDIS_URL", redis_url.as_str()),
        ("TBG_LOTTERY_SALT_KEY", key.as_str()),
    ];
    let run = async |args: &[&str]| -> Value {
        let ran = tbg(args, &settings).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    };
    let waiting = run(&["lottery", "run-due"]).await;
    assert_eq!((&waiting[0]["status"], &waiting[0]["total_participants"]), (&json!("open"), &json!(0)));
    let drawn = run(&["lottery", "run-due", "--no-wait"]).await;
    assert_eq!((&drawn[0]["status"], &drawn[0]["total_participants"]), (&json!("completed"), &json!(1)));
    assert_eq!(run(&["lottery", "run-due", "--no-wait"]).await, json!([]));
    let forced = "SELECT count(*) FROM audit_log WHERE action = 'lottery.forced'";
    assert_eq!(db.number(forced).await, 2);
}
