//! The public files of a draw and their verification: needs nothing but the file (contract `games.md` §2.9).

use std::fmt;
use std::marker::PhantomData;

use rayon::prelude::*;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tbg_core::period::IsoWeek;

use super::lottery::{
    Entry, Hash, Side, by_rank, commitment, hex, parse_hash, root_of, seal, sibling_places, tree,
};

/// Format of a draw file.
pub const DRAW_FORMAT: &str = "tbg-lottery-v1";
/// Format of a proof file.
pub const PROOF_FORMAT: &str = "tbg-lottery-proof-v1";
/// The largest file that is read.
pub const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// The most entries of a file.
pub const MAX_ENTRIES: usize = 1_000_000;

/// A JSON object. What is derived for a struct would read an array of its values as well.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// A whole draw.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrawFile {
    format: String,
    week_iso: String,
    entries_count: usize,
    #[serde(deserialize_with = "hash")]
    previous_seal: Hash,
    #[serde(deserialize_with = "hash")]
    merkle_root: Hash,
    #[serde(deserialize_with = "hash")]
    seal: Hash,
    entries: Vec<Object<FileEntry>>,
}

/// A line of a draw file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    #[serde(deserialize_with = "hash")]
    commitment: Hash,
    best_difficulty: f64,
    best_time_us: i64,
    total_shares: u64,
    rank: u32,
}

/// One participant's proof.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofFile {
    format: String,
    week_iso: String,
    #[serde(deserialize_with = "Option::deserialize")]
    btc_address: Option<String>,
    #[serde(deserialize_with = "hash_or_none")]
    salt: Option<Hash>,
    #[serde(deserialize_with = "hash")]
    commitment: Hash,
    best_difficulty: f64,
    best_time_us: i64,
    total_shares: u64,
    leaf_index: usize,
    entries_count: usize,
    #[serde(deserialize_with = "hash")]
    leaf_hash: Hash,
    siblings: Vec<Object<FileSibling>>,
    #[serde(deserialize_with = "hash")]
    merkle_root: Hash,
    #[serde(deserialize_with = "hash")]
    previous_seal: Hash,
    #[serde(deserialize_with = "hash")]
    seal: Hash,
    #[serde(rename = "rank", deserialize_with = "Option::deserialize")]
    _rank: Option<u32>,
    #[serde(rename = "xp_awarded", deserialize_with = "Option::deserialize")]
    _xp_awarded: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSibling {
    side: FileSide,
    #[serde(deserialize_with = "hash")]
    hash: Hash,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileSide {
    Left,
    Right,
}

impl From<FileSide> for Side {
    fn from(side: FileSide) -> Self {
        match side {
            FileSide::Left => Self::Left,
            FileSide::Right => Self::Right,
        }
    }
}

fn hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    parse_hash(&text).ok_or_else(|| serde::de::Error::custom("expected 64 lower-case hex digits"))
}

fn hash_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hash>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| {
        parse_hash(&text).ok_or_else(|| serde::de::Error::custom("expected 64 lower-case hex digits"))
    })
    .transpose()
}

/// What a verification found. None: does not apply to the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file's format.
    pub format: String,
    /// The week of the draw.
    pub week_iso: String,
    /// Entries of the draw.
    pub entries: usize,
    /// Whether salt and address give the commitment.
    pub commitment_ok: Option<bool>,
    /// Whether the entries, or the leaf with its siblings, lead to the root.
    pub root_ok: bool,
    /// Whether the root and the previous seal give the seal.
    pub seal_ok: bool,
    /// Whether every rank follows from the entries.
    pub ranking_ok: Option<bool>,
    /// Whether all of it holds.
    pub ok: bool,
}

impl Report {
    fn concluded(mut self) -> Self {
        self.ok = self.root_ok
            && self.seal_ok
            && self.commitment_ok.unwrap_or(true)
            && self.ranking_ok.unwrap_or(true);
        self
    }
}

/// Why a file cannot be verified at all.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// Verifies a draw file or a proof file.
///
/// # Errors
/// When the text is neither, or breaks its format.
pub fn verify(text: &[u8]) -> Result<Report, Malformed> {
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let format: Format = parse(text)?;
    match format.format.as_str() {
        DRAW_FORMAT => verify_draw(&parse(text)?),
        PROOF_FORMAT => verify_proof(&parse(text)?),
        other => Err(Malformed(format!("unknown format {other:?}"))),
    }
}

