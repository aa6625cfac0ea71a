//! What an owner who switches the triggers off can do, and that verification names it.

use tbg_operations::FaultKind::{AnchorDiffers, ChainBroken, RowsDiffer, SealChanged};
use tbg_operations::{Fault, FaultKind, Verdict, head, seal, verify};
use tbg_tests::{TestDb, at};

use super::seals::nothing_is_open;
use super::{run, texts};

/// Three seals of one minute and two rows each, and an owner without triggers.
async fn sealed() -> TestDb {
    let db = TestDb::new().await;
    nothing_is_open(&db).await;
    for sql in [
        "SELECT tbg_create_audit_partition('2031-05-01')",
        "INSERT INTO audit_log (timestamp, user_id, action, resource_type, details)
         SELECT TIMESTAMPTZ '2031-05-24T12:00:00Z' + n * INTERVAL '30 seconds', n::TEXT, 'auth.login',
                'session', jsonb_build_object('n', n)
         FROM generate_series(0, 5) AS n",
    ] {
        run(&db.pool, sql).await;
    }
    for now in ["2031-05-24T12:02:00Z", "2031-05-24T12:03:00Z", "2031-05-24T12:04:00Z"] {
        assert_eq!(seal(&db.pool, at(now)).await.unwrap().unwrap().row_count, 2);
    }
    assert_eq!(verify(&db.pool, None, None).await.unwrap(), Verdict::Good { seals: 3, rows: 6 });
    for sql in ["ALTER TABLE audit_log DISABLE TRIGGER USER", "ALTER TABLE audit_seals DISABLE TRIGGER USER"]
    {
        run(&db.pool, sql).await;
    }
    db
}

