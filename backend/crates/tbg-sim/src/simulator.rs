//! The event loop: what happens when, and which events the pool sends for it.
//!
//! An agenda holds what is going to happen, ordered by simulated time. Running one entry puts
//! events into `ready`, ordered by arrival; they leave it once nothing on the agenda can produce
//! an earlier one. Ties keep the order in which they were made, so the output is a function of
//! the settings alone.

mod chain;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::config::SimConfig;
use crate::event::{Action, SimEvent};
use crate::identity::{self, Miner};
use crate::random::{Purpose, Random};
use crate::rig::Rig;
use crate::wire;

/// First connections are spread over so many seconds.
const CONNECT_SPREAD_S: f64 = 10.0;
const HASHRATE_EVERY_S: f64 = 60.0;
const MEAN_OFFLINE_S: f64 = 60.0;
/// Longer than the longest delay of an event, so that sessions do not overlap on arrival.
const MIN_OFFLINE_S: f64 = 5.0;
const MAX_DELAY_US: u32 = 3_000_000;
/// All copies of a share fall within so many microseconds.
const DUPLICATE_SPAN_US: u32 = 499;
const FIRST_HEIGHT: u64 = 900_000;
/// End of the simulated world, far enough from the limit of the type that nothing overflows.
const END_US: i64 = i64::MAX / 2;

/// The simulation: an iterator over its events in order of arrival.
///
/// It ends only if nothing can happen any more, that is without miners and network blocks.
#[derive(Clone, Debug)]
pub struct Simulator {
    config: SimConfig,
    miners: Vec<Miner>,
    rigs: Vec<Rig>,
    pool: Random,
    /// Height that is being mined.
    height: u64,
    tip: String,
    agenda: BinaryHeap<Reverse<(i64, u64, Action)>>,
    ready: BTreeMap<(i64, u64), SimEvent>,
    sequence: u64,
}

impl Simulator {
    /// A simulation at its start: the pool announces its work, then the miners connect within
    /// 10 seconds. Settings out of range are replaced as told at [`SimConfig`].
    #[must_use]
    pub fn new(config: SimConfig) -> Self {
        let config = config.sane();
        let miners = identity::population(&config);
        let rigs = (0..).zip(&miners).map(|(index, m)| Rig::new(&config, index, m)).collect();
        let mut pool = Random::new(config.seed ^ config.run, Purpose::Pool, 0);
        let tip = pool.block_hash();
        let mut simulator = Self {
            pool,
            height: FIRST_HEIGHT - 1,
            tip,
            agenda: BinaryHeap::with_capacity(3 * miners.len() + 2),
            ready: BTreeMap::new(),
            sequence: 0,
            config,
            miners,
            rigs,
        };
        simulator.begin();
        simulator
    }

    /// All miners; the index is that of [`SimEvent::miner`].
    #[must_use]
    pub fn miners(&self) -> &[Miner] {
        &self.miners
    }

    fn begin(&mut self) {
        let start = self.config.start_us;
        self.advance_tip(start);
        for miner in 0..self.config.miners {
            let wait = self.rigs[miner as usize].random.unit() * CONNECT_SPREAD_S;
            self.plan(start, wait, Action::Connect(miner));
        }
        self.plan_network_block(start);
        if let Some(every) = self.config.forced_block_every_seconds {
            self.plan(start, every, Action::ForcedBlock);
        }
    }

    /// Puts `action` on the agenda, `seconds` after `now_us` and at least a microsecond later.
    /// What would happen after [`END_US`] is left out.
    fn plan(&mut self, now_us: i64, seconds: f64, action: Action) {
        // The cast saturates, so an infinite wait ends beyond `END_US`.
        let at_us = now_us.saturating_add(((seconds * 1e6) as i64).max(1));
        if at_us < END_US {
            self.sequence += 1;
            self.agenda.push(Reverse((at_us, self.sequence, action)));
        }
    }

    fn emit(&mut self, ts_us: i64, delay_us: i64, event: &'static str, miner: Option<u32>, json: String) {
        let arrive_us = ts_us + delay_us;
        self.sequence += 1;
        self.ready.insert((arrive_us, self.sequence), SimEvent { ts_us, arrive_us, event, miner, json });
    }

