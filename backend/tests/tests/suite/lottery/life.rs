//! A week's life when something goes wrong: broken steps, downtimes, deletions in the middle.

use serde_json::{Value, json};
use tbg_core::period::IsoWeek;
use tbg_core::{Clock as _, SystemClock, UserId};
use tbg_games::Waits;
use tbg_identity::roles;
use tbg_tests::{TestDb, TestRedis, at};

use super::proofs::own;
use super::{MONDAY, SEAL, assert_sound, best, cycle_at, drawn, five, get, status, watermark};
use crate::support::tbg_on;

/// Every table that a step writes refuses it once; the step is whole or not there.
#[tokio::test]
async fn a_draw_that_breaks_off_anywhere_is_redone_whole() {
    let app = five().await;
    watermark(&app, "2026-03-02T00:05:00Z").await;
    let freeze: &[&str] = &["lottery_tree_levels", "lottery_entries", "lottery_draws", "audit_log"];
    let of_freeze = "SELECT (SELECT count(*) FROM lottery_draws WHERE status <> 'open' OR seal IS NOT NULL)
        + (SELECT count(*) FROM lottery_entries) + (SELECT count(*) FROM lottery_tree_levels)
        + (SELECT count(*) FROM audit_log WHERE action LIKE 'lottery.%')";
    let draw: &[&str] = &["lottery_results", "lottery_draws", "domain_outbox", "activity_feed", "audit_log"];
    let of_draw = "SELECT (SELECT count(*) FROM lottery_draws WHERE status = 'completed')
        + (SELECT count(*) FROM lottery_results) + (SELECT count(*) FROM activity_feed)
        + (SELECT count(*) FROM domain_outbox WHERE topic = 'LotteryDrawn')
        + (SELECT count(*) FROM audit_log WHERE action = 'lottery.drawn')";
    for (tables, status, time, left) in
        [(freeze, "processing", "00:10:00", of_freeze), (draw, "completed", "00:15:00", of_draw)]
    {
        app.clock.set(at(&format!("{MONDAY}T{time}Z")));
        for table in tables {
            let condition =
                if *table == "lottery_draws" { format!("status <> '{status}'") } else { "FALSE".to_owned() };
            // sql-audit: allow(S1) names and conditions of this test
            app.db
                .execute(format!("ALTER TABLE {table} ADD CONSTRAINT broken CHECK ({condition}) NOT VALID"))
                .await;
            let error = app.cycle().run(app.clock.now(), Waits::Kept).await.expect_err(table);
            assert!(format!("{error:#}").contains("\"broken\""), "{table} {status}: {error:#}");
            // sql-audit: allow(S1) the same
            app.db.execute(format!("ALTER TABLE {table} DROP CONSTRAINT broken")).await;
            assert_eq!(app.db.number(left).await, 0, "{table} {status}");
        }
        app.run_job("lottery_cycle").await;
    }
    app.consume().await;
    assert_eq!(get(&app, "/lottery/proofs/2026-W09").await["seal"], SEAL);
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
    cycle_at(&app, "2026-03-18T12:00:00Z").await;
    let open = "SELECT count(*) FROM lottery_draws WHERE status = 'open'";
    assert_eq!(app.db.number(open).await, 4, "three weeks wait, the fourth goes on");

    cycle_at(&app, "2026-03-18T12:59:59Z").await;
    assert_eq!(app.db.number(open).await, 4);
    cycle_at(&app, "2026-03-18T13:00:00Z").await;
    assert_eq!(app.db.number(open).await, 1);
    cycle_at(&app, "2026-03-18T13:05:00Z").await;
    assert_eq!(app.db.number("SELECT count(*) FROM lottery_draws WHERE status = 'completed'").await, 3);
}

/// The deletion was consumed before the freeze that did not see it was committed: what it left is the user's row
/// alone.
#[tokio::test]
async fn who_is_deleted_while_a_week_is_frozen_is_unlinkable_after_the_draw() {
    let app = five().await;
    watermark(&app, "2026-03-02T00:05:00Z").await;
    cycle_at(&app, "2026-03-02T00:10:00Z").await;
    assert_eq!(status(&app).await, "processing");
    app.db.change("UPDATE users SET deleted_at = now(), btc_address = NULL WHERE id = 3").await;
    cycle_at(&app, "2026-03-02T00:15:00Z").await;

    let linkable = "SELECT count(*) FROM lottery_entries WHERE salt IS NOT NULL OR btc_address IS NOT NULL";
    assert_eq!(app.db.number(linkable).await, 4);
    assert_eq!(app.db.number("SELECT xp_awarded::BIGINT FROM lottery_results WHERE user_id = 3").await, 0);
    assert_sound(&app, 1).await;
}

