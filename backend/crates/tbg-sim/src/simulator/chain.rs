//! Blocks: who finds them, how the pool announces them, and the work that follows.

use crate::event::Action;
use crate::simulator::Simulator;
use crate::wire;

impl Simulator {
    /// The block of the share that `miner` submitted at `share_us`: sometimes first in the name of
    /// the pool, then in that of the finder, then the new work.
    pub(super) fn announce_block(&mut self, miner: u32, share_us: i64) {
        let (height, network_diff) = (self.height, self.config.network_difficulty);
        if self.pool.chance(0.5) {
            let json = wire::block(None, share_us + 2, height, network_diff);
            self.emit(share_us + 2, 0, wire::BLOCK, None, json);
        }
        let finder = &self.miners[miner as usize];
        let json = wire::block(Some(finder), share_us + 3, height, network_diff);
        self.emit(share_us + 3, 0, wire::BLOCK, Some(miner), json);
        self.advance_tip(share_us + 4);
    }

    pub(super) fn force_block(&mut self, now_us: i64) {
        let count = self.config.miners;
        let first = self.pool.below(count);
        let excess = 1.0 + self.pool.unit();
        let online = (first..count).chain(0..first).find(|&m| self.rigs[m as usize].online);
        if let Some(miner) = online {
            let diff = self.rigs[miner as usize].vardiff.diff;
            self.accept(miner, now_us, self.config.network_difficulty.max(diff) * excess);
        }
        if let Some(every) = self.config.forced_block_every_seconds {
            self.plan(now_us, every, Action::ForcedBlock);
        }
    }

    /// The chain grows by one block, whoever found it.
    pub(super) fn advance_tip(&mut self, ts_us: i64) {
        let hash = self.pool.block_hash();
        let prev_hash = std::mem::replace(&mut self.tip, hash);
        self.height += 1;
        let network_diff = self.config.network_difficulty;
        let json = wire::new_block(ts_us, self.height, &self.tip, &prev_hash, network_diff);
        self.emit(ts_us, 0, wire::NEW_BLOCK, None, json);
    }

    pub(super) fn plan_network_block(&mut self, now_us: i64) {
        let mean = self.config.block_interval_seconds;
        if mean.is_finite() {
            let wait = self.pool.exponential(mean);
            self.plan(now_us, wait, Action::NetworkBlock);
        }
    }
}
