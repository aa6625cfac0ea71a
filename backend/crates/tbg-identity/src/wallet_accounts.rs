//! Whose account a proven wallet opens (contract `auth-users.md` §4.1).
//!
//! One transaction per sign-in; a lock on the address makes two sign-ins of one wallet decide one after the
//! other. A signature never signs anybody into an account where that wallet was not proven.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use tbg_bitcoin::BtcAddress;
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry, Origin, record_refusal};
use tbg_core::outbox::{self, DomainEvent, Notification};
use tbg_web::auth::AuthMethod;
use tbg_web::{ApiError, ErrorCode};

use crate::Identity;
use crate::routes::me::forget_public_profile;
use crate::routes::wallet_change::forget_coinbase;
use crate::sessions::{self, Tokens};
use crate::store::{users, wallets};

/// Signs the holder of a proven wallet in, creating the account if there is none.
///
/// `is_test` marks a user of the load test.
///
/// # Errors
/// 409 `WALLET_UNLINKED` when another account names the address and `claim` is false, 403 when banned.
pub(crate) async fn sign_in(
    identity: &Identity,
    address: &BtcAddress,
    claim: bool,
    is_test: bool,
    origin: &Origin,
) -> Result<(UserId, Tokens), ApiError> {
    let now = identity.clock.now();
    let mut tx = identity.pool.begin().await?;
    users::lock_address_decision(&mut tx, address.as_str()).await?;
    let decision = Decision { address, claim, is_test, origin, now };
    let (user, is_new) = decision.account(&mut tx).await?;

    let Some(account) = users::lock(&mut tx, user).await? else {
        // Deleted a moment ago: the next attempt finds nobody, and creates an account.
        return Err(ApiError::unavailable());
    };
    if account.is_banned {
        drop(tx);
        refuse_banned(identity, user, AuthMethod::Wallet, origin).await;
        return Err(ApiError::new(ErrorCode::AccountBanned, "Account is banned"));
    }
    users::record_login(&mut tx, user, now).await?;
    let (tokens, sid) =
        sessions::open(identity, &mut tx, user, account.btc_address, AuthMethod::Wallet, origin).await?;
    let mut details = json!({ "method": "wallet", "new_user": is_new });
    if is_test {
        details["loadtest"] = json!(true);
    }
    let entry = Entry::new(Action::AuthLogin, "session").by(user).on(sid).from(origin).details(details);
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    if is_new {
        forget_coinbase(identity, address.as_str()).await;
        forget_public_profile(identity, Some(address.as_str())).await;
    }
    Ok((user, tokens))
}

/// A banned user tried to sign in.
pub(crate) async fn refuse_banned(identity: &Identity, user: UserId, method: AuthMethod, origin: &Origin) {
    let entry = Entry::new(Action::AuthFailedLogin, "user")
        .by(user)
        .on(user)
        .from(origin)
        .details(json!({ "method": method.as_str(), "reason": "banned" }))
        .denied();
    record_refusal(&identity.pool, &entry).await;
}

struct Decision<'a> {
    address: &'a BtcAddress,
    claim: bool,
    is_test: bool,
    origin: &'a Origin,
    now: DateTime<Utc>,
}

impl Decision<'_> {
    /// The account that the wallet opens, and whether it is new.
    async fn account(&self, conn: &mut PgConnection) -> Result<(UserId, bool), ApiError> {
        let address = self.address.as_str();
        if let Some(credential) = wallets::credential_of(conn, address).await? {
            wallets::touch_credential(conn, credential.id, self.now).await?;
            return Ok((UserId(credential.user_id), false));
        }
        let Some(holder) = wallets::holder_of(conn, address).await? else {
            return Ok((self.create(conn).await?, true));
        };
        let user = UserId(holder.id);
        let is_imported = holder.auth_method == "wallet" && holder.email.is_none() && holder.credentials == 0;
        if is_imported {
            wallets::add_credential(conn, user, self.address, self.now).await?;
            users::mark_address_proven(conn, user).await?;
            let proven = DomainEvent::address_proven(user, address.to_owned());
            outbox::write(conn, &[proven]).await?;
            return Ok((user, false));
        }
        if !self.claim {
            return Err(ApiError::new(
                ErrorCode::WalletUnlinked,
                "Another account names this address without having proved it; send claim: true to take it over",
            ));
        }
        self.take_from(conn, user).await?;
        Ok((self.create(conn).await?, true))
    }

    /// The account that only named the address loses it.
    async fn take_from(&self, conn: &mut PgConnection, holder: UserId) -> Result<(), ApiError> {
        let address = self.address.as_str();
        wallets::release_address(conn, holder).await?;
        wallets::write_history(conn, holder, Some(address), None, "claimed", None).await?;
        let entry = Entry::new(Action::UserWalletClaimed, "wallet")
            .on(address)
            .from(self.origin)
            .details(json!({ "old": address, "new": null, "holder": holder }));
        audit::record(conn, &entry).await?;
        let notice = Notification {
            user_id: holder,
            kind: "system".into(),
            subtype: "wallet_reclaimed".into(),
            title: "Wallet Address Reclaimed".to_owned(),
            description: Some("Its owner signed in; add your own address".to_owned()),
            action_url: Some("/settings".into()),
            action_label: Some("Open Settings".into()),
            dedupe_key: format!("wallet_reclaimed:{}", uuid::Uuid::now_v7().simple()),
            created_at: self.now,
        };
        outbox::write(conn, &[DomainEvent::Notify(notice)]).await?;
        Ok(())
    }

    async fn create(&self, conn: &mut PgConnection) -> Result<UserId, ApiError> {
        let address = self.address.as_str();
        let created = users::insert_wallet_user(conn, address, self.is_test, self.now).await?;
        // The lock on the address leaves one way here: somebody typed it into an account just now.
        let Some(user) = created else {
            return Err(ApiError::new(
                ErrorCode::WalletUnlinked,
                "Another account has just named this address",
            ));
        };
        wallets::add_credential(conn, user, self.address, self.now).await?;
        wallets::write_history(conn, user, None, Some(address), "register", self.origin.ip).await?;
        let registered = DomainEvent::UserRegistered { user_id: user, country_code: None };
        let proven = DomainEvent::address_proven(user, address.to_owned());
        outbox::write(conn, &[registered, proven]).await?;
        Ok(user)
    }
}
