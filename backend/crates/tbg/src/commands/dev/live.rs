//! The live line of `tbg dev`: what the miners do, once a second; log lines where there is no terminal.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::metrics::{INGEST_LAG_SECONDS, SHARES_TOTAL};
use tokio_util::sync::CancellationToken;

const TERMINAL_EVERY: Duration = Duration::from_secs(1);
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Shows the line until `shutdown`.
pub async fn show(
    metrics: PrometheusHandle,
    pool: PgPool,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { TERMINAL_EVERY } else { LOG_EVERY };
    let bar = terminal.then(line);
    let mut before = 0.0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(every) => {}
        }
        let rendered = metrics.render();
        let shares = |status| value(&rendered, SHARES_TOTAL, Some(&format!("status=\"{status}\"")));
        let (accepted, rejected) = (shares("accepted"), shares("rejected"));
        let rate = (accepted + rejected - before) / every.as_secs_f64();
        before = accepted + rejected;
        let best = tbg_mining::best_today(&pool, clock.now()).await.ok().flatten().unwrap_or(0.0);
        let text = format!(
            "{rate:.1} shares/s   accepted {accepted}   rejected {rejected}   best today {}   lag {:.1} s",
            short(best),
            value(&rendered, INGEST_LAG_SECONDS, None)
        );
        match &bar {
            Some(bar) => bar.set_message(text),
            None => tracing::info!("{text}"),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn line() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TERMINAL_EVERY / 4);
    bar
}

/// A number from the text of the metrics page.
fn value(rendered: &str, name: &str, label: Option<&str>) -> f64 {
    rendered
        .lines()
        .filter(|line| line.starts_with(name) && label.is_none_or(|label| line.contains(label)))
        .find_map(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

/// A difficulty with an SI suffix.
fn short(difficulty: f64) -> String {
    let (value, suffix) = match difficulty {
        d if d >= 1e12 => (d / 1e12, "T"),
        d if d >= 1e9 => (d / 1e9, "G"),
        d if d >= 1e6 => (d / 1e6, "M"),
        d if d >= 1e3 => (d / 1e3, "K"),
        d => (d, ""),
    };
    format!("{value:.1}{suffix}")
}
