//! The lottery: this week, results, statistics.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_web::{ApiError, Caller, ErrorCode, Int, MaybeCaller, Query, Routes, Segment};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::no_draw;
use crate::Games;
use crate::rules::games::Game;
use crate::rules::lottery::{hex, percentile};
use crate::rules::week::parse_week;
use crate::store::{self, DrawRow, ResultLine};

const PER_PAGE: i64 = 50;
const TOP: i32 = 10;
const ANONYMOUS: &str = "Anonymous";

/// The week before, and where its draw is.
#[derive(Serialize, ToSchema)]
struct PreviousDraw {
    week_iso: String,
    status: String,
}

/// This week's lottery.
#[derive(Serialize, ToSchema)]
struct CurrentLottery {
    week_iso: String,
    #[schema(value_type = String)]
    status: &'static str,
    total_participants: i64,
    your_rank: i64,
    your_diff: f64,
    your_percentile: f64,
    your_shares: i64,
    week_start: DateTime<Utc>,
    week_end: DateTime<Utc>,
    /// The earliest time of the freeze.
    freeze_at: DateTime<Utc>,
    /// The earliest time of the results.
    results_at: DateTime<Utc>,
    #[schema(required)]
    previous: Option<PreviousDraw>,
}

/// A draw.
#[derive(Serialize, ToSchema)]
struct Draw {
    id: i64,
    week_iso: String,
    #[schema(value_type = String, format = "date")]
    week_start: NaiveDate,
    #[schema(value_type = String, format = "date")]
    week_end: NaiveDate,
    total_participants: i32,
    total_shares: i64,
    #[schema(required)]
    winning_difficulty: Option<f64>,
    #[schema(required)]
    winner_user_id: Option<i64>,
    #[schema(required)]
    winner_name: Option<String>,
    status: String,
    #[schema(required)]
    drawn_at: Option<DateTime<Utc>>,
    merkle_root: String,
    seal: String,
}

/// A participant's result.
#[derive(Serialize, ToSchema)]
#[schema(as = LotteryEntry)]
struct Entry {
    /// 0 for whoever hides.
    user_id: i64,
    user_name: String,
    rank: i32,
    best_difficulty: f64,
    total_shares: i64,
    xp_awarded: i32,
    percentile: f64,
}

/// The latest draw.
#[derive(Serialize, ToSchema)]
struct LatestResults {
    draw: Draw,
    top_10: Vec<Entry>,
    #[schema(required)]
    your_result: Option<Entry>,
}

