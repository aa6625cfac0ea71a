//! Counts and times every request under its route template.
//!
//! `http_requests_total{method,handler,status}` and
//! `http_request_duration_seconds{method,handler}`; probes and the socket are left out. Contract:
//! `production.md` section 10.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use metrics::{SharedString, counter, histogram};
use utoipa::openapi::OpenApi;

use crate::route_labels::{RouteLabels, is_probe};

const REQUESTS_TOTAL: &str = "http_requests_total";

/// The buckets of `http_request_duration_seconds`, to be set where the recorder is installed.
pub const HTTP_LATENCY_BUCKETS_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];

pub(crate) async fn measure(request: Request, next: impl AsyncFnOnce(Request) -> Response) -> Response {
    let labels = RouteLabels::of(&request);
    if is_left_out(labels.template()) {
        return next(request).await;
    }
    let started = Instant::now();
    let response = next(request).await;
    record(&labels, response.status(), started);
    response
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
            let status = status_class(StatusCode::INTERNAL_SERVER_ERROR);
            counter!(REQUESTS_TOTAL, "method" => method, "handler" => template.clone(), "status" => status)
                .increment(0);
        }
    }
}

/// Probes say nothing about clients, and a socket is no request that ends with its answer.
fn is_left_out(template: &str) -> bool {
    is_probe(template) || template == "/ws"
}

fn record(labels: &RouteLabels, status: StatusCode, started: Instant) {
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

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}
