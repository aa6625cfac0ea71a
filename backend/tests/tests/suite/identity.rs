//! Identity on a real database and a real Redis (contract `auth-users.md`).

mod links;
mod races;
mod sessions;
mod wallet_sign_in;
