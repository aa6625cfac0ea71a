//! Events, their defaults and their miners (contract `mining.md` §1, §2.2).

use serde_json::{Value, json};

use super::{MICROS, SHARE, TS, assert_reason, at, envelope, other, payload, read, read_entry, refuse_entry};
use crate::decode::Reason;
use crate::event::{BlockFound, Connected, EventKind, NetworkBlock, Share};

#[test]
fn every_event_without_data_gets_the_defaults_of_the_contract() {
    let cases = [
        (
            EventKind::ShareSubmitted(Share { accepted: true, ..Share::default() }),
            json!({"user": "unknown", "worker": "unknown", "client_id": 0, "diff": 0.0, "sdiff": 0.0,
                "accepted": true, "reject_reason": "", "ip": ""}),
        ),
        (
            EventKind::ShareBestDiff { new_best: 0.0 },
            json!({"user": "unknown", "worker": "unknown", "new_best": 0.0, "prev_best": 0.0,
                "timeframe": "session"}),
        ),
        (
            EventKind::BlockFound(BlockFound::default()),
            json!({"user": "unknown", "worker": "unknown", "height": 0, "hash": "", "diff": 0.0,
                "network_diff": 0.0, "reward_sats": 0, "coinbase_sig": ""}),
        ),
        (
            EventKind::MinerConnected(Connected { initial_diff: 1.0, ..Connected::default() }),
            json!({"user": "unknown", "worker": "unknown", "client_id": 0, "ip": "", "useragent": "",
                "initial_diff": 1.0, "asicboost_capable": false}),
        ),
        (
            EventKind::MinerDisconnected,
            json!({"user": "unknown", "worker": "unknown", "client_id": 0, "ip": "",
                "session_duration": 0.0, "shares_session": 0}),
        ),
        (
            EventKind::DiffUpdated { new_diff: 0.0 },
            json!({"user": "unknown", "worker": "unknown", "client_id": 0, "old_diff": 0.0,
                "new_diff": 0.0, "ema_share_rate": 0.0, "stable_intervals": 0, "adjustment_count": 0}),
        ),
        (
            EventKind::HashrateUpdate { rates: [0.0; 4] },
            json!({"user": "unknown", "worker": "unknown", "hashrate_1m": 0.0, "hashrate_5m": 0.0,
                "hashrate_1h": 0.0, "hashrate_1d": 0.0}),
        ),
        (
            EventKind::NewBlockNetwork(NetworkBlock::default()),
            json!({"height": 0, "hash": "", "diff": 0.0, "prev_hash": ""}),
        ),
        (
            EventKind::AsicboostDetected,
            json!({"user": "unknown", "worker": "unknown", "pool_mask": "", "miner_mask": ""}),
        ),
        (other("pool_restarted"), json!({})),
    ];
    for (kind, stored) in cases {
        let name = kind.name().to_owned();
        let bare = read(&format!(r#"{{"event":"{name}","ts":{TS}}}"#));
        assert_eq!(payload(&bare), stored, "{name}");
        assert_eq!(bare.kind, kind, "{name}");
        assert_eq!(bare.ts, at(MICROS));
        assert_eq!((bare.source.as_str(), bare.region.as_str()), ("hosted", ""));
        assert_eq!(bare.event_id, None);
        assert!(!bare.has_miner(), "{name}");
        assert_eq!(read(&envelope(&name, "{}")), bare, "{name}");
        assert_eq!(read_entry(&name, &[("ts", TS), ("data", "{}")]), bare, "{name}");
    }
}

#[test]
fn a_share_is_read_in_full_and_its_extras_are_kept() {
    let event = read(SHARE);
    let share = Share {
        diff: 512.0,
        sdiff: 4096.5,
        accepted: true,
        reject_reason: String::new(),
        ip: Some("203.0.113.9".parse().unwrap()),
        nonce: Some("1a2b3c4d".to_owned()),
        nonce2: Some("00ff".to_owned()),
        hash: Some("00ab".to_owned()),
    };
    assert_eq!(event.share(), Some(&share));
    assert_eq!(event.ts, at(MICROS));
    assert_eq!((event.source.as_str(), event.region.as_str()), ("proxy", "eu-west"));
    assert_eq!(event.event_id.as_deref(), Some("0190a3b4-7c8d-7000-b123-456789abcdef"));
    assert_eq!((event.user.as_str(), event.worker.as_str()), ("bc1qexample", "rig1"));
    assert_eq!(
        payload(&event),
        json!({"user": "bc1qexample", "worker": "bc1qexample.rig1", "client_id": 7, "diff": 512.0,
            "sdiff": 4096.5, "accepted": true, "reject_reason": "", "ip": "203.0.113.9",
            "nonce": "1a2b3c4d", "nonce2": "00ff", "hash": "00ab", "ntime": "65d7", "job_id": "j1"})
    );
}

#[test]
fn every_other_event_is_read_in_full() {
    let cases = [
        (
            r#"{"user":"A","worker":"A.r","new_best":9.5,"prev_best":3,"timeframe":"alltime"}"#,
            EventKind::ShareBestDiff { new_best: 9.5 },
            json!({"user": "A", "worker": "A.r", "new_best": 9.5, "prev_best": 3.0,
                "timeframe": "alltime"}),
        ),
        (
            r#"{"user":"A","worker":"A.r","height":2147483647,"hash":"00cd","diff":2,"network_diff":1.5,"reward_sats":312500001,"coinbase_sig":"/tbg/"}"#,
            EventKind::BlockFound(BlockFound {
                height: i32::MAX,
                hash: Some("00cd".to_owned()),
                diff: 2.0,
                network_diff: 1.5,
                reward_sats: 312_500_001,
                coinbase_sig: "/tbg/".to_owned(),
            }),
            json!({"user": "A", "worker": "A.r", "height": 2_147_483_647, "hash": "00cd", "diff": 2.0,
                "network_diff": 1.5, "reward_sats": 312_500_001, "coinbase_sig": "/tbg/"}),
        ),
        (
            r#"{"user":"A","worker":"A.r","client_id":3,"ip":"2001:db8::1","useragent":"bitaxe/2.1","initial_diff":10000,"asicboost_capable":true}"#,
            EventKind::MinerConnected(Connected {
                ip: Some("2001:db8::1".parse().unwrap()),
                useragent: "bitaxe/2.1".to_owned(),
                initial_diff: 10_000.0,
            }),
            json!({"user": "A", "worker": "A.r", "client_id": 3, "ip": "2001:db8::1",
                "useragent": "bitaxe/2.1", "initial_diff": 10_000.0, "asicboost_capable": true}),
        ),
        (
            r#"{"user":"A","worker":"A.r","client_id":3,"ip":"192.0.2.1","session_duration":61.5,"shares_session":12,"reason":"timeout"}"#,
            EventKind::MinerDisconnected,
            json!({"user": "A", "worker": "A.r", "client_id": 3, "ip": "192.0.2.1",
                "session_duration": 61.5, "shares_session": 12, "reason": "timeout"}),
        ),
        (
            r#"{"user":"A","worker":"A.r","client_id":3,"old_diff":512,"new_diff":1024,"ema_share_rate":0.25,"stable_intervals":4,"adjustment_count":2}"#,
            EventKind::DiffUpdated { new_diff: 1024.0 },
            json!({"user": "A", "worker": "A.r", "client_id": 3, "old_diff": 512.0, "new_diff": 1024.0,
                "ema_share_rate": 0.25, "stable_intervals": 4, "adjustment_count": 2}),
        ),
        (
            r#"{"user":"A","worker":"A.r","hashrate_1m":1,"hashrate_5m":2,"hashrate_1h":3,"hashrate_1d":4}"#,
            EventKind::HashrateUpdate { rates: [1.0, 2.0, 3.0, 4.0] },
            json!({"user": "A", "worker": "A.r", "hashrate_1m": 1.0, "hashrate_5m": 2.0,
                "hashrate_1h": 3.0, "hashrate_1d": 4.0}),
        ),
        (
            r#"{"user":"A","worker":"A.r","pool_mask":"1fffe000","miner_mask":"18000000"}"#,
            EventKind::AsicboostDetected,
            json!({"user": "A", "worker": "A.r", "pool_mask": "1fffe000", "miner_mask": "18000000"}),
        ),
    ];
    for (data, kind, stored) in cases {
        let event = read(&envelope(kind.name(), data));
        assert_eq!(event.kind, kind);
        assert_eq!(payload(&event), stored);
        assert_eq!((event.user.as_str(), event.worker.as_str()), ("A", "r"));
        assert!(event.has_miner());
    }
}

#[test]
fn a_block_of_the_network_is_about_no_miner() {
    let data = r#"{"height":905,"hash":"00aa","diff":1.5,"prev_hash":"00bb"}"#;
    let event = read(&envelope("new_block_network", data));
    let block = NetworkBlock { height: 905, hash: "00aa".to_owned(), diff: 1.5 };
    assert_eq!(event.kind, EventKind::NewBlockNetwork(block));
    assert_eq!(payload(&event), json!({"height": 905, "hash": "00aa", "diff": 1.5, "prev_hash": "00bb"}));
    assert_eq!((event.user.as_str(), event.worker.as_str()), ("", ""));
}

#[test]
fn a_rejected_share_keeps_its_reason() {
    let data = r#"{"user":"A","accepted":false,"reject_reason":"Stale"}"#;
    let event = read(&envelope("share_submitted", data));
    let share = event.share().unwrap();
    assert!(!share.accepted);
    assert_eq!(share.reject_reason, "Stale");
}

#[test]
fn hashrate_24h_is_another_name_of_hashrate_1d() {
    let event = read(&envelope("hashrate_update", r#"{"hashrate_24h":5}"#));
    assert_eq!(event.kind, EventKind::HashrateUpdate { rates: [0.0, 0.0, 0.0, 5.0] });
    assert_eq!(payload(&event)["hashrate_1d"], json!(5.0));
}

#[test]
fn an_ip_that_cannot_be_read_loses_no_share() {
    let event = read(&envelope("share_submitted", r#"{"user":"A","ip":"unix:"}"#));
    assert_eq!(event.share().unwrap().ip, None);
    assert_eq!(payload(&event)["ip"], "unix:");
}

#[test]
fn unknown_data_keys_are_kept_in_the_payload() {
    let data = r#"{"user":"A","zulu":{"a":[1,2.5,null,true,"x"]},"alpha":-3}"#;
    for name in ["share_submitted", "asicboost_detected", "new_block_network", "odd_event"] {
        let stored = payload(&read(&envelope(name, data)));
        assert_eq!(stored["zulu"], json!({"a": [1, 2.5, null, true, "x"]}), "{name}");
        assert_eq!(stored["alpha"], json!(-3), "{name}");
    }
}

#[test]
fn an_unknown_event_is_kept_raw_with_its_name() {
    let data = r#"{"user":"A","worker":"A.r","diff":"5","accepted":"perhaps","height":-1}"#;
    let event = read(&envelope("pool_restarted", data));
    assert_eq!(event.kind, other("pool_restarted"));
    assert_eq!(event.kind.label(), "other");
    assert_eq!(payload(&event), serde_json::from_str::<Value>(data).unwrap());
    assert_eq!((event.user.as_str(), event.worker.as_str()), ("A", "r"));

    for data in [
        r#"{"user":5}"#.to_owned(),
        r#"{"user":"a b"}"#.to_owned(),
        format!(r#"{{"user":"{}"}}"#, "a".repeat(91)),
    ] {
        let event = read(&envelope("pool_restarted", &data));
        assert_eq!(event.user, "", "{data}");
        assert_eq!(payload(&event), serde_json::from_str::<Value>(&data).unwrap());
    }
}

#[test]
fn an_event_name_is_lower_case_and_at_most_64_characters() {
    let longest = format!("a{}", "_9".repeat(31) + "b");
    assert_eq!(longest.len(), 64);
    assert_eq!(read(&envelope(&longest, "{}")).kind, other(&longest));
    for name in ["", "Share", "1x", "_x", "a-b", "a.b", "a b", "é", "aé", &format!("{longest}c")] {
        assert_reason(envelope(name, "{}"), Reason::BadValue);
        assert_eq!(refuse_entry(name, &[("ts", TS), ("data", "{}")]).reason, Reason::BadValue, "{name}");
    }
}

// --- workers and users (§1)

#[test]
fn workers_are_called_by_their_short_name_and_stored_as_published() {
    for (worker, short) in [
        ("A.rig1", "rig1"),
        ("A_rig1", "rig1"),
        ("A.rig.1", "rig.1"),
        ("A", "default"),
        ("", "default"),
        ("rig1", "rig1"),
        ("B.x", "x"),
        ("A.", "default"),
    ] {
        for name in ["share_submitted", "block_found", "odd_event"] {
            let event = read(&envelope(name, &format!(r#"{{"user":"A","worker":"{worker}"}}"#)));
            assert_eq!(event.worker, short, "{worker}");
            assert_eq!(payload(&event)["worker"], worker);
        }
    }
}

#[test]
fn an_escaped_quote_in_a_worker_name_is_part_of_the_name() {
    let event = read(&envelope("share_submitted", r#"{"user":"A","worker":"A.x\",\"sdiff\":9e9,\"y\":\""}"#));
    assert_eq!(event.worker, r#"x","sdiff":9e9,"y":""#);
    assert_eq!(event.share().unwrap().sdiff.to_bits(), 0);
    assert_eq!(read(&event.to_envelope()), event);
}

#[test]
fn a_user_is_letters_and_digits_only() {
    for user in ["a b", "A.rig1", "A_rig1", "é", "a\\\"b", "../x", "a:b"] {
        assert_reason(envelope("share_submitted", &format!(r#"{{"user":"{user}"}}"#)), Reason::BadValue);
    }
}

#[test]
fn unknown_pool_and_nobody_are_no_miners() {
    for user in ["unknown", "pool", ""] {
        let event = read(&envelope("block_found", &format!(r#"{{"user":"{user}","height":9}}"#)));
        assert_eq!(event.user, user);
        assert!(!event.has_miner());
    }
}

/// Found by fuzzing: without a user, nothing cut the worker to a name's length.
#[test]
fn an_unknown_event_without_a_user_keeps_no_overlong_worker() {
    for (length, kept) in [(128, 128), (129, 0)] {
        let line =
            format!(r#"{{"event":"novelty","ts":1771804900,"data":{{"worker":"{}"}}}}"#, "x".repeat(length));
        assert_eq!(crate::decode::decode_text(&line).unwrap().worker.len(), kept);
    }
}
