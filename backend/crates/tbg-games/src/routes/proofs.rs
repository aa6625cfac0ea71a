//! What anybody may verify: seals, the public file, one's own proof.

use std::time::Duration;

use anyhow::anyhow;
use axum::Json;
use axum::body::{Body as AxumBody, Bytes};
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use tbg_core::UserId;
use tbg_web::{ApiError, Caller, ErrorCode, Int, Page, Query, Routes, Segment, Text, cursor};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tower_http::compression::CompressionLayer;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouterExt as _;
use utoipa_axum::routes;

use super::no_draw;
use crate::Games;
use crate::rules::lottery::{Entry, Side, hex, sibling_places};
use crate::rules::proof::{PROOF_FORMAT, draw_head, draw_line};
use crate::rules::week::parse_week;
use crate::store::{self, DrawRow, OwnEntry};

const DEFAULT_LIMIT: i64 = 20;
/// Lines of a file that are read at once.
const FILE_CHUNK: usize = 1_000;
/// Parts that are read before the client takes them.
const PARTS_AHEAD: usize = 4;
/// How long a file may be on its way.
const FILE_DEADLINE: Duration = Duration::from_secs(60);

/// What a week is sealed with.
#[derive(Serialize, ToSchema)]
struct Seal {
    week_iso: String,
    status: String,
    /// Always 1.
    entry_version: i32,
    entries_count: i32,
    merkle_root: String,
    previous_seal: String,
    seal: String,
    salt_key_id: String,
    #[schema(required)]
    frozen_at: Option<DateTime<Utc>>,
    #[schema(required)]
    drawn_at: Option<DateTime<Utc>>,
}

impl From<DrawRow> for Seal {
    fn from(row: DrawRow) -> Self {
        let text = |bytes: Option<Vec<u8>>| bytes.as_deref().map(hex).unwrap_or_default();
        Self {
            week_iso: row.week_iso,
            status: row.status,
            entry_version: 1,
            entries_count: row.total_participants,
            merkle_root: text(row.merkle_root),
            previous_seal: text(row.previous_seal),
            seal: text(row.seal),
            salt_key_id: row.salt_key_id.unwrap_or_default(),
            frozen_at: row.frozen_at,
            drawn_at: row.drawn_at,
        }
    }
}

/// A hash beside the way to the root.
#[derive(Serialize, ToSchema)]
struct Sibling {
    /// Where it stands: left or right.
    #[schema(value_type = String)]
    side: &'static str,
    hash: String,
}

/// The caller's proof: `tbg lottery verify` reads it.
#[derive(Serialize, ToSchema)]
struct Proof {
    #[schema(value_type = String)]
    format: &'static str,
    week_iso: String,
    #[schema(required)]
    btc_address: Option<String>,
    #[schema(required)]
    salt: Option<String>,
    commitment: String,
    best_difficulty: f64,
    best_time_us: i64,
    total_shares: i64,
    leaf_index: i32,
    entries_count: i32,
    leaf_hash: String,
    /// Bottom-up.
    siblings: Vec<Sibling>,
    merkle_root: String,
    previous_seal: String,
    seal: String,
    #[schema(required)]
    rank: Option<i32>,
    #[schema(required)]
    xp_awarded: Option<i32>,
}

/// Which seals.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SealsQuery {
    /// 20 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Int<1, 100>>,
    /// Where the page before ended.
    #[param(value_type = Option<String>, min_length = 0, max_length = 200)]
    cursor: Option<Text<0, 200>>,
}

/// The routes of proofs.
pub(super) fn routes() -> Routes<Games> {
    Routes::new()
        .public(routes!(seals))
        .public(routes!(seal))
        .public(routes!(file).layer(CompressionLayer::new()))
        .user(routes!(own))
}

