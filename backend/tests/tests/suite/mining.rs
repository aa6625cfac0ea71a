//! The reads of a miner from the outside: shares go in as the pool sends them, answers come out (contract
//! `mining.md` §6–8; the numbers in names are its acceptance examples).

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_tests::app::App;
use tbg_tests::people::{Person, address_of, wallet};
use tbg_tests::{at, share};

/// A second of the app's recent past, as the pool writes it.
fn ago(app: &App, seconds: i64) -> String {
    (app.clock.now().timestamp() - seconds).to_string()
}

async fn read(app: &App, person: &Person, path: &str) -> Value {
    app.get(path, Some(&person.access)).await.ok()
}

#[tokio::test]
async fn a_share_is_seen_everywhere_and_by_its_miner_only() {
    let app = App::at(at("2026-02-25T12:34:56Z")).await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    app.feed(&[
        share(&one.address, "rig1", &ago(&app, 20), 1024.0, 4096.5, true),
        share(&one.address, "rig1", &ago(&app, 10), 1024.0, 2048.0, true),
        share(&one.address, "rig1", &ago(&app, 5), 1024.0, 9.0, false),
    ])
    .await;

    let workers = read(&app, &one, "/api/v1/mining/workers").await;
    assert_eq!((&workers["online_count"], &workers["total_count"]), (&json!(1), &json!(1)));
    let worker = &workers["workers"][0];
    assert_eq!(
        (&worker["name"], &worker["status"], &worker["valid_shares"], &worker["invalid_shares"]),
        (&json!("rig1"), &json!("online"), &json!(2), &json!(1))
    );
    assert_eq!((&worker["accept_rate"], &worker["current_diff"]), (&json!(66.67), &json!(1024.0)));
    // Acceptance example 2.
    let rate = worker["hashrate_1m"].as_f64().unwrap();
    assert!((rate - 117_064_554_381.94).abs() < 200.0, "{rate}");

    let stats = read(&app, &one, "/api/v1/mining/stats").await;
    for (field, expected) in [
        ("shares_today", json!(3)),
        ("accepted_today", json!(2)),
        ("rejected_today", json!(1)),
        ("acceptance_rate", json!(66.67)),
        ("best_diff_week", json!(4096.5)),
        ("weekly_rank", json!(1)),
        ("weekly_percentile", json!(null)),
        ("workers_online", json!(1)),
    ] {
        assert_eq!(stats[field], expected, "{field}: {stats}");
    }
    let page = read(&app, &one, "/api/v1/mining/shares?valid_only=false").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    let detail = read(&app, &one, "/api/v1/mining/workers/rig1").await;
    assert_eq!(detail["recent_shares"].as_array().unwrap().len(), 3);

    let nothing = read(&app, &two, "/api/v1/mining/workers").await;
    assert_eq!(nothing, json!({ "workers": [], "online_count": 0, "total_count": 0 }));
    let theirs = app.get("/api/v1/mining/workers/rig1", Some(&two.access)).await;
    assert_eq!(theirs.outcome(), (404, "WORKER_NOT_FOUND"));
}

