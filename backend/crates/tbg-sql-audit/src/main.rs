//! `tbg-sql-audit [PATH…]`: the scanner of `make sql-audit`.
//!
//! Exit code 0: nothing found; 1: findings; 2: something could not be scanned.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool reports to its terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tbg_sql_audit::{Report, UNSCANNABLE, repository_root, scan};

/// Looks for SQL and Lua that are put together at run time, and for SQL in the wrong place
#[derive(Parser)]
#[command(name = "tbg-sql-audit", version)]
struct Arguments {
    /// Files and folders to scan instead of the whole repository
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => {
            print!("{report}");
            ExitCode::from(report.exit_code())
        }
        Err(error) => {
            eprintln!("tbg-sql-audit: {error:#}");
            ExitCode::from(UNSCANNABLE)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    let here = std::env::current_dir().context("the current folder is not there")?;
    let root = repository_root(&here).context("not inside the repository")?;
    scan(&root, &arguments.paths)
}
