//! Who is seen in a draw: winners who hide, accounts that are deleted (contract `games.md` §2.8, examples 20, 22).

use serde_json::{Value, json};
use tbg_core::UserId;
use tbg_core::outbox::{self, DomainEvent};
use tbg_games::rules::proof::verify;
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::program::until;

use super::{MONDAY, assert_sound, draw_on, five, get, proofs};
use crate::support::{mine_late, read};

#[tokio::test]
async fn example_20_a_winner_who_hides_is_anonymous_to_others() {
    let app = five().await;
    app.db
        .change("INSERT INTO user_settings (user_id, privacy) VALUES (5, '{\"showOnLeaderboard\": false}')")
        .await;
    let replica = app.serve().await;
    let (mut winner, mut other) = (replica.open(&app.token(5)).await, replica.open(&app.token(1)).await);
    winner.subscribe("dashboard").await;
    other.subscribe("dashboard").await;
    draw_on(&app, MONDAY).await;
    let (won, lost) = (winner.next_event("lottery_drawn").await, other.next_event("lottery_drawn").await);
    assert_eq!((&won["data"]["winner"], &won["data"]["is_winner"]), (&json!("Anonymous"), &json!(true)));
    assert_eq!((&lost["data"]["winner"], &lost["data"]["is_winner"]), (&json!("Anonymous"), &json!(false)));
    for told in [&won, &lost] {
        assert!(told["data"].get("user_id").is_none(), "{told}");
    }
    let seen = read(&app, 1, "/lottery/results").await;
    assert_eq!(
        (&seen["top_10"][0]["user_id"], &seen["top_10"][0]["user_name"]),
        (&json!(0), &json!("Anonymous"))
    );
    assert!(seen["draw"]["winner_user_id"].is_null());
    let own = read(&app, 5, "/lottery/results").await;
    assert_eq!((&own["your_result"]["user_id"], &own["your_result"]["rank"]), (&json!(5), &json!(1)));
}

