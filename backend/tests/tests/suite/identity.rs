//! Identity on a real database and a real Redis (contract `auth-users.md`).

mod api_keys;
mod data_rights;
mod links;
mod lockout;
mod operators;
mod passwords;
mod profile;
mod public;
mod races;
mod registration;
mod sessions;
mod settings;
mod verification;
mod wallet_sign_in;