/// All seals
#[utoipa::path(get, path = "/api/v1/lottery/proofs", tag = "lottery", params(SealsQuery),
    responses((status = 200, description = "Newest week first", body = Page<Seal>),
              (status = 400, description = "Not a cursor of this list", body = tbg_web::ErrorBody)))]
async fn seals(
    State(games): State<Games>,
    Query(query): Query<SealsQuery>,
) -> Result<Json<Page<Seal>>, ApiError> {
    let limit = query.limit.map_or(DEFAULT_LIMIT, Int::get);
    let before: Option<(String,)> =
        query.cursor.as_ref().map(|cursor| cursor::decode(cursor.as_str())).transpose()?;
    let before: Option<NaiveDate> = match before {
        None => None,
        Some((week,)) => {
            let week = parse_week(&week);
            Some(week.ok_or_else(|| ApiError::new(ErrorCode::InvalidCursor, "Cursor is not valid"))?.monday())
        }
    };
    let rows = store::seals(&games.pool, before, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| (row.week_iso.clone(),)).map(Seal::from)))
}

async fn draw_of(games: &Games, week: &str) -> Result<DrawRow, ApiError> {
    let week = parse_week(week).ok_or_else(no_draw)?.to_string();
    store::draw(&games.pool, Some(&week)).await?.ok_or_else(no_draw)
}

/// The seal of a week
#[utoipa::path(get, path = "/api/v1/lottery/proofs/{week}", tag = "lottery",
    params(("week" = String, Path, description = "`YYYY-Www`, or a day of it", max_length = 10)),
    responses((status = 200, description = "From the freeze on", body = Seal),
              (status = 404, description = "Not frozen", body = tbg_web::ErrorBody)))]
async fn seal(State(games): State<Games>, Segment(week): Segment) -> Result<Json<Seal>, ApiError> {
    Ok(Json(draw_of(&games, &week).await?.into()))
}

/// The public file of a draw
///
/// All entries with their ranks: `tbg lottery verify` needs nothing else.
#[utoipa::path(get, path = "/api/v1/lottery/proofs/{week}/file", tag = "lottery",
    params(("week" = String, Path, description = "`YYYY-Www`, or a day of it", max_length = 10)),
    responses((status = 200, description = "Format tbg-lottery-v1", content_type = "application/json", body = Object),
              (status = 404, description = "Not drawn", body = tbg_web::ErrorBody)))]
async fn file(State(games): State<Games>, Segment(week): Segment) -> Result<Response, ApiError> {
    let draw = draw_of(&games, &week).await?;
    if draw.status != "completed" {
        return Err(no_draw());
    }
    let permit = games.file_streams.clone().try_acquire_owned().map_err(|_| ApiError::unavailable())?;
    let mut response = AxumBody::from_stream(lines(games, draw, permit)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    Ok(response)
}

/// The file in parts of a thousand lines. A task reads them ahead of the client: one who takes nothing holds its place
/// until the deadline, and what breaks off there ends with an error, never like a whole file.
fn lines(
    games: Games,
    draw: DrawRow,
    permit: OwnedSemaphorePermit,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    let (parts, taken) = mpsc::channel(PARTS_AHEAD);
    let task = tokio::spawn(async move {
        let _permit = permit;
        tokio::time::timeout(FILE_DEADLINE, send_lines(&games, &draw, parts))
            .await
            .map_err(std::io::Error::other)?
    });
    futures_util::stream::try_unfold((taken, task), |(mut taken, mut task)| async move {
        match taken.recv().await {
            Some(part) => Ok(Some((part, (taken, task)))),
            None => (&mut task).await.map_err(std::io::Error::other)?.map(|()| None),
        }
    })
}

async fn send_lines(games: &Games, draw: &DrawRow, parts: mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let part = |bytes: &Option<Vec<u8>>| bytes.clone().unwrap_or_default();
    let mut text = draw_head(
        &draw.week_iso,
        draw.total_participants,
        &part(&draw.previous_seal),
        &part(&draw.merkle_root),
        &part(&draw.seal),
    );
    for leaf in (0..draw.total_participants).step_by(FILE_CHUNK) {
        let until = leaf.saturating_add(FILE_CHUNK as i32);
        let rows =
            store::file_rows(&games.pool, draw.id, leaf, until).await.map_err(std::io::Error::other)?;
        for row in &rows {
            if row.leaf_index > 0 {
                text.push(',');
            }
            let time_us = row.best_time.timestamp_micros();
            text.push_str(&draw_line(
                &row.commitment,
                row.best_difficulty,
                time_us,
                row.total_shares,
                row.rank,
            ));
        }
        parts.send(std::mem::take(&mut text).into()).await.map_err(std::io::Error::other)?;
    }
    text.push_str("]}");
    parts.send(text.into()).await.map_err(std::io::Error::other)
}

/// My proof
#[utoipa::path(get, path = "/api/v1/lottery/proofs/{week}/me", tag = "lottery",
    params(("week" = String, Path, description = "`YYYY-Www`, or a day of it", max_length = 10)),
    responses((status = 200, description = "From the freeze on", body = Proof),
              (status = 404, description = "No entry of the caller", body = tbg_web::ErrorBody)))]
