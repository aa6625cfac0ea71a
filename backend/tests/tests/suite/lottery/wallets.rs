//! A wallet that is changed in the middle of a week: two addresses, one player, one entry (contract `games.md`
//! §2.5, `auth-users.md` §6.3).

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_bitcoin::{AddressType, Network};
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::{Person, address_of, wallet};

use super::{MONDAY, assert_sound, draw_on, proofs};
use crate::support::{read, share_at};

const TUESDAY: &str = "2026-02-24T12:00:00Z";
const WEDNESDAY: &str = "2026-02-25T12:00:00Z";
const THURSDAY: &str = "2026-02-26T12:00:00Z";
const FRIDAY: &str = "2026-02-27T12:00:00Z";

/// Shares to an address, a minute apart; the last is at `when` and the best.
async fn mine(app: &App, address: &str, when: &str, shares: u8, best: f64) {
    app.clock.set(at(when));
    let line = |before: u8| {
        share_at(address, at(when) - TimeDelta::minutes(before.into()), best - f64::from(before))
    };
    app.feed(&(0..shares).rev().map(line).collect::<Vec<_>>()).await;
}

/// Somebody who mined ten shares to their first wallet on Tuesday, and a rival with a best of 60.
async fn mined(best: f64) -> (App, Person) {
    let app = App::at(at(TUESDAY)).await;
    let (person, rival) = (app.miner(1).await, app.miner(9).await);
    mine(&app, &rival.address, TUESDAY, 3, 60.0).await;
    mine(&app, &person.address, TUESDAY, 10, best).await;
    (app, person)
}

/// On Thursday the person signs in and proves the second wallet, which takes the place of the first.
async fn prove_second(app: &App) -> String {
    app.clock.set(at(THURSDAY));
    let (person, second) = (app.miner(1).await, wallet(2));
    let address = address_of(&second);
    let token = Some(person.access.as_str());
    let asked = json!({ "btc_address": address });
    let challenge = app.post("/api/v1/auth/link-wallet/challenge", token, asked).await.ok();
    let message = challenge["message"].as_str().unwrap();
    let signature = second.sign_bip322(message, AddressType::P2wpkh, Network::Mainnet).unwrap();
    let proof = json!({
        "btc_address": address, "signature": signature, "nonce": challenge["nonce"], "replace": true,
    });
    let linked = app.post("/api/v1/auth/link-wallet/verify", token, proof).await;
    assert_eq!(linked.status, 200, "{}", linked.text);
    app.consume().await;
    address
}

/// On Thursday the person signs in and types the address of the second wallet in.
async fn type_second_in(app: &App) -> String {
    app.clock.set(at(THURSDAY));
    let person = app.miner(1).await;
    let address = address_of(&wallet(2));
    let body = json!({ "btc_address": address });
    let changed = app.ask("PATCH", "/api/v1/users/me/wallet", Some(&person.access), Some(body)).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    app.consume().await;
    address
}

/// The rival's entry.
fn rival() -> (i64, String, f64, i64) {
    (2, address_of(&wallet(9)), 60.0, 3)
}

/// All entries, the best first: user, address, best, shares.
async fn entries(app: &App) -> Vec<(i64, String, f64, i64)> {
    sqlx::query_as(
        "SELECT user_id, btc_address, best_difficulty, total_shares FROM lottery_entries ORDER BY best_difficulty DESC",
    )
    .fetch_all(&app.db.pool)
    .await
    .unwrap()
}

/// Best, its time, shares and rank that the week shows.
fn numbers(week: &Value) -> (f64, &str, i64, i64) {
    (
        week["best_difficulty"].as_f64().unwrap(),
        week["best_difficulty_time"].as_str().unwrap(),
        week["total_shares"].as_i64().unwrap(),
        week["weekly_rank"].as_i64().unwrap(),
    )
}

/// The person's own proof says this, and verifies without us.
async fn assert_proof(app: &App, person: &Person, address: &str, best: f64, shares: i64, rank: i64) {
    let said = proofs::own(app, person.id, "2026-W09").await;
    assert_eq!((&said["btc_address"], &said["entries_count"]), (&json!(address), &json!(2)));
    assert_eq!(
        (&said["best_difficulty"], &said["total_shares"], &said["rank"]),
        (&json!(best), &json!(shares), &json!(rank))
    );
}

