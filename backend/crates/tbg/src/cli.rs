//! What people type. Help texts teach: each command says what it is for and shows examples.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{admin, game, lottery, user, wallet};

/// The Bitcoin Game: every share of a solo miner counts.
///
/// Settings come from a TOML file (TBG_CONFIG), the environment (TBG_…), and secret files
/// (TBG_…_FILE or /run/secrets). `tbg config` lists them all.
#[derive(Parser)]
#[command(name = "tbg", version, after_help = "New here? `tbg dev` starts a whole game on this machine.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Start a whole game on this machine: databases, miners, API
    Dev(Dev),
    /// Run one or more roles of a deployment
    Serve(Serve),
    /// Bring the database schema up to date
    Migrate,
    /// Feed events from a file into the game
    Replay(Replay),
    /// Make a pool's events up, the same ones for the same seed
    Simulate(Simulate),
    /// Recompute derived tables from the events and ledgers
    Rebuild(Rebuild),
    /// List refused events, or try them again
    DeadLetters(DeadLetters),
    /// Make and use throwaway wallets, to try the game without one at hand
    Wallet(wallet::Wallet),
    /// Give or take the admin right
    Admin(admin::Admin),
    /// Ban a user, or end a ban
    User(user::User),
    /// Verify a weekly draw, or run the steps that are due
    Lottery(lottery::Lottery),
    /// Grant a badge that only people can verify
    Badge(game::Badge),
    /// Correct a user's experience
    Xp(game::Xp),
    /// Check that nobody changed the audit log
    Audit(Audit),
    /// Make keys that sign tokens
    Keys(Keys),
    /// Check a deployment and say what to fix
    Doctor(Doctor),
    /// Ask a running server whether it is healthy
    Healthcheck(Healthcheck),
    /// Print every setting with its value and origin; secrets stay hidden
    Config,
    /// Print the version
    Version,
}

/// Starts private PostgreSQL and Redis servers under a folder, migrates, lets simulated miners write
/// the pool's datagrams into the pool's socket, and serves the API. Ctrl-C stops all of it; the next
/// start finds its data again.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg dev                        the game on http://localhost:8000
  tbg dev --miners 1000          a crowd
  tbg dev --week-ends-in 3m      watch a lottery being drawn
  tbg dev --miners 0             no simulated miner: bring your own pool
  tbg dev --reset                start over with empty databases")]
pub struct Dev {
    /// Port of the API on localhost
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Folder of the private servers and their data
    #[arg(long, default_value = ".tbg")]
    pub dir: PathBuf,
    /// Delete the data of earlier runs first
    #[arg(long)]
    pub reset: bool,
    /// Simulated miners
    #[arg(long, default_value_t = 25)]
    pub miners: u32,
    /// Shares come this many times as often as from real miners
    #[arg(long, default_value_t = 5.0)]
    pub speed: f64,
    /// Play in the last minutes of a week, and watch its lottery being drawn: 90s, 3m, 1h. Starts a new game each time,
    /// in a folder of its own; the draw comes within four minutes after the week's end
    #[arg(long, value_parser = duration)]
    pub week_ends_in: Option<TimeDelta>,
}

/// A time such as 90s, 3m or 1h, up to a day.
fn duration(text: &str) -> Result<TimeDelta, String> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or_default();
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => 0,
    };
    let length = number.parse::<u32>().ok().map(|number| i64::from(number) * seconds);
    length
        .filter(|length| (1..=86_400).contains(length))
        .map(TimeDelta::seconds)
        .ok_or_else(|| "expected a time such as 90s, 3m or 1h, at most 24h".to_owned())
}

/// Runs roles until SIGTERM or Ctrl-C, then drains: no new connections, running requests and batches
/// finish, what is committed is acknowledged.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg serve                                          everything in one process
  tbg serve --role api                               one of several API replicas
  tbg serve --role ingest,jobs                       the writer and the scheduler
  TBG_DATABASE_URL_FILE=/run/secrets/database_url tbg serve --role all")]
pub struct Serve {
    /// Which roles, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub role: Vec<Role>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// HTTP API
    Api,
    /// Pool events into the database; one process writes, others stand by
    Ingest,
    /// Scheduled work; each run happens once, whatever the number of processes
    Jobs,
    /// All of them
    All,
}

/// Recomputes what is derived, and gives the same rows. The writer waits meanwhile for mining's.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg rebuild                          everything
  tbg rebuild --domain gamification    sums, levels and streaks, from ledger, awards and calendar")]
pub struct Rebuild {
    /// One domain only
    #[arg(long, value_enum)]
    pub domain: Option<Domain>,
}

/// A domain with derived tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Domain {
    /// Rollups, bests, blocks
    Mining,
    /// Sums, levels, streaks
    Gamification,
    /// Trees, seals and results of the lottery, from its entries
    Games,
}

/// Applies events of an NDJSON file (plain or .gz): envelopes, or lines of the raw log. An event that was
/// applied before changes nothing, so a file can be replayed again. Prints a JSON summary.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg replay events.ndjson.gz
  tbg replay events.ndjson --from 2026-02-23T00:00:00Z --to 2026-02-24T00:00:00Z
  tbg replay events.ndjson --dry-run                 only read and check
  tbg replay old.ndjson --allow-old                  older than 90 days: bests and blocks only")]
pub struct Replay {
    /// The file; `-` reads standard input
    pub file: PathBuf,
    /// Skip events before this instant
    #[arg(long, value_name = "TIME")]
    pub from: Option<DateTime<Utc>>,
    /// Skip events at or after this instant
    #[arg(long, value_name = "TIME")]
    pub to: Option<DateTime<Utc>>,
    /// Read and check, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Accept events older than 90 days; they take part in bests and blocks only
    #[arg(long)]
    pub allow_old: bool,
    /// Apply at most this many events a second
    #[arg(long, value_name = "EVENTS_PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<u32>,
}

