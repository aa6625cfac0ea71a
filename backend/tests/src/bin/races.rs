//! `make races`: what must happen once happens once, in many rounds.
//!
//! The API of this process, on a real database and a real Redis, gets the same request many times at the same
//! moment: one refresh token, one challenge, one API key more than a user may have, one e-mail with wrong
//! passwords. Each round must let exactly as many through as the contract says (`auth-users.md` §3, §4.1, §4.3,
//! §8) and refuse all others in the way that it says. Exit code 1 when a round lets more or fewer through.
//!
//! Needs the test server in `TBG_TEST_POSTGRES_URL`: `with-servers -- races`.

#![expect(clippy::print_stdout, reason = "a command line tool reports to its terminal")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use clap::Parser;
use serde_json::{Value, json};
use tbg_bitcoin::{AddressType, Network};
use tbg_tests::app::{Answer, App, GENEROUS, request, send};
use tbg_tests::now;
use tbg_tests::people::{address_of, wallet};
use tbg_web::limit::Limits;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// API keys that a user may have.
const KEYS_ALLOWED: usize = 10;
/// Wrong passwords that are checked before an e-mail is locked.
const PASSWORDS_ALLOWED: usize = 10;
/// Numbers of the wallets whose owners make API keys, one per round.
const FIRST_KEY_OWNER: u64 = 1_000;

/// Sends the same request many times at once and counts who gets through.
#[derive(Parser)]
#[command(name = "races")]
struct Args {
    /// Rounds of each race
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
    rounds: usize,
    /// Requests at the same moment
    #[arg(long, default_value_t = 20, value_parser = at_least_one)]
    parallel: usize,
    /// Rounds of the race of passwords, which takes ten hashes a round
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    password_rounds: usize,
}

/// What is raced for.
#[derive(Clone, Copy)]
enum Race {
    /// The successor of one refresh token.
    Refresh,
    /// The sign-in of one challenge.
    Challenge,
    /// The places for API keys.
    ApiKeys,
    /// The checks of a password before the lock.
    Passwords,
}

const RACES: [Race; 4] = [Race::Refresh, Race::Challenge, Race::ApiKeys, Race::Passwords];

impl Race {
    fn name(self) -> &'static str {
        match self {
            Self::Refresh => "one refresh token",
            Self::Challenge => "one challenge",
            Self::ApiKeys => "ten places for API keys",
            Self::Passwords => "ten wrong passwords",
        }
    }

    fn rounds(self, args: &Args) -> usize {
        if matches!(self, Self::Passwords) { args.password_rounds } else { args.rounds }
    }

    fn parallel(self, args: &Args) -> usize {
        if matches!(self, Self::ApiKeys) { KEYS_ALLOWED + 1 } else { args.parallel }
    }

    /// How many must get through.
    fn expected(self, args: &Args) -> usize {
        match self {
            Self::Refresh | Self::Challenge => 1,
            Self::ApiKeys => KEYS_ALLOWED,
            Self::Passwords => PASSWORDS_ALLOWED.min(args.parallel),
        }
    }

    /// What those are answered who get through, and what the others are.
    fn outcomes(self) -> [(u16, &'static str); 2] {
        match self {
            Self::Refresh => [(200, ""), (401, "AUTH_REFRESH_REUSED")],
            Self::Challenge => [(200, ""), (400, "AUTH_CHALLENGE_EXPIRED")],
            Self::ApiKeys => [(200, ""), (409, "API_KEY_LIMIT")],
            Self::Passwords => [(401, "AUTH_INVALID_CREDENTIALS"), (429, "ACCOUNT_LOCKED")],
        }
    }

    /// Prepares a round and returns the request that will be sent many times.
    async fn prepare(self, app: &App, round: u64) -> anyhow::Result<Asked> {
        match self {
            Self::Refresh => {
                let person = app.miner(1).await;
                Ok(Asked::anonymous("/api/v1/auth/refresh", json!({ "refresh_token": person.refresh })))
            }
            Self::Challenge => Ok(Asked::anonymous("/api/v1/auth/verify", signed_challenge(app).await?)),
            Self::ApiKeys => {
                let owner = app.miner(FIRST_KEY_OWNER + round).await;
                let path = "/api/v1/users/me/api-keys";
                Ok(Asked { path, token: Some(owner.access), body: json!({ "name": "race" }) })
            }
            Self::Passwords => {
                let body = json!({ "email": format!("round{round}@example.com"), "password": "Wrong-1234" });
                Ok(Asked::anonymous("/api/v1/auth/login", body))
            }
        }
    }

    fn winners(self, answers: &[Answer]) -> anyhow::Result<usize> {
        let [won, lost] = self.outcomes();
        for answer in answers {
            let outcome = answer.outcome();
            ensure!(outcome == won || outcome == lost, "{}: {outcome:?} was answered", self.name());
        }
        Ok(answers.iter().filter(|answer| answer.outcome() == won).count())
    }
}

