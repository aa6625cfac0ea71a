//! The game from the outside: shares and events of other domains go in, answers and pushes come out (contract
//! `gamification.md`; the numbers in names are its acceptance examples).

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_core::UserId;
use tbg_tests::app::App;
use tbg_tests::people::Person;
use tbg_tests::{at, share};

/// A share of a person at an instant, and its batch is processed then.
async fn mine(app: &App, person: &Person, when: &str, difficulty: f64) {
    app.clock.set(at(when));
    mine_late(app, person, when, difficulty).await;
}

/// A share of a person at an instant, processed at the app's time.
async fn mine_late(app: &App, person: &Person, when: &str, difficulty: f64) {
    let ts = at(when).timestamp().to_string();
    app.feed(&[share(&person.address, "rig1", &ts, 1024.0, difficulty, true)]).await;
}

async fn read(app: &App, person: &Person, path: &str) -> Value {
    // Weeks pass in these tests: tokens are made at the app's time.
    app.get(&format!("/api/v1{path}"), Some(&app.token(person.id))).await.ok()
}

/// An event of another domain, as its outbox row.
async fn report(app: &App, topic: &str, user: Option<i64>, payload: Value) {
    let key = format!("{topic}:{}", uuid::Uuid::new_v4());
    report_as(app, topic, user, payload, &key).await;
}

async fn report_as(app: &App, topic: &str, user: Option<i64>, payload: Value, key: &str) {
    sqlx::query(
        "INSERT INTO domain_outbox (topic, event_key, consumer, user_id, payload, created_at)
         VALUES ($1, $2, 'gamification', $3, $4, $5)",
    )
    .bind(topic)
    .bind(key)
    .bind(user)
    .bind(payload)
    .bind(app.clock.now())
    .execute(&app.db.pool)
    .await
    .expect("reported");
    app.consume().await;
}

async fn xp(app: &App, person: &Person) -> i64 {
    read(app, person, "/users/me/xp").await["total_xp"].as_i64().expect("a sum")
}

/// What holds at every commit.
async fn assert_sound(app: &App) {
    let wrong = "SELECT count(*) FROM user_gamification g
        WHERE total_xp <> (SELECT coalesce(sum(amount), 0) FROM xp_ledger l WHERE l.user_id = g.user_id)
           OR xp_entries <> (SELECT count(*) FROM xp_ledger l WHERE l.user_id = g.user_id)
           OR badges_earned <> (SELECT count(DISTINCT badge_id) FROM user_badges b WHERE b.user_id = g.user_id)";
    assert_eq!(app.db.number(wrong).await, 0);
    assert_eq!(tbg_gamification::check(&app.db.pool, None).await.unwrap(), 0, "nothing to repair");
}

#[tokio::test]
async fn examples_2_and_3_a_first_share_is_seen_everywhere() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 1_500_000.0).await;
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 1_500_000.0).await;

    let state = read(&app, &person, "/users/me/gamification").await;
    assert_eq!(
        state,
        json!({
            "xp": { "total_xp": 100, "level": 2, "level_title": "Curious Cat", "xp_into_level": 0,
                    "xp_for_level": 500, "next_level": 3, "next_title": "Hash Pupil" },
            "streak": { "current_streak": 1, "longest_streak": 1, "streak_start_date": "2026-02-23",
                        "last_active_week": "2026-W09", "is_active_this_week": true, "effective_streak": 1,
                        "freezes_available": 0, "days_active_this_week": 1,
                        "expires_at": "2026-03-09T00:00:00Z" },
            "badges": { "earned": 2, "total": 20 },
            "stats": { "total_shares": 1, "blocks_found": 0, "best_difficulty": 1_500_000.0 },
        })
    );
    let badges = read(&app, &person, "/users/me/badges").await;
    assert_eq!(badges["earned"][0]["metadata"], json!({ "difficulty": "1,500,000" }), "{badges}");
    assert_eq!((&badges["total_earned"], &badges["total_available"]), (&json!(2), &json!(20)));
    let levels = read(&app, &person, "/users/me/level-ups/pending").await;
    let level = &levels["celebrations"][0];
    assert_eq!((&level["old_level"], &level["new_title"]), (&json!(1), &json!("Curious Cat")));
    let milestones = read(&app, &person, "/users/me/streak-milestones/pending").await;
    assert_eq!(milestones["celebrations"][0]["milestone"], "First Week");
    let history = read(&app, &person, "/users/me/xp/history").await;
    assert_eq!(history["entries"][0]["description"], "Earned badge: Million Club");
    assert_eq!(history["total"], 2);
    let sources = read(&app, &person, "/gamification/xp/summary").await;
    assert_eq!(sources["by_source"], json!([{ "source": "badge", "amount": 100, "entries": 2 }]));
    let reached = read(&app, &person, "/users/me/xp").await["levels_reached"].clone();
    assert_eq!((&reached[0]["level"], &reached[1]["level"]), (&json!(1), &json!(2)));
    assert_sound(&app).await;
}

