//! `with-game`: the real program with people who are signed in, for the command that is given after `--`.
//!
//! Everybody signs in over HTTP with a real key and an address of their own: five sign-ins a minute from one
//! address are the limit. The program's log is searched for errors when the command has ended.

#![expect(clippy::print_stderr, reason = "a tool for the terminal")]

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;
use tbg_core::{Clock as _, SystemClock, UserId};
use tbg_tests::people::{Person, client_address, sign_in};
use tbg_tests::program::Program;
use tbg_tests::{TestDb, TestRedis};
use tokio::process::Command;

/// The allocator of the program, which is measured by what runs here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs a command beside the real program, on servers of its own (inside with-servers). The exit code is that of
/// the command; it is 1 as well when the program logged an error.
///
/// The command finds in its environment: `GAME_BASE_URL`; `GAME_PEOPLE`, a file with one JSON object per line and
/// person (id, address, access, from: what to send as X-Forwarded-For); `GAME_ADMIN_TOKEN`; `GAME_POOL_SOCKET`,
/// where a pool writes; `GAME_LOG`; `GAME_DATABASE_URL` and `GAME_REDIS_URL`.
#[derive(Parser)]
#[command(name = "with-game", verbatim_doc_comment)]
struct Args {
    /// People who sign in
    #[arg(long, default_value_t = 4)]
    people: u64,
    /// Roles of the program
    #[arg(long, default_value = "all")]
    roles: String,
    /// A setting of the program; its limits are those of production otherwise
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let mut settings = vec![
        ("TBG_LOG_FILTER", "warn"),
        ("TBG_DB_MIN_CONNECTIONS", "5"),
        ("TBG_DB_MAX_CONNECTIONS", "20"),
        ("TBG_TRUSTED_PROXIES", "127.0.0.1/32"),
        ("TBG_RATE_LIMIT_UNAUTH_PER_MIN", "30"),
        ("TBG_RATE_LIMIT_USER_PER_MIN", "120"),
        ("TBG_RATE_LIMIT_AUTH_PER_MIN", "5"),
    ];
    settings.extend(args.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let program = Program::start(&db, &redis, &args.roles, &settings).await;
    program.wait_for("/health", 200).await;

    let client = reqwest::Client::new();
    let mut lines = String::new();
    for number in 1..=args.people {
        let Person { id, access, address, .. } = sign_in(&client, &program.base, number).await?;
        let from = client_address(number);
        writeln!(lines, "{}", json!({ "id": id, "address": address, "access": access, "from": from }))?;
    }
    let file = program.dir().join("people.jsonl");
    std::fs::write(&file, lines)?;
    let admin = sign_in(&client, &program.base, args.people + 1).await?;
    tbg_identity::roles::grant_admin(&db.pool, UserId(admin.id), true, SystemClock.now()).await?;

    let status = Command::new(&args.command[0])
        .args(&args.command[1..])
        .env("GAME_BASE_URL", &program.base)
        .env("GAME_PEOPLE", &file)
        .env("GAME_ADMIN_TOKEN", &admin.access)
        .env("GAME_POOL_SOCKET", &program.socket)
        .env("GAME_LOG", &program.log)
        .env("GAME_DATABASE_URL", db.url())
        .env("GAME_REDIS_URL", redis.server.url())
        .status()
        .await
        .with_context(|| format!("{} does not start", args.command[0]))?;
    let log = program.log_text();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    if !errors.is_empty() {
        eprintln!("the server logged {} error(s), of which at most 20 follow:", errors.len());
        errors.iter().take(20).for_each(|line| eprintln!("{line}"));
    }
    let good = status.success() && errors.is_empty();
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(code.unwrap_or(1)) })
}