#[tokio::test]
async fn every_read_answers_somebody_without_an_address_or_history() {
    let app = App::new().await;
    let person = app.miner(1).await;
    sqlx::query("UPDATE users SET btc_address = NULL, is_verified = FALSE WHERE id = $1")
        .bind(person.id)
        .execute(&app.db.pool)
        .await
        .unwrap();
    for path in [
        "mining/workers",
        "mining/shares",
        "mining/shares/stats",
        "mining/shares/live",
        "mining/difficulty",
        "mining/difficulty/bests",
        "mining/difficulty/scatter",
        "mining/difficulty/distribution",
        "mining/blocks",
        "mining/hashrate",
        "mining/hashrate/chart?window=30d",
        "mining/hashrate/history?range=7d",
        "mining/workers/x/hashrate?window=1h",
        "mining/summary",
        "mining/stats",
        "mining/uptime",
        "mining/network",
        "mining/network/difficulty",
        "mining/network/blocks",
        "mining/celebrations/pending",
        "mining/dashboard",
        "mining/personal-bests",
        "mining/daily-stats",
        "mining/setup",
        "dashboard/stats",
        "dashboard/feed",
        "dashboard/events",
        "dashboard/recent-badges",
    ] {
        read(&app, &person, &format!("/api/v1/{path}")).await;
    }
    for (path, code) in [
        ("mining/difficulty/percentile", "PERSONAL_BEST_NOT_FOUND"),
        ("mining/best-diff", "PERSONAL_BEST_NOT_FOUND"),
        ("mining/blocks/1", "BLOCK_NOT_FOUND"),
        ("mining/workers/rig1", "WORKER_NOT_FOUND"),
        ("mining/workers/a%20b", "WORKER_NOT_FOUND"),
    ] {
        let answer = app.get(&format!("/api/v1/{path}"), Some(&person.access)).await;
        assert_eq!(answer.outcome(), (404, code), "{path}");
    }
    for path in [
        "mining/shares?limit=0",
        "mining/shares?limit=101",
        "mining/difficulty/scatter?limit=501",
        "mining/uptime?days=91",
        "mining/hashrate/chart?window=2h",
        "mining/blocks/-1",
        "mining/blocks/x",
        "dashboard/feed?limit=51",
        "dashboard/feed?before_id=0",
        "dashboard/recent-badges?limit=21",
    ] {
        let answer = app.get(&format!("/api/v1/{path}"), Some(&person.access)).await;
        assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"), "{path}");
    }
    let cursor = app.get("/api/v1/mining/shares?cursor=abc", Some(&person.access)).await;
    assert_eq!(cursor.outcome(), (400, "INVALID_CURSOR"));
}