fn parse<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, Malformed> {
    serde_json::from_slice::<Object<T>>(text)
        .map(|Object(file)| file)
        .map_err(|error| Malformed(error.to_string()))
}

fn week_of(text: &str) -> Result<IsoWeek, Malformed> {
    IsoWeek::parse(text).ok_or_else(|| Malformed("week_iso is no ISO week".to_owned()))
}

fn verify_draw(file: &DrawFile) -> Result<Report, Malformed> {
    let week = week_of(&file.week_iso)?;
    if file.entries.len() > MAX_ENTRIES {
        return Err(Malformed(format!("more than {MAX_ENTRIES} entries")));
    }
    let entries: Vec<Entry> = file.entries.iter().map(|Object(entry)| entry.entry()).collect();
    let is_ordered = entries.is_sorted_by(|a, b| a.commitment < b.commitment);
    let levels = tree(entries.par_iter().map(|entry| entry.leaf(week)).collect());
    let root = levels.last().and_then(|level| level.first()).copied().unwrap_or_default();
    let count = file.entries.len() as u64;
    let mut ranked: Vec<usize> = (0..entries.len()).collect();
    ranked.par_sort_unstable_by(|a, b| by_rank(&entries[*a], &entries[*b]));
    let ranking_ok = (1..).zip(&ranked).all(|(rank, index)| file.entries[*index].0.rank == rank);
    let report = Report {
        format: file.format.clone(),
        week_iso: file.week_iso.clone(),
        entries: entries.len(),
        commitment_ok: None,
        root_ok: is_ordered && file.entries_count == entries.len() && root == file.merkle_root,
        seal_ok: seal(&file.previous_seal, week, count, &file.merkle_root) == file.seal,
        ranking_ok: Some(ranking_ok),
        ok: false,
    };
    Ok(report.concluded())
}

impl FileEntry {
    fn entry(&self) -> Entry {
        Entry {
            commitment: self.commitment,
            best_difficulty: self.best_difficulty,
            best_time_us: self.best_time_us,
            total_shares: self.total_shares,
        }
    }
}

fn verify_proof(file: &ProofFile) -> Result<Report, Malformed> {
    let week = week_of(&file.week_iso)?;
    if file.leaf_index >= file.entries_count || file.entries_count > MAX_ENTRIES {
        return Err(Malformed("leaf_index or entries_count is out of range".to_owned()));
    }
    let entry = Entry {
        commitment: file.commitment,
        best_difficulty: file.best_difficulty,
        best_time_us: file.best_time_us,
        total_shares: file.total_shares,
    };
    let siblings: Vec<(Side, Hash)> =
        file.siblings.iter().map(|Object(sibling)| (sibling.side.into(), sibling.hash)).collect();
    let sides = sibling_places(file.leaf_index, file.entries_count).into_iter().map(|(.., side)| side);
    let is_placed = sides.eq(siblings.iter().map(|(side, _)| *side));
    let leaf = entry.leaf(week);
    let commitment_ok = match (&file.salt, &file.btc_address) {
        (Some(salt), Some(address)) => Some(commitment(week, salt, address) == file.commitment),
        _ => None,
    };
    let report = Report {
        format: file.format.clone(),
        week_iso: file.week_iso.clone(),
        entries: file.entries_count,
        commitment_ok,
        root_ok: is_placed && leaf == file.leaf_hash && root_of(leaf, &siblings) == file.merkle_root,
        seal_ok: seal(&file.previous_seal, week, file.entries_count as u64, &file.merkle_root) == file.seal,
        ranking_ok: None,
        ok: false,
    };
    Ok(report.concluded())
}

/// The head of a draw file: everything before its entries.
#[must_use]
pub fn draw_head(week: &str, count: i32, previous: &[u8], root: &[u8], seal: &[u8]) -> String {
    format!(
        r#"{{"format":"{DRAW_FORMAT}","week_iso":"{week}","entries_count":{count},"previous_seal":"{}","merkle_root":"{}","seal":"{}","entries":["#,
        hex(previous),
        hex(root),
        hex(seal)
    )
}

