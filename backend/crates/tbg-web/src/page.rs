//! Keyset pages and their cursors.
//!
//! A query orders by an immutable column and a unique tie-breaker and fetches one row more than the
//! page holds; [`Page::of`] turns the rows into the answer. A cursor is the key of the last row. It
//! carries no authority: the query applies its own filters again.
//!
//! Contract: `auth-users.md` section 1.5.

use serde::Serialize;
use utoipa::ToSchema;

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    #[schema(max_items = 100)]
    pub data: Vec<T>,
    /// Whether and where it goes on.
    pub pagination: Pagination,
}

/// Whether and where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pagination {
    /// The most rows of a page.
    #[schema(minimum = 1, maximum = 100)]
    pub limit: i64,
    /// Whether a page follows.
    pub has_more: bool,
    /// The `cursor` of the page that follows; null on the last page.
    #[schema(max_length = 200)]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The page of `limit` rows (1 to 100) out of the up to `limit + 1` that were fetched; `key` is
    /// what the list is ordered by, as a tuple that [`cursor::decode`] reads back.
    pub fn of<K: Serialize>(mut rows: Vec<T>, limit: i64, key: impl FnOnce(&T) -> K) -> Self {
        let size = usize::try_from(limit).unwrap_or_default();
        let has_more = rows.len() > size;
        rows.truncate(size);
        let last = rows.last().filter(|_| has_more);
        let next_cursor = last.map(|row| cursor::encode(&key(row)));
        Self { data: rows, pagination: Pagination { limit, has_more, next_cursor } }
    }

    /// The same page of other rows: what the client sees instead of what the database keeps.
    pub fn map<U>(self, row: impl FnMut(T) -> U) -> Page<U> {
        Page { data: self.data.into_iter().map(row).collect(), pagination: self.pagination }
    }
}

/// The text form of a place in a list.
pub mod cursor {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::de::{self, DeserializeOwned};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::error::{ApiError, ErrorCode};
    use crate::extract::from_slice;

    const VERSION: u8 = 1;

    /// The longest cursor.
    pub const MAX_LENGTH: usize = 200;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cursor<K> {
        v: u8,
        k: K,
    }

    /// A time in a key: always with six digits of the second and `Z`, so that a place has one text.
    /// Keys hold it rather than a bare `DateTime`, which reads times that the database cannot hold.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Micros(pub DateTime<Utc>);

    impl Micros {
        fn text(self) -> String {
            self.0.to_rfc3339_opts(SecondsFormat::Micros, true)
        }
    }

