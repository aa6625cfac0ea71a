//! `tbg lottery`: verify draws, run due steps.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tbg_core::config::Settings;
use tbg_core::live::LiveBus;
use tbg_core::{Clock as _, SystemClock};
use tbg_games::Waits;
use tbg_games::rules::proof::{MAX_FILE_BYTES, verify};

use super::admin::connect;
use crate::roles;
use crate::terminal::{say, tell};

/// The weekly lottery: verify a draw from its public file, or run the steps that are due.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg lottery verify https://api.thebitcoingame.com/api/v1/lottery/proofs/2026-W09/file
  tbg lottery verify draw.json       exit code 0: every number follows from the entries
  tbg lottery run-due                what the jobs do every minute")]
pub struct Lottery {
    /// What to do.
    #[command(subcommand)]
    pub action: LotteryAction,
}

/// What can be done.
#[derive(Subcommand)]
pub enum LotteryAction {
    /// Check a draw file or one's own proof; needs nothing else
    Verify(Verify),
    /// Take the steps that are due now
    RunDue(RunDue),
}

/// A file.
#[derive(Args)]
pub struct Verify {
    /// A draw file or a proof: a path, an address (http:// or https://), or `-` for standard input
    pub file: String,
}

/// Whether to wait.
#[derive(Args)]
pub struct RunDue {
    /// Skip the waits after a week's end; never the end itself. The audit log keeps it
    #[arg(long)]
    pub no_wait: bool,
}

/// How long an address may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a file may be on its way.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Exit code of a file that is not what it says.
const MISMATCH: u8 = 1;
/// Exit code of a file that cannot be read.
const UNREADABLE: u8 = 2;

pub async fn verify_file(args: &Verify) -> anyhow::Result<ExitCode> {
    let text = match read(&args.file).await {
        Ok(text) => text,
        Err(error) => {
            tell!("{}: {error:#}", args.file);
            return Ok(ExitCode::from(UNREADABLE));
        }
    };
    match verify(&text) {
        Ok(report) => {
            let _ = say!("{}", serde_json::to_string(&report)?);
            Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(MISMATCH) })
        }
        Err(malformed) => {
            tell!("{}: {}", args.file, malformed.0);
            Ok(ExitCode::from(UNREADABLE))
        }
    }
}

async fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = MAX_FILE_BYTES + 1;
    if file == "-" {
        std::io::stdin().take(limit).read_to_end(&mut text)?;
    } else if file.starts_with("https://") || file.starts_with("http://") {
        text = download(file, limit).await?;
    } else {
        std::fs::File::open(file)?.take(limit).read_to_end(&mut text)?;
    }
    anyhow::ensure!(text.len() as u64 <= MAX_FILE_BYTES, "larger than 256 MiB");
    Ok(text)
}

/// What an address answers, up to `limit` bytes.
async fn download(url: &str, limit: u64) -> anyhow::Result<Vec<u8>> {
    let client =
        reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(DOWNLOAD_TIMEOUT).build()?;
    let mut response = client.get(url).send().await?.error_for_status()?;
    let style = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    let mut text = Vec::new();
    while let Some(part) = response.chunk().await? {
        text.extend_from_slice(&part);
        bar.set_position(text.len() as u64);
        if text.len() as u64 >= limit {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(text)
}

pub async fn run_due(args: &RunDue, settings: &Settings) -> anyhow::Result<()> {
    anyhow::ensure!(
        !settings.lottery_salt_key.expose().is_empty(),
        "TBG_LOTTERY_SALT_KEY_FILE is not set: give it the key of the running jobs, a draw is never made anew"
    );
    let pool = connect(settings).await?;
    let bus = LiveBus::new(tbg_core::redis::manager(&tbg_core::redis::client(settings)?)?);
    let cycle = roles::cycle(settings, &pool, &bus)?;
    let waits = if args.no_wait { Waits::Skipped } else { Waits::Kept };
    let weeks = cycle.run(SystemClock.now(), waits).await?;
    say!("{}", serde_json::to_string(&weeks)?)
}
