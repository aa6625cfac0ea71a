//! What every domain stands on. Nothing here knows a rule of the game.
//!
//! | Module | Holds |
//! |---|---|
//! | [`config`] | every setting, where it came from, secrets |
//! | [`clock`], [`period`], [`random`] | time and randomness as arguments; UTC days, ISO weeks, months |
//! | [`audit`] | who did what, append-only |
//! | [`db`], [`copy`], [`partitions`] | PostgreSQL: pools, migrations, error classes, bulk rows, day partitions |
//! | [`redis`] | Redis connections |
//! | [`jobs`] | scheduled work, once per job and time across replicas |
//! | [`outbox`], [`consumer`] | domain events, by which domains meet |
//! | [`live`] | what browsers are told at once |
//! | [`text`] | numbers as people read them |
//! | [`users`] | who holds an address |
//! | [`metrics`], [`telemetry`] | what an operator sees |

pub mod audit;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod copy;
pub mod db;
pub mod jobs;
pub mod live;
pub mod metrics;
pub mod outbox;
pub mod partitions;
pub mod period;
pub mod progress;
pub mod random;
pub mod redis;
pub mod telemetry;
pub mod text;
pub mod told;
pub mod users;

pub use clock::{Clock, MockClock, ShiftedClock, SystemClock};
pub use users::UserId;
