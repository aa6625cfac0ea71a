//! `make fuzz-api`: the real program with a user, an administrator and two users to spare, for the command
//! that is given as arguments. It finds them in `FUZZ_BASE_URL`, `FUZZ_USER_TOKEN`, `FUZZ_ADMIN_TOKEN` and
//! `FUZZ_SPARE_TOKENS`; its exit code becomes that of this program.

#![expect(clippy::print_stderr, reason = "a tool for the terminal")]

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use tbg_core::{Clock as _, SystemClock, UserId};
use tbg_tests::app::{claims, sign};
use tbg_tests::people::{address_of, wallet};
use tbg_tests::program::Program;
use tbg_tests::{TestDb, TestRedis};
use tokio::process::Command;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let command: Vec<String> = std::env::args().skip(1).collect();
    ensure!(!command.is_empty(), "give the command that asks the server");
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings = [("TBG_LOG_FILTER", "warn"), ("TBG_DB_MAX_CONNECTIONS", "10")];
    let program = Program::start(&db, &redis, "api", &settings).await;
    program.wait_for("/health", 200).await;

    let mut tokens = Vec::new();
    for number in 1..=4 {
        let user = db.user(&address_of(&wallet(number))).await;
        if number == 2 {
            tbg_identity::roles::grant_admin(&db.pool, UserId(user), true, SystemClock.now()).await?;
        }
        tokens.push(sign(&claims(user, SystemClock.now())));
    }
    let status = Command::new(&command[0])
        .args(&command[1..])
        .env("FUZZ_BASE_URL", &program.base)
        .env("FUZZ_USER_TOKEN", &tokens[0])
        .env("FUZZ_ADMIN_TOKEN", &tokens[1])
        .env("FUZZ_SPARE_TOKENS", tokens[2..].join(" "))
        .status()
        .await
        .context("the command does not start")?;
    let log = program.log_text();
    let troubles = log.lines().filter(|line| line.contains("ERROR")).count();
    if troubles > 0 {
        eprintln!("the server logged {troubles} error(s):\n{log}");
    }
    let good = status.success() && troubles == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