    fn run(&mut self, now_us: i64, action: Action) {
        match action {
            Action::Connect(miner) => self.connect(miner, now_us),
            Action::Share { miner, session } if self.is_current(miner, session) => {
                self.submit(miner, now_us);
            }
            Action::Hashrate { miner, session } if self.is_current(miner, session) => {
                self.report_hashrate(miner, now_us);
            }
            Action::Disconnect { miner, session } if self.is_current(miner, session) => {
                self.disconnect(miner, now_us);
            }
            Action::Share { .. } | Action::Hashrate { .. } | Action::Disconnect { .. } => {}
            Action::NetworkBlock => {
                self.advance_tip(now_us);
                self.plan_network_block(now_us);
            }
            Action::ForcedBlock => self.force_block(now_us),
        }
    }

    fn is_current(&self, miner: u32, session: u32) -> bool {
        let rig = &self.rigs[miner as usize];
        rig.online && rig.session == session
    }

    /// The sender of an event of `miner` at `ts_us`.
    fn sender(&self, miner: u32, ts_us: i64) -> wire::Sender<'_> {
        // Unique per connection without a counter that all miners would share.
        let session = u64::from(self.rigs[miner as usize].session);
        let client_id = u64::from(miner) + 1 + session.saturating_sub(1) * 1_000_000;
        wire::Sender { miner: &self.miners[miner as usize], client_id, ts_us }
    }

    /// How late an event of `miner` arrives, in microseconds; mostly 0.
    fn delay(&mut self, miner: u32) -> i64 {
        let random = &mut self.rigs[miner as usize].random;
        if random.chance(self.config.out_of_order_rate) {
            1 + i64::from(random.below(MAX_DELAY_US))
        } else {
            0
        }
    }

    fn connect(&mut self, miner: u32, now_us: i64) {
        let rig = &mut self.rigs[miner as usize];
        rig.session = rig.session.saturating_add(1);
        rig.online = true;
        rig.connected_us = now_us;
        rig.shares_session = 0;
        rig.vardiff.restart(now_us);
        let (session, diff) = (rig.session, rig.vardiff.diff);
        let first_report = rig.random.unit() * HASHRATE_EVERY_S;
        let stay = rig.random.exponential(self.config.mean_session_seconds);
        let detected = rig.random.chance(0.1);
        let mask = rig.random.pick(&[0x1fff_e000, 0x00c0_0000, 0x1800_0000]);

        let json = wire::connected(self.sender(miner, now_us), diff);
        let delay = self.delay(miner);
        self.emit(now_us, delay, wire::CONNECTED, Some(miner), json);
        if detected && self.miners[miner as usize].asicboost {
            let json = wire::asicboost(self.sender(miner, now_us + 1), mask);
            self.emit(now_us + 1, delay, wire::ASICBOOST, Some(miner), json);
        }
        self.plan_share(miner, now_us);
        self.plan(now_us, first_report, Action::Hashrate { miner, session });
        // An infinite mean times a zero logarithm is no number, and would end the session at once.
        let stay = if stay.is_nan() { f64::INFINITY } else { stay };
        self.plan(now_us, stay, Action::Disconnect { miner, session });
    }

    fn disconnect(&mut self, miner: u32, now_us: i64) {
        let rig = &mut self.rigs[miner as usize];
        rig.online = false;
        let seconds = (now_us - rig.connected_us) as f64 / 1e6;
        let shares = rig.shares_session;
        let away = rig.random.exponential(MEAN_OFFLINE_S).max(MIN_OFFLINE_S);
        let json = wire::disconnected(self.sender(miner, now_us), seconds, shares);
        let delay = self.delay(miner);
        self.emit(now_us, delay, wire::DISCONNECTED, Some(miner), json);
        self.plan(now_us, away, Action::Connect(miner));
    }

    fn report_hashrate(&mut self, miner: u32, now_us: i64) {
        let truth = self.miners[miner as usize].hashrate_hs;
        let rig = &mut self.rigs[miner as usize];
        let session = rig.session;
        let rates = [0.2, 0.1, 0.03, 0.01].map(|noise| rig.near(truth, noise));
        let json = wire::hashrate(self.sender(miner, now_us), rates);
        let delay = self.delay(miner);
        self.emit(now_us, delay, wire::HASHRATE, Some(miner), json);
        self.plan(now_us, HASHRATE_EVERY_S, Action::Hashrate { miner, session });
    }

    fn plan_share(&mut self, miner: u32, now_us: i64) {
        let hashrate_hs = self.miners[miner as usize].hashrate_hs;
        let rig = &mut self.rigs[miner as usize];
        let (gap, session) = (rig.share_gap(hashrate_hs), rig.session);
        self.plan(now_us, gap, Action::Share { miner, session });
    }

    /// The next share of a miner's own work.
    fn submit(&mut self, miner: u32, now_us: i64) {
        let rig = &mut self.rigs[miner as usize];
        let diff = rig.vardiff.diff;
        if rig.random.chance(self.config.reject_rate) {
            // A stale or repeated share may well be a great one; the pool still counts nothing.
            let (reason, sdiff) = match rig.random.below(4) {
                0 | 1 => ("Stale", diff / rig.random.unit()),
                2 => ("Duplicate", diff / rig.random.unit()),
                _ => ("Above target", diff * 0.999 * rig.random.unit()),
            };
            let json = wire::share(self.sender(miner, now_us), diff, sdiff, Some(reason));
            let delay = self.delay(miner);
            self.emit(now_us, delay, wire::SHARE, Some(miner), json);
        } else {
            let sdiff = diff / rig.random.unit();
            self.accept(miner, now_us, sdiff);
            let target = self.config.target_share_seconds;
            let rig = &mut self.rigs[miner as usize];
            if let Some(change) = rig.vardiff.count(now_us, target, &mut rig.random) {
                let ts_us = now_us + 2;
                let json = wire::diff_updated(self.sender(miner, ts_us), change);
                let delay = self.delay(miner);
                self.emit(ts_us, delay, wire::DIFF, Some(miner), json);
            }
        }
        self.plan_share(miner, now_us);
    }

    /// An accepted share with all that follows from it.
    fn accept(&mut self, miner: u32, now_us: i64, sdiff: f64) {
        let rig = &mut self.rigs[miner as usize];
        rig.shares_session += 1;
        let (diff, prev_best) = (rig.vardiff.diff, rig.best);
        rig.best = prev_best.max(sdiff);
        let copies = if rig.random.chance(self.config.duplicate_rate) { 1 + rig.random.below(2) } else { 0 };

        let is_block = sdiff >= self.config.network_difficulty;
        let delay = if is_block { 0 } else { self.delay(miner) };
        let json = wire::share(self.sender(miner, now_us), diff, sdiff, None);
        self.emit(now_us, delay, wire::SHARE, Some(miner), json);
        if sdiff > prev_best {
            let json = wire::best(self.sender(miner, now_us + 1), sdiff, prev_best);
            self.emit(now_us + 1, delay, wire::BEST, Some(miner), json);
        }
        for _ in 0..copies {
            let after = self.rigs[miner as usize].random.below(DUPLICATE_SPAN_US);
            let ts_us = now_us + 1 + i64::from(after);
            let json = wire::share(self.sender(miner, ts_us), diff, sdiff, None);
            let delay = self.delay(miner);
            self.emit(ts_us, delay, wire::SHARE, Some(miner), json);
        }
        if is_block {
            self.announce_block(miner, now_us);
        }
    }
}

impl Iterator for Simulator {
    type Item = SimEvent;

    fn next(&mut self) -> Option<SimEvent> {
        loop {
            let due_us = self.agenda.peek().map(|Reverse((at_us, _, _))| *at_us);
            if let Some(first) = self.ready.first_entry()
                && due_us.is_none_or(|at_us| first.key().0 <= at_us)
            {
                return Some(first.remove());
            }
            let Reverse((now_us, _, action)) = self.agenda.pop()?;
            self.run(now_us, action);
        }
    }
}
