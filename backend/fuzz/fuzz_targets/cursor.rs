//! Any text as the cursor of lists with different keys: decoding never panics, and a key that came out
//! has one cursor, which gives the same key again.
#![no_main]

use std::fmt::Debug;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tbg_web::cursor::{MAX_LENGTH, Micros, decode, encode};
use tbg_web::{ApiError, ErrorCode};
use uuid::Uuid;

fn check<K: Serialize + DeserializeOwned + PartialEq + Debug>(cursor: &str) {
    let result: Result<K, ApiError> = decode(cursor);
    match result {
        Ok(key) => {
            let normal = encode(&key);
            assert!(normal.len() <= MAX_LENGTH);
            let again: Result<K, ApiError> = decode(&normal);
            assert_eq!(again.ok().as_ref(), Some(&key), "{normal}");
            assert_eq!(encode(&key), normal);
        }
        Err(error) => assert_eq!(error.code(), ErrorCode::InvalidCursor),
    }
}

fn check_all(cursor: &str) {
    check::<(DateTime<Utc>, Uuid)>(cursor);
    check::<(Micros, Uuid)>(cursor);
    check::<(Micros, i64)>(cursor);
    check::<(i64,)>(cursor);
}

// The bytes are tried as a cursor, and as the JSON inside one: the fuzzer cannot guess base64.
fuzz_target!(|bytes: &[u8]| {
    check_all(&String::from_utf8_lossy(bytes));
    check_all(&URL_SAFE_NO_PAD.encode(bytes));
});