#[tokio::test]
async fn who_is_banned_after_the_freeze_keeps_the_rank_and_is_paid_nothing() {
    let app = five().await;
    watermark(&app, "2026-03-02T00:05:00Z").await;
    cycle_at(&app, "2026-03-02T00:10:00Z").await;
    roles::ban(&app.db.pool, UserId(4), "a test", true, app.clock.now()).await.unwrap().unwrap();
    cycle_at(&app, "2026-03-02T00:15:00Z").await;
    app.consume().await;

    let rows = app.db.rows("SELECT rank, xp_awarded FROM lottery_results WHERE user_id = 4").await;
    assert_eq!(rows, [r#"{"rank": 2, "xp_awarded": 0}"#]);
    let paid = "SELECT count(*) FROM xp_ledger WHERE source = 'competition'";
    assert_eq!(app.db.number(paid).await, 4);
    assert_sound(&app, 1).await;
}

/// A tree follows from the entries: levels that are gone are made again, and give the same proofs.
#[tokio::test]
async fn levels_of_a_tree_that_are_gone_come_back_from_the_entries() {
    let app = drawn().await;
    let proof = own(&app, 1, "2026-W09").await;
    let levels = "SELECT level, encode(hashes, 'hex') AS hashes FROM lottery_tree_levels ORDER BY level";
    let before = app.db.rows(levels).await;
    app.db.change("DELETE FROM lottery_tree_levels").await;
    assert_eq!(app.get("/api/v1/lottery/proofs/2026-W09/me", Some(&app.token(1))).await.status, 500);

    assert_sound(&app, 1).await;

    assert_eq!(app.db.rows(levels).await, before);
    assert_eq!(own(&app, 1, "2026-W09").await, proof);
}

#[tokio::test]
async fn whatever_is_changed_in_a_draw_is_told() {
    for change in [
        "UPDATE lottery_results SET best_difficulty = 1 WHERE user_id = 1",
        "UPDATE lottery_results SET total_shares = 0 WHERE user_id = 1",
        "UPDATE lottery_results SET xp_awarded = 99 WHERE user_id = 1",
        "UPDATE lottery_results SET percentile = 1 WHERE user_id = 1",
        "UPDATE lottery_results SET rank = 9 WHERE user_id = 1",
        "DELETE FROM lottery_results WHERE user_id = 1",
        "UPDATE lottery_draws SET winner_user_id = 3",
        "UPDATE lottery_draws SET winning_difficulty = 3",
        "UPDATE lottery_draws SET sum_best_difficulty = 3",
        "UPDATE lottery_draws SET total_participants = 3",
        "UPDATE lottery_draws SET total_shares = 3",
        "UPDATE lottery_draws SET merkle_root = previous_seal",
        "UPDATE lottery_draws SET previous_seal = merkle_root",
        "UPDATE lottery_draws SET seal = merkle_root",
        "UPDATE lottery_entries SET best_difficulty = 7 WHERE user_id = 2",
        "UPDATE lottery_entries SET best_time = best_time + INTERVAL '1 microsecond' WHERE user_id = 2",
        "UPDATE lottery_entries SET total_shares = total_shares + 1 WHERE user_id = 2",
        "DELETE FROM lottery_tree_levels WHERE level = 1",
    ] {
        let app = drawn().await;
        app.db.change(change).await;
        let (_, wrong) = tbg_games::check(&app.db.pool).await.unwrap();
        assert_eq!(wrong, ["2026-W09"], "{change}");
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
    let key = "AB".repeat(32);
    let run = async |args: &[&str]| -> Value {
        let ran = tbg_on(&db, &redis, args, &[("TBG_LOTTERY_SALT_KEY", &key)]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    };
    let waiting = run(&["lottery", "run-due"]).await;
    assert_eq!((&waiting[0]["status"], &waiting[0]["total_participants"]), (&json!("open"), &json!(0)));
    let drawn = run(&["lottery", "run-due", "--no-wait"]).await;
    assert_eq!((&drawn[0]["status"], &drawn[0]["total_participants"]), (&json!("completed"), &json!(1)));
    assert_eq!(run(&["lottery", "run-due", "--no-wait"]).await, json!([]));
    let forced = db.rows("SELECT resource_id FROM audit_log WHERE action = 'lottery.forced'").await;
    assert_eq!(forced, [format!(r#"{{"resource_id": "{}"}}"#, IsoWeek::of_day(monday))]);
}
