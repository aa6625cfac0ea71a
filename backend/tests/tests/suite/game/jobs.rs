//! What jobs tell and put right.

use std::sync::Arc;

use chrono::TimeDelta;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tbg_core::jobs::Runner;
use tbg_core::told::{self, Told};
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::Person;
use tbg_tests::socket::Socket;

use super::{assert_sound, counted, xp};
use crate::support::{ingest_lags, mine, mine_late, read, share_at};

/// What a socket is told up to the experience of a batch, which comes last.
async fn until_paid(socket: &mut Socket) -> Vec<Value> {
    let mut told = Vec::new();
    loop {
        let data = socket.next().await.json()["data"].take();
        let is_last = data["type"] == "xp_gained";
        told.push(data);
        if is_last {
            return told;
        }
    }
}

#[tokio::test]
async fn the_end_of_a_week_is_told_once() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let (pair, frozen) = (app.miner(1).await, app.miner(2).await);
    for week in 0..4 {
        let monday = at("2026-03-02T12:00:00Z") + TimeDelta::weeks(week);
        app.clock.set(monday);
        let mut lines = vec![share_at(&frozen.address, monday, 1.0)];
        if week < 2 {
            lines.push(share_at(&pair.address, monday, 1.0));
        }
        app.feed(&lines).await;
    }
    let count = async |subtype: &'static str, user: i64| {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notifications WHERE subtype = $1 AND user_id = $2")
            .bind(subtype)
            .bind(user)
            .fetch_one(&app.db.pool)
            .await
            .unwrap()
    };
    // The pair's second week was W11: in W12 it is warned, at the end of W12 its streak is broken.
    app.clock.set(at("2026-03-22T18:00:30Z"));
    for _ in 0..2 {
        app.run_job("streak_warning").await;
        app.consume().await;
    }
    assert_eq!((count("streak_warning", pair.id).await, count("streak_warning", frozen.id).await), (1, 0));
    app.clock.set(at("2026-03-23T00:15:30Z"));
    for _ in 0..2 {
        ingest_lags(&app, 0.0).await;
        app.run_job("streak_week_close").await;
        app.consume().await;
    }
    assert_eq!(count("streak_broken", pair.id).await, 1);
    // The other's last week was W13: W14 is bridged by its freeze, W15 ends it.
    for (monday, broken) in [("2026-04-06", 0), ("2026-04-13", 1)] {
        app.clock.set(at(&format!("{monday}T00:15:30Z")));
        for _ in 0..2 {
            ingest_lags(&app, 0.0).await;
            app.run_job("streak_week_close").await;
            app.consume().await;
        }
        let told = (count("streak_frozen", frozen.id).await, count("streak_broken", frozen.id).await);
        assert_eq!(told, (1, broken), "{monday}");
    }
    assert_eq!(count("streak_broken", pair.id).await, 1, "the weeks after are not told again");
    assert_eq!(app.db.number("SELECT count(*) FROM streak_calendar WHERE share_count = 0").await, 0);
}

#[tokio::test]
async fn whoever_mines_before_a_week_is_closed_is_told_by_the_share() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _on_this_thread = metrics::set_default_local_recorder(&recorder);
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let (broken, frozen) = (app.miner(1).await, app.miner(2).await);
    let feed = async |monday: &str, people: &[&Person]| {
        app.clock.set(at(monday));
        let lines: Vec<_> = people.iter().map(|person| share_at(&person.address, at(monday), 1.0)).collect();
        app.feed(&lines).await;
    };
    // Two weeks without a freeze, and four with one; W14 is missed by both.
    for (monday, people) in [
        ("2026-03-02T12:00:00Z", vec![&frozen]),
        ("2026-03-09T12:00:00Z", vec![&frozen]),
        ("2026-03-16T12:00:00Z", vec![&frozen, &broken]),
        ("2026-03-23T12:00:00Z", vec![&frozen, &broken]),
    ] {
        feed(monday, &people).await;
    }
    app.clock.set(at("2026-04-06T00:04:50Z"));
    let replica = app.serve().await;
    let mut socket = replica.open(&app.token(broken.id)).await;
    socket.subscribe("gamification").await;
    feed("2026-04-06T00:05:00Z", &[&frozen, &broken]).await;
    let told = until_paid(&mut socket).await;
    let ended: Vec<_> = told.iter().filter(|told| told["event"] == "streak_broken").collect();
    assert_eq!(ended, [&json!({ "type": "streak_update", "event": "streak_broken", "streak_length": 2 })]);
    app.clock.set(at("2026-04-06T00:15:30Z"));
    ingest_lags(&app, 0.0).await;
    app.run_job("streak_week_close").await;
    app.consume().await;
    assert_eq!(counted(&shown, "streaks_broken_total"), 1);
    let told = "SELECT user_id, dedupe_key, description FROM notifications
        WHERE subtype IN ('streak_broken', 'streak_frozen') ORDER BY user_id";
    let row = |user: i64, key: &str, text: &str| {
        format!(r#"{{"user_id": {user}, "dedupe_key": "{key}:2026-W14", "description": "{text}"}}"#)
    };
    assert_eq!(
        app.db.rows(told).await,
        [
            row(broken.id, "streak_broken", "Your 2-week streak has ended"),
            row(frozen.id, "streak_frozen", "2026-W14 was bridged: 0 freezes left"),
        ]
    );
}

