//! What must hold after a seed, as SQL over the whole database.

/// What must not depend on crashes, nor on how events are cut into batches. Without ids and times of processing; without
/// notices, which tell of a batch what it ends with.
///
/// Two rules of gamification.md §4.1 go by what is seen first. The day of the first share pays for itself
/// (`first_share`), every other day as such (`daily_share`): what must agree is the days that are paid. A record pays
/// for its week if the best until then is of an earlier one (`personal_best`): a late record that comes after a better
/// one of a later week pays nothing, so of these the sums, and what follows from a sum, are left to [`INVARIANTS`].
pub const COMPARED: [(&str, &str); 10] = [
    (
        "xp_ledger",
        "SELECT user_id, amount, source, source_id, idempotency_key FROM xp_ledger
         WHERE NOT starts_with(idempotency_key, 'daily_share:') AND source <> 'personal_best' ORDER BY idempotency_key",
    ),
    (
        "the days that are paid",
        "SELECT user_id, first_share_day AS day FROM user_gamification UNION
         SELECT user_id, replace(source_id, 'daily-', '')::DATE FROM xp_ledger
         WHERE starts_with(idempotency_key, 'daily_share:') ORDER BY 1, 2",
    ),
    (
        "user_badges",
        "SELECT user_id, badge_id, period_key FROM user_badges ORDER BY user_id, badge_id, period_key",
    ),
    (
        "user_gamification",
        "SELECT g.*, NULL AS updated_at, NULL AS first_share_day, NULL AS total_xp, NULL AS level, NULL AS level_title,
             NULL AS xp_entries FROM user_gamification g ORDER BY user_id",
    ),
    ("streak_calendar", "SELECT * FROM streak_calendar ORDER BY user_id, week_iso"),
    (
        "personal_bests",
        "SELECT user_id, timeframe, period_key, best_difficulty, share_time FROM personal_bests ORDER BY 1, 2, 3",
    ),
    (
        "weekly_best_diff",
        "SELECT btc_address, week_start, user_id, best_difficulty, best_share_time, total_shares FROM weekly_best_diff ORDER BY 1, 2",
    ),
    (
        "user_daily_stats",
        "SELECT user_id, day, accepted_shares, rejected_shares, best_diff FROM user_daily_stats ORDER BY 1, 2",
    ),
    (
        "lottery_draws",
        "SELECT week_iso, status, total_participants, total_shares, sum_best_difficulty, winner_user_id, merkle_root, seal
         FROM lottery_draws ORDER BY week_start",
    ),
    (
        "lottery_results",
        "SELECT week_iso, user_id, rank, best_difficulty, r.total_shares, xp_awarded
         FROM lottery_results r JOIN lottery_draws d ON d.id = r.draw_id ORDER BY 1, 2",
    ),
];

/// Each counts what must not be.
pub const INVARIANTS: [(&str, &str); 9] = [
    (
        "sums of experience that differ",
        "SELECT count(*) FROM user_gamification g WHERE total_xp <> (SELECT coalesce(sum(amount), 0) FROM xp_ledger l WHERE l.user_id = g.user_id)",
    ),
    (
        "shares of players that are not counted once",
        "SELECT count(*) FROM user_gamification g WHERE total_shares <> (SELECT coalesce(sum(share_count), 0) FROM streak_calendar c WHERE c.user_id = g.user_id)",
    ),
    (
        "events whose ledger and archive differ",
        "SELECT abs((SELECT count(*) FROM ingest_ledger) - (SELECT count(*) FROM mining_events))",
    ),
    (
        "awards without their grant",
        "SELECT count(*) FROM user_badges b JOIN badge_definitions d ON d.id = b.badge_id WHERE NOT EXISTS
             (SELECT FROM xp_ledger l WHERE l.user_id = b.user_id AND l.source = 'badge' AND l.source_id = d.slug)",
    ),
    (
        "shares paid although the week was not active",
        "SELECT count(*) FROM xp_ledger l WHERE source = 'streak' AND NOT EXISTS
             (SELECT FROM streak_calendar c WHERE c.user_id = l.user_id AND c.is_active AND l.source_id = 'streak-' || c.week_iso)",
    ),
    (
        "records paid in a week without a best, or without an earlier one",
        "SELECT count(*) FROM xp_ledger x
         LEFT JOIN streak_calendar c ON c.user_id = x.user_id AND x.source_id = 'best-' || c.week_iso AND c.best_diff > 0
         WHERE x.source = 'personal_best' AND (c.user_id IS NULL OR NOT EXISTS
             (SELECT FROM streak_calendar e WHERE e.user_id = c.user_id AND e.week_iso < c.week_iso AND e.best_diff > 0))",
    ),
    (
        "results that were not paid once",
        "SELECT count(*) FROM lottery_results r JOIN lottery_draws d ON d.id = r.draw_id
         WHERE xp_awarded > 0 AND NOT EXISTS (SELECT FROM users u WHERE u.id = r.user_id AND u.is_banned)
           AND NOT EXISTS (SELECT FROM audit_log a WHERE a.action = 'admin.user_banned' AND a.resource_id = r.user_id::TEXT)
           AND (SELECT count(*) FROM xp_ledger l WHERE l.user_id = r.user_id AND l.source_id = 'lottery-' || d.week_iso) <> 1",
    ),
    (
        "counts of unread notifications that differ",
        "SELECT count(*) FROM user_social_counters c WHERE notifications_unread <>
             (SELECT count(*) FROM notifications n WHERE n.user_id = c.user_id AND NOT n.read)",
    ),
    ("events that nobody consumed", "SELECT count(*) FROM domain_outbox WHERE done_at IS NULL AND consumer IN ('mining', 'gamification', 'games', 'social')"),
];
