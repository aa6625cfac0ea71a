//! A miner's week in numbers (contract `games.md` §2.2).

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use tbg_core::period::IsoWeek;
use utoipa::ToSchema;

use super::games::Game;
use super::lottery::{Hash, hex, sha256};

/// Hex digits of a hash.
const HEX_DIGITS: usize = 64;
/// Significant digits that are shown of a derived hash.
const SHOWN_DIGITS: usize = 12;
/// 0xFFFF · 2^208, as two limbs of 64 bits on top of three that are zero.
const TARGET_SHIFT: u32 = 208;
const TARGET_HEAD: u64 = 0xFFFF;
/// Limbs that hold every quotient below 2^256 and the shifts that lead to one.
const LIMBS: usize = 6;

/// Where a hash comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HashSource {
    /// The pool reported it.
    Pool,
    /// Derived from the difficulty: its leading zeros are those of the real one.
    Derived,
    /// There was no share.
    None,
}

/// The hash to show for a best difficulty: 64 hex digits.
pub(crate) fn derived_hash(best: f64) -> String {
    if best <= 0.0 || !best.is_finite() {
        return "f".repeat(HEX_DIGITS);
    }
    let digits = quotient(best);
    let zeros = digits.bytes().take_while(|digit| *digit == b'0').count();
    let kept = (zeros + SHOWN_DIGITS).min(HEX_DIGITS);
    format!("{:0<HEX_DIGITS$}", &digits[..kept])
}

/// The hash that a pool reported with a share, if it is the share's: 64 hex digits, most significant first. A
/// pool may report the bytes in their order on the wire.
pub(crate) fn pool_hash(reported: &str, difficulty: f64) -> Option<String> {
    let is_hex = reported.len() == HEX_DIGITS && reported.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_hex {
        return None;
    }
    let as_given = reported.to_ascii_lowercase();
    let reversed: String = (0..HEX_DIGITS).step_by(2).rev().map(|at| &as_given[at..at + 2]).collect();
    [as_given.clone(), reversed].into_iter().find(|hash| fits(hash, difficulty))
}

/// Whether a hash has the difficulty, to a millionth.
fn fits(hash: &str, difficulty: f64) -> bool {
    // Sixteen significant digits are all that a double holds.
    let zeros = hash.bytes().take_while(|digit| *digit == b'0').count();
    let end = (zeros + 16).min(HEX_DIGITS);
    let Ok(head) = u64::from_str_radix(&hash[zeros..end], 16) else { return false };
    let exponent = i32::try_from(4 * (HEX_DIGITS - end)).unwrap_or(0);
    let of_hash = f64::from(0xFFFF_u16) * 2_f64.powi(208 - exponent) / head as f64;
    (of_hash / difficulty - 1.0).abs() <= 1e-6
}

/// ⌊0xFFFF·2^208 / best⌋, at most 2^256 − 1, as 64 hex digits: exact, on the bits of the double.
fn quotient(best: f64) -> String {
    let bits = best.to_bits();
    let exponent = i32::try_from(bits >> 52 & 0x7ff).unwrap_or(0);
    let fraction = bits & ((1 << 52) - 1);
    let (mantissa, power) =
        if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    // A power of two below zero shifts the target up; so far up, the quotient no longer fits.
    let shift = i64::from(TARGET_SHIFT) - i64::from(power);
    if shift < 0 {
        return "0".repeat(HEX_DIGITS);
    }
    let shift = usize::try_from(shift).unwrap_or(usize::MAX);
    if shift / 64 + 1 >= LIMBS {
        return "f".repeat(HEX_DIGITS);
    }
    let mut limbs = [0_u64; LIMBS];
    let head = u128::from(TARGET_HEAD) << (shift % 64);
    limbs[shift / 64] = (head & u128::from(u64::MAX)) as u64;
    limbs[shift / 64 + 1] = (head >> 64) as u64;
    let mut rest = 0_u128;
    for limb in limbs.iter_mut().rev() {
        let part = rest << 64 | u128::from(*limb);
        *limb = (part / u128::from(mantissa)) as u64;
        rest = part % u128::from(mantissa);
    }
    if limbs[4..].iter().any(|limb| *limb > 0) {
        return "f".repeat(HEX_DIGITS);
    }
    limbs[..4].iter().rev().map(|limb| format!("{limb:016x}")).collect()
}

/// Decoration that looks the same each time; never a number.
pub(crate) fn seed(week: IsoWeek, user: i64) -> Hash {
    sha256(&[format!("tbg-game-seed-v1\0{week}\0{user}").as_bytes()])
}

/// The same for one game.
pub(crate) fn game_seed(seed: &Hash, game: Game) -> String {
    hex(&sha256(&[seed, game.stored().as_bytes()]))
}

/// The week of a path or query: `YYYY-Www`, or a day of it.
pub(crate) fn parse_week(text: &str) -> Option<IsoWeek> {
    IsoWeek::parse(text).or_else(|| {
        let is_day = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let day: NaiveDate = text.parse().ok().filter(|_| is_day)?;
        Some(IsoWeek::of_day(day))
    })
}

