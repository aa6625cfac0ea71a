//! What operators do: each reference once and for good, and never below nothing (contract §4.3).

use chrono::TimeDelta;
use tbg_core::UserId;
use tbg_gamification::{adjust_xp, grant_badge};
use tbg_tests::app::App;
use tbg_tests::at;

use super::{assert_sound, xp};

const AUDITED: &str = "SELECT count(*) FROM audit_log WHERE action LIKE 'admin.%' AND status = 'success'";

#[tokio::test]
async fn a_correction_below_nothing_is_refused_and_leaves_no_trace() {
    let app = App::at(at("2026-02-25T14:00:00Z")).await;
    let person = app.miner(1).await;
    let adjust = async |amount, reference: &'static str| {
        adjust_xp(&app.db.pool, UserId(person.id), amount, reference, "a test").await
    };

    for amount in [-1, 0, 100_001, i32::MIN] {
        assert!(adjust(amount, "a").await.is_err(), "{amount}");
    }
    assert!(adjust(100, "b").await.unwrap());
    // What waits in the outbox counts.
    assert!(adjust(-80, "c").await.unwrap());
    let refused = adjust(-21, "d").await.unwrap_err().to_string();
    assert!(refused.contains("20 XP") && refused.contains("less than 0"), "{refused}");
    app.consume().await;
    assert!(adjust(-21, "d").await.is_err());

    assert_eq!((xp(&app, &person).await, app.db.number(AUDITED).await), (20, 2));
    assert!(adjust(-20, "d").await.unwrap(), "a refused reference is not used up");
    app.consume().await;
    assert_eq!((xp(&app, &person).await, app.db.number(AUDITED).await), (0, 3));
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_reference_is_remembered_longer_than_its_event() {
    let app = App::at(at("2026-02-25T14:00:00Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let adjust = async |id| adjust_xp(&app.db.pool, UserId(id), 10, "ticket-1", "a test").await.unwrap();
    let grant =
        async || grant_badge(&app.db.pool, UserId(person.id), "node_runner", "ticket-2").await.unwrap();
    assert!(adjust(person.id).await && grant().await);
    assert!(!adjust(person.id).await && !adjust(other.id).await && !grant().await);
    app.consume().await;

    app.clock.advance(TimeDelta::days(8));
    app.run_job("partitions_retention").await;

    assert_eq!(app.db.number("SELECT count(*) FROM domain_outbox WHERE topic = 'XpAdjusted'").await, 0);
    assert!(!adjust(person.id).await && !adjust(other.id).await && !grant().await);
    app.consume().await;
    assert_eq!((xp(&app, &person).await, xp(&app, &other).await), (160, 0));
    assert_eq!(app.db.number(AUDITED).await, 2);
}
