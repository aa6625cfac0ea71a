//! All SQL of the operations domain.

pub(crate) mod audit;
pub(crate) mod audit_log;
pub(crate) mod gauges;
pub(crate) mod stats;
pub(crate) mod totals;
pub(crate) mod walls;
