//! The operations domain: what keeps the system accountable, and what administrators see of it and do to it
//! (contract `production.md` §8, §9).
//!
//! The audit log is written by every domain through `tbg_core::audit`. This crate makes it provable and keeps
//! it within its year:
//!
//! * **Sealing** ([`fn@seal`], every minute). A seal covers the rows of one range of time: it holds a hash over
//!   them and the hash of the seal before it. Changing, adding or removing a row behind the program's back
//!   breaks its seal; changing a seal breaks the next one. Writers never wait for a seal: a row's timestamp
//!   is the start of its transaction, so everything below the oldest open transaction is final.
//! * **Verification** ([`fn@verify`], nightly and by `tbg audit verify`) recomputes the chain and names the
//!   first seal that does not hold. Who can rewrite the whole chain is caught by an anchor: the [`head`] goes
//!   to the log every hour, into backup manifests and to `/api/v1/admin/stats`.
//! * **Retention** ([`keep`], at start and at 00:10). Months are partitions, made three ahead. A month goes
//!   when it ended a year ago and is sealed; its seals stay, and from then on only their chain is checked.
//!
//! For administrators ([`Operations`]): [`fn@stats`], the log itself ([`audit_page`]), and clearing caches
//! ([`clear_caches`]). What they look at is in the log before they see it.
//!
//! Tables owned here: `audit_seals`; the partitions of `audit_log`; `pool_hourly_totals`, which a job derives
//! from mining's `hourly_shares` ([`recompute_totals`]).
//!
//! Invariants:
//! * Seals are numbered from 1 without gaps; each begins where the one before it ends, at a whole minute, and
//!   none crosses the end of a month.
//! * No row appears in a range that is sealed.
//! * The program's role can add rows and seals, and change or remove neither (migration 0006).
//! * Clearing caches never touches a key that holds a fact, a limit or a stream ([`CACHES`]).

mod caches;
mod gauges;
pub mod jobs;
mod routes;
mod rules;
mod seal;
mod stats;
mod store;
mod totals;
mod trail;
mod verify;

pub use caches::{CACHES, CacheRegistry, Cleared, Scope, clear_caches};
pub use gauges::{GaugeParts, gauge_job, measure_all};
pub use jobs::{Kept, jobs, keep, measure};
pub use routes::{Operations, Parts, documented_routes};
pub use rules::seal::{Seal, hex, parse_anchor};
pub use seal::{head, seal};
pub use stats::{
    AdminAuditStats, AdminBlockStats, AdminGameStats, AdminMinerStats, AdminShareStats, AdminStats,
    AdminSystemStats, AdminUserStats, stats,
};
pub use store::walls::{guards, has_audit_log, session_powers};
pub use totals::{TOTALS_RECENT, TOTALS_REPLAY, TOTALS_WEEK, catch_up_totals, recompute_totals};
pub use trail::{AuditQuery, AuditRecord, audit_page};
pub use verify::{Fault, FaultKind, Verdict, verify};
