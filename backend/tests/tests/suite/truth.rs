//! The hour's hashrate against the truth: the simulator knows how fast each of its miners really is.

use chrono::DateTime;
use tbg_engine::decode::decode_text;
use tbg_mining::live::LiveWorker;
use tbg_sim::{SimConfig, Simulator};

const MINERS: u32 = 500;
const HOUR_US: i64 = 3_600_000_000;
/// How many standard errors a rate may be off; a normal variable is within three in 99.7 % of cases.
const ERRORS: f64 = 3.0;

#[test]
fn after_an_hour_the_1h_rate_is_within_the_statistical_error_for_99_of_100_miners() {
    let config = SimConfig {
        miners: MINERS,
        reject_rate: 0.0,
        duplicate_rate: 0.0,
        out_of_order_rate: 0.0,
        mean_session_seconds: f64::INFINITY,
        ..SimConfig::default()
    };
    let end_us = config.start_us + HOUR_US;
    let simulator = Simulator::new(config);
    let truth: Vec<f64> = simulator.miners().iter().map(|miner| miner.hashrate_hs).collect();
    let mut workers = vec![(LiveWorker::default(), 0_u32, 0_i64); truth.len()];

    for event in simulator.take_while(|event| event.ts_us < end_us) {
        let Some(miner) = event.miner.filter(|_| event.event == "share_submitted") else { continue };
        let (worker, shares, first_us) = &mut workers[miner as usize];
        let decoded = decode_text(&event.json).expect("an event of the pool");
        worker.apply(&decoded, DateTime::from_timestamp_micros(event.arrive_us).expect("an instant"));
        *shares += 1;
        if *first_us == 0 {
            *first_us = event.ts_us;
        }
    }

    let mut within = 0;
    for ((worker, shares, first_us), rate) in workers.iter().zip(&truth) {
        // The average of `mining.md` §4.1 begins at nothing: by then it has come to 1 - e^(-t/h) of the rate.
        let elapsed_h = (end_us - first_us) as f64 / HOUR_US as f64;
        let expected = rate * (1.0 - (-elapsed_h).exp());
        // Of a sum of `shares` exponentially weighted waits over one time constant.
        let error = 1.04 / f64::from(*shares).sqrt();
        let off = (worker.averages.rates()[2] / expected - 1.0).abs();
        within += u32::from(off <= ERRORS * error);
    }

    assert!(within * 100 >= MINERS * 99, "{within} of {MINERS}");
}