/// XP, level, streak, and shares and days of the running week.
async fn game_of(app: &App, person: &Person) -> [i64; 5] {
    let state = read(app, person.id, "/users/me/gamification").await;
    let streak = &state["streak"];
    [
        &state["xp"]["total_xp"],
        &state["xp"]["level"],
        &streak["current_streak"],
        &state["stats"]["total_shares"],
        &streak["days_active_this_week"],
    ]
    .map(|number| number.as_i64().unwrap())
}

#[tokio::test]
async fn example_12_a_proven_second_wallet_with_the_better_share_is_the_entry() {
    let (app, person) = mined(50.0).await;
    let second = prove_second(&app).await;
    mine(&app, &second, FRIDAY, 5, 80.0).await;

    let live = read(&app, person.id, "/games/weekly").await;
    assert_eq!(numbers(&live), (80.0, FRIDAY, 15, 1));
    let days = &live["daily_best_diffs"];
    assert_eq!((&days["tue"], &days["thu"], &days["fri"]), (&json!(50.0), &json!(0.0), &json!(80.0)));
    // First Hash and its day, then another day: one player.
    assert_eq!(game_of(&app, &person).await, [100, 2, 1, 15, 2]);

    draw_on(&app, MONDAY).await;
    assert_eq!(entries(&app).await, [(person.id, second.clone(), 80.0, 15), rival()]);
    assert_proof(&app, &person, &second, 80.0, 15, 1).await;
    let drawn = read(&app, person.id, "/games/weekly?week=2026-W09").await;
    assert_eq!((numbers(&drawn), &drawn["status"]), ((80.0, FRIDAY, 15, 1), &json!("completed")));
    assert_eq!(drawn["daily_best_diffs"], live["daily_best_diffs"]);
    assert_eq!(game_of(&app, &person).await, [200, 2, 1, 15, 0]);
    let history = read(&app, person.id, "/games/history").await;
    assert_eq!((&history["total"], &history["weeks"][0]["xp_awarded"]), (&json!(1), &json!(100)));
    let once = "SELECT (SELECT count(*) FROM level_celebrations WHERE user_id = 1) AS levels,
        (SELECT count(*) FROM streak_celebrations WHERE user_id = 1) AS milestones,
        (SELECT count(*) FROM streak_calendar WHERE user_id = 1) AS weeks,
        (SELECT count(*) FROM xp_ledger WHERE user_id = 1 AND source = 'competition') AS prizes";
    assert_eq!(app.db.rows(once).await, [r#"{"weeks": 1, "levels": 1, "prizes": 1, "milestones": 1}"#]);
    assert_sound(&app, 1).await;
}

#[tokio::test]
async fn the_first_wallet_stays_the_entry_if_its_share_is_the_better_one() {
    let (app, person) = mined(80.0).await;
    let second = type_second_in(&app).await;
    mine(&app, &second, FRIDAY, 5, 50.0).await;

    let live = read(&app, person.id, "/games/weekly").await;
    assert_eq!(numbers(&live), (80.0, TUESDAY, 15, 1));
    let days = &live["daily_best_diffs"];
    assert_eq!((&days["tue"], &days["fri"]), (&json!(80.0), &json!(50.0)));

    draw_on(&app, MONDAY).await;
    let first = person.address.clone();
    assert_eq!(entries(&app).await, [(person.id, first.clone(), 80.0, 15), rival()]);
    assert_proof(&app, &person, &first, 80.0, 15, 1).await;
    let drawn = read(&app, person.id, "/games/weekly?week=2026-W09").await;
    assert_eq!(numbers(&drawn), (80.0, TUESDAY, 15, 1));
    assert_eq!(game_of(&app, &person).await, [200, 2, 1, 15, 0]);
}

/// The row of the week was begun while the address was the user's, and stays the user's; the game counts what is
/// mined to the present address (contracts `mining.md` §3.5, `gamification.md` §4.1).
#[tokio::test]
async fn a_rig_that_still_mines_to_the_first_wallet_counts_for_the_draw_alone() {
    let (app, person) = mined(50.0).await;
    type_second_in(&app).await;
    mine(&app, &person.address, FRIDAY, 5, 80.0).await;
    mine(&app, &person.address, "2026-03-02T00:01:00Z", 1, 99.0).await;

    draw_on(&app, MONDAY).await;
    assert_eq!(entries(&app).await[0], (person.id, person.address.clone(), 80.0, 15));
    assert_proof(&app, &person, &person.address, 80.0, 15, 1).await;
    let drawn = read(&app, person.id, "/games/weekly?week=2026-W09").await;
    assert_eq!(numbers(&drawn), (80.0, FRIDAY, 15, 1));
    // First Hash and the prize.
    assert_eq!(game_of(&app, &person).await, [150, 2, 1, 10, 0]);
    // The next week's row was begun when the address was nobody's.
    let next = read(&app, person.id, "/games/weekly").await;
    assert_eq!((&next["best_difficulty"], &next["total_shares"]), (&json!(0.0), &json!(0)));
}

#[tokio::test]
async fn what_the_second_wallet_mined_before_it_was_proven_counts_for_the_draw_alone() {
    let (app, person) = mined(50.0).await;
    let second = address_of(&wallet(2));
    mine(&app, &second, WEDNESDAY, 5, 80.0).await;
    assert_eq!(numbers(&read(&app, person.id, "/games/weekly").await), (50.0, TUESDAY, 10, 2));

    prove_second(&app).await;
    app.run_job("lottery_ranking").await;
    let live = read(&app, person.id, "/games/weekly").await;
    assert_eq!(numbers(&live), (80.0, WEDNESDAY, 15, 1));
    let days = &live["daily_best_diffs"];
    assert_eq!((&days["tue"], &days["wed"]), (&json!(50.0), &json!(80.0)));

    draw_on(&app, MONDAY).await;
    assert_eq!(entries(&app).await[0], (person.id, second.clone(), 80.0, 15));
    assert_proof(&app, &person, &second, 80.0, 15, 1).await;
    assert_eq!(game_of(&app, &person).await, [150, 2, 1, 10, 0]);
}

/// Typed in is not proven: nobody gets the shares of a stranger's rig.
#[tokio::test]
async fn what_an_address_mined_before_it_was_typed_in_is_in_no_draw() {
    let (app, person) = mined(50.0).await;
    let second = address_of(&wallet(2));
    mine(&app, &second, WEDNESDAY, 5, 80.0).await;
    type_second_in(&app).await;

    draw_on(&app, MONDAY).await;
    assert_eq!(entries(&app).await, [rival(), (person.id, person.address.clone(), 50.0, 10)]);
    assert_proof(&app, &person, &person.address, 50.0, 10, 2).await;
}

/// Shares to an address before anybody was it: mining counts them once the address is proven, the game never does.
#[tokio::test]
async fn who_mined_before_their_account_starts_the_game_at_nothing() {
    let app = App::at(at(TUESDAY)).await;
    mine(&app, &address_of(&wallet(1)), TUESDAY, 10, 2e6).await;
    app.clock.set(at(WEDNESDAY));
    let person = app.miner(1).await;
    app.consume().await;

    let mined = "SELECT total_shares FROM weekly_best_diff WHERE user_id IS NOT NULL";
    assert_eq!(app.db.number(mined).await, 10);
    assert_eq!(app.db.number("SELECT count(*) FROM xp_ledger").await, 0);
    assert_eq!(app.db.number("SELECT count(*) FROM user_badges").await, 0);
    let state = read(&app, person.id, "/users/me/gamification").await;
    assert_eq!(
        (&state["xp"]["total_xp"], &state["streak"]["current_streak"]),
        (&json!(0), &json!(0)),
        "{state}"
    );
    // From here on each share counts.
    mine(&app, &person.address, WEDNESDAY, 1, 5.0).await;
    assert_eq!(app.db.number("SELECT count(*) FROM user_badges").await, 1);
}
