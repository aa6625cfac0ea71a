//! A draw of more entries than fit into one part of anything: results are told by 500, 20 such events are written at
//! once, and a file is read by 1,000 lines (contract `games.md` §3, §4 no. 13).

use serde_json::Value;
use tbg_games::rules::proof::verify;
use tbg_tests::app::{App, request};
use tbg_tests::at;
use tbg_tests::program::until;
use tower::ServiceExt as _;

use super::{MONDAY, assert_sound, draw_on};

/// Two groups of events, the second with one event of one result.
const ENTRANTS: i64 = 10_001;
const FILE: &str = "/api/v1/lottery/proofs/2026-W09/file";

async fn many() -> App {
    let app = App::at(at("2026-03-02T00:00:00Z")).await;
    for statement in [
        "INSERT INTO users (btc_address) SELECT 'bc1qmany' || n FROM generate_series(1, 10001) AS n",
        "INSERT INTO weekly_best_diff (user_id, btc_address, week_start, best_difficulty, best_share_time, total_shares)
         SELECT id, btc_address, '2026-02-23', 1e6 - id, '2026-02-25T12:00:00Z', 1 FROM users",
    ] {
        app.db.change(statement).await;
    }
    draw_on(&app, MONDAY).await;
    app
}

#[tokio::test]
async fn a_draw_of_ten_thousand_pays_each_and_its_file_is_whole_and_limited() {
    let app = many().await;

    // Everybody is paid what their rank is worth, once.
    let unpaid = "SELECT count(*) FROM lottery_results r
        LEFT JOIN LATERAL (SELECT count(*) AS rows, sum(amount) AS xp FROM xp_ledger l
                           WHERE l.user_id = r.user_id AND l.source = 'competition') paid ON TRUE
        WHERE paid.rows <> 1 OR paid.xp <> r.xp_awarded OR r.xp_awarded = 0";
    assert_eq!(app.db.number("SELECT count(*) FROM lottery_results").await, ENTRANTS);
    assert_eq!(app.db.number(unpaid).await, 0);
    assert_sound(&app, 1).await;
    let file = app.get(FILE, None).await;
    let report = verify(file.text.as_bytes()).unwrap();
    assert_eq!((report.ok, i64::try_from(report.entries)), (true, Ok(ENTRANTS)));
    let listed: Value = serde_json::from_str(&file.text).unwrap();
    let ranks: Vec<i64> =
        listed["entries"].as_array().unwrap().iter().map(|entry| entry["rank"].as_i64().unwrap()).collect();
    assert_eq!(ranks.iter().sum::<i64>(), ENTRANTS * (ENTRANTS + 1) / 2);

    // Four may read it at once. Who goes makes room.
    let reader = async || app.router.clone().oneshot(request("GET", FILE, None, None)).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(reader().await);
    }
    assert!(readers.iter().all(|reader| reader.status() == 200));
    let refused = app.get(FILE, None).await;
    assert_eq!(refused.outcome(), (503, "SERVICE_UNAVAILABLE"));
    assert!(refused.header("retry-after").parse::<u32>().is_ok());
    readers.pop();
    assert!(until(async || app.get(FILE, None).await.status == 200).await, "nobody made room");
}