    impl Serialize for Micros {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&self.text())
        }
    }

    impl<'de> Deserialize<'de> for Micros {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            DateTime::parse_from_rfc3339(&text)
                .ok()
                .map(|time| Self(time.to_utc()))
                .filter(|time| time.text() == text)
                .ok_or_else(|| de::Error::custom("not a time with microseconds"))
        }
    }

    /// The cursor of the tuple `key`.
    pub fn encode<K: Serialize>(key: &K) -> String {
        // Tuples of numbers, texts and times always serialise; anything else would give a cursor
        // that no `decode` accepts.
        let json = serde_json::to_vec(&Cursor { v: VERSION, k: key }).unwrap_or_default();
        let cursor = URL_SAFE_NO_PAD.encode(json);
        debug_assert!((1..=MAX_LENGTH).contains(&cursor.len()), "the key of a list is short");
        cursor
    }

    /// The tuple that [`encode`] was given. It may come from anybody: texts in it are free of control
    /// characters and numbers fit their types, but no such row need exist.
    ///
    /// # Errors
    /// 400 `INVALID_CURSOR` for everything else.
    pub fn decode<K: DeserializeOwned>(cursor: &str) -> Result<K, ApiError> {
        read(cursor).ok_or_else(|| ApiError::new(ErrorCode::InvalidCursor, "Cursor is not valid"))
    }

    fn read<K: DeserializeOwned>(cursor: &str) -> Option<K> {
        if cursor.len() > MAX_LENGTH {
            return None;
        }
        let json = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let Cursor::<K> { v, k } = from_slice(&json).ok()?;
        (v == VERSION).then_some(k)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;

    use super::cursor::{Micros, decode, encode};
    use super::*;
    use crate::error::{ApiError, ErrorCode};

    const EXAMPLE: &str = "eyJ2IjoxLCJrIjpbIjIwMjYtMDMtMTVUMTQ6MzA6MDAuMDAwMDAwWiIsNDJdfQ";

    fn half_past_two() -> DateTime<Utc> {
        "2026-03-15T14:30:00Z".parse().unwrap()
    }

    fn read(json: &str) -> Option<(Micros, i64)> {
        let result: Result<_, ApiError> = decode(&URL_SAFE_NO_PAD.encode(json));
        result.inspect_err(|error| assert_eq!(error.code(), ErrorCode::InvalidCursor)).ok()
    }

    #[test]
    fn the_example_of_the_contract() {
        let key = (Micros(half_past_two()), 42_i64);
        assert_eq!(encode(&key), EXAMPLE);
        assert_eq!(decode::<(Micros, i64)>(EXAMPLE).unwrap(), key);
        assert_eq!(decode::<(DateTime<Utc>, i64)>(EXAMPLE).unwrap(), (half_past_two(), 42));
    }

    #[test]
    fn whatever_is_not_a_cursor_of_the_list_is_refused() {
        assert!(read(r#"{"v":1,"k":["2026-03-15T14:30:00.000000Z",42]}"#).is_some());
        for json in [
            "",
            "{}",
            r#"{"v":1}"#,
            r#"{"v":2,"k":["2026-03-15T14:30:00.000000Z",42]}"#,
            r#"{"v":"1","k":["2026-03-15T14:30:00.000000Z",42]}"#,
            r#"{"v":1,"k":["2026-03-15T14:30:00.000000Z",42],"u":1}"#,
            r#"{"v":1,"v":1,"k":["2026-03-15T14:30:00.000000Z",42]}"#,
            r#"{"v":1,"k":["2026-03-15T14:30:00.000000Z",42]}x"#,
            r#"{"v":1,"k":["2026-03-15T14:30:00.000000Z",42,1]}"#,
            r#"{"v":1,"k":["2026-03-15T14:30:00.000000Z"]}"#,
            r#"{"v":1,"k":["2026-03-15T14:30:00.000000Z","42"]}"#,
            r#"{"v":1,"k":["2026-03-15T14:30:00.000000Z",42.0]}"#,
            r#"{"v":1,"k":["2026-03-15T14:30:00.000000Z",9223372036854775808]}"#,
            r#"{"v":1,"k":["2026-03-15T14:30:00Z",42]}"#,
            r#"{"v":1,"k":["2026-03-15T15:30:00.000000+01:00",42]}"#,
            r#"{"v":1,"k":["+12026-03-15T14:30:00.000000Z",42]}"#,
            r#"{"v":1,"k":[1773585000,42]}"#,
            r#"[1,["2026-03-15T14:30:00.000000Z",42]]"#,
        ] {
            assert!(read(json).is_none(), "{json}");
        }
        let long = URL_SAFE_NO_PAD.encode(format!(r#"{{"v":1,"k":["{}"]}}"#, "x".repeat(200)));
        let padded = format!("{EXAMPLE}==");
        for text in ["", "abc", "%%%", long.as_str(), padded.as_str()] {
            assert!(decode::<(Micros, i64)>(text).is_err() && decode::<(String,)>(text).is_err(), "{text}");
        }
        let nul = URL_SAFE_NO_PAD.encode(r#"{"v":1,"k":["a\u0000"]}"#);
        assert!(decode::<(String,)>(&nul).is_err());
    }

    #[test]
    fn a_page_goes_on_while_a_row_is_left() {
        let page = Page::of(vec![9, 8, 7], 2, |row| (*row,));
        assert_eq!((page.data, page.pagination.has_more), (vec![9, 8], true));
        let cursor = page.pagination.next_cursor.unwrap();
        assert_eq!(decode::<(i32,)>(&cursor).unwrap(), (8,));

        for rows in [vec![9_i32, 8], vec![9], vec![]] {
            let page = Page::of(rows.clone(), 2, |row| (*row,)).map(i64::from);
            assert_eq!(page.data, rows.into_iter().map(i64::from).collect::<Vec<_>>());
            let last = Pagination { limit: 2, has_more: false, next_cursor: None };
            assert_eq!(page.pagination, last);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_key_comes_back(
            micros in 0..4_000_000_000_000_000_i64,
            id in any::<i64>(),
            text in "\\PC{0,20}",
        ) {
            let time = Micros(half_past_two() + TimeDelta::microseconds(micros));
            let key = (time, id, text);
            prop_assert_eq!(decode::<(Micros, i64, String)>(&encode(&key)).unwrap(), key);
        }

        #[test]
        fn any_text_is_a_key_or_refused(text in "(\\PC|[A-Za-z0-9_-]){0,210}", json in "\\PC{0,100}") {
            let _: Result<(Micros, i64), _> = decode(&text);
            let _ = read(&json);
        }
    }
}
