//! Log output: lines for people, JSON in production; the timing of SQL statements, which sqlx reports as
//! events; traces by OTLP.

use std::fmt;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, Targets, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Environment, LogFormat, Settings};
use crate::metrics::DB_QUERY_SECONDS;

/// The name of the service, and what the names of its crates begin with.
const SERVICE: &str = "tbg";
/// What sqlx names its events.
const STATEMENTS: &str = "sqlx::query";

/// Lines that wait for a slow reader of the log. When there are more, the new ones are lost.
const WAITING_LINES: usize = 8_192;
/// How long the end of the process may wait for them.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// Counts the lines that were lost because too many waited.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Counts the lines that could not be written, as on a full disk.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log this process has lost: they were not read fast enough, or could not be written.
#[must_use]
pub fn lost_lines() -> u64 {
    let lost = LOST.get().map_or(0, |lost| u64::try_from(lost.dropped_lines()).unwrap_or(u64::MAX));
    lost.saturating_add(REFUSED.load(Ordering::Relaxed))
}

/// Standard error, which counts what it cannot write: a line is written by one call.
struct Lines(std::io::Stderr);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let written = self.0.write(line);
        if written.as_ref().is_err_and(|error| error.kind() != ErrorKind::Interrupted) {
            REFUSED.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Ends with the process: sends the traces and writes the lines that still wait.
#[must_use = "traces and the log end when it is dropped"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    lines: Option<WorkerGuard>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.traces
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
        // The guard waits a second at most; when too many lines wait, it says so on standard output, which may be as
        // stuck as the log. So not on this thread.
        let (lines, (done, flushed)) = (self.lines.take(), mpsc::channel::<()>());
        let flushing = thread::Builder::new().name("log-flush".to_owned()).spawn(move || {
            drop(lines);
            drop(done);
        });
        if flushing.is_ok() {
            let _ = flushed.recv_timeout(FLUSH_DEADLINE);
        }
    }
}

/// Starts logging to standard error; a line that cannot be written, as on a full disk, is lost. Does nothing when
/// logging has started already.
///
/// # Errors
/// When `TBG_LOG_FILTER` is not a filter.
pub fn init(settings: &Settings) -> anyhow::Result<()> {
    start(settings, None, BoxMakeWriter::new(std::io::stderr))
}

/// The same for a process that serves: nobody waits for whoever reads the log, and traces where a collector is set.
///
/// # Errors
/// When `TBG_LOG_FILTER` is not a filter or `TBG_OTLP_ENDPOINT` no URL.
pub fn init_traced(settings: &Settings) -> anyhow::Result<Telemetry> {
    let endpoint = settings.otlp_endpoint.as_deref();
    let provider = endpoint.map(|endpoint| provider(endpoint, settings.otlp_sample_percent)).transpose()?;
    let (writer, guard) = NonBlockingBuilder::default()
        .thread_name("log")
        .buffered_lines_limit(WAITING_LINES)
        .finish(Lines(std::io::stderr()));
    let _ = LOST.set(writer.error_counter());
    start(settings, provider.as_ref(), BoxMakeWriter::new(writer))?;
    log_panics();
    Ok(Telemetry { traces: provider, lines: Some(guard) })
}

/// A panic becomes a line like any other. It says where, and not what: the message may quote what somebody sent.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let (at, thread) = (panic.location().map(ToString::to_string), thread::current());
        tracing::error!(at, thread = thread.name(), "panicked");
    }));
}

fn start(
    settings: &Settings,
    provider: Option<&SdkTracerProvider>,
    writer: BoxMakeWriter,
) -> anyhow::Result<()> {
    let wanted = EnvFilter::try_new(&settings.log_filter).map_err(|_| {
        anyhow::anyhow!("setting TBG_LOG_FILTER is not valid: expected a level or module=level pairs")
    })?;
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => settings.environment == Environment::Production,
    };
    let lines =
        tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(std::io::stderr().is_terminal());
    let lines = if json { lines.json().boxed() } else { lines.with_target(false).boxed() };
    // SQL is never logged, whatever the filter says.
    let filter = wanted.and(filter_fn(|metadata| metadata.target() != STATEMENTS));
    let timed = settings
        .metrics_enabled
        .then(|| StatementTimes.with_filter(Targets::new().with_target(STATEMENTS, Level::TRACE)));
    let traces = provider.map(|provider| {
        // Spans alone: what is logged within one stays in the log.
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SERVICE))
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(SERVICE)))
    });
    let lines = lines.with_filter(filter);
    // An error here means that a subscriber is installed, as in tests: keep that one.
    let _ = tracing_subscriber::registry().with(lines).with(timed).with(traces).try_init();
    Ok(())
}

/// Sends a part of the spans to a collector, in batches, by a thread of its own.
fn provider(endpoint: &str, sample_percent: u32) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|_| {
            anyhow::anyhow!("setting TBG_OTLP_ENDPOINT is not valid: expected a URL such as http://host:4318")
        })?;
    let share = f64::from(sample_percent.min(100)) / 100.0;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::TraceIdRatioBased(share))
        .with_resource(Resource::builder().with_service_name(SERVICE).build())
        .build())
}

/// Turns the events of sqlx into durations.
struct StatementTimes;

impl<S: Subscriber> Layer<S> for StatementTimes {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut statement = Statement::default();
        event.record(&mut statement);
        if let Some(seconds) = statement.seconds {
            metrics::histogram!(DB_QUERY_SECONDS, "op" => statement.op).record(seconds);
        }
    }
}

/// What an event says of its statement.
struct Statement {
    op: &'static str,
    seconds: Option<f64>,
}

impl Default for Statement {
    fn default() -> Self {
        Self { op: "other", seconds: None }
    }
}

impl Visit for Statement {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.seconds = Some(value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            self.op = op(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

/// The label of a statement: its first word, out of a closed set.
fn op(statement: &str) -> &'static str {
    const OPS: [&str; 8] = ["select", "insert", "update", "delete", "with", "begin", "commit", "rollback"];
    let word = statement.split_whitespace().next().unwrap_or_default();
    OPS.into_iter().find(|known| known.eq_ignore_ascii_case(word)).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_a_label_of_a_closed_set() {
        assert_eq!(op("SELECT u.id FROM …"), "select");
        assert_eq!(op("\n  with page AS …"), "with");
        assert_eq!(op("BEGIN"), "begin");
        assert_eq!(op("bc1q'; DROP TABLE users"), "other");
        assert_eq!(op(""), "other");
    }
}