/// A line of a draw file.
#[must_use]
pub fn draw_line(
    commitment: &[u8],
    best_difficulty: f64,
    best_time_us: i64,
    total_shares: i64,
    rank: i32,
) -> String {
    let difficulty =
        serde_json::Number::from_f64(best_difficulty).map_or_else(String::new, |n| n.to_string());
    format!(
        r#"{{"commitment":"{}","best_difficulty":{difficulty},"best_time_us":{best_time_us},"total_shares":{total_shares},"rank":{rank}}}"#,
        hex(commitment)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::lottery::{NO_SEAL, SaltKey};

    /// Example 7: the draw file of two.
    fn draw_of_two() -> String {
        let mut bytes = [0; 32];
        (0..32).zip(&mut bytes).for_each(|(number, byte)| *byte = number);
        let (key, week) = (SaltKey::new(bytes), IsoWeek::parse("2026-W09").unwrap());
        let entry = |user, address: &str, best_time_us, total_shares| Entry {
            commitment: commitment(week, &key.salt(week, user), address),
            best_difficulty: 4_231_847_293.0,
            best_time_us,
            total_shares,
        };
        let entries = [
            entry(2, "15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs", 1_771_920_000_000_000, 1_200),
            entry(1, "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", 1_772_013_600_000_000, 47_832),
        ];
        let levels = tree(entries.iter().map(|entry| entry.leaf(week)).collect());
        let root = levels.last().unwrap()[0];
        let lines: Vec<String> = (1..)
            .zip(&entries)
            .map(|(rank, entry)| {
                let shares = i64::try_from(entry.total_shares).unwrap();
                draw_line(&entry.commitment, entry.best_difficulty, entry.best_time_us, shares, rank)
            })
            .collect();
        let head = draw_head("2026-W09", 2, &NO_SEAL, &root, &seal(&NO_SEAL, week, 2, &root));
        format!("{head}{}]}}", lines.join(","))
    }

    #[test]
    fn example_7_a_draw_file_verifies_and_a_changed_one_does_not() {
        let file = draw_of_two();
        assert!(file.contains(&format!(r#""previous_seal":"{}""#, "0".repeat(64))));
        let report = verify(file.as_bytes()).unwrap();
        assert_eq!((report.ok, report.entries, report.commitment_ok), (true, 2, None));

        let swapped = file
            .replace(r#""rank":1"#, r#""rank":0"#)
            .replace(r#""rank":2"#, r#""rank":1"#)
            .replace(r#""rank":0"#, r#""rank":2"#);
        let report = verify(swapped.as_bytes()).unwrap();
        assert_eq!((report.ranking_ok, report.root_ok, report.ok), (Some(false), true, false));
        let report = verify(file.replace(":1200", ":1201").as_bytes()).unwrap();
        assert_eq!((report.root_ok, report.ok), (false, false));
        let doubled = file.replace(r#""entries_count":2"#, r#""entries_count":2,"entries_count":2"#);
        assert!(verify(doubled.as_bytes()).is_err());
    }

    /// The file with its difficulties as numbers.
    fn bests(file: &[u8]) -> Option<serde_json::Value> {
        serde_json::from_slice(file).ok()
    }

    #[test]
    fn no_changed_byte_goes_unseen() {
        let file = draw_of_two();
        for index in 0..file.len() {
            let mut bytes = file.clone().into_bytes();
            bytes[index] ^= 1;
            // A digit behind the precision of a double changes nothing: the file says the same.
            let same = bests(file.as_bytes()).is_some() && bests(file.as_bytes()) == bests(&bytes);
            let is_caught = verify(&bytes).map_or(true, |report| !report.ok);
            assert!(is_caught || same, "byte {index}");
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused() {
        for bad in ["", "{}", "[]", r#"{"format":"x"}"#, r#"{"format":"tbg-lottery-v1"}"#] {
            assert!(verify(bad.as_bytes()).is_err(), "{bad}");
        }
        // An entry as a list of its values is no entry.
        let file: serde_json::Value = serde_json::from_str(&draw_of_two()).unwrap();
        assert!(verify(file.to_string().as_bytes()).unwrap().ok);
        let mut listed = file.clone();
        let entry = &file["entries"][0];
        listed["entries"][0] = ["commitment", "best_difficulty", "best_time_us", "total_shares", "rank"]
            .map(|key| entry[key].clone())
            .to_vec()
            .into();
        assert!(verify(listed.to_string().as_bytes()).is_err());
    }
}
