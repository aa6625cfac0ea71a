//! The live state of a worker: what one hash `worker:<address>:<name>` in Redis says, and how events and time
//! change it (contract `mining.md` §3.5, §4.2, §5.2, §5.3).

use chrono::{DateTime, TimeDelta, Utc};
use tbg_engine::{EventKind, PoolEvent};

/// Hashes of a difficulty-1 share, 2³² (contract §4.1).
pub const HASHES_PER_DIFFICULTY: f64 = 4_294_967_296.0;
/// Live state is touched only by events this young (contract §3.5).
pub const MAX_LIVE_AGE: TimeDelta = TimeDelta::seconds(600);
/// While a rate of the pool's own is this young, the averages computed here do not replace it.
const POOL_RATE_HOLDS: TimeDelta = TimeDelta::seconds(120);
/// Shares closer together than this are added up before they decay.
const MIN_STEP_SECONDS: f64 = 0.05;
/// An idle worker decays when nothing has for this long.
const IDLE_STEP_SECONDS: f64 = 5.0;
/// Seconds of the four averages.
const INTERVALS: [f64; 4] = [60.0, 300.0, 3600.0, 86_400.0];
/// Below this a rate is nothing.
const NEGLIGIBLE: f64 = 2e-16;
/// Offline this long, a return is told (contract §7).
const ABSENT: TimeDelta = TimeDelta::minutes(10);
/// Offline this long, the absence is told.
const MISSING: TimeDelta = TimeDelta::minutes(30);

/// Difficulty per second over one minute, five minutes, an hour and a day, as the pool itself keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Averages {
    /// Difficulty per second.
    pub dsps: [f64; 4],
    /// When they were last brought forward, Unix seconds; 0 before the first share.
    pub last_decay: f64,
    /// Difficulty that has not been added yet.
    pub unadded: f64,
}

impl Averages {
    /// Adds the work of an accepted share at `at` (Unix seconds).
    pub fn add(&mut self, work: f64, at: f64) {
        if self.last_decay == 0.0 {
            (self.last_decay, self.unadded) = (at, work);
            return;
        }
        let elapsed = at - self.last_decay;
        if elapsed < MIN_STEP_SECONDS {
            self.unadded += work;
            return;
        }
        self.bring_forward(work + self.unadded, elapsed);
        (self.last_decay, self.unadded) = (at, 0.0);
    }

    /// Lets idle time pass until `at`; says whether anything changed.
    pub fn idle(&mut self, at: f64) -> bool {
        let elapsed = at - self.last_decay;
        let is_moving = self.unadded > 0.0 || self.dsps.iter().any(|rate| *rate > 0.0);
        if self.last_decay == 0.0 || elapsed < IDLE_STEP_SECONDS || !is_moving {
            return false;
        }
        self.bring_forward(self.unadded, elapsed);
        (self.last_decay, self.unadded) = (at, 0.0);
        true
    }

    /// H/s over the four intervals.
    #[must_use]
    pub fn rates(&self) -> [f64; 4] {
        self.dsps.map(|rate| rate * HASHES_PER_DIFFICULTY)
    }

    fn bring_forward(&mut self, work: f64, elapsed: f64) {
        for (rate, interval) in self.dsps.iter_mut().zip(INTERVALS) {
            *rate = decay(*rate, work, elapsed, interval);
        }
    }
}

/// The exponentially weighted average after `elapsed` seconds in which `work` was done.
fn decay(rate: f64, work: f64, elapsed: f64, interval: f64) -> f64 {
    if elapsed <= 0.0 {
        return rate;
    }
    let share = 1.0 - (-(elapsed / interval).min(36.0)).exp();
    let next = (rate + work / elapsed * share) / (1.0 + share);
    if next < NEGLIGIBLE { 0.0 } else { next }
}

/// Everything live about a worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveWorker {
    /// Whether it is taken to be mining.
    pub is_online: bool,
    /// The event that decided it; older ones no longer do.
    pub state_ts: Option<DateTime<Utc>>,
    /// Its last accepted share.
    pub last_share: Option<DateTime<Utc>>,
    /// Its last connection.
    pub connected_at: Option<DateTime<Utc>>,
    /// Assigned difficulty.
    pub current_diff: f64,
    /// Highest achieved difficulty.
    pub best_diff: f64,
    /// Accepted shares.
    pub valid_shares: i64,
    /// Rejected shares.
    pub invalid_shares: i64,
    /// Accepted shares since it connected.
    pub shares_session: i64,
    /// Address of the miner's network.
    pub ip: Option<String>,
    /// What the firmware calls itself.
    pub useragent: Option<String>,
    /// Displayed H/s over one minute, five minutes, an hour and a day.
    pub rates: [f64; 4],
    /// The averages behind them.
    pub averages: Averages,
    /// When the pool last published rates of its own.
    pub hr_ts: Option<DateTime<Utc>>,
    /// Whether it uses overt ASICBoost.
    pub asicboost: bool,
    /// Whether its owner was told that it is offline.
    pub offline_noticed: bool,
    /// How often the hash was written; guards against lost updates.
    pub rev: i64,
}

