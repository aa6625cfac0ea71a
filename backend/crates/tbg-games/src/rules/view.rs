//! What each game shows of a week (contract `games.md` §2.3).

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::games::Game;

/// The days of a week as the client names them.
pub(crate) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Marks on the hammer's tower.
const MILESTONES: [f64; 6] = [1e3, 1e6, 1e9, 1e12, 1e13, 1e14];
/// Prizes by the top per cent that they are for.
const PRIZES: [(f64, &str); 4] =
    [(1.0, "Legendary Miner"), (5.0, "Diamond Miner"), (10.0, "Gold Miner"), (25.0, "Bronze Miner")];
const LAST_PRIZE: &str = "Silver Miner";
const TICKET_DIGITS: usize = 16;

/// What the views are made from.
pub(crate) struct Numbers<'a> {
    pub best: f64,
    pub network: f64,
    pub days: [f64; 7],
    pub hash: &'a str,
    pub rank: i64,
    pub percentile: f64,
    /// Reward of the caller's own block, in bitcoin.
    pub block_reward: Option<f64>,
}

/// A day in the race.
#[derive(Serialize, ToSchema)]
struct Horse {
    #[schema(value_type = String)]
    day: &'static str,
    difficulty: f64,
    speed: f64,
}

/// The view of a game.
pub(crate) fn view(game: Game, numbers: &Numbers<'_>) -> Value {
    match game {
        Game::Hammer => hammer(numbers),
        Game::HorseRace => race(numbers),
        Game::SlotMachine => slots(numbers),
        Game::ScratchCard => scratch(numbers),
    }
}

fn hammer(numbers: &Numbers<'_>) -> Value {
    let Numbers { best, network, .. } = *numbers;
    let bell = numbers.block_reward.is_some();
    let height = if bell || (best > 0.0 && best >= network) {
        1.0
    } else if best <= 0.0 {
        0.0
    } else {
        // A network of difficulty 1 has no scale: whatever is below it stands at the foot.
        let height = best.log10().max(0.0) / network.log10();
        if network > 1.0 { height.min(1.0) } else { 0.0 }
    };
    let passed = MILESTONES.iter().filter(|milestone| **milestone <= best).count() + usize::from(bell);
    json!({ "tower_height": height, "milestones_passed": passed, "bell": bell })
}

fn race(numbers: &Numbers<'_>) -> Value {
    let fastest = numbers.days.iter().copied().fold(0.0, f64::max);
    let horses: Vec<Horse> = DAYS
        .iter()
        .zip(numbers.days)
        .map(|(day, difficulty)| Horse {
            day,
            difficulty,
            speed: if fastest > 0.0 { difficulty / fastest } else { 1.0 / 7.0 },
        })
        .collect();
    let mut order: Vec<usize> = (0..DAYS.len()).collect();
    // Stable: the earlier of two equal days comes first.
    order.sort_by(|a, b| numbers.days[*b].total_cmp(&numbers.days[*a]));
    let finish: Vec<&str> = order.into_iter().map(|day| DAYS[day]).collect();
    let winner = finish.first().filter(|_| fastest > 0.0);
    json!({ "horses": horses, "winner_day": winner, "finish_order": finish })
}

fn slots(numbers: &Numbers<'_>) -> Value {
    let reels: Vec<String> = numbers.hash.chars().take(3).map(String::from).collect();
    let matches = numbers.hash.bytes().take_while(|digit| *digit == b'0').count();
    json!({ "reels": reels, "matches": matches, "jackpot": numbers.block_reward.is_some() })
}

fn scratch(numbers: &Numbers<'_>) -> Value {
    let (first, second) = match numbers.block_reward {
        Some(reward) => (format!("{reward} BTC!"), "BLOCK FOUND"),
        None => {
            // Two decimals, without the noise of subtraction.
            let top = ((100.0 - numbers.percentile) * 100.0).round() / 100.0;
            let prize =
                PRIZES.iter().find(|(within, _)| top <= *within).map_or(LAST_PRIZE, |(_, prize)| prize);
            (format!("Top {top}%"), prize)
        }
    };
    let ticket = numbers.hash.get(..TICKET_DIGITS).unwrap_or(numbers.hash);
    json!({
        "hash": ticket, "difficulty": numbers.best, "rank": numbers.rank,
        "prize_line1": first, "prize_line2": second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::week::derived_hash;

    fn numbers(best: f64, hash: &str) -> Numbers<'_> {
        Numbers {
            best,
            network: 100_847_293_444_000.0,
            days: [0.0; 7],
            hash,
            rank: 1,
            percentile: 0.0,
            block_reward: None,
        }
    }

    #[test]
    fn example_15_the_tower() {
        let best = 4_231_847_293.0;
        let view = view(Game::Hammer, &numbers(best, ""));
        assert!((view["tower_height"].as_f64().unwrap() - 0.687_429_362_621_822_3).abs() < 1e-12, "{view}");
        assert_eq!((&view["milestones_passed"], &view["bell"]), (&json!(3), &json!(false)));
        assert!((best / 100_847_293_444_000.0 - 4.196_292_382_749_889e-5_f64).abs() < 1e-16);
    }

    #[test]
    fn example_16_the_race() {
        let days = [
            2_847_193_472.0,
            1_923_847_102.0,
            4_231_847_293.0,
            3_104_293_847.0,
            1_847_102_293.0,
            2_293_847_102.0,
            3_847_293_102.0,
        ];
        let view = view(Game::HorseRace, &Numbers { days, ..numbers(4_231_847_293.0, "") });
        assert_eq!(view["winner_day"], "wed");
        assert_eq!(view["finish_order"], json!(["wed", "sun", "thu", "mon", "sat", "tue", "fri"]));
        assert!((view["horses"][0]["speed"].as_f64().unwrap() - 0.672_801_562_738_242_2).abs() < 1e-12);
        let nobody = super::view(Game::HorseRace, &numbers(0.0, ""));
        assert_eq!((&nobody["winner_day"], &nobody["finish_order"][0]), (&Value::Null, &json!("mon")));
    }

    #[test]
    fn examples_14_and_17_reels_and_prizes() {
        let hash = derived_hash(4_231_847_293.0);
        let reels = view(Game::SlotMachine, &numbers(1.0, &hash));
        assert_eq!((&reels["matches"], &reels["reels"]), (&json!(15), &json!(["0", "0", "0"])));
        for (percentile, first, second) in [
            (94.0, "Top 6%", "Gold Miner"),
            (99.0, "Top 1%", "Legendary Miner"),
            (95.0, "Top 5%", "Diamond Miner"),
            (75.0, "Top 25%", "Bronze Miner"),
            (74.99, "Top 25.01%", "Silver Miner"),
        ] {
            let card = view(Game::ScratchCard, &Numbers { percentile, ..numbers(1.0, &hash) });
            assert_eq!((&card["prize_line1"], &card["prize_line2"]), (&json!(first), &json!(second)));
        }
        let block = view(Game::ScratchCard, &Numbers { block_reward: Some(3.125), ..numbers(1.0, &hash) });
        assert_eq!(
            (&block["prize_line1"], &block["prize_line2"]),
            (&json!("3.125 BTC!"), &json!("BLOCK FOUND"))
        );
    }
}
