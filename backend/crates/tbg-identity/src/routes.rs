//! The endpoints of identity, one module per subject.

pub(crate) mod account;
mod api_keys;
pub(crate) mod email_sign_in;
mod link;
pub(crate) mod me;
mod passwords;
mod public;
mod session;
mod settings;
pub(crate) mod wallet_change;
pub(crate) mod wallet_sign_in;

use tbg_web::Routes;

use crate::Identity;

/// All of them. Fixed paths win over `{address}`, whatever the order.
pub(crate) fn all() -> Routes<Identity> {
    Routes::new()
        .merge(wallet_sign_in::routes())
        .merge(email_sign_in::routes())
        .merge(session::routes())
        .merge(passwords::routes())
        .merge(link::routes())
        .merge(me::routes())
        .merge(wallet_change::routes())
        .merge(account::routes())
        .merge(settings::routes())
        .merge(api_keys::routes())
        .merge(public::routes())
}