/// A draw's results.
#[derive(Serialize, ToSchema)]
struct WeekResults {
    draw: Draw,
    /// By rank.
    results: Vec<Entry>,
    total: i64,
    page: i64,
    per_page: i64,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ResultsQuery {
    /// 1 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000000)]
    page: Option<Int<1, 1_000_000>>,
    /// 50 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    per_page: Option<Int<1, 100>>,
}

/// All draws in numbers.
#[derive(Serialize, ToSchema)]
struct LotteryStats {
    total_draws: i64,
    total_participants_all_time: i64,
    average_participants_per_draw: f64,
    average_best_diff: f64,
    #[schema(required)]
    highest_winning_diff: Option<f64>,
    #[schema(required)]
    most_recent_draw: Option<String>,
}

/// The caller's lottery in numbers.
#[derive(Serialize, ToSchema)]
struct OwnLotteryStats {
    total_weeks_participated: i64,
    #[schema(required)]
    best_rank: Option<i32>,
    average_rank: f64,
    total_xp_from_lottery: i64,
    weeks_in_top_10: i64,
    weeks_in_top_50: i64,
    weeks_in_top_100: i64,
    #[schema(required, value_type = Option<String>)]
    most_played_game: Option<&'static str>,
    current_streak: i64,
}

impl From<DrawRow> for Draw {
    fn from(row: DrawRow) -> Self {
        let is_named = row.winner_name.is_some();
        Self {
            id: row.id,
            week_iso: row.week_iso,
            week_start: row.week_start,
            week_end: row.week_end,
            total_participants: row.total_participants,
            total_shares: row.total_shares,
            winning_difficulty: row.winning_difficulty,
            winner_user_id: row.winner_user_id.filter(|_| is_named),
            winner_name: row.winner_name.or_else(|| row.winning_difficulty.map(|_| ANONYMOUS.to_owned())),
            status: row.status,
            drawn_at: row.drawn_at,
            merkle_root: row.merkle_root.as_deref().map(hex).unwrap_or_default(),
            seal: row.seal.as_deref().map(hex).unwrap_or_default(),
        }
    }
}

impl Entry {
    /// As `viewer` sees it: whoever hides is seen by themselves alone.
    fn of(row: &ResultLine, viewer: Option<UserId>) -> Self {
        let is_seen = row.is_public || viewer.is_some_and(|viewer| viewer.0 == row.user_id);
        Self {
            user_id: if is_seen { row.user_id } else { 0 },
            user_name: if is_seen { row.name.clone() } else { ANONYMOUS.to_owned() },
            rank: row.rank,
            best_difficulty: row.best_difficulty,
            total_shares: row.total_shares,
            xp_awarded: row.xp_awarded,
            percentile: row.percentile,
        }
    }
}

/// The routes of the lottery.
pub(super) fn routes() -> Routes<Games> {
    Routes::new()
        .user(routes!(current))
        .optional(routes!(latest))
        .public(routes!(results))
        .public(routes!(results_alias))
        .public(routes!(stats))
        .user(routes!(own_stats))
}

/// This week's lottery
#[utoipa::path(get, path = "/api/v1/lottery/current", tag = "lottery",
    responses((status = 200, description = "As it stands", body = CurrentLottery)))]
async fn current(State(games): State<Games>, caller: Caller) -> Result<Json<CurrentLottery>, ApiError> {
    let week = IsoWeek::of(games.clock.now());
    let (best, shares, previous) = store::current(&games.pool, caller.user_id, week.monday()).await?;
    let standing = games.ranking.standing(&games.pool, (week, caller.user_id, best)).await;
    let start = week.monday().and_time(NaiveTime::MIN).and_utc();
    let end = start + TimeDelta::days(7);
    let freeze_at = end + games.config.freeze_grace;
    Ok(Json(CurrentLottery {
        week_iso: week.to_string(),
        status: "open",
        total_participants: standing.participants,
        your_rank: standing.rank,
        your_diff: best,
        your_percentile: percentile(standing.rank, standing.participants),
        your_shares: shares,
        week_start: start,
        week_end: end - TimeDelta::seconds(1),
        freeze_at,
        results_at: freeze_at + games.config.reveal_delay,
        previous: previous.map(|(week_iso, status)| PreviousDraw { week_iso, status }),
    }))
}

/// The latest results
#[utoipa::path(get, path = "/api/v1/lottery/results", tag = "lottery",
    responses((status = 200, description = "The top ten, and the caller", body = LatestResults),
              (status = 404, description = "Nothing was drawn yet", body = tbg_web::ErrorBody)))]
async fn latest(
    State(games): State<Games>,
    MaybeCaller(caller): MaybeCaller,
) -> Result<Json<LatestResults>, ApiError> {
    let draw = store::draw(&games.pool, None)
        .await?
        .ok_or_else(|| ApiError::new(ErrorCode::LotteryNoResults, "No completed lottery draws found"))?;
    let viewer = caller.map(|caller| caller.user_id);
    let rows = store::results(&games.pool, draw.id, 0, TOP, viewer).await?;
    let top_10 = rows.iter().filter(|row| row.rank <= TOP).map(|row| Entry::of(row, viewer)).collect();
    let own = rows.iter().find(|row| viewer.is_some_and(|viewer| viewer.0 == row.user_id));
    Ok(Json(LatestResults { your_result: own.map(|row| Entry::of(row, viewer)), top_10, draw: draw.into() }))
}