#[tokio::test]
async fn example_20_no_answer_names_a_winner_who_hides() {
    for privacy in [r#"{"showOnLeaderboard": false}"#, r#"{"publicProfile": false}"#] {
        let app = five().await;
        app.db
            .change(
                "UPDATE users SET display_name = 'Hidden', display_name_normalized = 'hidden' WHERE id = 5",
            )
            .await;
        sqlx::query("INSERT INTO user_settings (user_id, privacy) VALUES (5, $1::JSONB)")
            .bind(privacy)
            .execute(&app.db.pool)
            .await
            .unwrap();
        draw_on(&app, MONDAY).await;

        let anonymous = |first: &Value| {
            assert_eq!(
                (&first["rank"], &first["user_id"], &first["user_name"]),
                (&json!(1), &json!(0), &json!("Anonymous")),
                "{privacy}"
            );
        };
        for seen in [get(&app, "/lottery/results").await, read(&app, 1, "/lottery/results").await] {
            assert!(seen["draw"]["winner_user_id"].is_null(), "{privacy}");
            assert_eq!(seen["draw"]["winning_difficulty"], 4_231_847_293.0);
            anonymous(&seen["top_10"][0]);
            assert!(!seen.to_string().contains("Hidden"), "{privacy}: {seen}");
        }
        let page = get(&app, "/lottery/results/2026-W09").await;
        assert!(page["draw"]["winner_user_id"].is_null() && !page.to_string().contains("Hidden"));
        anonymous(&page["results"][0]);
        let own = read(&app, 5, "/lottery/results").await["your_result"].clone();
        assert_eq!(
            (&own["user_id"], &own["user_name"], &own["rank"]),
            (&json!(5), &json!("Hidden"), &json!(1))
        );
        let feed = app.db.rows("SELECT title FROM activity_feed WHERE event_type = 'competition'").await;
        assert_eq!(feed, [r#"{"title": "Anonymous topped the 2026-W09 lottery"}"#], "{privacy}");
    }
}

#[tokio::test]
async fn a_winner_who_leaves_the_boards_later_leaves_the_feed() {
    let app = App::at(at("2026-02-25T12:00:00Z")).await;
    let person = app.miner(1).await;
    mine_late(&app, &person, "2026-02-25T11:59:00Z", 5e6).await;
    draw_on(&app, MONDAY).await;
    let seen = "SELECT count(*) FROM activity_feed WHERE event_type = 'competition' AND is_global";
    assert_eq!(app.db.number(seen).await, 1);

    let person = app.miner(1).await;
    let hidden = Some(json!({ "privacy": { "showOnLeaderboard": false } }));
    let set = app.ask("PATCH", "/api/v1/users/me/settings", Some(&person.access), hidden).await;
    assert_eq!(set.status, 200, "{}", set.text);
    app.consume().await;
    assert_eq!(app.db.number(seen).await, 0);
}

#[tokio::test]
async fn example_22_a_deleted_account_leaves_file_and_root_as_they_were() {
    let app = App::at(at("2026-02-25T12:00:00Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    mine_late(&app, &person, "2026-02-25T11:59:00Z", 5e6).await;
    mine_late(&app, &other, "2026-02-25T11:59:00Z", 4e6).await;
    draw_on(&app, MONDAY).await;
    let path = "/api/v1/lottery/proofs/2026-W09";
    let (file, seal) =
        (app.get(&format!("{path}/file"), None).await, get(&app, "/lottery/proofs/2026-W09").await);
    let kept = app.get(&format!("{path}/me"), Some(&app.token(person.id))).await;
    assert_eq!(proofs::verified(&kept.text).await.0, Some(0));

    let person = app.miner(1).await;
    let confirm = Some(json!({ "confirm": "DELETE" }));
    let deleted = app.ask("DELETE", "/api/v1/users/me", Some(&person.access), confirm).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    app.consume().await;

    assert_eq!(app.get(&format!("{path}/file"), None).await.text, file.text);
    assert_eq!(get(&app, "/lottery/proofs/2026-W09").await, seal);
    assert_eq!(proofs::verified(&file.text).await.0, Some(0));
    assert!(!file.text.contains(&person.address));
    assert!(verify(kept.text.as_bytes()).unwrap().ok, "whoever kept the own proof still has it");
    let linked = "SELECT count(*) FROM lottery_entries WHERE user_id = 1 AND (salt IS NOT NULL OR btc_address IS NOT NULL)";
    assert_eq!(app.db.number(linked).await, 0);
    let seen = get(&app, "/lottery/results/2026-W09").await;
    assert_eq!(
        (&seen["results"][0]["user_name"], &seen["results"][0]["user_id"], &seen["results"][1]["user_id"]),
        (&json!("Anonymous"), &json!(0), &json!(other.id))
    );
    assert_eq!(app.get(&format!("{path}/me"), Some(&person.access)).await.status, 401);

    // The same wallet comes back as somebody else, who has no entry.
    let again = app.miner(1).await;
    assert_ne!(again.id, person.id);
    let none = app.get(&format!("{path}/me"), Some(&again.access)).await;
    assert_eq!(none.outcome(), (404, "LOTTERY_ENTRY_NOT_FOUND"));
    assert_sound(&app, 1).await;
}

/// What a batch keeps of a user whom it resolved before the deletion is deleted too: the deletion waits for its turn.
#[tokio::test]
async fn a_batch_that_still_knows_a_deleted_user_leaves_no_hash_of_them() {
    let app = five().await;
    let mut batch = app.db.pool.begin().await.unwrap();
    tbg_engine::engine::take_turn(&mut batch).await.unwrap();
    sqlx::query(
        "INSERT INTO weekly_best_hashes (user_id, week_start, best_difficulty, hash) VALUES (3, '2026-02-23', 5, $1)",
    )
    .bind("0".repeat(64))
    .execute(&mut *batch)
    .await
    .unwrap();
    let deleted = DomainEvent::UserDeleted { user_id: UserId(3), btc_address: None };
    let mut conn = app.db.pool.acquire().await.unwrap();
    outbox::write(&mut conn, &[deleted]).await.unwrap();
    drop(conn);
    app.db.change("UPDATE domain_outbox SET done_at = now() WHERE consumer <> 'games'").await;

    let commit = async {
        let waiting = "SELECT (SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'
                                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
            + (SELECT count(*) FROM domain_outbox WHERE consumer = 'games' AND done_at IS NOT NULL)";
        assert!(until(async || app.db.number(waiting).await > 0).await, "the deletion waits for its turn");
        batch.commit().await.unwrap();
    };
    tokio::join!(app.consume(), commit);

    assert_eq!(app.db.number("SELECT count(*) FROM weekly_best_hashes").await, 0);
}

/// A replica believes a token for a second: a play in it, after the deletion was consumed, leaves nothing.
#[tokio::test]
async fn a_play_of_a_user_who_is_gone_is_refused_and_leaves_nothing() {
    let app = five().await;
    let token = app.token(3);
    let play = async |game: &str| {
        let answer = app.post("/api/v1/games/play", Some(&token), json!({ "game_type": game })).await;
        (answer.status, answer.code().to_owned())
    };
    assert_eq!(play("hammer").await.0, 200);
    app.db.change("UPDATE users SET deleted_at = now(), btc_address = NULL WHERE id = 3").await;
    let still_known = app.get("/api/v1/games/sessions", Some(&token)).await;
    assert_eq!(still_known.status, 200);

    assert_eq!(play("slots").await, (401, "AUTH_TOKEN_REVOKED".to_owned()));

    assert_eq!(app.db.number("SELECT count(*) FROM game_sessions WHERE game_type <> 'hammer'").await, 0);
    assert_eq!(app.db.number("SELECT count(*) FROM domain_outbox WHERE topic = 'GamePlayed'").await, 0);
}
