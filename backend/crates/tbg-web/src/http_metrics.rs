//! Counts and times every request under its route template.
//!
//! `http_requests_total{method,handler,status}` and
//! `http_request_duration_seconds{method,handler}`; probes are left out. Contract: `production.md`
//! section 10.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use metrics::{SharedString, counter, histogram};

use crate::route_labels::RouteLabels;

/// The buckets of `http_request_duration_seconds`, to be set where the recorder is installed.
pub const HTTP_LATENCY_BUCKETS_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];

pub(crate) async fn measure(request: Request, next: impl AsyncFnOnce(Request) -> Response) -> Response {
    let labels = RouteLabels::of(&request);
    if labels.is_probe() {
        return next(request).await;
    }
    let started = Instant::now();
    let response = next(request).await;
    record(&labels, response.status(), started);
    response
}

fn record(labels: &RouteLabels, status: StatusCode, started: Instant) {
    let method = labels.method();
    let handler = SharedString::from(Arc::<str>::from(labels.template()));
    let status = status_class(status);
    counter!(
        "http_requests_total",
        "method" => method, "handler" => handler.clone(), "status" => status
    )
    .increment(1);
    histogram!("http_request_duration_seconds", "method" => method, "handler" => handler)
        .record(started.elapsed().as_secs_f64());
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}