/// A worker went on- or offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusChange {
    /// Where it is now.
    pub is_online: bool,
    /// connected, share, disconnected or timeout.
    pub reason: &'static str,
    /// Whether its return is worth a notice.
    pub was_absent: bool,
}

impl LiveWorker {
    /// The last sign of life, except disconnecting.
    #[must_use]
    pub fn last_activity(&self) -> Option<DateTime<Utc>> {
        self.last_share.max(self.connected_at)
    }

    /// Applies an event of the worker that is young enough at `now`; says whether its status changed.
    pub fn apply(&mut self, event: &PoolEvent, now: DateTime<Utc>) -> Option<StatusChange> {
        let ts = event.ts;
        if ts < now - MAX_LIVE_AGE {
            return None;
        }
        match &event.kind {
            EventKind::ShareSubmitted(share) if share.accepted => {
                self.valid_shares += 1;
                self.shares_session += 1;
                self.last_share = self.last_share.max(Some(ts));
                self.best_diff = self.best_diff.max(share.sdiff);
                if share.diff > 0.0 {
                    self.current_diff = share.diff;
                }
                self.averages.add(share.diff, seconds(ts));
                self.show_averages(now);
                self.set_online(true, ts, "share")
            }
            EventKind::ShareSubmitted(_) => {
                self.invalid_shares += 1;
                None
            }
            EventKind::MinerConnected(connected) => {
                self.connected_at = self.connected_at.max(Some(ts));
                self.current_diff = connected.initial_diff;
                self.shares_session = 0;
                if let Some(ip) = connected.ip {
                    self.ip = Some(ip.to_string());
                }
                if !connected.useragent.is_empty() {
                    self.useragent = Some(connected.useragent.clone());
                }
                self.set_online(true, ts, "connected")
            }
            EventKind::MinerDisconnected => self.set_online(false, ts, "disconnected"),
            EventKind::DiffUpdated { new_diff } => {
                self.current_diff = *new_diff;
                None
            }
            EventKind::HashrateUpdate { rates } => {
                self.rates = *rates;
                self.hr_ts = Some(ts);
                None
            }
            EventKind::AsicboostDetected => {
                self.asicboost = true;
                None
            }
            EventKind::ShareBestDiff { new_best } => {
                self.best_diff = self.best_diff.max(*new_best);
                None
            }
            EventKind::BlockFound(_) | EventKind::NewBlockNetwork(_) | EventKind::Other(_) => None,
        }
    }

    /// Lets idle time pass; says whether a rate changed.
    pub fn decay(&mut self, now: DateTime<Utc>) -> bool {
        let changed = self.averages.idle(seconds(now));
        let before = self.rates;
        if changed || self.hr_ts.is_some() {
            self.show_averages(now);
        }
        changed || before != self.rates
    }

    /// Takes a worker for offline that gave no sign of life for longer than `timeout`.
    pub fn time_out(&mut self, now: DateTime<Utc>, timeout: TimeDelta) -> Option<StatusChange> {
        let is_silent = self.last_activity().is_none_or(|at| now - at > timeout);
        if !self.is_online || !is_silent {
            return None;
        }
        // The moment of deciding does not count as an event: whatever comes later is newer.
        let decided_at = self.last_activity().map_or(now, |at| at + timeout);
        self.set_online(false, decided_at.max(self.state_ts.unwrap_or(decided_at)), "timeout")
    }

    /// Since when it has been missing, if its owner should be told now.
    #[must_use]
    pub fn missing_since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let since = self.last_activity()?;
        (!self.is_online && !self.offline_noticed && now - since >= MISSING).then_some(since)
    }

    fn set_online(
        &mut self,
        is_online: bool,
        ts: DateTime<Utc>,
        reason: &'static str,
    ) -> Option<StatusChange> {
        if self.state_ts.is_some_and(|known| ts < known) {
            return None;
        }
        let since = self.state_ts.replace(ts);
        if self.is_online == is_online {
            return None;
        }
        self.is_online = is_online;
        let was_absent = is_online && since.is_some_and(|since| ts - since >= ABSENT);
        if is_online {
            self.offline_noticed = false;
        }
        Some(StatusChange { is_online, reason, was_absent })
    }

    fn show_averages(&mut self, now: DateTime<Utc>) {
        let pool_speaks = self.hr_ts.is_some_and(|at| now - at < POOL_RATE_HOLDS);
        if !pool_speaks {
            self.hr_ts = None;
            self.rates = self.averages.rates();
        }
    }
}

