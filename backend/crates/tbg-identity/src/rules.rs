//! Rules of identity: pure, without clock, database or randomness.

pub(crate) mod api_key;
pub(crate) mod challenge;
pub(crate) mod email;
pub(crate) mod password;
pub(crate) mod profile;
pub(crate) mod settings;
