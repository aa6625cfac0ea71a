//! The suite: rules on a real database, the API, the real program, its command line. `make test` starts the
//! servers.
#![cfg(test)]

mod access;
mod admin;
mod audit;
mod budgets;
mod cli;
mod connections;
mod faults;
mod game;
mod http;
mod identity;
mod ingest;
mod jobs;
mod limiter;
mod lottery;
mod mail;
mod mining;
mod observed;
mod openapi;
mod operator_commands;
mod properties;
mod realtime;
mod rotation;
mod streams;
mod support;
mod truth;