/// Unix seconds with microseconds.
#[must_use]
pub fn seconds(ts: DateTime<Utc>) -> f64 {
    ts.timestamp_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use tbg_engine::event::{Connected, Share};

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_771_804_800 + second, 0).unwrap()
    }

    fn event(second: i64, kind: EventKind) -> PoolEvent {
        PoolEvent {
            ts: at(second),
            kind,
            source: "hosted".to_owned(),
            region: String::new(),
            event_id: None,
            user: "bc1qexample".to_owned(),
            worker: "rig1".to_owned(),
            payload: "{}".to_owned(),
        }
    }

    fn share(second: i64, diff: f64, accepted: bool) -> PoolEvent {
        event(
            second,
            EventKind::ShareSubmitted(Share { diff, sdiff: diff * 2.0, accepted, ..Share::default() }),
        )
    }

    fn assert_close(actual: [f64; 4], expected: [f64; 4]) {
        for (actual, expected) in actual.into_iter().zip(expected) {
            assert!((actual - expected).abs() <= expected * 1e-9, "{actual} is not {expected}");
        }
    }

    #[test]
    fn averages_match_acceptance_example_2() {
        let mut worker = LiveWorker::default();
        worker.apply(&share(0, 1024.0, true), at(0));
        assert_eq!(worker.rates, [0.0; 4]);
        worker.apply(&share(10, 1024.0, true), at(10));
        assert_close(worker.rates, [117_064_554_381.94, 27_921_642_652.02, 2_433_219_194.95, 101_788_960.39]);
        assert!(worker.decay(at(25)));
        assert!((worker.rates[0] - 95_860_325_456.45).abs() < 95_860_325_456.45 * 1e-9, "{:?}", worker.rates);
    }

    #[test]
    fn what_is_idle_comes_to_nothing() {
        let mut worker = LiveWorker::default();
        worker.apply(&share(0, 1024.0, true), at(0));
        worker.apply(&share(10, 1024.0, true), at(10));
        worker.apply(&event(11, EventKind::MinerDisconnected), at(11));
        assert!(!worker.decay(at(14)), "five seconds have not passed");
        for step in 1..600_000 {
            if !worker.decay(at(14 + step * 15)) {
                break;
            }
        }
        assert_eq!(worker.rates, [0.0; 4]);
    }

    #[test]
    fn time_out_matches_acceptance_example_13() {
        let timeout = TimeDelta::seconds(600);
        let mut worker = LiveWorker { is_online: true, last_share: Some(at(0)), ..LiveWorker::default() };
        worker.connected_at = Some(at(600));
        assert_eq!(worker.time_out(at(660), timeout), None);
        worker.connected_at = Some(at(0));
        assert_eq!(worker.time_out(at(600), timeout), None, "exactly ten minutes idle stays online");
        let change = worker.time_out(at(660), timeout).unwrap();
        assert_eq!((change.is_online, change.reason), (false, "timeout"));
        assert_eq!(worker.time_out(at(700), timeout), None, "only a change is a change");
        let back = worker.apply(&share(700, 1.0, true), at(700)).unwrap();
        assert!(back.is_online && !back.was_absent, "{back:?}");
    }

    #[test]
    fn a_disconnect_that_overtook_a_share_is_not_undone() {
        let mut worker = LiveWorker::default();
        worker.apply(&event(0, EventKind::MinerConnected(Connected::default())), at(0));
        assert!(worker.apply(&event(20, EventKind::MinerDisconnected), at(20)).is_some());
        assert_eq!(worker.apply(&share(19, 512.0, true), at(20)), None);
        assert!(!worker.is_online);
        assert_eq!(worker.last_share, Some(at(19)));
    }

    #[test]
    fn a_return_after_ten_minutes_is_told_and_an_absence_of_thirty_once() {
        let mut worker = LiveWorker::default();
        worker.apply(&share(0, 512.0, true), at(0));
        worker.apply(&event(1, EventKind::MinerDisconnected), at(1));
        assert_eq!(worker.missing_since(at(1_799)), None);
        assert_eq!(worker.missing_since(at(1_800)), Some(at(0)));
        worker.offline_noticed = true;
        assert_eq!(worker.missing_since(at(9_000)), None);
        let back = worker.apply(&share(9_000, 512.0, true), at(9_000)).unwrap();
        assert!(back.was_absent && !worker.offline_noticed);
    }

    #[test]
    fn the_pools_own_rates_stand_for_two_minutes() {
        let mut worker = LiveWorker::default();
        worker.apply(&share(0, 1024.0, true), at(0));
        worker.apply(&event(5, EventKind::HashrateUpdate { rates: [1.0, 2.0, 3.0, 4.0] }), at(5));
        worker.apply(&share(10, 1024.0, true), at(10));
        assert_eq!(worker.rates, [1.0, 2.0, 3.0, 4.0]);
        worker.apply(&share(125, 1024.0, true), at(125));
        assert_eq!(worker.rates, worker.averages.rates());
    }

    #[test]
    fn old_and_rejected_shares_leave_the_rate_alone() {
        let mut worker = LiveWorker::default();
        worker.apply(&share(0, 512.0, true), at(601));
        assert_eq!(worker, LiveWorker::default());
        worker.apply(&share(0, 512.0, false), at(0));
        assert_eq!((worker.invalid_shares, worker.last_share, worker.is_online), (1, None, false));
    }
}
