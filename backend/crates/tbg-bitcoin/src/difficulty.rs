//! Work, hashrate, subsidy and retarget arithmetic (contract `mining.md` §3.6, §4).

use crate::Network;

/// Hashes that a share of difficulty 1 stands for on average: 2^32.
pub const HASHES_PER_DIFFICULTY: f64 = 4_294_967_296.0;

/// Blocks between two difficulty adjustments.
pub const RETARGET_INTERVAL: u64 = 2016;

/// Average hashrate in H/s of accepted shares whose **assigned** difficulties add up to
/// `assigned_sum`, submitted within `window_seconds` (`mining.md` §4.1). Zero when either is not
/// positive.
#[must_use]
pub fn window_hashrate(assigned_sum: f64, window_seconds: f64) -> f64 {
    if assigned_sum > 0.0 && window_seconds > 0.0 {
        assigned_sum * HASHES_PER_DIFFICULTY / window_seconds
    } else {
        0.0
    }
}

/// Block subsidy in satoshi at `height`: 50 BTC, halved every `interval` blocks, zero after the
/// 33rd halving (`mining.md` §3.6).
#[must_use]
pub fn subsidy_sats(height: u32, network: Network) -> u64 {
    const FIRST_SUBSIDY_SATS: u64 = 5_000_000_000;
    let halvings = height / network.halving_interval();
    if halvings >= 33 { 0 } else { FIRST_SUBSIDY_SATS >> halvings }
}

/// Blocks until the next difficulty adjustment; `None` while the height is unknown (0)
/// (`mining.md` §4.7).
#[must_use]
pub fn next_retarget_blocks(height: u64) -> Option<u64> {
    (height > 0).then(|| RETARGET_INTERVAL - height % RETARGET_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-6 * b.abs()
    }

    #[test]
    fn window_hashrate_matches_acceptance_example_1() {
        assert!(close(window_hashrate(51_200.0, 300.0), 733_007_751_850.67));
        assert!(close(window_hashrate(100.0, 100.0), 4_294_967_296.0));
        assert!(close(window_hashrate(1_000_000.0, 3600.0), 1_193_046_471_111.11));
        assert_eq!(window_hashrate(5.0, 0.0), 0.0);
        assert_eq!(window_hashrate(-5.0, 10.0), 0.0);
    }

    #[test]
    fn subsidy_matches_acceptance_example_9() {
        for (height, network, sats) in [
            (209_999, Network::Mainnet, 5_000_000_000),
            (210_000, Network::Mainnet, 2_500_000_000),
            (839_999, Network::Mainnet, 625_000_000),
            (840_000, Network::Mainnet, 312_500_000),
            (450, Network::Regtest, 625_000_000),
            (33 * 210_000, Network::Mainnet, 0),
        ] {
            assert_eq!(subsidy_sats(height, network), sats, "{height} {network}");
        }
    }

    #[test]
    fn retarget_matches_acceptance_example_18() {
        assert_eq!(next_retarget_blocks(879_500), Some(1492));
        assert_eq!(next_retarget_blocks(0), None);
        assert_eq!(next_retarget_blocks(2016), Some(2016));
    }
}
