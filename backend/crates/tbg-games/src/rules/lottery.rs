//! The weekly draw: canonical bytes, tree, seal, ranking (contract `games.md` §2.6, §2.8). Format
//! `tbg-lottery-v1`; integers are big-endian.

use std::cmp::Ordering;

use aws_lc_rs::hmac;
use chrono::{DateTime, Datelike as _, Utc};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use tbg_core::period::IsoWeek;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The seal before the first week.
pub const NO_SEAL: Hash = [0; 32];

const ENTRY_VERSION: u8 = 1;
const LEAF: u8 = 0;
const NODE: u8 = 1;
const SEAL: u8 = 2;

/// The key behind the salts of a deployment.
#[derive(Clone)]
pub struct SaltKey {
    key: hmac::Key,
    id: String,
}

impl SaltKey {
    /// A key of 32 bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        let id = hex(&sha256(&[b"tbg-lottery-key-id-v1\0", &bytes]))[..16].to_owned();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), id }
    }

    /// A key from 64 hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        parse_hash(&text.trim().to_ascii_lowercase()).map(Self::new)
    }

    /// Tells keys apart without telling anything about them.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The salt of a user in a week.
    #[must_use]
    pub fn salt(&self, week: IsoWeek, user: i64) -> Hash {
        let message = format!("tbg-lottery-salt-v1\0{week}\0{user}");
        let tag = hmac::sign(&self.key, message.as_bytes());
        let mut salt = [0; 32];
        salt.copy_from_slice(tag.as_ref());
        salt
    }
}

/// What stands for an address in a week.
#[must_use]
pub fn commitment(week: IsoWeek, salt: &Hash, address: &str) -> Hash {
    let week = format!("{week}\0");
    sha256(&[b"tbg-lottery-commit-v1\0", week.as_bytes(), salt, address.as_bytes()])
}

/// Somebody who takes part in a week: by one of their addresses, or by all of them put together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entrant {
    pub user_id: i64,
    pub btc_address: Box<str>,
    pub best_difficulty: f64,
    pub best_time: DateTime<Utc>,
    pub total_shares: i64,
}

impl Entrant {
    /// Puts another address of the same user to it: the better best counts, of equals the earlier one, of those the
    /// smaller address; shares add up (contract `games.md` §2.5).
    pub(crate) fn join(&mut self, other: Self) {
        let shares = self.total_shares.saturating_add(other.total_shares);
        let order = other
            .best_difficulty
            .total_cmp(&self.best_difficulty)
            .then(self.best_time.cmp(&other.best_time))
            .then(self.btc_address.cmp(&other.btc_address));
        if order == Ordering::Greater {
            *self = other;
        }
        self.total_shares = shares;
    }
}

/// A participant's line in a draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Stands for the address.
    pub commitment: Hash,
    /// Best share difficulty of the week.
    pub best_difficulty: f64,
    /// When, in microseconds since 1970.
    pub best_time_us: i64,
    /// Accepted shares of the week.
    pub total_shares: u64,
}

impl Entry {
    /// The 60 bytes that are hashed.
    #[must_use]
    pub fn bytes(&self, week: IsoWeek) -> [u8; 60] {
        let mut bytes = [0; 60];
        bytes[0] = ENTRY_VERSION;
        bytes[1..4].copy_from_slice(&week_bytes(week));
        bytes[4..36].copy_from_slice(&self.commitment);
        bytes[36..44].copy_from_slice(&self.best_difficulty.to_bits().to_be_bytes());
        bytes[44..52].copy_from_slice(&self.best_time_us.to_be_bytes());
        bytes[52..60].copy_from_slice(&self.total_shares.to_be_bytes());
        bytes
    }

    /// Its leaf of the tree.
    #[must_use]
    pub fn leaf(&self, week: IsoWeek) -> Hash {
        sha256(&[&[LEAF], &self.bytes(week)])
    }
}

