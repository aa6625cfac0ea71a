//! Counts and times every request under its route template.
//!
//! `http_requests_total{method,handler,status}` and
//! `http_request_duration_seconds{method,handler}`; probes and the socket are left out. Contract:
//! `production.md` section 10.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use metrics::{SharedString, counter, histogram};
use utoipa::openapi::OpenApi;

use crate::route_labels::{CLIENT_LEFT, RouteLabels, is_probe};

const REQUESTS_TOTAL: &str = "http_requests_total";

/// The buckets of `http_request_duration_seconds`, to be set where the recorder is installed.
pub const HTTP_LATENCY_BUCKETS_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];

pub(crate) async fn measure(request: Request, next: impl AsyncFnOnce(Request) -> Response) -> Response {
    let labels = RouteLabels::of(&request);
    if is_left_out(labels.template()) {
        return next(request).await;
    }
    let mut seen = Seen { labels, started: Instant::now(), status: CLIENT_LEFT };
    let response = next(request).await;
    seen.status = response.status().as_u16();
    response
}

/// A request as its client saw it, recorded when it ends: also when it is dropped because its client has left, which
/// slow answers make many do.
struct Seen {
    labels: RouteLabels,
    started: Instant,
    status: u16,
}

impl Drop for Seen {
    fn drop(&mut self) {
        record(&self.labels, self.status, self.started);
    }
}

/// Shows the errors of every route of `document` at 0: a rate sees the first one only if there was a value before it.
pub(crate) fn register(document: &OpenApi) {
    for (template, item) in document.paths.paths.iter().filter(|(template, _)| !is_left_out(template)) {
        let operations = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("PUT", &item.put),
            ("PATCH", &item.patch),
            ("DELETE", &item.delete),
        ];
        for (method, _) in operations.into_iter().filter(|(_, operation)| operation.is_some()) {
            let status = status_class(500);
            counter!(REQUESTS_TOTAL, "method" => method, "handler" => template.clone(), "status" => status)
                .increment(0);
        }
    }
}

/// Probes say nothing about clients, and a socket is no request that ends with its answer.
fn is_left_out(template: &str) -> bool {
    is_probe(template) || template == "/ws"
}

fn record(labels: &RouteLabels, status: u16, started: Instant) {
    let method = labels.method();
    let handler = SharedString::from(Arc::<str>::from(labels.template()));
    let status = status_class(status);
    counter!(
        REQUESTS_TOTAL,
        "method" => method, "handler" => handler.clone(), "status" => status
    )
    .increment(1);
    histogram!("http_request_duration_seconds", "method" => method, "handler" => handler)
        .record(started.elapsed().as_secs_f64());
}

fn status_class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_client_leaves_is_counted_with_the_time_it_took() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _on_this_thread = metrics::set_default_local_recorder(&recorder);
        let asked = measure(Request::new(Body::empty()), async |_| std::future::pending().await);

        let left = tokio::time::timeout(Duration::from_secs(10), asked).await;

        assert!(left.is_err());
        let shown = recorder.handle().render();
        for series in [
            r#"http_requests_total{method="GET",handler="none",status="4xx"} 1"#,
            r#"http_request_duration_seconds_count{method="GET",handler="none"} 1"#,
        ] {
            assert!(shown.contains(series), "{series} in {shown}");
        }
    }
}