async fn found_after(tampering: &[&'static str]) -> Verdict {
    let db = sealed().await;
    for sql in tampering {
        run(&db.pool, sql).await;
    }
    verify(&db.pool, None, None).await.unwrap()
}

fn fault(seal_no: i64, kind: FaultKind) -> Verdict {
    Verdict::Fault(Fault { seal_no, kind })
}

#[tokio::test]
async fn a_row_that_is_changed_is_found_whatever_the_column() {
    for change in [
        "UPDATE audit_log SET user_id = '7' WHERE user_id = '2'",
        "UPDATE audit_log SET user_id = NULL WHERE user_id = '2'",
        "UPDATE audit_log SET status = 'denied' WHERE user_id = '2'",
        "UPDATE audit_log SET details = '{}' WHERE user_id = '2'",
        "UPDATE audit_log SET user_agent = '' WHERE user_id = '2'",
        "UPDATE audit_log SET id = gen_random_uuid() WHERE user_id = '2'",
        "UPDATE audit_log SET timestamp = timestamp + INTERVAL '1 microsecond' WHERE user_id = '2'",
    ] {
        assert_eq!(found_after(&[change]).await, fault(2, RowsDiffer), "{change}");
    }
}

#[tokio::test]
async fn a_row_that_is_missing_or_added_is_found() {
    assert_eq!(found_after(&["DELETE FROM audit_log WHERE user_id = '4'"]).await, fault(3, RowsDiffer));
    assert_eq!(found_after(&["DELETE FROM audit_log"]).await, fault(1, RowsDiffer));
    let added = "INSERT INTO audit_log (timestamp, action, resource_type)
                 VALUES ('2031-05-24T12:01:10Z', 'auth.login', 'session')";
    assert_eq!(found_after(&[added]).await, fault(2, RowsDiffer));
    let before_the_first = "INSERT INTO audit_log (timestamp, action, resource_type)
                            VALUES ('2031-05-24T11:59:59Z', 'auth.login', 'session')";
    assert_eq!(found_after(&[before_the_first]).await, fault(1, RowsDiffer));
    let after_the_last = "INSERT INTO audit_log (timestamp, action, resource_type)
                          VALUES ('2031-05-24T12:03:00Z', 'auth.login', 'session')";
    assert_eq!(found_after(&[after_the_last]).await, Verdict::Good { seals: 3, rows: 6 });
}

#[tokio::test]
async fn a_month_that_is_dropped_before_its_time_is_found() {
    assert_eq!(found_after(&["DROP TABLE audit_log_y2031m05"]).await, fault(1, RowsDiffer));
}

#[tokio::test]
async fn a_seal_that_is_changed_is_found_whatever_the_column() {
    for change in [
        "UPDATE audit_seals SET lo = lo + INTERVAL '1 second' WHERE seal_no = 2",
        "UPDATE audit_seals SET hi = hi + INTERVAL '1 second' WHERE seal_no = 2",
        "UPDATE audit_seals SET row_count = 3 WHERE seal_no = 2",
        "UPDATE audit_seals SET rows_hash = sha256('x') WHERE seal_no = 2",
        "UPDATE audit_seals SET prev_hash = sha256('x') WHERE seal_no = 2",
        "UPDATE audit_seals SET hash = sha256('x') WHERE seal_no = 2",
    ] {
        assert_eq!(found_after(&[change]).await, fault(2, SealChanged), "{change}");
    }
}

#[tokio::test]
async fn a_seal_that_is_missing_or_rewritten_breaks_the_chain() {
    assert_eq!(found_after(&["DELETE FROM audit_seals WHERE seal_no = 1"]).await, fault(1, ChainBroken));
    assert_eq!(found_after(&["DELETE FROM audit_seals WHERE seal_no = 2"]).await, fault(2, ChainBroken));
    // The owner removes the rows of a minute and computes its seal anew.
    let rewritten = [
        "DELETE FROM audit_log WHERE user_id IN ('2', '3')",
        "UPDATE audit_seals
         SET row_count = 0, rows_hash = sha256(''),
             hash = sha256('tbg-audit-v1'::BYTEA || int8send(seal_no)
                           || int8send((extract(epoch FROM lo) * 1000000)::BIGINT)
                           || int8send((extract(epoch FROM hi) * 1000000)::BIGINT)
                           || int8send(0) || sha256('') || prev_hash)
         WHERE seal_no = 2",
    ];
    assert_eq!(found_after(&rewritten).await, fault(3, ChainBroken));
}

#[tokio::test]
async fn a_chain_that_is_cut_or_rewritten_to_its_end_is_found_by_an_anchor() {
    let db = sealed().await;
    let anchor = head(&db.pool).await.unwrap().map(|seal| (seal.seal_no, seal.hash));
    assert_eq!(verify(&db.pool, None, anchor).await.unwrap(), Verdict::Good { seals: 3, rows: 6 });
    let wrong = Some((2, [7; 32]));
    assert_eq!(verify(&db.pool, None, wrong).await.unwrap(), fault(2, AnchorDiffers));

    run(&db.pool, "DELETE FROM audit_log WHERE user_id IN ('4', '5')").await;
    run(&db.pool, "DELETE FROM audit_seals WHERE seal_no = 3").await;

    assert_eq!(verify(&db.pool, None, None).await.unwrap(), Verdict::Good { seals: 2, rows: 4 });
    assert_eq!(verify(&db.pool, None, anchor).await.unwrap(), fault(3, AnchorDiffers));
    // The next seal has the same number and another hash.
    seal(&db.pool, at("2031-05-24T15:00:00Z")).await.unwrap().unwrap();
    assert_eq!(verify(&db.pool, None, anchor).await.unwrap(), fault(3, AnchorDiffers));
}

#[tokio::test]
async fn verification_can_begin_anywhere_in_the_chain() {
    let db = sealed().await;

    assert_eq!(verify(&db.pool, Some(0), None).await.unwrap(), Verdict::Good { seals: 3, rows: 6 });
    assert_eq!(verify(&db.pool, Some(3), None).await.unwrap(), Verdict::Good { seals: 1, rows: 2 });
    assert_eq!(verify(&db.pool, Some(4), None).await.unwrap(), Verdict::Good { seals: 0, rows: 0 });
    assert_eq!(verify(&db.pool, Some(9), None).await.unwrap(), fault(8, ChainBroken));
    let numbers = texts(&db, "SELECT seal_no::TEXT FROM audit_seals ORDER BY seal_no").await;
    assert_eq!(numbers, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_log_without_any_seal_holds_only_while_it_is_young() {
    let db = TestDb::new().await;
    run(&db.pool, "INSERT INTO audit_log (action, resource_type) VALUES ('auth.login', 'session')").await;
    assert_eq!(verify(&db.pool, None, None).await.unwrap(), Verdict::Good { seals: 0, rows: 0 });

    let old = "INSERT INTO audit_log (action, resource_type, timestamp)
               VALUES ('auth.login', 'session', now() - INTERVAL '2 days')";
    run(&db.pool, old).await;

    assert_eq!(verify(&db.pool, None, None).await.unwrap(), fault(1, ChainBroken));
}