#[tokio::test]
async fn example_4_rejected_shares_earn_nothing() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    let ts = at("2026-02-25T14:00:00Z").timestamp().to_string();
    app.feed(&[share(&person.address, "rig1", &ts, 1024.0, 5e9, false)]).await;

    assert_eq!(xp(&app, &person).await, 0);
    assert_eq!(read(&app, &person, "/users/me/streak/calendar").await["weeks"], json!([]));
    assert_eq!(app.db.number("SELECT count(*) FROM user_gamification").await, 0, "reads make no rows");
}

#[tokio::test]
async fn examples_8_to_10_and_12_a_streak_as_weeks_pass() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let person = app.miner(1).await;
    for when in
        ["2026-03-02T12:00:00Z", "2026-03-09T12:00:00Z", "2026-03-16T12:00:00Z", "2026-03-23T12:00:00Z"]
    {
        mine(&app, &person, when, 1.0).await;
    }
    let mut seen = Vec::new();
    for day in ["2026-03-30", "2026-04-06", "2026-04-13"] {
        app.clock.set(format!("{day}T00:00:00Z").parse().unwrap());
        let streak = read(&app, &person, "/gamification/streak").await;
        seen.push((streak["current_streak"].clone(), streak["freezes_available"].clone()));
    }
    assert_eq!(seen, [(json!(4), json!(1)), (json!(4), json!(0)), (json!(0), json!(0))]);
    app.clock.set(at("2026-04-06T12:00:00Z"));
    let calendar = read(&app, &person, "/users/me/streak/calendar?weeks=4").await;
    let weeks: Vec<_> = calendar["weeks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|week| (week["week_iso"].clone(), week["is_frozen"].clone()))
        .collect();
    assert_eq!(
        weeks,
        [("2026-W14", true), ("2026-W13", false), ("2026-W12", false)]
            .map(|(week, frozen)| (json!(week), json!(frozen)))
    );

    mine(&app, &person, "2026-04-13T12:00:00Z", 1.0).await;
    let broken = read(&app, &person, "/users/me/streak").await;
    assert_eq!((&broken["current_streak"], &broken["longest_streak"]), (&json!(1), &json!(4)));
    mine_late(&app, &person, "2026-04-01T12:00:00Z", 1.0).await;
    let mended = read(&app, &person, "/users/me/streak").await;
    assert_eq!((&mended["current_streak"], &mended["streak_start_date"]), (&json!(6), &json!("2026-03-02")));
    let paid =
        "SELECT count(*) FROM xp_ledger WHERE idempotency_key IN ('streak:1:2026-W14', 'streak:1:2026-W16')";
    assert_eq!(app.db.number(paid).await, 2);
    assert_sound(&app).await;
}