fn parse_rate(text: &str) -> Result<u32, String> {
    match text.strip_suffix("/s").unwrap_or(text).parse() {
        Ok(0) | Err(_) => Err("expected a number such as 1000 or 1000/s".to_owned()),
        Ok(rate) => Ok(rate),
    }
}

/// Writes the events of a simulated pool: thousands of miners with vardiff, heavy-tailed share
/// difficulty, rejects, reconnects, duplicates, out-of-order arrival, a block now and then. A file appears
/// under its name when it is complete; until then it is FILE.partial.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg simulate --events 1000000 --to events.ndjson             a file
  tbg simulate --to unix:/tmp/ckpool/events.sock               the pool's socket, at the speed of life
  tbg simulate --to streams --events 500000 --fast             Redis Streams, as fast as ingest reads")]
pub struct Simulate {
    /// Where to: a file, `-` (standard output), `unix:PATH` or `streams`
    #[arg(long, default_value = "-")]
    pub to: String,
    /// The same seed gives the same events
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Simulated miners
    #[arg(long, default_value_t = 1000)]
    pub miners: u32,
    /// Stop after this many events; without it, a file needs a --duration
    #[arg(long)]
    pub events: Option<u64>,
    /// Stop after this many seconds of simulated time
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,
    /// Simulated start; by default now
    #[arg(long, value_name = "TIME")]
    pub start: Option<DateTime<Utc>>,
    /// Seconds between two shares of a miner
    #[arg(long, default_value_t = 15.0)]
    pub share_seconds: f64,
    /// Do not wait for the simulated time (files never do)
    #[arg(long)]
    pub fast: bool,
    /// Register a user for every simulated address first (needs the database)
    #[arg(long)]
    pub register: bool,
}

/// What was refused on its way into the game, with the reason.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg dead-letters list
  tbg dead-letters list --reason future_ts --limit 20
  tbg dead-letters retry --reason apply_failed       what can be applied now is, and leaves the list")]
pub struct DeadLetters {
    /// What to do with them
    #[command(subcommand)]
    pub action: DeadLetterAction,
}

/// Actions on dead letters.
#[derive(Subcommand)]
pub enum DeadLetterAction {
    /// Newest first
    List(LetterFilter),
    /// Apply all of them, oldest first; those that are still refused stay
    Retry(LetterFilter),
}

/// Which dead letters.
#[derive(Args)]
pub struct LetterFilter {
    /// Only of this reason, such as `malformed_json`
    #[arg(long)]
    pub reason: Option<String>,
    /// List at most this many; retry fetches this many at a time, until all were tried
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Looks at settings, secret files, databases, the pool's socket and the kernel, as the process that it is run in place
/// of would find them.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg doctor                    where one process does everything
  tbg doctor --role api         what one role needs, and no more")]
pub struct Doctor {
    /// Which roles, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub role: Vec<Role>,
}

/// Exits with 0 when the server of `TBG_HTTP_LISTEN` answers /health with 200, else with 1.
#[derive(Args)]
pub struct Healthcheck {
    /// Any answer will do: the process is alive, whatever its dependencies
    #[arg(long)]
    pub alive: bool,
    /// Any answer will do once there was a 200, which this file remembers: so that a container counts as started only
    /// when it is ready, and is not replaced because its database is away
    #[arg(long, value_name = "FILE", conflicts_with = "alive")]
    pub once_ready: Option<PathBuf>,
}

/// The audit log is a chain of seals: a row that was changed, removed or slipped in breaks it.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg audit verify                                   the whole chain
  tbg audit verify --from 1000                       from seal 1000 on
  tbg audit verify --anchor 1234:5bc8…b69            seal 1234 must have this hash (from a log or a backup)

Exit codes: 0 untouched, 1 somebody changed something, 2 the check could not run.")]
pub struct Audit {
    /// What to do.
    #[command(subcommand)]
    pub action: AuditAction,
}

/// Checks of the audit log.
#[derive(Subcommand)]
pub enum AuditAction {
    /// Recompute the seals and compare
    Verify {
        /// First seal to check
        #[arg(long, value_name = "SEAL")]
        from: Option<i64>,
        /// A seal whose hash is known from outside the database
        #[arg(long, value_name = "SEAL:HEX")]
        anchor: Option<String>,
    },
}

/// Tokens are signed with an RSA key. To rotate: make a new key, put the old public key into the folder of
/// TBG_JWT_VERIFY_KEYS_DIR, restart the replicas, and remove it after eight days.
#[derive(Args)]
#[command(after_help = "Examples:
  (umask 077; tbg keys new > jwt_private_key.pem)    for TBG_JWT_PRIVATE_KEY_FILE or /run/secrets
  tbg keys public < jwt_private_key.pem              its public key, for TBG_JWT_VERIFY_KEYS_DIR")]
pub struct Keys {
    /// What to do.
    #[command(subcommand)]
    pub action: KeyAction,
}

/// Keys of tokens.
#[derive(Clone, Copy, Subcommand)]
pub enum KeyAction {
    /// Print a new private key (RSA, 3072 bits, PEM)
    New,
    /// Print the public key of the private key on standard input
    Public,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_is_at_most_a_day() {
        assert_eq!(duration("90s"), Ok(TimeDelta::seconds(90)));
        assert_eq!(duration("3m"), Ok(TimeDelta::minutes(3)));
        assert_eq!(duration("24h"), Ok(TimeDelta::days(1)));
        for bad in ["", "3", "m", "0s", "-1m", "25h", "3 m", "3d", "drei", "5µ"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
