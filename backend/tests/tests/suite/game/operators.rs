//! What operators do: each reference once and for good, and never below nothing (contract §4.3).

use chrono::TimeDelta;
use tbg_core::UserId;
use tbg_core::outbox::{self, DomainEvent};
use tbg_gamification::{Granted, adjust_xp, grant_badge};
use tbg_tests::app::App;
use tbg_tests::at;

use super::{assert_sound, xp};

/// What operators did.
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
async fn a_reference_is_used_for_good_and_for_everybody() {
    let app = App::at(at("2026-02-25T14:00:00Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let adjust = async |id| adjust_xp(&app.db.pool, UserId(id), 10, "ticket-1", "a test").await.unwrap();
    let grant =
        async |id, slug, reference| grant_badge(&app.db.pool, UserId(id), slug, reference).await.unwrap();
    let grants = [("node_runner", "ticket-2"), ("orange_piller", "ticket-3")];
    assert!(adjust(person.id).await);
    for (slug, reference) in grants {
        assert_eq!(grant(person.id, slug, reference).await, Granted::Done);
    }
    assert_eq!(grant(person.id, "orange_piller", "ticket-2").await, Granted::ReferenceUsed);
    // A gift that happens to have the number of a ticket is another one.
    let gift = DomainEvent::GiftRedeemed { user_id: UserId(other.id), gift_id: "ticket-3".to_owned() };
    let mut conn = app.db.pool.acquire().await.unwrap();
    assert_eq!(outbox::write(&mut conn, &[gift]).await.unwrap(), 1);
    drop(conn);
    app.consume().await;
    let notices = "SELECT count(*) FROM domain_outbox WHERE topic = 'Notify'";
    assert!(app.db.number(notices).await > 0);

    for days in [0, 8] {
        app.clock.advance(TimeDelta::days(days));
        app.run_job("partitions_retention").await;
        for id in [person.id, other.id] {
            assert!(!adjust(id).await);
            for (slug, reference) in grants {
                let granted = grant(id, slug, reference).await;
                assert_eq!(granted, Granted::ReferenceUsed, "{slug} after {days} days");
            }
        }
    }

    assert_eq!(app.db.number(notices).await, 0, "what is no operator's is gone by then");
    app.consume().await;
    assert_eq!((xp(&app, &person).await, xp(&app, &other).await), (10 + 150 + 200, 200));
    assert_eq!(app.db.number(AUDITED).await, 3);
}

#[tokio::test]
async fn a_badge_that_is_held_leaves_the_reference_unused() {
    let app = App::at(at("2026-02-25T14:00:00Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let grant = async |id, reference| {
        let granted = grant_badge(&app.db.pool, UserId(id), "node_runner", reference).await.unwrap();
        app.consume().await;
        granted
    };

    assert_eq!(grant(person.id, "ticket-1").await, Granted::Done);
    assert_eq!(grant(person.id, "ticket-2").await, Granted::HeldAlready);
    assert_eq!(app.db.number(AUDITED).await, 1);
    assert_eq!(grant(other.id, "ticket-2").await, Granted::Done);
    assert_eq!((xp(&app, &person).await, xp(&app, &other).await), (150, 150));
}
