//! One module per command.

pub mod admin;
mod audit;
mod dead_letters;
mod dev;
mod doctor;
pub mod game;
mod healthcheck;
pub mod keys;
pub mod lottery;
mod rebuild;
mod replay;
mod serve;
mod simulate;
pub mod user;
pub mod wallet;

use std::process::ExitCode;

use tbg_core::config::{Loaded, Settings, Sources};
use tbg_core::{db, telemetry};

use crate::cli::{Cli, Command};
use crate::commands::lottery::LotteryAction;
use crate::roles;
use crate::terminal::say;

/// Runs a command.
///
/// # Errors
/// What the user should read, saying what to do next.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Dev(args) => dev::run(args).await?,
        Command::Serve(args) => serve::run(&args, loaded()?).await?,
        Command::Migrate => migrate(&settings()?).await?,
        Command::Replay(args) => replay::run(&args, &settings()?).await?,
        Command::Simulate(args) => simulate::run(&args).await?,
        Command::Rebuild(args) => rebuild::run(&args, &settings()?).await?,
        Command::Lottery(args) => match args.action {
            LotteryAction::Verify(args) => return lottery::verify_file(&args).await,
            LotteryAction::RunDue(args) => lottery::run_due(&args, &settings()?).await?,
        },
        Command::Badge(args) => game::badge(&args, &settings()?).await?,
        Command::Xp(args) => game::xp(&args, &settings()?).await?,
        Command::DeadLetters(args) => dead_letters::run(&args, &settings()?).await?,
        Command::Wallet(args) => wallet::run(&args, &settings()?)?,
        Command::Admin(args) => admin::run(&args, &settings()?).await?,
        Command::User(args) => user::run(&args, &settings()?).await?,
        Command::Audit(args) => return audit::run(args.action).await,
        Command::Keys(args) => keys::run(args.action)?,
        Command::Doctor(args) => return doctor::run(&args).await,
        Command::Healthcheck(args) => return healthcheck::run(&args, &settings()?).await,
        Command::Config => config()?,
        Command::Version => say!("tbg {}", roles::VERSION)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn loaded() -> anyhow::Result<Settings> {
    Ok(Loaded::from_sources(&Sources::of_process()?)?.settings)
}

/// The settings of this process; starts logging.
fn settings() -> anyhow::Result<Settings> {
    let settings = loaded()?;
    telemetry::init(&settings)?;
    Ok(settings)
}

async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    match db::migrate(&db::connect_options(settings)?).await? {
        0 => say!("The schema is up to date."),
        applied => say!("Applied {applied} migration(s)."),
    }
}

fn config() -> anyhow::Result<()> {
    let loaded = match Sources::of_process().and_then(|sources| Loaded::from_sources(&sources)) {
        Ok(loaded) => loaded,
        Err(error) => {
            for (name, doc) in Settings::DOCS {
                say!("# {}\nTBG_{}\n", doc.trim(), name.to_uppercase())?;
            }
            return Err(error.into());
        }
    };
    for setting in loaded.shown() {
        say!("# {}\n{}={}  ({})\n", setting.doc, setting.name, setting.value, setting.origin)?;
    }
    Ok(())
}
