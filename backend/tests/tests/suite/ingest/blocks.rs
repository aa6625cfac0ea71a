//! Blocks: one row whatever arrives in what order, rewards, confirmations, the solving share (§3.6).

use tbg_tests::{Game, share};

use crate::support::{USER, envelope, named_user};

fn found(user: &str, ts: &str, more: &str) -> String {
    let data = format!(r#"{{"user":"{user}","worker":"{user}.rig1","height":900{more}}}"#);
    envelope("block_found", ts, &data)
}

fn network(ts: &str, height: i32, hash: &str, diff: f64) -> String {
    envelope("new_block_network", ts, &format!(r#"{{"height":{height},"hash":"{hash}","diff":{diff}}}"#))
}

async fn title(game: &Game) -> String {
    sqlx::query_scalar("SELECT title FROM activity_feed").fetch_one(&game.db.pool).await.unwrap()
}

async fn confirmations(game: &Game) -> (i32, bool) {
    sqlx::query_as("SELECT confirmations, confirmed FROM blocks").fetch_one(&game.db.pool).await.unwrap()
}

#[tokio::test]
async fn a_block_that_the_pool_and_the_finder_report_is_one_block_of_the_finder() {
    let pool = found("pool", "1771804800.0", "");
    let finder = found(USER, "1771804801.0", "");
    let deliveries =
        [vec![vec![&pool, &finder]], vec![vec![&pool], vec![&finder]], vec![vec![&finder], vec![&pool]]];
    for batches in deliveries {
        let mut game = Game::new().await;
        let user = game.db.user(USER).await;

        for batch in &batches {
            game.apply(&batch.iter().map(|line| (*line).clone()).collect::<Vec<_>>()).await;
        }

        let block: (i64, i32, String, String, i64) =
            sqlx::query_as("SELECT id, block_height, btc_address, worker_name, user_id FROM blocks")
                .fetch_one(&game.db.pool)
                .await
                .unwrap();
        let id = block.0;
        assert_eq!(block, (id, 900, USER.to_owned(), "rig1".to_owned(), user));
        assert_eq!(game.db.number("SELECT count(*) FROM blocks").await, 1);
        let celebrations: Vec<(i64, i64, bool)> =
            sqlx::query_as("SELECT block_id, user_id, celebrated FROM block_celebrations")
                .fetch_all(&game.db.pool)
                .await
                .unwrap();
        assert_eq!(celebrations, [(id, user, false)]);
        assert_eq!(title(&game).await, "Miner-bc1qexam found block #900!");
        let outbox: Vec<(String, Option<i64>, bool)> = sqlx::query_as(
            "SELECT topic, user_id,
                    payload @> jsonb_build_object('block_id', (SELECT id FROM blocks), 'height', 900,
                                                  'user_id', user_id, 'reward_sats', 5000000000)
             FROM domain_outbox WHERE topic = 'BlockAttributed'",
        )
        .fetch_all(&game.db.pool)
        .await
        .unwrap();
        assert_eq!(outbox, [("BlockAttributed".to_owned(), Some(user), true)]);
        game.close().await;
    }
}

#[tokio::test]
async fn a_block_is_confirmed_when_six_blocks_lie_above_it_and_stays_so() {
    let mut game = Game::new().await;
    game.apply(&[found(USER, "1771804800.0", "")]).await;
    let mut seen = Vec::new();

    for (second, height) in [(10, 905), (20, 906), (30, 903)] {
        game.apply(&[network(&format!("17718048{second}.0"), height, "aa", 7.0)]).await;
        seen.push(confirmations(&game).await);
    }

    assert_eq!(seen, [(5, false), (6, true), (6, true)]);
    game.close().await;
}

#[tokio::test]
async fn a_block_reported_after_the_network_moved_on_has_its_confirmations_at_once() {
    let mut game = Game::new().await;
    game.apply(&[network("1771804810.0", 906, "aa", 7.0)]).await;

    game.apply(&[found(USER, "1771804800.0", "")]).await;

    assert_eq!(confirmations(&game).await, (6, true));
    game.close().await;
}

#[tokio::test]
async fn the_feed_names_the_finder_by_his_public_name_whoever_reports_last() {
    let reports = [found(USER, "1771804800.0", ""), found("pool", "1771804801.0", "")];
    for order in [[0, 1], [1, 0]] {
        let mut game = Game::new().await;
        named_user(&game.db, "Alice").await;

        for index in order {
            game.apply(std::slice::from_ref(&reports[index])).await;
        }

        assert_eq!(title(&game).await, "Alice found block #900!", "order {order:?}");
        game.close().await;
    }
}

#[tokio::test]
async fn a_block_of_an_address_that_nobody_holds_is_celebrated_by_nobody() {
    let mut game = Game::new().await;

    game.apply(&[found("bc1qstranger", "1771804800.0", "")]).await;

    let owner: (Option<i64>, String) =
        sqlx::query_as("SELECT user_id, btc_address FROM blocks").fetch_one(&game.db.pool).await.unwrap();
    assert_eq!(owner, (None, "bc1qstranger".to_owned()));
    assert_eq!(title(&game).await, "Miner-bc1qstra found block #900!");
    assert_eq!(game.db.number("SELECT count(*) FROM block_celebrations").await, 0);
    assert_eq!(game.db.number("SELECT count(*) FROM domain_outbox").await, 0);
    game.close().await;
}

#[tokio::test]
async fn the_reward_is_exact_and_fees_are_known_only_with_a_published_reward() {
    let height = |height: i32, more: &str| {
        let data = format!(r#"{{"user":"{USER}","height":{height}{more}}}"#);
        envelope("block_found", &format!("17718048{:02}.0", height % 100), &data)
    };
    let mut game = Game::new().await;

    game.apply(&[
        height(840_000, ""),
        height(840_001, r#","reward_sats":320000001"#),
        height(840_002, r#","reward_sats":1"#),
    ])
    .await;

    let rows: Vec<(i32, String, Option<String>)> =
        sqlx::query_as("SELECT block_height, reward_btc::TEXT, fees_btc::TEXT FROM blocks ORDER BY 1")
            .fetch_all(&game.db.pool)
            .await
            .unwrap();
    let text = str::to_owned;
    let expected = [
        (840_000, text("3.12500000"), None),
        (840_001, text("3.20000001"), Some(text("0.07500001"))),
        (840_002, text("0.00000001"), None),
    ];
    assert_eq!(rows, expected);
    game.close().await;
}

#[tokio::test]
async fn two_hashes_at_one_height_are_two_blocks() {
    let mut game = Game::new().await;

    game.apply(&[found(USER, "1771804800.0", r#","hash":"aa""#)]).await;
    game.apply(&[found("bc1qother", "1771804801.0", r#","hash":"bb""#)]).await;

    assert_eq!(game.db.number("SELECT count(*) FROM blocks").await, 2);
    game.close().await;
}

#[tokio::test]
async fn what_is_known_of_a_block_is_kept_and_what_is_new_is_added() {
    let mut game = Game::new().await;

    game.apply(&[found("pool", "1771804800.0", r#","network_diff":1000000,"coinbase_sig":"hello""#)]).await;
    game.apply(&[found(USER, "1771804801.0", r#","hash":"aa","diff":2000000"#)]).await;
    game.apply(&[found("unknown", "1771804802.0", "")]).await;

    let row: (String, String, f64, f64, String) = sqlx::query_as(
        "SELECT btc_address, block_hash, difficulty, network_difficulty, coinbase_sig FROM blocks",
    )
    .fetch_one(&game.db.pool)
    .await
    .unwrap();
    assert_eq!(row, (USER.to_owned(), "aa".to_owned(), 2e6, 1e6, "hello".to_owned()));
    assert_eq!(game.db.number("SELECT count(*) FROM blocks").await, 1);
    game.close().await;
}

#[tokio::test]
async fn a_block_is_known_by_its_hash_before_it_is_known_by_its_height() {
    let mut game = Game::new().await;
    game.apply(&[found("pool", "1771804800.0", "")]).await;
    game.apply(&[found(USER, "1771805401.0", r#","hash":"aa""#)]).await;

    // Within ten minutes of the first row too, but its hash says which of the two it is.
    game.apply(&[found("bc1qother", "1771805390.0", r#","hash":"aa""#)]).await;

    let rows: Vec<(Option<String>, Option<String>)> =
        sqlx::query_as("SELECT block_hash, btc_address FROM blocks ORDER BY id")
            .fetch_all(&game.db.pool)
            .await
            .unwrap();
    assert_eq!(rows, [(None, None), (Some("aa".to_owned()), Some(USER.to_owned()))]);
    game.close().await;
}

#[tokio::test]
async fn the_share_that_solved_a_block_is_marked_whether_it_comes_before_with_or_after_it() {
    let shares = [
        share(USER, "rig1", "1771804800.000000", 1e5, 2e6, true),
        share(USER, "rig1", "1771804801.000000", 1e5, 9e5, true),
        share(USER, "rig1", "1771804802.000000", 1e5, 4e6, false),
        share(USER, "rig1", "1771804806.000000", 1e5, 3e6, true),
        share("bc1qstranger", "rig1", "1771804800.500000", 1e5, 5e6, true),
    ];
    let known = found(USER, "1771804800.000003", r#","network_diff":1000000"#);
    let bare = found(USER, "1771804800.000003", "");
    for block in [known, bare] {
        let together: Vec<String> = shares.iter().chain([&block]).cloned().collect();
        let deliveries = [
            vec![shares.to_vec(), vec![block.clone()]],
            vec![together],
            vec![vec![block.clone()], shares.to_vec()],
        ];
        for (number, batches) in deliveries.iter().enumerate() {
            let mut game = Game::new().await;
            game.apply(&[network("1771804700.0", 900, "99", 1e6)]).await;

            for batch in batches {
                game.apply(batch).await;
            }

            let solving: Vec<f64> = sqlx::query_scalar("SELECT share_diff FROM shares WHERE is_block")
                .fetch_all(&game.db.pool)
                .await
                .unwrap();
            assert_eq!(solving, [2e6], "delivery {number} of {block}");
            game.close().await;
        }
    }
}

#[tokio::test]
async fn a_height_of_the_network_is_replaced_only_by_a_newer_event_with_another_hash() {
    let mut game = Game::new().await;
    let mut seen = Vec::new();

    for (second, hash, diff) in [(20, "aa", 1.0), (10, "bb", 2.0), (30, "aa", 3.0), (40, "bb", 4.0)] {
        game.apply(&[network(&format!("17718048{second}.0"), 905, hash, diff)]).await;
        let row: (f64, String) = sqlx::query_as("SELECT difficulty, block_hash FROM network_difficulty")
            .fetch_one(&game.db.pool)
            .await
            .unwrap();
        seen.push(row);
    }

    let text = str::to_owned;
    assert_eq!(seen, [(1.0, text("aa")), (1.0, text("aa")), (1.0, text("aa")), (4.0, text("bb"))]);
    game.close().await;
}

/// The pool validates work: what it accepts above the network's difficulty is work, also when its block was lost to
/// another. It is a best, and no block.
#[tokio::test]
async fn a_share_above_the_networks_difficulty_without_a_block_is_a_best_and_no_block() {
    let mut game = Game::new().await;
    game.db.user(USER).await;

    game.apply(&[
        network("1771804799.000000", 900, "aa", 1000.0),
        share(USER, "rig1", "1771804800.000000", 512.0, 1500.0, true),
    ])
    .await;

    assert_eq!(game.db.number("SELECT count(*) FROM blocks").await, 0);
    assert_eq!(game.db.number("SELECT count(*) FROM shares WHERE is_block").await, 0);
    assert_eq!(game.db.number("SELECT max(best_difficulty)::BIGINT FROM weekly_best_diff").await, 1500);
    game.close().await;
}
