//! Counters agree with the tables: what is rolled back and done again counts once.

use std::slice::from_ref;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use tbg_core::Clock as _;
use tbg_core::consumer::Consumer;
use tbg_gamification::GameEvents;
use tbg_tests::app::App;
use tbg_tests::{at, engine};

use super::{counted, emit, xp};
use crate::support::{decoded, share_at};

/// While it is there, whoever grants experience learns at the commit that nothing is stored.
const REFUSE: [&str; 2] = [
    "CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$",
    "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON xp_ledger DEFERRABLE INITIALLY DEFERRED
     FOR EACH ROW EXECUTE FUNCTION refuse()",
];

#[tokio::test]
async fn what_is_rolled_back_and_done_again_counts_once() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _on_this_thread = metrics::set_default_local_recorder(&recorder);
    let app = App::at(at("2026-03-02T12:00:05Z")).await;
    let person = app.miner(1).await;
    let now = app.clock.now();
    let batch = decoded(from_ref(&share_at(&person.address, now, 1e6)));
    let lesson = json!({ "user_id": person.id, "lesson_id": "l", "title": "T", "completed_at": now });
    emit(&app, "LessonCompleted", Some(person.id), lesson).await;
    let (engine, mut conn) = (engine(), app.db.connect().await);
    let mut both = async || {
        let applied = engine.apply(&mut conn, batch.clone(), &[], now).await;
        let clock = Arc::new(app.clock.clone());
        let handler = Arc::new(GameEvents::new());
        let consumed = Consumer::new(app.db.pool.clone(), clock, app.bus.clone(), handler).drain().await;
        (applied.is_ok(), consumed.is_ok())
    };
    let counts = || {
        [
            "xp_awarded_total{source=\"badge\"}",
            "xp_awarded_total{source=\"education\"}",
            "badges_awarded_total{badge_id=\"first_share\"}",
            "level_ups_total",
        ]
        .map(|series| counted(&shown, series))
    };

    for sql in REFUSE {
        app.db.change(sql).await;
    }
    assert_eq!(both().await, (false, false));
    assert_eq!(counts(), [0, 0, 0, 0]);

    app.db.change("DROP FUNCTION refuse CASCADE").await;
    assert_eq!(both().await, (true, true));
    assert_eq!(counts(), [100, 25, 1, 1]);
    assert_eq!(xp(&app, &person).await, 125);
}
