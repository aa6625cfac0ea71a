-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_game_sessions_analytics
    ON game_sessions (game_type, week_start, played_at DESC);
