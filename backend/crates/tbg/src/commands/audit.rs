//! `tbg audit verify`: recomputes the seals of the audit log and compares.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tbg_core::config::{Loaded, Sources};
use tbg_core::{db, telemetry};
use tbg_operations::{Verdict, parse_anchor, verify};

use crate::cli::AuditAction;
use crate::terminal::{say, tell};

/// The check could not run: neither good nor bad.
const UNDECIDED: u8 = 2;

pub async fn run(action: AuditAction) -> anyhow::Result<ExitCode> {
    let AuditAction::Verify { from, anchor } = action;
    match check(from, anchor.as_deref()).await {
        Ok(Verdict::Good { seals, rows }) => {
            let _ = say!("The audit log is as it was sealed: {seals} seal(s), {rows} row(s).");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Verdict::Fault(fault)) => {
            let _ = say!("The audit log was changed: {fault}");
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            tell!("error: the check could not run: {error:#}");
            Ok(ExitCode::from(UNDECIDED))
        }
    }
}

async fn check(from: Option<i64>, anchor: Option<&str>) -> anyhow::Result<Verdict> {
    let settings = Loaded::from_sources(&Sources::of_process()?)?.settings;
    telemetry::init(&settings)?;
    let anchor = anchor
        .map(|text| parse_anchor(text).context("--anchor is not SEAL:HEX with 64 hexadecimal digits"))
        .transpose()?;
    let pool = db::unhurried(&settings, 2).await?;
    if let Some(from) = from.filter(|from| *from > 1) {
        let head = tbg_operations::head(&pool).await?.map_or(0, |seal| seal.seal_no);
        if from > head {
            bail!("--from {from} is beyond the newest seal, {head}: nothing was checked");
        }
    }
    Ok(verify(&pool, from, anchor).await?)
}
