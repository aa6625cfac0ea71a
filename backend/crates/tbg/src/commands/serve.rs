//! `tbg serve`: roles of a deployment.

use std::sync::Arc;

use tbg_core::config::Settings;
use tbg_core::{SystemClock, telemetry};

use crate::cli::Serve;
use crate::roles::{Process, shutdown_signal};

pub async fn run(args: &Serve, settings: Settings) -> anyhow::Result<()> {
    let _traces = telemetry::init_traced(&settings)?;
    let metrics = tbg_core::metrics::install(&settings, &tbg_web::HTTP_LATENCY_BUCKETS_SECONDS)?;
    let shutdown = shutdown_signal()?;
    let process = Process::new(settings, metrics, Arc::new(SystemClock))?;
    process.check_schema().await?;
    process.run(&args.role, shutdown, || ()).await
}
