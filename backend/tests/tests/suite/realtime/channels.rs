//! Who is told what.

use serde_json::{Value, json};
use tbg_tests::app::App;
use tbg_tests::share;

use super::{publish, publish_text};

#[tokio::test]
async fn example_5_a_badge_is_its_owners_affair() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let mut own = replica.open(&one.access).await;
    let mut deaf = replica.open(&one.access).await;
    let mut other = replica.open(&two.access).await;
    own.subscribe("gamification").await;
    other.subscribe("gamification").await;

    let badge = json!({
        "user_id": one.id, "badge_slug": "shares_1k", "badge_name": "Hash Thousand", "rarity": "common",
        "xp_reward": 100,
    });
    publish(&app, "pubsub:badge_earned", &badge).await;

    assert_eq!(
        own.next().await.json(),
        json!({ "channel": "gamification", "data": {
            "type": "badge_earned", "badge_slug": "shares_1k", "badge_name": "Hash Thousand",
            "rarity": "common", "xp_reward": 100,
        } })
    );
    assert!(deaf.until_pong().await.is_empty() && other.until_pong().await.is_empty());
}

#[tokio::test]
async fn example_6_a_notification_reaches_every_socket_of_its_owner() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let (mut a, mut b) = (replica.open(&one.access).await, replica.open(&one.access).await);
    let mut other = replica.open(&two.access).await;

    let payload = json!({ "event": "notification", "data": { "id": "7", "title": "T" } });
    publish(&app, &format!("ws:user:{}", one.id), &payload).await;

    let expected = json!({ "channel": "notifications", "data": {
        "type": "notification", "payload": { "id": "7", "title": "T" },
    } });
    assert_eq!((a.next().await.json(), b.next().await.json()), (expected.clone(), expected));
    assert!(other.until_pong().await.is_empty());
}

#[tokio::test]
async fn example_7_a_payloads_own_type_does_not_rename_the_event() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    socket.subscribe("competition").await;

    publish(&app, "pubsub:leaderboard_update", &json!({ "type": "x", "period": "weekly" })).await;

    let message = socket.next().await.json();
    assert_eq!(
        message,
        json!({ "channel": "competition", "data": { "type": "leaderboard_update", "period": "weekly" } })
    );
}

#[tokio::test]
async fn example_8_what_has_no_owner_reaches_nobody_and_nonsense_harms_nobody() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    for channel in ["mining", "dashboard", "gamification", "competition", "notifications"] {
        socket.subscribe(channel).await;
    }

    publish(&app, "pubsub:best_diff", &json!({ "new_best": 5 })).await;
    publish(&app, "pubsub:best_diff", &json!({ "new_best": 5, "user_id": "x" })).await;
    publish(&app, "pubsub:best_diff", &json!({ "new_best": 5, "user": "nobody" })).await;
    publish(&app, "pubsub:unheard_of", &json!({ "user_id": person.id })).await;
    publish(&app, "ws:global", &json!({ "channel": "secret", "event": "x", "data": {} })).await;
    publish(&app, "ws:global", &json!([1])).await;
    for nonsense in ["", "{", "[]", "null", "\"x\"", "5"] {
        for channel in ["pubsub:best_diff", "pubsub:feed_item", "ws:global", "auth:revoked", "cache:cleared"]
        {
            publish_text(&app, channel, nonsense).await;
        }
        publish_text(&app, &format!("ws:user:{}", person.id), nonsense).await;
    }
    let huge = json!({ "user_id": person.id, "x": "x".repeat(70_000) });
    publish(&app, "pubsub:badge_earned", &huge).await;
    publish(&app, "pubsub:leaderboard_update", &json!({ "period": "weekly" })).await;

    let came = socket.next().await.json();
    assert_eq!(came["data"]["type"], "leaderboard_update", "{came}");
    assert!(socket.until_pong().await.is_empty());
}

#[tokio::test]
async fn example_9_a_finder_reads_more_about_his_block_than_others() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let (mut finder, mut other) = (replica.open(&one.access).await, replica.open(&two.access).await);
    finder.subscribe("dashboard").await;
    other.subscribe("dashboard").await;

    let block = json!({
        "height": 900, "hash": "", "reward": 3.125, "finder": "Miner-bc1qexam", "finder_country": null,
        "finder_user_id": one.id, "user": one.address, "worker": "rig1", "celebration_id": 5,
    });
    publish(&app, "pubsub:block_found", &block).await;

    let (mine, theirs) = (finder.next().await.json(), other.next().await.json());
    assert_eq!(
        mine["data"],
        json!({
            "type": "block_found", "height": 900, "hash": "", "reward": 3.125, "finder": "Miner-bc1qexam",
            "finder_country": null, "is_mine": true, "user": one.address, "worker": "rig1",
            "celebration_id": 5,
        })
    );
    assert_eq!(
        theirs["data"],
        json!({
            "type": "block_found", "height": 900, "hash": "", "reward": 3.125, "finder": "Miner-bc1qexam",
            "finder_country": null, "is_mine": false,
        })
    );
}

