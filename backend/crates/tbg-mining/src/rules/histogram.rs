//! The histogram of achieved difficulties (contract `mining.md` §4.4). Edges and labels here; the counting is
//! SQL's.

/// Buckets of a histogram.
pub const BUCKETS: usize = 8;

/// The edges between `min` and `max`, in equal ratios; both ends are exact, so that no share falls out.
#[must_use]
pub fn edges(min: f64, max: f64) -> [f64; BUCKETS + 1] {
    let min = if min <= 0.0 { 1.0 } else { min };
    let max = if max <= min { 2.0 * min } else { max };
    std::array::from_fn(|index| match index {
        0 => min,
        BUCKETS => max,
        _ => min * (max / min).powf(index as f64 / BUCKETS as f64),
    })
}

/// What a bucket is called.
#[must_use]
pub fn label(low: f64, high: f64) -> String {
    format!("{} - {}", short(low), short(high))
}

fn short(value: f64) -> String {
    for (from, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")] {
        if value >= from {
            return format!("{:.1}{unit}", value / from);
        }
    }
    format!("{value:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_match_acceptance_example_8() {
        let values =
            [1000.0, 1500.0, 3000.0, 6000.0, 12000.0, 24000.0, 48000.0, 96000.0, 192_000.0, 256_000.0];
        let edges = edges(1000.0, 256_000.0);
        let mut counts = [0; BUCKETS];
        for value in values {
            counts[edges[1..BUCKETS].iter().filter(|edge| value >= **edge).count()] += 1;
        }
        assert_eq!(counts, [2, 1, 1, 1, 1, 1, 1, 2]);
        assert_eq!(label(edges[0], edges[1]), "1.0K - 2.0K");
        assert_eq!(label(edges[7], edges[8]), "128.0K - 256.0K");
        assert!((edges[7] - 128_000.0).abs() < 1e-6);
    }

    #[test]
    fn equal_shares_have_a_range_all_the_same() {
        let edges = edges(500.0, 500.0);
        assert_eq!((edges[0], edges[BUCKETS]), (500.0, 1000.0));
        assert_eq!(super::edges(0.0, 0.0)[BUCKETS], 2.0);
        assert_eq!(label(500.0, 2.5e12), "500 - 2.5T");
    }
}
