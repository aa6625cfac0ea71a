//! Where a best stands among those of its period (contract `mining.md` §4.3).

/// A place among bests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Strictly greater bests.
    pub above: i64,
    /// Strictly smaller bests.
    pub below: i64,
    /// All bests, one's own included.
    pub total: i64,
}

impl Rank {
    /// The place of `mine` among `bests` in ascending order, which may be some seconds old: then one's own may be
    /// missing there, or be a smaller one.
    #[must_use]
    pub fn among(bests: &[f64], mine: f64) -> Self {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let below = bests.partition_point(|best| *best < mine);
        let above = bests.len() - bests.partition_point(|best| *best <= mine);
        let total = count(bests.len()).max(count(above) + 1);
        Self { above: count(above), below: count(below).min(total - 1 - count(above)), total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_7_equal_bests_share_a_rank() {
        let bests = [10.0, 20.0, 20.0, 40.0];
        let places = [40.0, 20.0, 10.0].map(|mine| Rank::among(&bests, mine));
        let expected = [(0, 3), (1, 1), (3, 0)];
        assert_eq!(places, expected.map(|(above, below)| Rank { above, below, total: 4 }));
    }

    #[test]
    fn bests_that_do_not_know_the_newest_put_nobody_out_of_range() {
        // The own best was 10 when they were read, or there was none.
        assert_eq!(Rank::among(&[10.0, 20.0], 40.0), Rank { above: 0, below: 1, total: 2 });
        assert_eq!(Rank::among(&[], 40.0), Rank { above: 0, below: 0, total: 1 });
        assert_eq!(Rank::among(&[20.0], 10.0), Rank { above: 1, below: 0, total: 2 });
    }
}
