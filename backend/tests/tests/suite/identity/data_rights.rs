//! A copy of everything, and being forgotten (contract `auth-users.md` §6.5, §6.6).

mod deletion;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_tests::app::{Answer, App};
use tbg_tests::at;
use tbg_tests::people::Person;

use super::wallet_sign_in::audit;

const EXPORT: &str = "/api/v1/users/me/export";
const COOLDOWN: (u16, &str) = (429, "COOLDOWN");

async fn export(app: &App, person: &Person) -> Answer {
    app.get(EXPORT, Some(&person.access)).await
}

async fn change(app: &App, person: &Person, path: &str, body: Value) {
    let answer = app.ask("PATCH", path, Some(&person.access), Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// A number that is in no other text.
fn shares_of(person: &Person) -> i64 {
    7_000_000_000 + person.id
}

/// Something in every table of which an export shows rows; `mark` tells the people apart.
async fn furnish(app: &App, person: &Person, mark: &str) -> String {
    change(app, person, "/api/v1/users/me", json!({ "display_name": format!("Name {mark}"), "bio": mark }))
        .await;
    let notices = json!({ "notifications": { "email": format!("{mark}-notices@example.com") } });
    change(app, person, "/api/v1/users/me/settings", notices).await;
    sqlx::query("INSERT INTO user_daily_stats (user_id, day, total_shares) VALUES ($1, '2026-03-14', $2)")
        .bind(person.id)
        .bind(shares_of(person))
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO blocks (block_height, block_hash, user_id, reward_btc, found_at)
         VALUES (900000, $2, $1, 3.125, '2026-03-14T00:00:00Z')",
    )
    .bind(person.id)
    .bind(mark)
    .execute(&app.db.pool)
    .await
    .unwrap();
    play(app, person, mark).await;
    app.api_key(person, &["read"]).await
}

/// Rows of the game, the notifications and the lottery.
async fn play(app: &App, person: &Person, mark: &str) {
    for statement in [
        "INSERT INTO notifications (user_id, type, subtype, title, dedupe_key, created_at)
         VALUES ($1, 'system', 'notice', 'Title ' || $2, 'export:' || $2, now())",
        "INSERT INTO user_gamification (user_id, total_xp) VALUES ($1, 5) ON CONFLICT (user_id) DO UPDATE SET total_xp = 5",
        "INSERT INTO xp_ledger (user_id, amount, source, source_id, description, idempotency_key, created_at)
         VALUES ($1, 5, 'share', '1', 'XP ' || $2, 'export:' || $2, now())",
        "INSERT INTO game_sessions (user_id, game_type, week_iso, week_start, last_played_at, metadata)
         VALUES ($1, 'hammer', '2026-W10', '2026-03-02', now(), jsonb_build_object('mark', $2::TEXT))",
        "INSERT INTO lottery_draws (week_iso, week_start, week_end) VALUES ('2026-W10', '2026-03-02', '2026-03-08')
         ON CONFLICT DO NOTHING",
        "INSERT INTO lottery_entries (draw_id, leaf_index, user_id, btc_address, salt, commitment, best_difficulty, best_time,
                                      total_shares)
         SELECT id, $1 % 1000, $1, 'address ' || $2, sha256($2::BYTEA), sha256(('c' || $2)::BYTEA), 8, now(), 3
         FROM lottery_draws WHERE week_iso = '2026-W10'",
        "INSERT INTO lottery_results (draw_id, user_id, rank, best_difficulty)
         SELECT id, $1, 1 + $1 % 1000, 8 FROM lottery_draws WHERE week_iso = '2026-W10'",
    ] {
        // A statement takes the arguments that it names.
        let mut query = sqlx::query(statement);
        if statement.contains("$1") {
            query = query.bind(person.id);
        }
        if statement.contains("$2") {
            query = query.bind(mark);
        }
        query.execute(&app.db.pool).await.unwrap();
    }
}

