//! The suite: rules on a real database, the real program, its command line. `make test` starts the servers.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod http;
#[cfg(test)]
mod ingest;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
