//! The outbound queue of one socket and what it drops when its reader is slow (contract `realtime.md` §8).

use std::collections::VecDeque;

use axum::extract::ws::Utf8Bytes;
use tbg_core::live::LiveEvent;

const MAX_ENTRIES: usize = 256;
const MAX_BYTES: usize = 1024 * 1024;

/// How readily an entry is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// A state that the next one replaces.
    Light,
    /// One of many.
    Middling,
    /// Readable over REST.
    Heavy,
    /// Never dropped.
    Critical,
}

impl Weight {
    pub(crate) fn of(event: Option<LiveEvent>) -> Self {
        let Some(event) = event else { return Self::Heavy };
        match event {
            LiveEvent::HashrateUpdate | LiveEvent::StatsUpdate | LiveEvent::LeaderboardUpdate => Self::Light,
            LiveEvent::ShareSubmitted | LiveEvent::WorkerStatus | LiveEvent::FeedItem => Self::Middling,
            LiveEvent::Notification
            | LiveEvent::BlockFound
            | LiveEvent::BadgeEarned
            | LiveEvent::LevelUp
            | LiveEvent::StreakUpdate
            | LiveEvent::BestDiff
            | LiveEvent::MatchUpdate => Self::Critical,
            LiveEvent::EventReminder
            | LiveEvent::LotteryDrawn
            | LiveEvent::XpGained
            | LiveEvent::RankChanged
            | LiveEvent::LeagueUpdate
            | LiveEvent::Toast => Self::Heavy,
        }
    }
}

/// A frame that waits. The text is shared by all sockets that get it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub text: Utf8Bytes,
    pub weight: Weight,
    /// The event, for statistics and replacement; none for a reply or an event of nobody's list.
    pub event: Option<LiveEvent>,
    /// Whether it counts as a channel message.
    pub is_message: bool,
}

impl Entry {
    /// A reply.
    pub(crate) fn reply(text: String) -> Self {
        Self { text: text.into(), weight: Weight::Critical, event: None, is_message: false }
    }

    /// The label of its event.
    pub(crate) fn label(&self) -> &'static str {
        self.event.map_or("other", LiveEvent::name)
    }

    fn replaces(&self, other: &Self) -> bool {
        matches!(self.event, Some(LiveEvent::HashrateUpdate | LiveEvent::StatsUpdate))
            && self.event == other.event
    }
}

/// Only what is never dropped is queued, and there is too much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

/// What waits to be written to one socket.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    dropped: u64,
}

impl Queue {
    /// Adds an entry. `on_drop` is told what went for it.
    pub(crate) fn push(&mut self, entry: Entry, mut on_drop: impl FnMut(&Entry)) -> Result<(), Overflow> {
        if let Some(older) = self.entries.iter_mut().find(|older| entry.replaces(older)) {
            self.bytes = self.bytes - older.text.len() + entry.text.len();
            *older = entry;
        } else {
            self.bytes += entry.text.len();
            self.entries.push_back(entry);
        }
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let lightest = self.entries.iter().map(|entry| entry.weight).min();
            let Some(weight) = lightest.filter(|weight| *weight < Weight::Critical) else {
                return Err(Overflow);
            };
            let oldest = self.entries.iter().position(|entry| entry.weight == weight);
            let Some(gone) = oldest.and_then(|index| self.entries.remove(index)) else {
                return Err(Overflow);
            };
            self.bytes -= gone.text.len();
            self.dropped += 1;
            on_drop(&gone);
        }
        Ok(())
    }

    /// The oldest entry. After drops, once the queue is below half: a word about them first.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if self.dropped > 0 && self.entries.len() < MAX_ENTRIES / 2 {
            let dropped = std::mem::take(&mut self.dropped);
            return Some(Entry::reply(format!(r#"{{"type":"lagged","dropped":{dropped}}}"#)));
        }
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.text.len();
        if self.entries.is_empty() {
            // Ten thousand quiet sockets keep no room for a burst.
            self.entries = VecDeque::new();
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(event: LiveEvent, text: &str) -> Entry {
        let weight = Weight::of(Some(event));
        Entry { text: text.to_owned().into(), weight, event: Some(event), is_message: true }
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|entry| entry.text.to_string()).collect()
    }

    #[test]
    fn the_newest_rate_replaces_an_older_one() {
        let mut queue = Queue::default();
        for text in ["1", "2"] {
            queue.push(entry(LiveEvent::HashrateUpdate, text), |_| {}).unwrap();
            queue.push(entry(LiveEvent::ShareSubmitted, text), |_| {}).unwrap();
        }
        assert_eq!(drain(&mut queue), ["2", "1", "2"]);
    }

    #[test]
    fn a_slow_reader_loses_states_then_shares_and_never_a_badge() {
        let mut queue = Queue::default();
        queue.push(entry(LiveEvent::BadgeEarned, "badge"), |_| {}).unwrap();
        queue.push(entry(LiveEvent::LeaderboardUpdate, "board"), |_| {}).unwrap();
        let mut dropped = Vec::new();
        for number in 0..MAX_ENTRIES {
            let share = entry(LiveEvent::ShareSubmitted, &number.to_string());
            queue.push(share, |gone| dropped.push(gone.text.to_string())).unwrap();
        }
        assert_eq!(dropped, ["board", "0"]);

        let out = drain(&mut queue);

        assert_eq!(out[0], "badge");
        let told = out.iter().position(|text| text == r#"{"type":"lagged","dropped":2}"#).unwrap();
        assert_eq!(told, MAX_ENTRIES / 2 + 1, "once, below half");
    }

    #[test]
    fn too_many_that_matter_end_the_socket() {
        let mut queue = Queue::default();
        for _ in 0..MAX_ENTRIES {
            queue.push(entry(LiveEvent::Notification, "x"), |_| {}).unwrap();
        }
        assert_eq!(queue.push(entry(LiveEvent::Notification, "x"), |_| {}), Err(Overflow));
        let mut queue = Queue::default();
        let large = "x".repeat(MAX_BYTES / 2);
        queue.push(entry(LiveEvent::Notification, &large), |_| {}).unwrap();
        queue.push(entry(LiveEvent::Notification, &large), |_| {}).unwrap();
        assert_eq!(queue.push(entry(LiveEvent::Notification, "x"), |_| {}), Err(Overflow));
    }

    proptest! {
        #[test]
        fn bounds_hold_and_every_entry_is_delivered_or_counted(kinds in prop::collection::vec(0..19_usize, 0..900)) {
            let mut queue = Queue::default();
            let (mut pushed, mut replaced, mut dropped) = (0_u64, 0_u64, 0_u64);
            for kind in kinds {
                let new = entry(LiveEvent::ALL[kind], "x");
                let before = queue.entries.len();
                let mut gone = 0;
                let result = queue.push(new, |_| gone += 1);
                pushed += 1;
                if queue.entries.len() + gone == before { replaced += 1; }
                dropped += gone as u64;
                if result.is_err() { return Ok(()); }
                prop_assert!(queue.entries.len() <= MAX_ENTRIES);
            }
            let mut left = 0;
            while let Some(entry) = queue.pop() {
                left += u64::from(entry.is_message);
            }
            prop_assert_eq!(pushed, left + dropped + replaced);
            prop_assert_eq!(queue.bytes, 0);
        }
    }
}