/// Year and number of a week.
fn week_bytes(week: IsoWeek) -> [u8; 3] {
    let iso = week.monday().iso_week();
    let year = u16::try_from(iso.year()).unwrap_or(0).to_be_bytes();
    [year[0], year[1], u8::try_from(iso.week()).unwrap_or(0)]
}

/// The levels of the tree over `leaves`, from the leaves to the root (RFC 6962 §2.1): pairs are hashed, a last
/// one without a partner moves up unchanged. Of nothing the root is the hash of nothing.
#[must_use]
pub fn tree(leaves: Vec<Hash>) -> Vec<Vec<Hash>> {
    if leaves.is_empty() {
        return vec![vec![Sha256::digest([]).into()]];
    }
    let mut levels = vec![leaves];
    while let Some(below) = levels.last().filter(|level| level.len() > 1) {
        levels.push(above(below));
    }
    levels
}

/// The level of the tree above another.
#[must_use]
pub fn above(level: &[Hash]) -> Vec<Hash> {
    level
        .par_chunks(2)
        .map(|pair| match pair {
            [left, right] => node(left, right),
            single => single.first().copied().unwrap_or_default(),
        })
        .collect()
}

/// The hash over two.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[NODE], left, right])
}

/// On which side of a hash its sibling stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before it.
    Left,
    /// After it.
    Right,
}

/// Where the siblings of a leaf are, bottom-up: level, index, side. Of `count` leaves.
#[must_use]
pub fn sibling_places(leaf: usize, count: usize) -> Vec<(usize, usize, Side)> {
    let (mut index, mut width, mut level) = (leaf, count, 0);
    let mut places = Vec::new();
    while width > 1 {
        if index % 2 == 1 {
            places.push((level, index - 1, Side::Left));
        } else if index + 1 < width {
            places.push((level, index + 1, Side::Right));
        }
        index /= 2;
        width = width.div_ceil(2);
        level += 1;
    }
    places
}

/// The root that a leaf and its siblings lead to.
#[must_use]
pub fn root_of(leaf: Hash, siblings: &[(Side, Hash)]) -> Hash {
    siblings.iter().fold(leaf, |hash, (side, sibling)| match side {
        Side::Left => node(sibling, &hash),
        Side::Right => node(&hash, sibling),
    })
}

/// Chains a week to the one before it.
#[must_use]
pub fn seal(previous: &Hash, week: IsoWeek, count: u64, root: &Hash) -> Hash {
    sha256(&[&[SEAL], previous, &week_bytes(week), &count.to_be_bytes(), root])
}

/// The order of a draw: the first wins. Commitments differ, so there are no ties.
#[must_use]
pub fn by_rank(a: &Entry, b: &Entry) -> Ordering {
    b.best_difficulty
        .total_cmp(&a.best_difficulty)
        .then(a.best_time_us.cmp(&b.best_time_us))
        .then(b.total_shares.cmp(&a.total_shares))
        .then(a.commitment.cmp(&b.commitment))
}

/// Experience of a rank.
#[must_use]
pub fn xp_of(rank: i32) -> i32 {
    match rank {
        ..=10 => 100,
        11..=50 => 50,
        51..=100 => 25,
        _ => 10,
    }
}

/// Per cent of `count` that a rank leaves behind, in hundredths: half up. 0 without a rank, and for one beyond
/// `count`, as a live ranking may have for a moment.
#[must_use]
pub fn percentile_hundredths(rank: i64, count: i64) -> i64 {
    if rank <= 0 || count <= rank { 0 } else { ((count - rank) * 10_000 + count / 2) / count }
}

/// The same in per cent.
#[must_use]
pub fn percentile(rank: i64, count: i64) -> f64 {
    percentile_hundredths(rank, count) as f64 / 100.0
}

/// SHA-256 over parts.
pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A hash from exactly 64 lower-case hex digits.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Hash> {
    let is_plain = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_plain {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests;