#[tokio::test]
async fn the_winner_of_a_lottery_knows_it() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let (mut winner, mut other) = (replica.open(&one.access).await, replica.open(&two.access).await);
    winner.subscribe("dashboard").await;
    other.subscribe("dashboard").await;

    let drawn = json!({
        "draw_id": 1, "week_iso": "2026-W09", "total_participants": 2, "winner": "A", "user_id": one.id,
    });
    publish(&app, "pubsub:lottery_drawn", &drawn).await;

    let (won, lost) = (winner.next().await.json()["data"].clone(), other.next().await.json()["data"].clone());
    assert_eq!((&won["is_winner"], &lost["is_winner"]), (&json!(true), &json!(false)));
    assert!(won.get("user_id").is_none() && lost.get("user_id").is_none(), "{won} {lost}");
}

#[tokio::test]
async fn older_publishers_name_an_address() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let (mut own, mut other) = (replica.open(&one.access).await, replica.open(&two.access).await);
    own.subscribe("mining").await;
    other.subscribe("mining").await;

    let share = json!({
        "type": "share", "worker": "rig1", "diff": 512.0, "accepted": true, "time": "2026-02-23T00:00:00Z",
    });
    publish(&app, &format!("ws:user:{}", one.address), &share).await;
    publish(&app, "pubsub:worker_status", &json!({ "btc_address": one.address, "worker": "r" })).await;
    let chosen = json!({ "event": "best_diff", "channel": "mining", "data": { "new_best": 5 } });
    publish(&app, &format!("ws:user:{}", one.id), &chosen).await;

    let first = own.next().await.json();
    assert_eq!((&first["channel"], &first["data"]["type"]), (&json!("mining"), &json!("share_submitted")));
    assert_eq!((&first["data"]["share_diff"], &first["data"]["accepted"]), (&json!(512.0), &json!(true)));
    let status = own.next().await.json();
    assert_eq!(status["data"], json!({ "type": "worker_status", "worker": "r" }));
    assert_eq!(own.next().await.json()["data"], json!({ "type": "best_diff", "new_best": 5 }));
    assert!(other.until_pong().await.is_empty());
}

#[tokio::test]
async fn a_share_reaches_its_miner_and_nobody_else() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let (mut own, mut other) = (replica.open(&one.access).await, replica.open(&two.access).await);
    own.subscribe("mining").await;
    other.subscribe("mining").await;

    let ts = format!("{}.5", tbg_core::Clock::now(&app.clock).timestamp() - 1);
    app.feed(&[share(&one.address, "rig1", &ts, 512.0, 4096.5, true)]).await;

    let sent = own.next_event("share_submitted").await;
    let data = &sent["data"];
    assert_eq!(
        (
            &data["worker"],
            &data["difficulty"],
            &data["share_diff"],
            &data["accepted"],
            &data["is_personal_best"]
        ),
        (&json!("rig1"), &json!(512.0), &json!(4096.5), &json!(true), &json!(true))
    );
    let keys: Vec<&str> = data.as_object().unwrap().keys().map(String::as_str).collect();
    let mut fields = vec![
        "type",
        "id",
        "worker",
        "difficulty",
        "share_diff",
        "accepted",
        "is_personal_best",
        "is_above_average",
        "is_block",
        "time",
    ];
    fields.sort_unstable();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, fields);
    let best = own.next_event("best_diff").await;
    assert_eq!(best["data"]["timeframes"], json!(["week", "month", "alltime"]));
    assert!(other.until_pong().await.is_empty());
}

#[tokio::test]
async fn example_18_the_statistics_of_a_replica() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let (mut a, mut b, mut c) =
        (replica.open(&one.access).await, replica.open(&one.access).await, replica.open(&two.access).await);
    for socket in [&mut a, &mut b, &mut c] {
        socket.subscribe("mining").await;
        socket.subscribe("mining").await;
    }
    b.subscribe("dashboard").await;

    let stats: Value = serde_json::from_str(
        &reqwest::get(format!("{}/api/v1/dashboard/ws-stats", replica.base))
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
    )
    .unwrap();

    assert_eq!(
        stats,
        json!({ "total_connections": 3, "unique_users": 2, "channels": { "mining": 3, "dashboard": 1 } })
    );
}

#[tokio::test]
async fn example_16_both_replicas_deliver_once() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let (a, b) = (app.serve().await, app.serve().await);
    let (mut on_a, mut on_b) = (a.open(&one.access).await, b.open(&two.access).await);
    on_a.subscribe("competition").await;
    on_b.subscribe("competition").await;

    for period in ["weekly", "monthly"] {
        publish(&app, "pubsub:leaderboard_update", &json!({ "period": period })).await;
    }

    for socket in [&mut on_a, &mut on_b] {
        let periods = [socket.next().await.json(), socket.next().await.json()];
        assert_eq!(
            periods.map(|message| message["data"]["period"].clone()),
            [json!("weekly"), json!("monthly")]
        );
        assert!(socket.until_pong().await.is_empty());
    }
}