#[tokio::test]
async fn an_export_is_a_file_with_every_section() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let person = app.miner(1).await;
    let key = furnish(&app, &person, "mine").await;

    let answer = export(&app, &person).await;

    let file = format!("attachment; filename=\"tbg-export-{}.json\"", person.id);
    assert_eq!(answer.header("content-disposition"), file);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let shown = answer.ok();
    let mut names: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut sections = [
        "exported_at",
        "profile",
        "settings",
        "wallets",
        "address_history",
        "sessions",
        "api_keys",
        "notifications",
        "gamification",
        "games",
        "competitions",
        "cooperative",
        "education",
        "blocks",
        "daily_mining_stats",
    ];
    sections.sort_unstable();
    assert_eq!(names, sections);
    assert_eq!(shown["exported_at"], "2026-03-15T14:30:00Z");
    assert_eq!(shown["profile"]["id"], person.id);
    assert_eq!(shown["profile"]["bio"], "mine");
    assert_eq!(shown["settings"]["notifications"]["email"], "mine-notices@example.com");
    assert_eq!(shown["wallets"][0]["btc_address"], person.address.as_str());
    assert_eq!(shown["address_history"][0]["new_address"], person.address.as_str());
    assert_eq!(shown["sessions"][0]["session_id"], json!(person.sid()));
    assert_eq!(shown["api_keys"][0]["prefix"], &key[..12]);
    assert_eq!(
        (&shown["blocks"][0]["block_height"], &shown["blocks"][0]["reward_btc"]),
        (&json!(900_000), &json!(3.125))
    );
    assert_eq!(shown["daily_mining_stats"][0]["day"], "2026-03-14");
    for list in ["wallets", "address_history", "sessions", "api_keys", "blocks", "daily_mining_stats"] {
        assert_eq!(shown[list].as_array().unwrap().len(), 1, "{list}");
    }
    assert_eq!(shown["notifications"][0]["title"], "Title mine");
    assert_eq!(
        (&shown["gamification"]["total_xp"], &shown["gamification"]["xp"][0]["amount"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(shown["games"]["sessions"][0]["metadata"]["mark"], "mine");
    assert_eq!(shown["games"]["results"][0]["week_iso"], "2026-W10");
    assert_eq!(shown["games"]["entries"][0]["salt"].as_str().unwrap().len(), 64);
    let id = person.id.to_string();
    let row = json!({ "user": id, "status": "success", "type": "user", "id": id, "details": {} });
    assert_eq!(audit(&app, "user.data_exported").await, [row]);
}

#[tokio::test]
async fn an_export_has_ones_own_rows_only() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.register("other@example.com", 2).await);
    furnish(&app, &person, "mine").await;
    let others_key = furnish(&app, &other, "theirs").await;

    let answer = export(&app, &person).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let (others_sid, others_shares) = (other.sid().to_string(), shares_of(&other).to_string());
    let foreign =
        ["theirs", "other@example.com", &other.address, &others_key[..12], &others_sid, &others_shares];
    for text in foreign {
        assert!(!answer.text.contains(text), "{text}");
    }
    assert_eq!(answer.json["daily_mining_stats"][0]["total_shares"], shares_of(&person));
}

#[tokio::test]
async fn an_export_has_nothing_that_signs_anybody_in() {
    let app = App::new().await;
    let person = app.register("own@example.com", 1).await;
    let key = furnish(&app, &person, "mine").await;
    sqlx::query(
        "INSERT INTO password_reset_tokens (id, user_id, token_hash, expires_at)
         SELECT gen_random_uuid(), id, repeat('ab', 32), now() FROM users",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    let hashes: Vec<String> = sqlx::query_scalar(
        "SELECT token_hash::TEXT FROM refresh_tokens UNION ALL SELECT key_hash FROM api_keys
         UNION ALL SELECT password_hash FROM users UNION ALL SELECT token_hash FROM password_reset_tokens",
    )
    .fetch_all(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(hashes.len(), 4);

    let answer = export(&app, &person).await;

    assert_eq!(answer.json["profile"]["email"], "own@example.com");
    assert!(!answer.text.contains(&key[12..]));
    assert!(
        !answer.text.replace("block_hash", "").replace("best_hash", "").contains("hash"),
        "no field is a hash but that of a block or a share"
    );
    for hash in hashes {
        assert!(!answer.text.contains(&hash));
    }
}

#[tokio::test]
async fn one_export_an_hour() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let on_another_device = app.miner(1).await;

    let first = export(&app, &person).await;
    app.clock.advance(TimeDelta::minutes(5));
    let second = export(&app, &on_another_device).await;
    let others = export(&app, &other).await;

    assert_eq!([first.status, others.status], [200; 2]);
    assert_eq!(second.outcome(), COOLDOWN);
    let wait: u64 = second.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(app.audited("user.data_exported", "success").await, 2);
    let key = format!("auth:export:{}", person.id);
    let ended: i64 = redis::cmd("DEL").arg(key).query_async(&mut app.redis.manager()).await.unwrap();
    assert_eq!(ended, 1);
    assert_eq!(export(&app, &person).await.status, 200, "after the hour it works again");
}

#[tokio::test]
async fn an_export_that_cannot_be_recorded_is_not_given_and_not_counted() {
    let app = App::new().await;
    let person = app.miner(1).await;
    close_the_log(&app).await;

    let refused = export(&app, &person).await;

    assert!(refused.status >= 500, "{}", refused.text);
    assert!(!refused.text.contains(&person.address));
    let key = format!("auth:export:{}", person.id);
    let counted: i64 = redis::cmd("EXISTS").arg(key).query_async(&mut app.redis.manager()).await.unwrap();
    assert_eq!(counted, 0);
}

/// From now on no row can be added to the audit log.
async fn close_the_log(app: &App) {
    let sql =
        "CREATE TRIGGER closed BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION tbg_refuse_change()";
    sqlx::query(sql).execute(&app.db.pool).await.unwrap();
}
