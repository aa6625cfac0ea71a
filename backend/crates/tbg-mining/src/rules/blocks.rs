//! Blocks: merging what several events say about one, rewards, the finder's name (contract `mining.md`
//! §3.6, §8.2).

use chrono::{DateTime, TimeDelta, Utc};
use tbg_bitcoin::Network;
use tbg_bitcoin::difficulty::subsidy_sats;
use tbg_core::UserId;
use tbg_core::users::Holder;
use tbg_engine::event::{BlockFound, PoolEvent};

/// Two events about one height are about one block when they are this close and one lacks the hash.
const SAME_BLOCK_WITHIN: TimeDelta = TimeDelta::minutes(10);
/// The share that solved a block lies this close to it.
pub const SOLVING_SHARE_WITHIN: TimeDelta = TimeDelta::seconds(5);

/// A row of `blocks`.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Row id.
    pub id: i64,
    /// Height.
    pub height: i32,
    /// Hash, once it is known.
    pub hash: Option<String>,
    /// The finder, if he is a user.
    pub finder: Option<Holder>,
    /// The finder's address, once it is known.
    pub address: Option<String>,
    /// The finder's worker.
    pub worker: Option<String>,
    /// Published reward, else the subsidy.
    pub reward_sats: i64,
    /// Published reward minus the subsidy, if it was published and is not less.
    pub fees_sats: Option<i64>,
    /// Achieved difficulty.
    pub difficulty: Option<f64>,
    /// Network difficulty, as the block's own events gave it.
    pub network_difficulty: Option<f64>,
    /// Network difficulty that the network published for the height.
    pub published_difficulty: Option<f64>,
    /// First report.
    pub found_at: DateTime<Utc>,
    /// Text in the coinbase.
    pub coinbase_sig: Option<String>,
    /// Kind of the pool that reported it first.
    pub source: String,
    /// Region of that pool.
    pub region: String,
}

/// What one `block_found` changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Index of the block.
    pub index: usize,
    /// Whether it is new.
    pub is_new: bool,
    /// Whether this event gave it to a user.
    pub attributed: bool,
}

/// Merges a `block_found` into `blocks`; `id` is given to a new row. `None` for an event that names
/// neither height nor hash.
pub fn merge(
    blocks: &mut Vec<Block>,
    event: &PoolEvent,
    found: &BlockFound,
    holder: Option<&Holder>,
    network: Network,
    id: i64,
) -> Option<Merged> {
    if found.height == 0 && found.hash.is_none() {
        return None;
    }
    // The hash decides where it is given; only then does the height.
    let by_hash = |block: &Block| found.hash.is_some() && block.hash == found.hash;
    let index = blocks
        .iter()
        .position(by_hash)
        .or_else(|| blocks.iter().position(|block| is_same(block, event, found)));
    let is_new = index.is_none();
    let index = index.unwrap_or(blocks.len());
    if is_new {
        blocks.push(Block {
            id,
            height: found.height,
            hash: None,
            finder: None,
            address: None,
            worker: None,
            reward_sats: sats(subsidy_sats(found.height.unsigned_abs(), network)),
            fees_sats: None,
            difficulty: None,
            network_difficulty: None,
            published_difficulty: None,
            found_at: event.ts,
            coinbase_sig: None,
            source: event.source.clone(),
            region: event.region.clone(),
        });
    }
    let block = blocks.get_mut(index)?;
    let attributed = absorb(block, event, found, holder, network);
    Some(Merged { index, is_new, attributed })
}

fn is_same(block: &Block, event: &PoolEvent, found: &BlockFound) -> bool {
    match (&block.hash, &found.hash) {
        (Some(known), Some(given)) => known == given,
        // Without a hash the height is the key.
        (None, None) => block.height == found.height,
        _ => block.height == found.height && (block.found_at - event.ts).abs() <= SAME_BLOCK_WITHIN,
    }
}

/// Takes over what the event knows and the block does not; says whether the block got a finder.
fn absorb(
    block: &mut Block,
    event: &PoolEvent,
    found: &BlockFound,
    holder: Option<&Holder>,
    network: Network,
) -> bool {
    let positive = |value: f64| (value > 0.0).then_some(value);
    block.hash = block.hash.take().or_else(|| found.hash.clone());
    block.difficulty = block.difficulty.or(positive(found.diff));
    block.network_difficulty = block.network_difficulty.or(positive(found.network_diff));
    if event.ts < block.found_at {
        block.found_at = event.ts;
        block.source.clone_from(&event.source);
        block.region.clone_from(&event.region);
    }
    if block.coinbase_sig.is_none() && !found.coinbase_sig.is_empty() {
        block.coinbase_sig = Some(found.coinbase_sig.clone());
    }
    if found.reward_sats > 0 {
        let fees = found.reward_sats - sats(subsidy_sats(block.height.unsigned_abs(), network));
        block.reward_sats = found.reward_sats;
        block.fees_sats = (fees >= 0).then_some(fees);
    }
    if block.address.is_some() || !event.has_miner() {
        return false;
    }
    block.address = Some(event.user.clone());
    block.worker = Some(event.worker.clone());
    block.finder = holder.cloned();
    block.finder.is_some()
}

fn sats(subsidy: u64) -> i64 {
    i64::try_from(subsidy).unwrap_or(i64::MAX)
}