/// A week of a user over all of their addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Merged {
    /// None while there is no share.
    pub best: Option<f64>,
    /// Of the best; among equal ones the earliest.
    pub time: Option<DateTime<Utc>>,
    pub shares: i64,
}

/// Puts the weeks of a user's addresses together.
#[must_use]
pub(crate) fn merged(bests: &[f64], times: &[Option<DateTime<Utc>>], shares: &[i64]) -> Merged {
    let first = bests.iter().zip(times).reduce(|first, other| {
        let is_better = other.0 > first.0;
        let is_earlier =
            other.0 == first.0 && other.1.is_some_and(|time| first.1.is_none_or(|than| time < than));
        if is_better || is_earlier { other } else { first }
    });
    Merged {
        best: first.map(|(best, _)| *best).filter(|best| *best > 0.0),
        time: first.and_then(|(_, time)| *time),
        shares: shares.iter().sum(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn example_14_hashes_from_difficulties() {
        for (best, head, zeros) in [
            (1.0, "00000000ffff", 52),
            (4096.5, "00000000000fff70047fdc", 42),
            (4_231_847_293.0, "000000000000000103d07c4a2f4", 37),
        ] {
            assert_eq!(derived_hash(best), format!("{head}{}", "0".repeat(zeros)), "{best}");
        }
        assert_eq!(derived_hash(0.0), "f".repeat(64));
        assert_eq!(derived_hash(1e-300), format!("{}{}", "f".repeat(12), "0".repeat(52)));
    }

    #[test]
    fn example_18_seeds() {
        let seed = seed(IsoWeek::parse("2026-W09").unwrap(), 1);
        assert_eq!(hex(&seed), "b2bb5f6aee726df89d06968952812c391a11c1efb788defb67c8031bff8f00b4");
        assert_eq!(
            game_seed(&seed, Game::Hammer),
            "66a49b681716bddcc2882ec1e2694f94ae2a0b3abc779620762e79ed28d72e0f"
        );
    }

    #[test]
    fn example_21_weeks_and_days() {
        assert_eq!(parse_week("2026-02-25"), IsoWeek::parse("2026-W09"));
        assert_eq!(parse_week("2027-01-03").unwrap().to_string(), "2026-W53");
        for bad in ["abc", "2025-W53", "2026-02-30", "2026-2-3", "", "2026-W9"] {
            assert_eq!(parse_week(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_reported_hash_counts_in_either_order_if_it_is_the_shares() {
        let hash = "00000000000000000103d07c4a2f4aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(pool_hash("xyz", 1.0), None);
        assert_eq!(pool_hash(hash, 1.0), None);
        // The difficulty of its first digits, as exactly as they give it.
        let exact = {
            let head = u64::from_str_radix(&hash[17..33], 16).unwrap() as f64;
            65_535.0 * 2_f64.powi(208 - 4 * 31) / head
        };
        assert_eq!(pool_hash(hash, exact).as_deref(), Some(hash));
        let reversed: String = (0..64).step_by(2).rev().map(|at| &hash[at..at + 2]).collect();
        assert_eq!(pool_hash(&reversed, exact).as_deref(), Some(hash));
    }

    proptest! {
        #[test]
        fn a_greater_difficulty_has_no_greater_hash(a in 1e-6_f64..1e20, b in 1e-6_f64..1e20) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(derived_hash(high) <= derived_hash(low));
            prop_assert_eq!(derived_hash(low).len(), HEX_DIGITS);
        }

        #[test]
        fn the_hash_gives_the_difficulty_back(best in 1.0_f64..1e18) {
            // 0xFFFF · 2^208 in the units of the twelve digits that are kept.
            let hash = derived_hash(best);
            let zeros = hash.bytes().take_while(|digit| *digit == b'0').count();
            let head = u64::from_str_radix(&hash[zeros..zeros + SHOWN_DIGITS], 16).unwrap() as f64;
            let exponent = i32::try_from(4 * (HEX_DIGITS - zeros - SHOWN_DIGITS)).unwrap();
            let back = 65_535.0 * 2_f64.powi(208 - exponent) / head;
            prop_assert!((back / best - 1.0).abs() < 1e-9, "{back} {best}");
        }
    }

    #[test]
    fn the_weeks_of_several_addresses_are_one() {
        let at = |second| DateTime::from_timestamp(second, 0);
        assert_eq!(merged(&[], &[], &[]), Merged::default());
        let week = merged(&[5.0, 7.0, 7.0, 7.0], &[at(1), at(9), None, at(3)], &[1, 2, 3, 4]);
        assert_eq!(week, Merged { best: Some(7.0), time: at(3), shares: 10 });
        assert_eq!(merged(&[0.0], &[None], &[4]), Merged { best: None, time: None, shares: 4 });
    }
}