#[tokio::test]
async fn examples_14_to_16_events_of_other_domains_count_once() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let people = [app.miner(1).await, app.miner(2).await, app.miner(3).await];
    let results: Vec<Value> = [1, 11, 101]
        .iter()
        .zip([100, 50, 10])
        .zip(&people)
        .map(
            |((rank, xp), person)| json!({ "user_id": person.id, "rank": rank, "percentile": 0.0, "xp": xp }),
        )
        .collect();
    let drawn = json!({ "draw_id": 1, "week_iso": "2026-W09", "results": results });
    for _ in 0..2 {
        report(&app, "LotteryDrawn", None, drawn.clone()).await;
    }
    let mut sums = Vec::new();
    for person in &people {
        sums.push(xp(&app, person).await);
    }
    assert_eq!(sums, [100, 50, 10]);

    for week in ["2026-W09", "2026-W11", "2026-W11"] {
        let closed =
            json!({ "week_iso": week, "champion_user_id": people[0].id, "best_difficulty": 1234567.8 });
        report(&app, "LeaderboardWeekClosed", None, closed).await;
    }
    assert_eq!(xp(&app, &people[0]).await, 700);
    let earned = read(&app, &people[0], "/users/me/badges").await;
    assert_eq!(earned["total_earned"], 1);
    assert_eq!(
        earned["earned"][0]["metadata"],
        json!({ "week": "2026-W09", "difficulty": "1,234,567", "timesEarned": "2", "lastEarned": "2026-03-02" })
    );
    let badge = app.get("/api/v1/badges/weekly_diff_champion", None).await.ok();
    assert_eq!(badge["total_earned"], 1);

    let done = app.clock.now();
    for _ in 0..2 {
        for lesson in 1..=5 {
            let payload = json!({ "user_id": people[1].id, "lesson_id": format!("l{lesson}"), "title": "T", "completed_at": done });
            report(&app, "LessonCompleted", Some(people[1].id), payload).await;
        }
        let payload = json!({ "user_id": people[1].id, "track_id": "t", "title": "T", "completed_at": done });
        report(&app, "TrackCompleted", Some(people[1].id), payload).await;
    }
    assert_eq!(xp(&app, &people[1]).await, 50 + 325);
    assert_sound(&app).await;
}

