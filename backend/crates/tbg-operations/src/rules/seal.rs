//! What a seal covers and how its hashes are made (contract `production.md` §8.3). Pure.

use chrono::{DateTime, Datelike as _, Months, NaiveDate, NaiveTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Seals of one kind start their hash with this.
const DOMAIN: &[u8] = b"tbg-audit-v1";
/// What the first seal has for a predecessor.
const NO_HASH: [u8; 32] = [0; 32];
/// Distance that a seal keeps from the present.
const MARGIN: TimeDelta = TimeDelta::seconds(60);
/// Without rows there is a seal this often.
const QUIET_SEAL: TimeDelta = TimeDelta::hours(1);

/// A row of the audit log, details as PostgreSQL writes them.
#[derive(Clone, Debug)]
pub(crate) struct AuditRow {
    pub(crate) id: Uuid,
    pub(crate) timestamp: DateTime<Utc>,
    pub(crate) user_id: Option<String>,
    pub(crate) action: String,
    pub(crate) resource_type: String,
    pub(crate) resource_id: Option<String>,
    pub(crate) ip_address: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) details: String,
    pub(crate) status: String,
}

/// A link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Number, from 1 without gaps.
    pub seal_no: i64,
    /// Start of the range, inclusive.
    pub lo: DateTime<Utc>,
    /// End of the range, exclusive.
    pub hi: DateTime<Utc>,
    /// Rows in the range.
    pub row_count: i64,
    /// Hash over them.
    pub rows_hash: [u8; 32],
    /// Hash of the seal before it; zeros for the first.
    pub prev_hash: [u8; 32],
    /// Hash of all of that.
    pub hash: [u8; 32],
}

impl Seal {
    /// The seal after `previous`.
    pub(crate) fn after(
        previous: Option<&Self>,
        lo: DateTime<Utc>,
        hi: DateTime<Utc>,
        rows: RowsHash,
    ) -> Self {
        let (row_count, rows_hash) = rows.finish();
        let mut seal = Self {
            seal_no: previous.map_or(1, |seal| seal.seal_no + 1),
            lo,
            hi,
            row_count,
            rows_hash,
            prev_hash: previous.map_or(NO_HASH, |seal| seal.hash),
            hash: NO_HASH,
        };
        seal.hash = seal.computed_hash();
        seal
    }

    /// The hash that the other fields give.
    pub(crate) fn computed_hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(DOMAIN);
        for number in [self.seal_no, self.lo.timestamp_micros(), self.hi.timestamp_micros(), self.row_count] {
            hasher.update(number.to_be_bytes());
        }
        hasher.update(self.rows_hash);
        hasher.update(self.prev_hash);
        hasher.finalize().into()
    }

    /// Whether it follows `previous` without a gap; without one, whether it is the first.
    pub(crate) fn follows(&self, previous: Option<&Self>) -> bool {
        match previous {
            Some(previous) => {
                self.seal_no == previous.seal_no + 1
                    && self.prev_hash == previous.hash
                    && self.lo == previous.hi
            }
            None => self.seal_no == 1 && self.prev_hash == NO_HASH,
        }
    }
}

/// The hash over the rows of a range, fed in the order (timestamp, id).
#[derive(Clone, Default)]
pub(crate) struct RowsHash {
    hasher: Sha256,
    count: i64,
}

impl RowsHash {
    pub(crate) fn add(&mut self, row: &AuditRow) {
        self.hasher.update(leaf(row));
        self.count += 1;
    }

    /// How many rows there were, and their hash.
    pub(crate) fn finish(self) -> (i64, [u8; 32]) {
        (self.count, self.hasher.finalize().into())
    }
}

/// The hash of one row: its ten columns in order, each with its length, so that no two rows share a text.
fn leaf(row: &AuditRow) -> [u8; 32] {
    let micros = row.timestamp.timestamp_micros().to_be_bytes();
    let columns = [
        Some(row.id.as_bytes().as_slice()),
        Some(micros.as_slice()),
        row.user_id.as_deref().map(str::as_bytes),
        Some(row.action.as_bytes()),
        Some(row.resource_type.as_bytes()),
        row.resource_id.as_deref().map(str::as_bytes),
        row.ip_address.as_deref().map(str::as_bytes),
        row.user_agent.as_deref().map(str::as_bytes),
        Some(row.details.as_bytes()),
        Some(row.status.as_bytes()),
    ];
    let mut hasher = Sha256::new();
    for column in columns {
        let Some(bytes) = column else {
            hasher.update([0]);
            continue;
        };
        // The columns are far shorter than 4 GiB.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        hasher.update([1]);
        hasher.update(length.to_be_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().into()
}

/// The whole minute at or before `at`.
pub(crate) fn minute_of(at: DateTime<Utc>) -> DateTime<Utc> {
    let into_minute = at.timestamp_micros().rem_euclid(60_000_000);
    DateTime::from_timestamp_micros(at.timestamp_micros() - into_minute).unwrap_or(at)
}

/// The end of the UTC month that contains `at`.
pub(crate) fn month_end(at: DateTime<Utc>) -> DateTime<Utc> {
    let first_day = NaiveDate::from_ymd_opt(at.year(), at.month(), 1);
    first_day
        .and_then(|day| day.checked_add_months(Months::new(1)))
        .map_or(DateTime::<Utc>::MAX_UTC, |day| day.and_time(NaiveTime::MIN).and_utc())
}

/// The name of the partition that holds `at`.
pub(crate) fn partition_of(at: DateTime<Utc>) -> String {
    at.format("audit_log_y%Ym%m").to_string()
}

/// Where a seal that begins at `lo` ends: before everything that may still change, and within its month.
/// None when there is nothing to seal yet.
pub(crate) fn end_of_seal(
    lo: DateTime<Utc>,
    now: DateTime<Utc>,
    horizon: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let hi = minute_of(horizon.min(now - MARGIN)).min(month_end(lo));
    (hi > lo).then_some(hi)
}

/// Whether a range deserves a seal. One without rows waits for its hour, except at the end of a month, which
/// it cannot cross.
pub(crate) fn is_due(rows: &RowsHash, lo: DateTime<Utc>, hi: DateTime<Utc>) -> bool {
    rows.count > 0 || hi - lo >= QUIET_SEAL || hi == month_end(lo)
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An anchor as people write it, `NO:HEX`: the number of a seal and its hash.
#[must_use]
pub fn parse_anchor(text: &str) -> Option<(i64, [u8; 32])> {
    let (number, digits) = text.split_once(':')?;
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some((number.parse().ok().filter(|number| *number >= 1)?, hash))
}

#[cfg(test)]
mod tests;
