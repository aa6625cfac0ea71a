//! Every publisher is on the map (contract `realtime.md`, pitfall 4): what may be published is the closed list
//! [`LiveEvent`], the bridge maps it by an exhaustive match, and nobody publishes past it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tbg_core::UserId;
use tbg_core::live::{LiveEvent, LiveMessage};
use tbg_tests::app::App;

/// Every event of the contract's section 5 with its channel there.
const CONTRACT: [(&str, &str); 19] = [
    ("share_submitted", "mining"),
    ("worker_status", "mining"),
    ("hashrate_update", "mining"),
    ("best_diff", "mining"),
    ("block_found", "dashboard"),
    ("feed_item", "dashboard"),
    ("stats_update", "dashboard"),
    ("event_reminder", "dashboard"),
    ("lottery_drawn", "dashboard"),
    ("badge_earned", "gamification"),
    ("xp_gained", "gamification"),
    ("level_up", "gamification"),
    ("streak_update", "gamification"),
    ("leaderboard_update", "competition"),
    ("rank_changed", "competition"),
    ("match_update", "competition"),
    ("league_update", "competition"),
    ("notification", "notifications"),
    ("toast", "notifications"),
];

#[tokio::test]
async fn every_event_that_may_be_published_arrives_on_the_contracts_channel() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    for channel in ["mining", "dashboard", "gamification", "competition"] {
        socket.subscribe(channel).await;
    }
    assert_eq!(LiveEvent::ALL.len(), CONTRACT.len());

    for (event, channel) in CONTRACT {
        let message = LiveMessage::personal(
            LiveEvent::of_name(event).expect(event),
            UserId(person.id),
            json!({ "x": 1, "finder_user_id": person.id }),
        );
        app.bus.publish(&[message]).await;

        let came = socket.next().await.json();
        assert_eq!((&came["channel"], &came["data"]["type"]), (&json!(channel), &json!(event)), "{came}");
        let text = came.to_string();
        assert!(!text.contains("user_id") && !text.contains("_cursor"), "{text}");
    }
}

/// Source files of the product.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn nobody_publishes_past_the_list() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut files = Vec::new();
    sources(&crates, &mut files);
    assert!(files.len() > 100, "{}", files.len());

    for file in files {
        let text = fs::read_to_string(&file).expect("a source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_bridge = file.components().any(|part| part.as_os_str() == "tbg-realtime");
        let is_list = file.ends_with("tbg-core/src/live.rs");
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let names_a_channel = line.contains("\"pubsub:") || line.contains("\"ws:user:");
            assert!(!names_a_channel || is_bridge || is_list, "{}: {line}", file.display());
        }
    }
}