#[tokio::test]
async fn example_17_percentages_are_of_those_who_count() {
    let app = App::new().await;
    app.run_job("badge_stats").await;
    let empty = app.get("/api/v1/badges/first_share", None).await.ok();
    assert_eq!((&empty["percentage"], &empty["total_earned"]), (&json!(0.0), &json!(0)));
    // sql-audit: allow(S2) statements that are written in the test
    sqlx::raw_sql(
        "INSERT INTO users (btc_address, is_test, is_banned)
             SELECT 'a' || n, n > 4914, n = 4913 FROM generate_series(1, 4920) n;
         INSERT INTO user_badges (user_id, badge_id, earned_at) SELECT id, 1, now() FROM users WHERE id <= 4821;
         INSERT INTO user_badges (user_id, badge_id, earned_at) SELECT id, 4, now() FROM users WHERE id <= 15;
         UPDATE users SET deleted_at = now() WHERE btc_address = 'a4914'",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();

    app.run_job("badge_stats").await;

    let first = app.get("/api/v1/badges/first_share", None).await.ok();
    let block = app.get("/api/v1/badges/block_finder", None).await.ok();
    assert_eq!((&first["percentage"], &block["percentage"]), (&json!(98.15), &json!(0.31)));
    assert_eq!(first["recent_earners"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn example_18_pages_of_the_ledger() {
    let app = App::new().await;
    let person = app.miner(1).await;
    for lesson in 0..51 {
        let done: DateTime<Utc> = app.clock.now();
        let payload =
            json!({ "user_id": person.id, "lesson_id": lesson, "title": "T", "completed_at": done });
        report(&app, "LessonCompleted", Some(person.id), payload).await;
    }
    for (page, entries) in [(1, 50), (2, 1), (3, 0)] {
        let answer = read(&app, &person, &format!("/users/me/xp/history?page={page}&per_page=50")).await;
        assert_eq!(answer["entries"].as_array().unwrap().len(), entries);
        assert_eq!((&answer["total"], &answer["page"]), (&json!(51), &json!(page)));
    }
    for bad in ["per_page=0", "per_page=101", "page=0", "page=1001", "page=x"] {
        let path = format!("/api/v1/users/me/xp/history?{bad}");
        assert_eq!(app.get(&path, Some(&person.access)).await.status, 422, "{bad}");
    }
}

#[tokio::test]
async fn example_19_a_batch_and_an_event_at_once_lose_nothing() {
    let app = App::at(at("2026-03-02T12:00:10Z")).await;
    let person = app.miner(1).await;
    report(
        &app,
        "XpAdjusted",
        Some(person.id),
        json!({ "amount": 590, "reference": "r", "reason": "a test" }),
    )
    .await;
    let done = app.clock.now();
    let lesson = json!({ "user_id": person.id, "lesson_id": "l", "title": "T", "completed_at": done });

    tokio::join!(
        mine_late(&app, &person, "2026-03-02T12:00:00Z", 1.0),
        report(&app, "LessonCompleted", Some(person.id), lesson),
    );

    assert_eq!(xp(&app, &person).await, 665);
    let levels = "SELECT count(*) FROM level_celebrations WHERE old_level = 2 AND new_level = 3";
    assert_eq!(app.db.number(levels).await, 1);
    assert_sound(&app).await;
}

#[tokio::test]
async fn example_20_lists_and_acknowledgements() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 1_500_000.0).await;

    let badges = app.get("/api/v1/badges", None).await.ok();
    assert_eq!(badges, app.get("/api/v1/gamification/badges", None).await.ok());
    let slugs: Vec<&str> =
        badges["badges"].as_array().unwrap().iter().map(|badge| badge["slug"].as_str().unwrap()).collect();
    assert_eq!((slugs.len(), slugs[0], slugs[19]), (20, "first_share", "coop_block"));
    for bad in ["nope", "FIRST_SHARE", "%00"] {
        let answer = app.get(&format!("/api/v1/badges/{bad}"), None).await;
        assert_eq!(answer.outcome(), (404, "BADGE_NOT_FOUND"), "{bad}");
    }
    assert_eq!(app.get("/api/v1/levels", None).await.ok()["levels"].as_array().unwrap().len(), 15);
    assert_eq!(app.get("/api/v1/users/me/xp", None).await.status, 401);

    for kind in ["level-ups", "streak-milestones"] {
        let pending = read(&app, &person, &format!("/users/me/{kind}/pending")).await;
        let id = pending["celebrations"][0]["celebration_id"].as_i64().unwrap();
        let path = format!("/api/v1/users/me/{kind}/{id}/ack");
        let strangers = app.ask("POST", &path, Some(&other.access), None).await;
        assert_eq!(strangers.outcome(), (404, "CELEBRATION_NOT_FOUND"));
        let (a, b) = tokio::join!(
            app.ask("POST", &path, Some(&person.access), None),
            app.post(&path, Some(&person.access), json!({})),
        );
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404], "two devices, one acknowledgement");
        let left = read(&app, &person, &format!("/users/me/{kind}/pending")).await;
        assert_eq!(left["celebrations"], json!([]));
        let nonsense = format!("/api/v1/users/me/{kind}/x/ack");
        assert_eq!(app.post(&nonsense, Some(&person.access), json!({})).await.status, 422);
    }
}

