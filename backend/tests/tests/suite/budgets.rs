//! What a read may cost: at most two statements and two Redis operations (design §2). All reads of the
//! document that a signed-in user has, with caches off: the dearest case. A new read is measured by being there.

use tbg_tests::app::App;
use tbg_tests::statements::{Commands, Statements};
use tbg_tests::{at, share};

/// Statements and Redis commands. Live workers take three commands in two round trips: which there are (with
/// the network in the same pipeline), then what they do.
fn budget(path: &str) -> (usize, usize) {
    match path {
        // Documented only: several answers in one.
        "/api/v1/mining/dashboard" => (4, 3),
        "/api/v1/mining/difficulty" => (3, 3),
        // With everybody's bests, which one request in ten seconds reads where caches are on.
        "/api/v1/dashboard/stats" => (3, 3),
        // A ranking: size, score and rank, with the network in one pipeline.
        "/api/v1/lottery/current" => (2, 4),
        path if path.starts_with("/api/v1/games/weekly") => (2, 4),
        _ => (2, 3),
    }
}

/// Paths of reads for users, with parameters filled in.
pub(crate) async fn reads(app: &App) -> Vec<String> {
    let document = app.get("/openapi.json", None).await.ok();
    let paths = document["paths"].as_object().expect("paths");
    let mut reads: Vec<String> = paths
        .iter()
        .filter(|(_, item)| item["get"]["x-auth-class"].as_str() == Some("user"))
        .map(|(path, _)| {
            let filled =
                path.replace("{name}", "rig1").replace("{height}", "1").replace("{slug}", "first_share");
            filled.replace("{week}", "2026-W08").replace("{game}", "hammer")
        })
        .collect();
    reads.sort();
    reads
}

#[tokio::test]
async fn a_read_costs_two_statements_and_two_redis_round_trips_at_most() {
    let app = App::at(at("2026-02-25T12:34:56Z")).await;
    let person = app.miner(1).await;
    let ts = (tbg_core::Clock::now(&app.clock).timestamp() - 5).to_string();
    app.feed(&[share(&person.address, "rig1", &ts, 1024.0, 4096.5, true)]).await;
    app.run_job("lottery_ranking").await;
    let reads = reads(&app).await;
    assert!(reads.len() >= 25, "{reads:?}");
    let mut commands = Commands::watch(&app.redis).await;
    // Who asks is known for a second.
    assert_eq!(app.get("/api/v1/users/me", Some(&person.access)).await.status, 200);
    let statements = Statements::watch();

    let mut table = Vec::new();
    let mut over = Vec::new();
    for path in reads {
        let _ = (statements.take(), commands.take().await);
        let answer = app.get(&path, Some(&person.access)).await;
        assert!(answer.status < 500, "{path}: {}", answer.text);
        let (asked, used) = (statements.take(), commands.take().await);
        table.push(format!("{path} {asked} {}", used.len()));
        let (statements_max, commands_max) = budget(&path);
        if asked > statements_max || used.len() > commands_max {
            over.push(format!("{path}: {asked} statements, {} Redis operations {used:?}", used.len()));
        }
    }

    assert!(table.iter().any(|line| line.ends_with(" 2 0")), "statements are seen: {table:#?}");
    assert!(over.is_empty(), "{over:#?}");
    insta::assert_snapshot!("statements_and_redis_operations_per_read", table.join("\n"));
}
