//! What operators' commands look at before they decide.

use sqlx::PgConnection;
use tbg_core::UserId;

/// Locks a user until the end of the transaction: operators wait for each other. False if the user takes no part.
pub(crate) async fn lock_player(conn: &mut PgConnection, user: UserId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM users WHERE id = $1 AND NOT is_banned AND deleted_at IS NULL FOR NO KEY UPDATE",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// A user's experience, with the corrections that wait in the outbox. All else that waits can only add.
pub(crate) async fn adjustable_xp(conn: &mut PgConnection, user: UserId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce((SELECT total_xp FROM user_gamification WHERE user_id = $1), 0)
                  + coalesce((SELECT sum((payload ->> 'amount')::BIGINT)::BIGINT FROM domain_outbox
                              WHERE consumer = 'gamification' AND done_at IS NULL AND topic = 'XpAdjusted'
                                AND user_id = $1), 0) AS "total_xp!""#,
        user.0
    )
    .fetch_one(conn)
    .await
}

/// Whether the user holds a badge.
pub(crate) async fn holds(conn: &mut PgConnection, user: UserId, slug: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM user_badges b JOIN badge_definitions d ON d.id = b.badge_id
                          WHERE b.user_id = $1 AND d.slug = $2) AS "holds!""#,
        user.0,
        slug
    )
    .fetch_one(conn)
    .await
}
