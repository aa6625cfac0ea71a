//! What the game does with the events of other domains (contract `gamification.md` §4.2). Each is one
//! transaction with its outbox row; doing it twice changes nothing the second time.

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::consumer::Handle;
use tbg_core::live::LiveMessage;
use tbg_core::metrics::Counts;
use tbg_core::outbox::{self, Pending};
use tbg_core::text::with_commas;

use crate::rules::causes::{Cause, Fold, Grant, adjustment_key};
use crate::store::{self, Wanted};
use crate::{metrics, tell};

const LESSON_XP: i32 = 25;
const TRACK_XP: i32 = 50;
const MATCH_XP: i32 = 200;

/// Consumes what is experience or a badge.
#[derive(Clone, Copy, Debug, Default)]
pub struct GameEvents;

impl GameEvents {
    /// The consumer.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[derive(Deserialize)]
struct Lesson {
    lesson_id: Id,
    title: String,
    completed_at: DateTime<Utc>,
}

#[derive(Deserialize)]
struct Track {
    track_id: Id,
    title: String,
    completed_at: DateTime<Utc>,
}

#[derive(Deserialize)]
struct Coop {
    name: String,
}

#[derive(Deserialize)]
struct CoopBlock {
    height: i32,
    user_ids: Vec<i64>,
}

#[derive(Deserialize)]
struct Draw {
    week_iso: String,
    drawn_at: Option<DateTime<Utc>>,
    results: Vec<DrawResult>,
}

#[derive(Deserialize)]
struct DrawResult {
    user_id: i64,
    rank: i32,
    xp: i32,
}

#[derive(Deserialize)]
struct Match {
    match_id: i64,
    title: String,
    winner_user_ids: Vec<i64>,
}

#[derive(Deserialize)]
struct Registered {
    competition_id: i64,
    #[serde(rename = "type")]
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Won {
    competition_id: i64,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    user_ids: Vec<i64>,
}

#[derive(Deserialize)]
struct WeekClosed {
    week_iso: String,
    champion_user_id: Option<i64>,
    best_difficulty: f64,
}

#[derive(Deserialize)]
struct Node {
    kind: String,
}

#[derive(Deserialize)]
struct Adjustment {
    amount: i32,
    reference: String,
    reason: String,
}

/// An id of another domain: text, or a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A cause of a user, at a time.
type Caused = (UserId, DateTime<Utc>, Cause);

#[async_trait]
impl Handle for GameEvents {
    fn consumer(&self) -> &'static str {
        "gamification"
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        event: &Pending,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Vec<LiveMessage>> {
        if event.topic == "UserDeleted" {
            store::forget(conn, event.user_id.context("the event names no user")?).await?;
            return Ok(Vec::new());
        }
        let mut causes = causes_of(event)?;
        if event.topic == "LeaderboardWeekClosed" {
            // A week has one champion: the first that was reported.
            let closed: WeekClosed = payload(event)?;
            let crowned = store::has_champion(conn, &closed.week_iso).await?;
            causes.retain(|_| !crowned);
        }
        apply(conn, causes, &event.counts, now).await
    }
}

fn payload<T: DeserializeOwned>(event: &Pending) -> anyhow::Result<T> {
    serde_json::from_value(event.payload.clone()).with_context(|| format!("{}: its fields", event.topic))
}

fn causes_of(event: &Pending) -> anyhow::Result<Vec<Caused>> {
    let at = event.created_at;
    let own = || event.user_id.context("the event names no user");
    Ok(match event.topic.as_str() {
        "LessonCompleted" => {
            let lesson: Lesson = payload(event)?;
            vec![(
                own()?,
                lesson.completed_at,
                education(LESSON_XP, "lesson", "lesson", &lesson.lesson_id, &lesson.title, own()?),
            )]
        }
        "TrackCompleted" => {
            let track: Track = payload(event)?;
            let metadata = json!({ "track": track.title });
            vec![
                (own()?, track.completed_at, award("rabbit_hole_complete", metadata)),
                (
                    own()?,
                    track.completed_at,
                    education(TRACK_XP, "track", "education track", &track.track_id, &track.title, own()?),
                ),
            ]
        }
        "CoopCreated" => {
            let coop: Coop = payload(event)?;
            vec![(own()?, at, award("coop_founder", json!({ "cooperative": coop.name })))]
        }
        "CoopBlockFound" => {
            let block: CoopBlock = payload(event)?;
            let height = with_commas(block.height.unsigned_abs().into());
            let cause = award("coop_block", json!({ "blockHeight": height }));
            block.user_ids.into_iter().map(|user| (UserId(user), at, cause.clone())).collect()
        }
        "LotteryDrawn" => lottery(payload(event)?, at),
        "MatchFinished" => {
            let won: Match = payload(event)?;
            won.winner_user_ids.iter().map(|user| (UserId(*user), at, match_win(&won, *user))).collect()
        }
        "CompetitionRegistered" => {
            let entry: Registered = payload(event)?;
            cup(&entry.kind, entry.competition_id, &entry.name, "world_cup_participant")
                .map(|cause| Ok((own()?, at, cause)))
                .into_iter()
                .collect::<anyhow::Result<_>>()?
        }
        "CompetitionWon" => {
            let won: Won = payload(event)?;
            let cause = cup(&won.kind, won.competition_id, &won.name, "world_cup_winner");
            let users = won.user_ids.into_iter();
            users.filter_map(|user| Some((UserId(user), at, cause.clone()?))).collect()
        }
        "LeaderboardWeekClosed" => {
            let closed: WeekClosed = payload(event)?;
            let champion = closed.champion_user_id;
            champion.map(|user| (UserId(user), at, champion_of(&closed))).into_iter().collect()
        }
        "GiftRedeemed" => vec![(own()?, at, award("orange_piller", json!({})))],
        "NodeVerified" => {
            let node: Node = payload(event)?;
            let slug = match node.kind.as_str() {
                "full" => "node_runner",
                "pruned" => "node_pruned",
                "archival" => "node_archival",
                other => anyhow::bail!("a node of kind {other}"),
            };
            vec![(own()?, at, award(slug, json!({})))]
        }
        "XpAdjusted" => {
            let change: Adjustment = payload(event)?;
            let grant = Grant {
                amount: change.amount,
                source: "adjustment",
                key: adjustment_key(&change.reference),
                source_id: change.reference,
                description: change.reason,
            };
            vec![(own()?, at, Cause::Xp(grant))]
        }
        // Known, and of no effect here.
        "CoopJoined" | "GamePlayed" => Vec::new(),
        // What is not understood is not done: it waits in the outbox for a program that knows it.
        topic => anyhow::bail!("{topic} is not an event for the game"),
    })
}

fn award(slug: &'static str, metadata: Value) -> Cause {
    Cause::Award { slug, period: String::new(), metadata }
}

fn education(amount: i32, what: &str, words: &str, id: &Id, title: &str, user: UserId) -> Cause {
    Cause::Xp(Grant {
        amount,
        source: "education",
        source_id: id.to_string(),
        key: format!("{what}:{id}:{user}"),
        description: format!("Completed {words}: {title}"),
    })
}

/// Experience by rank is in the event: the draw decided it (contract `games.md` §2.8).
fn lottery(draw: Draw, at: DateTime<Utc>) -> Vec<Caused> {
    let at = draw.drawn_at.unwrap_or(at);
    let week = draw.week_iso;
    let paid = draw.results.into_iter().filter(|result| result.xp > 0);
    paid.map(|result| {
        let user = UserId(result.user_id);
        let grant = Grant {
            amount: result.xp,
            source: "competition",
            source_id: format!("lottery-{week}"),
            key: format!("lottery:{week}:{user}"),
            description: format!("Weekly lottery #{}, {week}", result.rank),
        };
        (user, at, Cause::Xp(grant))
    })
    .collect()
}

fn match_win(won: &Match, user: i64) -> Cause {
    Cause::Xp(Grant {
        amount: MATCH_XP,
        source: "competition",
        source_id: format!("match-{}", won.match_id),
        key: format!("match_win:{}:{user}", won.match_id),
        description: format!("Won match: {}", won.title),
    })
}

/// A badge of a World Cup, once per cup.
fn cup(kind: &str, competition: i64, name: &str, slug: &'static str) -> Option<Cause> {
    (kind == "world_cup").then(|| Cause::Award {
        slug,
        period: format!("cup-{competition}"),
        metadata: json!({ "event": name }),
    })
}

fn champion_of(closed: &WeekClosed) -> Cause {
    let difficulty = with_commas(closed.best_difficulty.max(0.0) as u128);
    Cause::Award {
        slug: "weekly_diff_champion",
        period: closed.week_iso.clone(),
        metadata: json!({ "week": closed.week_iso, "difficulty": difficulty }),
    }
}

/// Applies causes to those of their users who take part, in one go.
async fn apply(
    conn: &mut PgConnection,
    causes: Vec<Caused>,
    counts: &Counts,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    let mut ids: Vec<i64> = causes.iter().map(|(user, ..)| user.0).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let users = store::players_among(conn, &ids).await?;
    let keys = causes
        .iter()
        .filter_map(|(user, _, cause)| match cause {
            Cause::Xp(grant) => Some((*user, grant.key.clone())),
            _ => None,
        })
        .collect();
    let players = store::load(conn, &Wanted { users, keys, ..Wanted::default() }).await?;
    let catalogue = store::catalogue(conn).await?;
    let mut fold = Fold::new(&catalogue, players);
    for (user, at, cause) in causes {
        fold.apply(user, at, cause);
    }
    let mut outcome = fold.finish();
    store::save(conn, &mut outcome, now).await?;
    outbox::write(conn, &tell::events(&outcome)).await?;
    metrics::count(&outcome, counts);
    Ok(tell::live(&outcome).into_iter().filter_map(|told| told.fresh(now)).collect())
}
