-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_game_sessions_recent ON game_sessions (last_played_at);