async fn own(
    State(games): State<Games>,
    caller: Caller,
    Segment(week): Segment,
) -> Result<impl IntoResponse, ApiError> {
    let no_entry = || ApiError::new(ErrorCode::LotteryEntryNotFound, "No lottery entry in this week");
    let week = parse_week(&week).ok_or_else(no_entry)?;
    let entry = own_entry(&games, caller.user_id, &week.to_string()).await?.ok_or_else(no_entry)?;
    let (leaf, count) = (usize::try_from(entry.leaf_index), usize::try_from(entry.entries));
    let places = sibling_places(leaf.unwrap_or(0), count.unwrap_or(0));
    let levels: Vec<i16> = places.iter().filter_map(|(level, ..)| i16::try_from(*level).ok()).collect();
    let indexes: Vec<i32> = places.iter().filter_map(|(_, index, _)| i32::try_from(*index).ok()).collect();
    let hashes = store::hashes(&games.pool, entry.draw_id, &levels, &indexes).await?;
    if hashes.len() != places.len() {
        return Err(ApiError::internal(anyhow!(
            "the tree of {week} lacks hashes: restore `lottery_tree_levels`"
        )));
    }
    let siblings = places
        .iter()
        .zip(&hashes)
        .map(|((.., side), hash)| Sibling {
            side: if *side == Side::Left { "left" } else { "right" },
            hash: hex(hash),
        })
        .collect();
    let leaf = Entry {
        commitment: entry.commitment.as_slice().try_into().map_err(ApiError::internal)?,
        best_difficulty: entry.best_difficulty,
        best_time_us: entry.best_time.timestamp_micros(),
        total_shares: entry.total_shares.unsigned_abs(),
    };
    let proof = Proof {
        format: PROOF_FORMAT,
        week_iso: week.to_string(),
        leaf_hash: hex(&leaf.leaf(week)),
        siblings,
        commitment: hex(&entry.commitment),
        salt: entry.salt.as_deref().map(hex),
        btc_address: entry.btc_address,
        best_difficulty: entry.best_difficulty,
        best_time_us: leaf.best_time_us,
        total_shares: entry.total_shares,
        leaf_index: entry.leaf_index,
        entries_count: entry.entries,
        merkle_root: hex(&entry.merkle_root),
        previous_seal: hex(&entry.previous_seal),
        seal: hex(&entry.seal),
        rank: entry.rank,
        xp_awarded: entry.xp_awarded,
    };
    Ok(([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(proof)))
}

async fn own_entry(games: &Games, user: UserId, week: &str) -> Result<Option<OwnEntry>, ApiError> {
    Ok(store::own_entry(&games.pool, user, week).await?)
}
