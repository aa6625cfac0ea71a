//! All SQL of identity, one module per subject.

pub(crate) mod api_keys;
pub(crate) mod attempts;
pub(crate) mod cleanup;
pub(crate) mod deletion;
pub(crate) mod export;
pub(crate) mod mail;
pub(crate) mod profile;
pub(crate) mod public;
pub(crate) mod roles;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod tokens;
pub(crate) mod users;
pub(crate) mod wallets;