impl Block {
    /// The finder's user id, if he is a user.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        self.finder.as_ref().map(|finder| finder.id)
    }

    /// Whether an accepted share of `address` at `ts` solved the block.
    #[must_use]
    pub fn is_solved_by(&self, address: &str, ts: DateTime<Utc>, share_diff: f64) -> bool {
        self.address.as_deref() == Some(address)
            && self
                .network_difficulty
                .or(self.published_difficulty)
                .is_some_and(|network| share_diff >= network)
            && (self.found_at - ts).abs() <= SOLVING_SHARE_WITHIN
    }

    /// The country that the finder shows.
    #[must_use]
    pub fn finder_country(&self) -> Option<&str> {
        self.finder.as_ref().filter(|holder| !holder.is_hidden())?.country_code.as_deref()
    }

    /// The finder's public name.
    #[must_use]
    pub fn finder_name(&self) -> String {
        match (&self.address, &self.finder) {
            (None, _) => "Pool".to_owned(),
            (_, Some(holder)) if holder.is_hidden() => "Anonymous".to_owned(),
            (_, Some(Holder { display_name: Some(name), .. })) => name.clone(),
            (Some(address), _) => format!("Miner-{}", address.chars().take(8).collect::<String>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tbg_engine::EventKind;

    fn event(user: &str, seconds: i64, found: &BlockFound) -> PoolEvent {
        PoolEvent {
            ts: DateTime::from_timestamp(1_771_804_800 + seconds, 0).unwrap(),
            kind: EventKind::BlockFound(found.clone()),
            source: "hosted".to_owned(),
            region: String::new(),
            event_id: None,
            user: user.to_owned(),
            worker: "rig1".to_owned(),
            payload: "{}".to_owned(),
        }
    }

    fn found(height: i32, hash: Option<&str>) -> BlockFound {
        BlockFound { height, hash: hash.map(str::to_owned), ..BlockFound::default() }
    }

    fn holder() -> Holder {
        Holder {
            id: UserId(7),
            display_name: None,
            is_banned: false,
            is_test: false,
            is_public: true,
            country_code: None,
        }
    }

    fn run(events: &[(&str, i64, BlockFound)]) -> (Vec<Block>, usize) {
        let mut blocks = Vec::new();
        let mut attributions = 0;
        for (index, (user, seconds, found)) in events.iter().enumerate() {
            let event = event(user, *seconds, found);
            let holder = (*user == "bc1qexample").then(holder);
            let merged = merge(&mut blocks, &event, found, holder.as_ref(), Network::Mainnet, index as i64);
            attributions += usize::from(merged.is_some_and(|merged| merged.attributed));
        }
        (blocks, attributions)
    }

    #[test]
    fn the_anonymous_report_and_the_finders_are_one_block_in_either_order() {
        let (anonymous, finder) = (("pool", 0, found(900, None)), ("bc1qexample", 1, found(900, None)));
        for events in [[anonymous.clone(), finder.clone()], [finder, anonymous]] {
            let (blocks, attributions) = run(&events);
            assert_eq!((blocks.len(), attributions), (1, 1));
            assert_eq!(blocks[0].address.as_deref(), Some("bc1qexample"));
            assert_eq!((blocks[0].user_id(), blocks[0].worker.as_deref()), (Some(UserId(7)), Some("rig1")));
            assert_eq!(blocks[0].found_at.timestamp(), 1_771_804_800);
        }
    }

    #[test]
    fn different_hashes_at_one_height_are_an_orphan_race() {
        let (blocks, _) = run(&[("a", 0, found(900, Some("aa"))), ("b", 1, found(900, Some("bb")))]);
        assert_eq!(blocks.len(), 2);
    }

    #[test]
    fn a_hash_joins_the_block_of_its_height_within_ten_minutes() {
        let (blocks, _) = run(&[("pool", 0, found(900, None)), ("a", 600, found(900, Some("aa")))]);
        assert_eq!((blocks.len(), blocks[0].hash.as_deref()), (1, Some("aa")));
        let (blocks, _) = run(&[("pool", 0, found(900, None)), ("a", 601, found(900, Some("aa")))]);
        assert_eq!(blocks.len(), 2);
    }

    #[test]
    fn rewards_match_acceptance_example_9() {
        let (blocks, _) = run(&[("a", 0, found(840_000, None))]);
        assert_eq!((blocks[0].reward_sats, blocks[0].fees_sats), (312_500_000, None));
        let paid = BlockFound { reward_sats: 320_000_000, ..found(840_000, None) };
        let (blocks, _) = run(&[("pool", 0, found(840_000, None)), ("a", 1, paid)]);
        assert_eq!((blocks[0].reward_sats, blocks[0].fees_sats), (320_000_000, Some(7_500_000)));
        let short = BlockFound { reward_sats: 1, ..found(840_000, None) };
        assert_eq!(run(&[("a", 0, short)]).0[0].fees_sats, None);
    }

    #[test]
    fn an_event_without_height_and_hash_is_no_block() {
        assert!(run(&[("a", 0, found(0, None))]).0.is_empty());
    }

    #[test]
    fn a_finder_who_hides_has_neither_name_nor_country() {
        let shown =
            Holder { display_name: Some("Ada".to_owned()), country_code: Some("PT".to_owned()), ..holder() };
        let named = |holder: &Holder| {
            let (mut blocks, found) = (Vec::new(), found(900, None));
            let event = event("bc1qexample", 0, &found);
            merge(&mut blocks, &event, &found, Some(holder), Network::Mainnet, 1);
            (blocks[0].finder_name(), blocks[0].finder_country().map(str::to_owned))
        };
        assert_eq!(named(&shown), ("Ada".to_owned(), Some("PT".to_owned())));
        let hidden = [
            Holder { is_public: false, ..shown.clone() },
            Holder { is_banned: true, ..shown.clone() },
            Holder { is_test: true, ..shown },
        ];
        for holder in hidden {
            assert_eq!(named(&holder), ("Anonymous".to_owned(), None));
        }
    }
}
