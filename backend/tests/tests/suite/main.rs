//! The suite: rules on a real database, the API, the real program, its command line. `make test` starts the
//! servers.
#![cfg(test)]

mod access;
mod admin;
mod budgets;
mod cli;
mod connections;
mod faults;
mod game;
mod http;
mod identity;
mod ingest;
mod jobs;
mod lottery;
mod mail;
mod mining;
mod observed;
mod openapi;
mod operator_commands;
mod properties;
mod realtime;
mod rotation;
mod standards;
mod streams;
mod support;
mod truth;

// The specification names these four files by their paths.
#[path = "../../phase10/audit_log.rs"]
mod audit_log;
#[path = "../../phase10/health_check.rs"]
mod health_check;
#[path = "../../phase10/rate_limiter.rs"]
mod rate_limiter;
#[path = "../../phase10/security_headers.rs"]
mod security_headers;
