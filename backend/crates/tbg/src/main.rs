//! The program: command line and the wiring of roles, nothing else.
//!
//! [`cli`] is what people type, [`commands`] has one module per command, [`roles`] starts what a process
//! does (API, ingest, jobs) and stops it in the right order.

mod cli;
mod commands;
mod roles;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;

use crate::terminal::tell;

/// Events are decoded on one thread and freed on another, in bursts of thousands: in a profile of ingest the
/// system's allocator led the list.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(commands::run(cli)));
    match result {
        Ok(code) => code,
        Err(error) => {
            tell!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