/// The job tells, then a share comes: what was told is not told again, and not counted twice.
#[tokio::test]
async fn whoever_mines_after_a_week_was_closed_is_told_once() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _on_this_thread = metrics::set_default_local_recorder(&recorder);
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let person = app.miner(1).await;
    for monday in ["2026-03-02T12:00:00Z", "2026-03-09T12:00:00Z"] {
        mine(&app, &person, monday, 1.0).await;
    }
    app.clock.set(at("2026-03-23T00:15:30Z"));
    ingest_lags(&app, 0.0).await;
    app.run_job("streak_week_close").await;
    assert_eq!(counted(&shown, "streaks_broken_total"), 1);
    let replica = app.serve().await;
    let mut socket = replica.open(&app.token(person.id)).await;
    socket.subscribe("gamification").await;

    mine(&app, &person, "2026-03-23T00:16:00Z", 1.0).await;

    let told = until_paid(&mut socket).await;
    assert!(told.iter().all(|told| told["event"] != "streak_broken"), "{told:?}");
    assert_eq!(counted(&shown, "streaks_broken_total"), 1);
    app.consume().await;
    let told = "SELECT count(*) FROM notifications WHERE subtype = 'streak_broken'";
    assert_eq!(app.db.number(told).await, 1);
}

#[tokio::test]
async fn what_was_changed_by_hand_is_repaired_and_told() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _on_this_thread = metrics::set_default_local_recorder(&recorder);
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 2e6).await;
    let by_hand = "UPDATE user_gamification SET total_xp = 5000, level = 5, current_streak = 9,
        longest_streak = 9, total_shares = 7";
    app.db.change(by_hand).await;

    app.run_job("gamification_check").await;

    for field in ["total_xp", "level", "streak", "total_shares"] {
        assert_eq!(counted(&shown, &format!("drift_total{{field=\"{field}\"}}")), 1, "{field}");
    }
    assert_eq!(xp(&app, &person).await, 100);
    let streak = read(&app, person.id, "/users/me/streak").await;
    assert_eq!(streak["current_streak"], 1);
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_week_is_not_closed_before_its_shares_are_there() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let person = app.miner(1).await;
    for monday in ["2026-03-02T12:00:00Z", "2026-03-09T12:00:00Z"] {
        mine(&app, &person, monday, 1.0).await;
    }
    let told = "SELECT count(*) FROM domain_outbox WHERE event_key LIKE '%streak_broken:%'";

    let runner = || {
        let mut jobs = app.jobs();
        jobs.retain(|job| job.name() == "streak_week_close");
        Runner::new(app.db.pool.clone(), Arc::new(app.clock.clone()), "one".to_owned(), jobs)
    };

    // Every five minutes it looks again; in between nothing of it runs, so that a process can end.
    let mut asking = runner();
    for (time, lag, ran, expected) in [
        ("00:15:00", Some(601.0), 1, 0),
        ("00:19:59", Some(600.0), 0, 0),
        ("00:20:00", Some(601.0), 1, 0),
        // No ingest process has said anything: all shares may be waiting.
        ("00:25:00", None, 1, 0),
        ("00:30:00", Some(600.0), 1, 1),
        ("00:35:00", Some(600.0), 0, 1),
    ] {
        app.clock.set(at(&format!("2026-03-23T{time}Z")));
        if let Some(seconds) = lag {
            ingest_lags(&app, seconds).await;
        }
        assert_eq!((asking.run_due().await, app.db.number(told).await), (ran, expected), "{time}");
    }

    // An ingest that lives and commits nothing, while an entry waits; then it has committed again.
    let again = async || {
        for sql in ["DELETE FROM domain_outbox", "DELETE FROM job_runs"] {
            app.db.change(sql).await;
        }
    };
    again().await;
    let mut redis = app.redis.manager();
    let mut waiting = redis::cmd("XADD");
    waiting.arg("mining:share_submitted").arg("*").arg("event").arg("{}");
    waiting.query_async::<String>(&mut redis).await.unwrap();
    let mut asking = runner();
    for (time, committed, expected) in [("00:40:00", "00:29:59", 0), ("00:45:00", "00:44:59", 1)] {
        let [now, committed] = [time, committed].map(|time| at(&format!("2026-03-23T{time}Z")));
        app.clock.set(now);
        let told_now =
            Told { ingest_lag_seconds: Some(0.3), ingest_committed_at: Some(committed), ..Told::now(now) };
        told::tell(&mut redis, "ingest-1", &told_now).await.unwrap();
        assert_eq!((asking.run_due().await, app.db.number(told).await), (1, expected), "{time}");
    }

    again().await;
    let mut asking = runner();
    for (time, expected) in [("05:55:00", 0), ("06:00:00", 1)] {
        app.clock.set(at(&format!("2026-03-23T{time}Z")));
        ingest_lags(&app, 9_000.0).await;
        assert_eq!((asking.run_due().await, app.db.number(told).await), (1, expected), "{time}");
    }
}