/// The results of a week
#[utoipa::path(get, path = "/api/v1/lottery/results/{week}", tag = "lottery",
    params(("week" = String, Path, description = "`YYYY-Www`, or a day of it", max_length = 10), ResultsQuery),
    responses((status = 200, description = "By rank", body = WeekResults),
              (status = 404, description = "Not drawn", body = tbg_web::ErrorBody)))]
async fn results(
    State(games): State<Games>,
    Segment(week): Segment,
    Query(query): Query<ResultsQuery>,
) -> Result<Json<WeekResults>, ApiError> {
    let week = parse_week(&week).ok_or_else(no_draw)?.to_string();
    let (page, per_page) = (query.page.map_or(1, Int::get), query.per_page.map_or(PER_PAGE, Int::get));
    let draw = store::draw(&games.pool, Some(&week)).await?.ok_or_else(no_draw)?;
    let (mut results, mut total) = (Vec::new(), 0);
    // What is completed now was perhaps not when the draw was read.
    if draw.status == "completed" {
        let after = i32::try_from((page - 1).saturating_mul(per_page)).unwrap_or(i32::MAX - 100);
        let at_most = i32::try_from(per_page).unwrap_or(1);
        let rows = store::results(&games.pool, draw.id, after, at_most, None).await?;
        results = rows.iter().map(|row| Entry::of(row, None)).collect();
        total = draw.total_participants.into();
    }
    Ok(Json(WeekResults { draw: draw.into(), results, total, page, per_page }))
}

/// The results of a week (alias)
#[utoipa::path(get, path = "/api/v1/lottery/week/{week}", tag = "lottery",
    params(("week" = String, Path, description = "`YYYY-Www`, or a day of it", max_length = 10), ResultsQuery),
    responses((status = 200, description = "By rank", body = WeekResults),
              (status = 404, description = "Not drawn", body = tbg_web::ErrorBody)))]
async fn results_alias(
    games: State<Games>,
    week: Segment,
    query: Query<ResultsQuery>,
) -> Result<Json<WeekResults>, ApiError> {
    results(games, week, query).await
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// All draws in numbers
#[utoipa::path(get, path = "/api/v1/lottery/stats", tag = "lottery",
    responses((status = 200, description = "Over completed draws", body = LotteryStats)))]
async fn stats(State(games): State<Games>) -> Result<Json<LotteryStats>, ApiError> {
    let row = store::stats(&games.pool).await?;
    let ratio =
        |sum: f64, count: i64, digits| if count == 0 { 0.0 } else { rounded(sum / count as f64, digits) };
    Ok(Json(LotteryStats {
        total_draws: row.draws,
        total_participants_all_time: row.participants,
        average_participants_per_draw: ratio(row.participants as f64, row.draws, 1),
        average_best_diff: ratio(row.sum_best, row.participants, 2),
        highest_winning_diff: row.highest,
        most_recent_draw: row.latest,
    }))
}

/// My lottery in numbers
#[utoipa::path(get, path = "/api/v1/lottery/stats/me", tag = "lottery",
    responses((status = 200, description = "Over completed draws", body = OwnLotteryStats)))]
async fn own_stats(State(games): State<Games>, caller: Caller) -> Result<Json<OwnLotteryStats>, ApiError> {
    let row = store::own_stats(&games.pool, caller.user_id).await?;
    let weeks = [row.hammer, row.horse_race, row.slot_machine, row.scratch_card];
    let most = weeks.into_iter().max().unwrap_or(0);
    let most_played = Game::ALL.into_iter().zip(weeks).find(|(_, weeks)| most > 0 && *weeks == most);
    Ok(Json(OwnLotteryStats {
        total_weeks_participated: row.weeks,
        best_rank: row.best_rank,
        average_rank: rounded(row.average_rank, 2),
        total_xp_from_lottery: row.xp,
        weeks_in_top_10: row.top_10,
        weeks_in_top_50: row.top_50,
        weeks_in_top_100: row.top_100,
        most_played_game: most_played.map(|(game, _)| game.stored()),
        current_streak: row.streak,
    }))
}