/// A request as it is repeated.
struct Asked {
    path: &'static str,
    token: Option<String>,
    body: Value,
}

impl Asked {
    fn anonymous(path: &'static str, body: Value) -> Self {
        Self { path, token: None, body }
    }

    fn request(&self) -> Request<Body> {
        request("POST", self.path, self.token.as_deref(), Some(self.body.clone()))
    }
}

async fn signed_challenge(app: &App) -> anyhow::Result<Value> {
    let key = wallet(2);
    let address = address_of(&key);
    let challenge = app.post("/api/v1/auth/challenge", None, json!({ "btc_address": address })).await.ok();
    let message = challenge["message"].as_str().context("a challenge has a text")?;
    let signature = key.sign_bip322(message, AddressType::P2wpkh, Network::Mainnet);
    let signature = signature.context("the wallet signs")?;
    Ok(json!({ "btc_address": address, "signature": signature, "nonce": challenge["nonce"] }))
}

/// What all rounds of a race came to.
struct Tally {
    race: Race,
    parallel: usize,
    expected: usize,
    /// Who got through, per round.
    winners: Vec<usize>,
    /// How long the rounds took without their preparation, in order.
    times: Vec<Duration>,
}

impl Tally {
    fn is_as_expected(&self) -> bool {
        self.winners.iter().all(|winners| *winners == self.expected)
    }

    fn print(&self) {
        let least = self.winners.iter().min().copied().unwrap_or_default();
        let most = self.winners.iter().max().copied().unwrap_or_default();
        let median = self.times.get(self.times.len() / 2).copied().unwrap_or_default();
        println!(
            "| {} | {} | {} | {} | {least} | {most} | {:.1} | {} |",
            self.race.name(),
            self.winners.len(),
            self.parallel,
            self.expected,
            median.as_secs_f64() * 1e3,
            if self.is_as_expected() { "PASS" } else { "FAIL" },
        );
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let limits = Limits { auth_endpoint: 10_000_000, ..GENEROUS };
    let app = App::with(now(), Network::Mainnet, limits).await;
    tokio::select! {
        outcome = run_all(&app, &args) => outcome,
        error = interrupted() => Err(error),
    }
}

async fn run_all(app: &App, args: &Args) -> anyhow::Result<ExitCode> {
    println!("| Race | rounds | at once | must win | winners min | winners max | ms per round (median) | |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut passed = true;
    for race in RACES {
        let tally = run(app, race, args).await?;
        tally.print();
        passed &= tally.is_as_expected();
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(app: &App, race: Race, args: &Args) -> anyhow::Result<Tally> {
    let (rounds, parallel) = (race.rounds(args), race.parallel(args));
    let (mut winners, mut times) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in (0_u64..).take(rounds) {
        let asked = race.prepare(app, round).await?;
        let requests = (0..parallel).map(|_| asked.request()).collect();
        let started = Instant::now();
        let answers = at_once(&app.router, requests).await;
        times.push(started.elapsed());
        winners.push(race.winners(&answers).with_context(|| format!("round {round}"))?);
    }
    times.sort_unstable();
    Ok(Tally { race, parallel, expected: race.expected(args), winners, times })
}

/// Sends all requests at the same moment.
async fn at_once(router: &Router, requests: Vec<Request<Body>>) -> Vec<Answer> {
    let mut tasks = JoinSet::new();
    for request in requests {
        let router = router.clone();
        tasks.spawn(async move { send(&router, request).await });
    }
    tasks.join_all().await
}

/// Resolves when somebody wants the run to end, so that Redis does not outlive it.
async fn interrupted() -> anyhow::Error {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return error.into(),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    anyhow::anyhow!("interrupted")
}

fn at_least_one(text: &str) -> Result<usize, &'static str> {
    text.parse::<usize>().ok().filter(|number| *number > 0).ok_or("a whole number, at least 1")
}
