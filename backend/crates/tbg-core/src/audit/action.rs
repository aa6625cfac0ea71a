//! Everything that is audited: a closed list, so that a filter can refuse what does not exist.

/// Makes the enum, its names and the list of all from one table.
macro_rules! actions {
    ($($variant:ident = $name:literal,)+) => {
        /// What was done (contract `auth-users.md` §13, `production.md` §8.4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action {
            $(#[doc = concat!("`", $name, "`")] $variant,)+
        }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name, as the column holds it: `group.what`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

actions! {
    AuthLogin = "auth.login",
    AuthRegister = "auth.register",
    AuthFailedLogin = "auth.failed_login",
    AuthLogout = "auth.logout",
    AuthLogoutAll = "auth.logout_all",
    AuthTokenRefresh = "auth.token_refresh",
    AuthTokenReuseDetected = "auth.token_reuse_detected",
    AuthAccountLocked = "auth.account_locked",
    AuthPasswordChanged = "auth.password_changed",
    AuthPasswordResetRequested = "auth.password_reset_requested",
    AuthPasswordReset = "auth.password_reset",
    AuthEmailVerified = "auth.email_verified",
    AuthVerificationResent = "auth.verification_resent",
    UserProfileUpdated = "user.profile_updated",
    UserSettingsUpdated = "user.settings_updated",
    UserWalletUpdated = "user.wallet_updated",
    UserWalletLinked = "user.wallet_linked",
    UserWalletClaimed = "user.wallet_claimed",
    UserApiKeyCreated = "user.api_key_created",
    UserApiKeyRevoked = "user.api_key_revoked",
    UserDataExported = "user.data_exported",
    UserAccountDeleted = "user.account_deleted",
    AdminRoleGranted = "admin.role_granted",
    AdminRoleRevoked = "admin.role_revoked",
    AdminUserBanned = "admin.user_banned",
    AdminUserUnbanned = "admin.user_unbanned",
    AdminAccessDenied = "admin.access_denied",
    AdminStatsViewed = "admin.stats_viewed",
    AdminAuditViewed = "admin.audit_viewed",
    AdminCacheCleared = "admin.cache_cleared",
    AdminBroadcastSent = "admin.broadcast_sent",
    AdminBadgeGranted = "admin.badge_granted",
    AdminXpAdjusted = "admin.xp_adjusted",
    CoopCreated = "coop.created",
    CoopJoined = "coop.joined",
    CoopLeft = "coop.left",
    CoopUpdated = "coop.updated",
    CoopCodeRegenerated = "coop.code_regenerated",
    CoopMemberRemoved = "coop.member_removed",
    CoopDissolved = "coop.dissolved",
    LotteryFrozen = "lottery.frozen",
    LotteryDrawn = "lottery.drawn",
    LotteryForced = "lottery.forced",
    CompetitionCreated = "competition.created",
    CompetitionCancelled = "competition.cancelled",
    SystemAuditRetention = "system.audit_retention",
    SystemRestored = "system.restored",
}

impl Action {
    /// The action of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.as_str() == name)
    }

    /// The actions that a filter means: one name, or all of a group as in `auth.*`. None if there is no such.
    #[must_use]
    pub fn matching(filter: &str) -> Vec<Self> {
        let Some(group) = filter.strip_suffix(".*") else {
            return Self::parse(filter).into_iter().collect();
        };
        let in_group = |action: &Self| action.as_str().split_once('.').is_some_and(|(name, _)| name == group);
        Self::ALL.iter().copied().filter(in_group).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_action_has_a_name_of_its_own_that_fits_the_column() {
        let names: HashSet<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();

        assert_eq!(names.len(), Action::ALL.len());
        assert!(names.iter().all(|name| name.len() <= 50 && name.split('.').count() == 2));
        assert!(Action::ALL.iter().all(|action| Action::parse(action.as_str()) == Some(*action)));
    }

    #[test]
    fn a_filter_means_one_action_or_a_group() {
        assert_eq!(Action::matching("auth.login"), [Action::AuthLogin]);
        assert_eq!(
            Action::matching("lottery.*"),
            [Action::LotteryFrozen, Action::LotteryDrawn, Action::LotteryForced]
        );
        for unknown in ["", "*", ".*", "auth", "auth.", "auth.log*", "au.*", "AUTH.*", "auth.login.*"] {
            assert!(Action::matching(unknown).is_empty(), "{unknown}");
        }
    }
}