#[tokio::test]
async fn example_14_equal_times_make_three_pages() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let ts = ago(&app, 5);
    let lines: Vec<String> =
        (1..=3).map(|n| share(&person.address, "rig1", &ts, 512.0, f64::from(n) * 1000.0, true)).collect();
    app.feed(&lines).await;

    let (mut path, mut ids) = ("/api/v1/mining/shares?limit=1".to_owned(), Vec::new());
    for number in 1..=3 {
        let page = read(&app, &person, &path).await;
        ids.push(page["data"][0]["id"].as_str().unwrap().to_owned());
        assert_eq!(page["pagination"]["has_more"], json!(number < 3));
        let next = page["pagination"]["next_cursor"].as_str().unwrap_or_default().to_owned();
        path = format!("/api/v1/mining/shares?limit=1&cursor={next}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn examples_7_and_8_ranks_and_ranges() {
    let app = App::new().await;
    let mut people = Vec::new();
    for (number, best) in [(1, 10.0), (2, 20.0), (3, 20.0), (4, 40.0)] {
        let person = app.miner(number).await;
        app.feed(&[share(&person.address, "r", &ago(&app, 9), 1.0, best, true)]).await;
        people.push(person);
    }
    app.run_job("percentiles").await;
    for (person, percentile, rank) in
        [(&people[3], 75.0, 1), (&people[1], 25.0, 2), (&people[2], 25.0, 2), (&people[0], 0.0, 4)]
    {
        let place = read(&app, person, "/api/v1/mining/difficulty/percentile").await;
        assert_eq!(
            (&place["percentile"], &place["rank"], &place["total_miners"]),
            (&json!(percentile), &json!(rank), &json!(4))
        );
        let bests = read(&app, person, "/api/v1/mining/difficulty/bests").await;
        assert_eq!(bests[0]["percentile"], json!(percentile));
    }

    let person = app.miner(9).await;
    let values = [1e3, 1500.0, 3e3, 6e3, 12e3, 24e3, 48e3, 96e3, 192e3, 256e3];
    let lines: Vec<String> =
        values.iter().map(|value| share(&person.address, "r", &ago(&app, 8), 1.0, *value, true)).collect();
    app.feed(&lines).await;
    let distribution = read(&app, &person, "/api/v1/mining/difficulty/distribution").await;
    let counts: Vec<i64> =
        distribution["buckets"].as_array().unwrap().iter().map(|b| b["count"].as_i64().unwrap()).collect();
    assert_eq!((counts, &distribution["total_shares"]), (vec![2, 1, 1, 1, 1, 1, 1, 2], &json!(10)));
    assert_eq!(distribution["buckets"][7]["label"], "128.0K - 256.0K");
}

#[tokio::test]
async fn examples_10_and_11_a_block_is_celebrated_once_by_its_finder() {
    let app = App::new().await;
    let (finder, other) = (app.miner(1).await, app.miner(2).await);
    app.consume().await;
    let block = |user: &str, worker: &str, seconds| {
        format!(
            r#"{{"event":"block_found","ts":{},"data":{{"user":"{user}","worker":"{worker}","height":900}}}}"#,
            ago(&app, seconds)
        )
    };
    app.feed(&[block("pool", "pool", 9)]).await;
    app.feed(&[block(&finder.address, &format!("{}.rig1", finder.address), 8)]).await;
    app.consume().await;

    let blocks = read(&app, &other, "/api/v1/mining/blocks").await;
    assert_eq!(blocks["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&blocks["data"][0]["is_mine"], &blocks["data"][0]["worker_name"]),
        (&json!(false), &json!(null))
    );
    let mine = read(&app, &finder, "/api/v1/mining/blocks/900").await;
    assert_eq!(
        (&mine["block"]["worker_name"], &mine["finder_address"]),
        (&json!("rig1"), &json!(finder.address))
    );
    let pending = read(&app, &finder, "/api/v1/mining/celebrations/pending").await;
    let id = pending["celebrations"][0]["celebration_id"].as_i64().unwrap();
    let ack = format!("/api/v1/mining/celebrations/{id}/ack");
    assert_eq!(
        app.ask("POST", &ack, Some(&other.access), None).await.outcome(),
        (404, "CELEBRATION_NOT_FOUND")
    );
    let done = app.ask("POST", &ack, Some(&finder.access), None).await.ok();
    assert_eq!(done, json!({ "status": "acknowledged" }));
    assert_eq!(app.ask("POST", &ack, Some(&finder.access), None).await.status, 404);
    let told = "SELECT count(*) FROM notifications WHERE type = 'mining' AND subtype = 'block_found'";
    assert_eq!(app.db.number(told).await, 1);
}

#[tokio::test]
async fn a_worker_that_goes_missing_is_told_of_once_and_decays() {
    let app = App::new().await;
    let person = app.miner(1).await;
    app.feed(&[
        share(&person.address, "rig1", &ago(&app, 20), 1024.0, 1.0, true),
        share(&person.address, "rig1", &ago(&app, 10), 1024.0, 2.0, true),
    ])
    .await;
    app.run_job("workers_flush").await;
    app.run_job("uptime_flush").await;
    app.clock.advance(TimeDelta::minutes(11));
    app.run_job("ema_decay").await;
    app.run_job("worker_timeout").await;
    let workers = read(&app, &person, "/api/v1/mining/workers").await;
    assert_eq!((&workers["workers"][0]["status"], &workers["online_count"]), (&json!("offline"), &json!(0)));
    // Each pass halves at most; passes every 15 s let it come to nothing.
    assert!(workers["workers"][0]["hashrate_1m"].as_f64().unwrap() < 60e9, "{workers}");

    app.clock.advance(TimeDelta::minutes(20));
    for _ in 0..2 {
        app.run_job("worker_offline_notice").await;
        app.consume().await;
    }
    let told = "SELECT count(*) FROM notifications WHERE subtype = 'worker_offline'";
    assert_eq!(app.db.number(told).await, 1);
    assert_eq!(app.db.number("SELECT count(*) FROM workers").await, 1);
    assert!(app.db.number("SELECT sum(uptime_minutes)::BIGINT FROM user_daily_stats").await >= 1);
}

#[tokio::test]
async fn without_redis_the_tables_answer() {
    let mut app = App::new().await;
    let person = app.miner(1).await;
    app.feed(&[share(&person.address, "rig1", &ago(&app, 5), 1024.0, 4096.5, true)]).await;
    app.run_job("workers_flush").await;
    app.run_job("hashrate_snapshots").await;
    app.run_job("hashrate_snapshots").await;
    assert_eq!(app.db.number("SELECT count(*) FROM hashrate_snapshots").await, 2, "a worker and the sum");

    app.redis.server.kill().await.unwrap();
    for path in ["workers", "hashrate", "summary", "stats", "network/difficulty", "difficulty/distribution"] {
        read(&app, &person, &format!("/api/v1/mining/{path}")).await;
    }
    let workers = read(&app, &person, "/api/v1/mining/workers").await;
    assert_eq!(workers["workers"][0]["name"], "rig1");
}

#[tokio::test]
async fn example_21_who_proves_an_address_gets_its_rows() {
    let app = App::new().await;
    let address = address_of(&wallet(1));
    app.feed(&[share(&address, "rig1", &ago(&app, 50), 512.0, 9e9, true)]).await;
    app.feed(&[format!(
        r#"{{"event":"block_found","ts":{},"data":{{"user":"{address}","worker":"{address}.rig1","height":901}}}}"#,
        ago(&app, 49)
    )])
    .await;
    let typed = app.register("b@example.com", 1).await;
    app.consume().await;
    assert_eq!(read(&app, &typed, "/api/v1/mining/difficulty/bests").await, json!([]));
    app.feed(&[share(&address, "rig1", &ago(&app, 9), 512.0, 100.0, true)]).await;
    assert_eq!(read(&app, &typed, "/api/v1/mining/stats").await["best_diff_week"], json!(100.0));

    sqlx::query("UPDATE users SET is_verified = TRUE WHERE id = $1")
        .bind(typed.id)
        .execute(&app.db.pool)
        .await
        .unwrap();
    let proven = tbg_core::outbox::DomainEvent::address_proven(tbg_core::UserId(typed.id), address);
    let mut conn = app.db.connect().await;
    tbg_core::outbox::write(&mut conn, &[proven]).await.unwrap();
    app.consume().await;

    let stats = read(&app, &typed, "/api/v1/mining/stats").await;
    assert_eq!((&stats["best_diff_week"], &stats["blocks_found"]), (&json!(9e9), &json!(1)));
    assert_eq!(stats["total_shares"], json!(2));
    let pending = read(&app, &typed, "/api/v1/mining/celebrations/pending").await;
    assert_eq!(pending["celebrations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_week_has_its_events() {
    let app = App::new().await;
    let person = app.miner(1).await;
    app.run_job("upcoming_events").await;
    app.run_job("upcoming_events").await;
    let events = read(&app, &person, "/api/v1/dashboard/events").await;
    assert_eq!(events.as_array().unwrap().len(), 1);
    assert_eq!(events[0]["action"], json!({ "label": "Preview Ticket", "href": "/games" }));
    app.run_job("feed_prune").await;
    app.run_job("drift_check").await;
    app.run_job("notification_prune").await;
}

#[tokio::test]
async fn a_finder_who_hides_is_nobody_everywhere() {
    let app = App::new().await;
    let (finder, other) = (app.miner(1).await, app.miner(2).await);
    app.consume().await;
    let hide = json!({ "privacy": { "publicProfile": false } });
    let hidden = app.ask("PATCH", "/api/v1/users/me/settings", Some(&finder.access), Some(hide)).await;
    assert_eq!(hidden.status, 200, "{}", hidden.text);
    let mut pushes = app.redis.client().get_async_pubsub().await.unwrap();
    pushes.subscribe("pubsub:block_found").await.unwrap();

    app.feed(&[format!(
        r#"{{"event":"block_found","ts":{1},"data":{{"user":"{0}","worker":"{0}.r","height":905}}}}"#,
        finder.address,
        ago(&app, 3)
    )])
    .await;
    app.consume().await;

    let push = futures_util::StreamExt::next(&mut pushes.on_message()).await.unwrap();
    let push: Value = serde_json::from_slice(push.get_payload_bytes()).unwrap();
    assert_eq!((&push["finder"], &push["finder_country"]), (&json!("Anonymous"), &json!(null)));
    let feed = read(&app, &other, "/api/v1/dashboard/feed").await;
    assert_eq!(feed[0]["text"], "Anonymous found block #905!");
    assert_eq!(read(&app, &other, "/api/v1/mining/blocks/905").await["finder_address"], json!(null));
}

#[tokio::test]
async fn a_deleted_account_does_not_come_back_with_a_rebuild() {
    let app = App::new().await;
    let person = app.miner(1).await;
    app.feed(&[share(&person.address, "rig1", &ago(&app, 5), 512.0, 100.0, true)]).await;
    let confirm = json!({ "confirm": "DELETE" });
    let gone = app.ask("DELETE", "/api/v1/users/me", Some(&person.access), Some(confirm)).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    app.consume().await;

    let config = tbg_mining::MiningConfig { network: tbg_bitcoin::Network::Mainnet, persist_raw: true };
    let mut conn = app.db.connect().await;
    tbg_mining::rebuild(&app.db.pool, &mut conn, config, |_| {}).await.unwrap();

    for (count, left) in [
        ("SELECT count(*) FROM user_daily_stats", 0),
        ("SELECT count(*) FROM personal_bests", 0),
        ("SELECT count(*) FROM mining_events WHERE user_id IS NOT NULL", 0),
        ("SELECT count(*) FROM hourly_shares WHERE user_id IS NOT NULL", 0),
        ("SELECT sum(accepted)::BIGINT FROM hourly_shares", 1),
    ] {
        assert_eq!(app.db.number(count).await, left, "{count}");
    }
}

#[tokio::test]
async fn pruning_leaves_a_reader_alone() {
    let app = App::new().await;
    let person = app.miner(1).await;
    app.consume().await;
    let old = "UPDATE notifications SET created_at = now() - INTERVAL '91 days'";
    sqlx::query(old).execute(&app.db.pool).await.unwrap();

    // Somebody reads at this moment: the counters are locked first, and pruning goes on without that user.
    let mut reading = app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM user_social_counters WHERE user_id = $1 FOR UPDATE")
        .bind(person.id)
        .fetch_one(&mut *reading)
        .await
        .unwrap();
    app.run_job("notification_prune").await;
    assert_eq!(app.db.number("SELECT count(*) FROM notifications").await, 1);
    reading.rollback().await.unwrap();

    app.run_job("notification_prune").await;
    assert_eq!(app.db.number("SELECT count(*) FROM notifications").await, 0);
    let counted = "SELECT notifications_total + notifications_unread::BIGINT FROM user_social_counters";
    assert_eq!(app.db.number(counted).await, 0);
}

#[tokio::test]
async fn example_12_rates_of_acceptance() {
    let app = App::new().await;
    let (person, new) = (app.miner(1).await, app.miner(2).await);
    // Two a second: live state takes the last ten minutes.
    let lines: Vec<String> = (0..1000_u32)
        .map(|n| {
            let ts = format!("{}.{}", ago(&app, i64::from(505 - n / 2)), n % 2 * 5);
            share(&person.address, "rig1", &ts, 512.0, f64::from(n) + 1.0, n >= 3)
        })
        .collect();
    app.feed(&lines).await;

    let workers = read(&app, &person, "/api/v1/mining/workers").await;
    assert_eq!(workers["workers"][0]["accept_rate"], 99.7);
    let stats = read(&app, &new, "/api/v1/mining/stats").await;
    assert_eq!(stats["acceptance_rate"], 0.0, "no shares");
}

#[tokio::test]
async fn example_17_days_of_uptime() {
    let app = App::at(at("2026-02-23T12:00:00Z")).await;
    let person = app.miner(1).await;
    sqlx::query(
        "INSERT INTO user_daily_stats (user_id, day, uptime_minutes)
         VALUES ($1, '2026-02-20', 720), ($1, '2026-02-21', 365)",
    )
    .bind(person.id)
    .execute(&app.db.pool)
    .await
    .expect("two days");

    let uptime = read(&app, &person, "/api/v1/mining/uptime?days=30").await;

    let days = uptime["days"].as_array().unwrap();
    assert_eq!(
        (days.len(), &days[0]["date"], &days[29]["date"]),
        (30, &json!("2026-01-25"), &json!("2026-02-23"))
    );
    assert_eq!(uptime["total_uptime_hours"], 18.1);
}
