//! The load test's sign-in (contract `auth-users.md` §4.2): compiled in only with the feature
//! `loadtest-auth`, and active only when the deployment asks for it outside production.

use tbg_bitcoin::BtcAddress;
use tbg_core::UserId;
use tbg_core::audit::Origin;
use tbg_web::ApiError;

use crate::Identity;
use crate::sessions::Tokens;

const SIGNATURE: &str = "test_sig";

/// Signs a user of the load test in, if this is one.
pub(crate) async fn sign_in(
    identity: &Identity,
    address: &str,
    signature: &str,
    origin: &Origin,
) -> Result<Option<(UserId, Tokens)>, ApiError> {
    let is_test_address = address
        .strip_prefix("bc1qtest")
        .is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()));
    if !identity.config.loadtest || !is_test_address || signature != SIGNATURE {
        return Ok(None);
    }
    tracing::warn!("a user of the load test signs in without a signature");
    let address = BtcAddress::of_load_test(address);
    crate::wallet_accounts::sign_in(identity, &address, false, true, origin).await.map(Some)
}