#[tokio::test]
async fn every_badge_can_be_earned() {
    let app = App::at(at("2025-01-06T12:00:00Z")).await;
    let person = app.miner(1).await;
    let id = person.id;
    // A year of weeks, then a million shares short of two, and difficulties.
    for week in 0..52 {
        app.clock.set(at("2025-01-06T12:00:00Z") + TimeDelta::weeks(week));
        let ts = app.clock.now().timestamp().to_string();
        app.feed(&[share(&person.address, "rig1", &ts, 1024.0, 1.0, true)]).await;
    }
    for (total, difficulty) in [(999, 2e6), (999_999, 2e12)] {
        sqlx::query("UPDATE user_gamification SET total_shares = $1")
            .bind(total)
            .execute(&app.db.pool)
            .await
            .unwrap();
        app.clock.advance(TimeDelta::seconds(20));
        let ts = app.clock.now().timestamp().to_string();
        app.feed(&[share(&person.address, "rig1", &ts, 1024.0, difficulty, true)]).await;
    }
    let block = format!(
        r#"{{"region":"","event":"block_found","ts":{},"source":"hosted","data":{{"user":"{}","worker":"{}.rig1","height":900000,"hash":"{}","diff":3e12,"network_diff":1e12}}}}"#,
        app.clock.now().timestamp(),
        person.address,
        person.address,
        "00".repeat(32)
    );
    app.feed(&[block]).await;
    let now = app.clock.now();
    for (topic, user, payload) in [
        (
            "LeaderboardWeekClosed",
            None,
            json!({ "week_iso": "2026-W01", "champion_user_id": id, "best_difficulty": 5.0 }),
        ),
        (
            "CompetitionRegistered",
            Some(id),
            json!({ "competition_id": 1, "type": "world_cup", "name": "Cup" }),
        ),
        (
            "CompetitionRegistered",
            Some(id),
            json!({ "competition_id": 2, "type": "league", "name": "League" }),
        ),
        (
            "CompetitionWon",
            None,
            json!({ "competition_id": 1, "type": "world_cup", "name": "Cup", "user_ids": [id] }),
        ),
        ("TrackCompleted", Some(id), json!({ "track_id": "t", "title": "T", "completed_at": now })),
        ("CoopCreated", Some(id), json!({ "coop_id": 1, "name": "C" })),
        (
            "CoopBlockFound",
            None,
            json!({ "coop_id": 1, "block_id": 1, "height": 900000, "user_ids": [id, 999] }),
        ),
        (
            "MatchFinished",
            None,
            json!({ "match_id": 1, "competition_id": 1, "title": "A vs B", "winner_user_ids": [id] }),
        ),
        ("CoopJoined", Some(id), json!({})),
        ("GamePlayed", Some(id), json!({})),
    ] {
        report(&app, topic, user, payload).await;
    }
    for (index, slug) in tbg_gamification::GRANTABLE.into_iter().enumerate() {
        let reference = format!("ticket-{index}");
        for is_new in [true, false] {
            let granted =
                tbg_gamification::grant_badge(&app.db.pool, UserId(id), slug, &reference).await.unwrap();
            assert_eq!(granted, is_new, "{slug}");
        }
    }
    app.consume().await;

    let slugs: Vec<String> =
        app.db.rows("SELECT d.slug FROM badge_definitions d WHERE NOT EXISTS (SELECT FROM user_badges b WHERE b.badge_id = d.id)").await;
    assert!(slugs.is_empty(), "not earned: {slugs:?}");
    assert_eq!(app.db.number("SELECT count(*) FROM user_badges").await, 20);
    assert_eq!(app.db.number("SELECT count(*) FROM audit_log WHERE action = 'admin.badge_granted'").await, 4);
    let won =
        "SELECT count(*) FROM xp_ledger WHERE source = 'competition' AND description = 'Won match: A vs B'";
    assert_eq!(app.db.number(won).await, 1);
    // Two counters were set by hand for this test; the check puts them right.
    assert_eq!(tbg_gamification::check(&app.db.pool, None).await.unwrap(), 1);
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_badge_is_on_the_socket_and_in_rest_and_in_the_feed() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    socket.subscribe("gamification").await;
    let ts = (app.clock.now().timestamp() - 1).to_string();

    app.feed(&[share(&person.address, "rig1", &ts, 1024.0, 2e9, true)]).await;

    let first = socket.next_event("badge_earned").await;
    assert_eq!(first["data"]["badge_slug"], "first_share");
    let earned = read(&app, &person, "/users/me/badges").await;
    assert_eq!(earned["total_earned"], 3, "what is pushed is there");
    let level = socket.next_event("level_up").await;
    assert_eq!(
        level["data"],
        json!({ "type": "level_up", "old_level": 1, "new_level": 2, "title": "Curious Cat" })
    );
    let milestone = socket.next_event("streak_update").await;
    assert_eq!(milestone["data"]["milestone"], "First Week");
    let gained = socket.next_event("xp_gained").await;
    assert_eq!(
        gained["data"],
        json!({ "type": "xp_gained", "amount": 200, "source": "badge", "total_xp": 200 })
    );
    app.consume().await;
    let notice = socket.next_event("notification").await;
    assert_eq!(notice["data"]["payload"]["type"], "system", "the welcome comes first");
    let told = "SELECT count(*) FROM notifications WHERE subtype IN ('badge_earned', 'level_up')";
    assert_eq!(app.db.number(told).await, 4);
    let feed = app
        .db
        .rows("SELECT title, metadata ->> 'rarity' AS rarity FROM activity_feed WHERE event_type = 'badge'")
        .await;
    assert_eq!(feed, [r#"{"title": "Miner-bc1qw508 earned the Billion Club badge", "rarity": "rare"}"#]);
}

#[tokio::test]
async fn the_end_of_a_week_is_told_once() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let (pair, frozen) = (app.miner(1).await, app.miner(2).await);
    for week in 0..4 {
        let monday = at("2026-03-02T12:00:00Z") + TimeDelta::weeks(week);
        app.clock.set(monday);
        let ts = monday.timestamp().to_string();
        let mut lines = vec![share(&frozen.address, "rig1", &ts, 1024.0, 1.0, true)];
        if week < 2 {
            lines.push(share(&pair.address, "rig1", &ts, 1024.0, 1.0, true));
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
        app.run_job("streak_week_close").await;
        app.consume().await;
    }
    assert_eq!(count("streak_broken", pair.id).await, 1);
    // The other's last week was W13: W14 is bridged by its freeze, W15 ends it.
    app.clock.set(at("2026-04-06T00:15:30Z"));
    app.run_job("streak_week_close").await;
    app.consume().await;
    app.clock.set(at("2026-04-13T00:15:30Z"));
    app.run_job("streak_week_close").await;
    app.consume().await;
    assert_eq!((count("streak_frozen", frozen.id).await, count("streak_broken", frozen.id).await), (1, 1));
    assert_eq!(app.db.number("SELECT count(*) FROM streak_calendar WHERE share_count = 0").await, 0);
}

#[tokio::test]
async fn the_banned_and_the_unknown_get_nothing_also_not_later() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    tbg_identity::roles::ban(&app.db.pool, UserId(person.id), "test", true, app.clock.now()).await.unwrap();
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 2e6).await;
    let done = app.clock.now();
    let lesson = json!({ "user_id": person.id, "lesson_id": "l", "title": "T", "completed_at": done });
    report(&app, "LessonCompleted", Some(person.id), lesson).await;
    let draw = json!({ "draw_id": 1, "week_iso": "2026-W08", "results": [{ "user_id": 4_242, "rank": 1, "percentile": 0.0, "xp": 100 }] });
    report(&app, "LotteryDrawn", None, draw).await;
    tbg_identity::roles::ban(&app.db.pool, UserId(person.id), "test", false, app.clock.now()).await.unwrap();

    app.consume().await;

    assert_eq!(app.db.number("SELECT count(*) FROM xp_ledger").await, 0);
    assert_eq!(
        app.db
            .number("SELECT count(*) FROM domain_outbox WHERE done_at IS NULL AND consumer = 'gamification'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_week_has_one_champion_whoever_is_reported_later() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    for champion in [&one, &two] {
        let closed =
            json!({ "week_iso": "2026-W09", "champion_user_id": champion.id, "best_difficulty": 5.0 });
        report(&app, "LeaderboardWeekClosed", None, closed).await;
    }
    assert_eq!((xp(&app, &one).await, xp(&app, &two).await), (300, 0));
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_deleted_account_leaves_no_game() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 2e6).await;
    report(&app, "UserDeleted", Some(person.id), json!({ "user_id": person.id, "btc_address": null })).await;
    let rows = "SELECT (SELECT count(*) FROM xp_ledger) + (SELECT count(*) FROM user_badges)
        + (SELECT count(*) FROM user_gamification) + (SELECT count(*) FROM streak_calendar)
        + (SELECT count(*) FROM level_celebrations) + (SELECT count(*) FROM streak_celebrations)";
    assert_eq!(app.db.number(rows).await, 0);
}

#[tokio::test]
async fn what_was_changed_by_hand_is_repaired_and_told() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 2e6).await;
    sqlx::query("UPDATE user_gamification SET total_xp = 5000, level = 5, current_streak = 9, longest_streak = 9, total_shares = 7")
        .execute(&app.db.pool)
        .await
        .unwrap();

    app.run_job("gamification_check").await;

    assert_eq!(xp(&app, &person).await, 100);
    let streak = read(&app, &person, "/users/me/streak").await;
    assert_eq!(streak["current_streak"], 1);
    assert_sound(&app).await;
}
