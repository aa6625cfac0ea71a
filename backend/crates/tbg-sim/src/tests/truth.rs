//! The statistics of a simulation against what it was told to simulate.

use std::collections::{BTreeSet, HashMap};

use super::{calm, data, events, number};
use crate::{SimConfig, Simulator};

#[test]
fn work_matches_the_hashrate_and_vardiff_finds_its_target() {
    let config = calm(200);
    let end = config.start_us + 3600 * 1_000_000;
    let mut work: HashMap<u32, f64> = HashMap::new();
    let mut since: HashMap<u32, i64> = HashMap::new();
    let mut diffs: HashMap<u32, f64> = HashMap::new();
    for event in events(&config, 3600) {
        let Some(miner) = event.miner else { continue };
        let data = data(&event);
        match event.event {
            "miner_connected" => {
                since.insert(miner, event.ts_us);
                diffs.insert(miner, number(&data, "initial_diff"));
            }
            "share_submitted" => {
                let diff = number(&data, "diff");
                assert_eq!(Some(&diff), diffs.get(&miner), "share at another difficulty");
                assert!(number(&data, "sdiff") >= diff);
                *work.entry(miner).or_default() += diff * 4_294_967_296.0;
            }
            "diff_updated" => {
                let (old, new) = (number(&data, "old_diff"), number(&data, "new_diff"));
                assert!((0.25..=4.0).contains(&(new / old)) && new >= 512.0 && new != old);
                assert!(new.fract() == 0.0);
                assert_eq!(diffs.insert(miner, new), Some(old));
            }
            _ => {}
        }
    }
    let simulator = Simulator::new(config);
    let (mut ratios, mut on_target) = (0.0, 0_u32);
    for (index, miner) in (0_u32..).zip(simulator.miners()) {
        let seconds = (end - since.get(&index).copied().unwrap_or(end)) as f64 / 1e6;
        let done = work.get(&index).copied().unwrap_or_default();
        ratios += done / seconds / miner.hashrate_hs / 200.0;
        let right = miner.hashrate_hs * 15.0 / 4_294_967_296.0;
        let diff = diffs.get(&index).copied().unwrap_or_default();
        on_target += u32::from((0.25..=4.0).contains(&(diff / right)));
    }
    assert!((0.95..=1.05).contains(&ratios), "work over truth is {ratios}");
    assert!(on_target >= 180, "{on_target} of 200 on target");
}

#[test]
fn copies_of_a_share_are_close_together() {
    let config = SimConfig { duplicate_rate: 0.2, out_of_order_rate: 0.05, ..calm(100) };
    let mut groups: HashMap<(u32, u64), Vec<i64>> = HashMap::new();
    for event in events(&config, 1800) {
        if let ("share_submitted", Some(miner)) = (event.event, event.miner) {
            let sdiff = number(&data(&event), "sdiff").to_bits();
            groups.entry((miner, sdiff)).or_default().push(event.ts_us);
        }
    }
    let mut repeated = 0_usize;
    for times in groups.values() {
        assert!(times.len() <= 3);
        let (first, last) = (times.iter().min(), times.iter().max());
        assert!(first.zip(last).is_some_and(|(first, last)| last - first < 500));
        repeated += usize::from(times.len() > 1);
    }
    let part = repeated as f64 / groups.len() as f64;
    assert!((0.15..0.25).contains(&part), "{part} are repeated");
}

#[test]
fn bests_follow_accepted_shares_only() {
    let config = SimConfig { reject_rate: 0.2, ..calm(50) };
    let mut best: HashMap<u32, f64> = HashMap::new();
    let mut last: HashMap<u32, f64> = HashMap::new();
    let mut rejected = BTreeSet::new();
    for event in events(&config, 1800) {
        let Some(miner) = event.miner else { continue };
        let data = data(&event);
        if event.event == "share_submitted" {
            last.remove(&miner);
            if data["accepted"] == true {
                last.insert(miner, number(&data, "sdiff"));
            } else {
                rejected.insert(data["reject_reason"].as_str().unwrap_or_default().to_owned());
            }
        } else if event.event == "share_best_diff" {
            let new = number(&data, "new_best");
            assert_eq!(last.get(&miner), Some(&new));
            let prev = best.insert(miner, new).unwrap_or(0.0);
            assert_eq!(prev, number(&data, "prev_best"));
            assert!(new > prev);
        }
    }
    assert!(best.len() == 50);
    let reasons = ["Above target", "Duplicate", "Stale"];
    assert_eq!(rejected, BTreeSet::from(reasons.map(str::to_owned)));
}

#[test]
fn the_population_is_plausible() {
    let simulator = Simulator::new(SimConfig { miners: 2000, ..SimConfig::default() });
    let miners = simulator.miners();
    let mut names = BTreeSet::new();
    for miner in miners {
        assert!(miner.worker.len() <= 128 && miner.worker.starts_with(&miner.address));
        let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        assert!(miner.worker.chars().all(legal), "{}", miner.worker);
        assert!(names.insert(miner.worker.as_str()), "{} twice", miner.worker);
        assert!((0.4e12..=400e12).contains(&miner.hashrate_hs));
    }
    assert!(miners.iter().any(|miner| miner.worker == miner.address));
    assert!(miners.iter().any(|miner| miner.worker.len() >= 100));
    let further = miners.iter().filter(|miner| miner.rig > 1).count();
    assert!((300..500).contains(&further), "{further}");
    let below_median = miners.iter().filter(|miner| miner.hashrate_hs < 1.2e12).count();
    assert!((850..1150).contains(&below_median), "{below_median}");
    assert!(miners.iter().any(|miner| miner.hashrate_hs > 50e12));
}
