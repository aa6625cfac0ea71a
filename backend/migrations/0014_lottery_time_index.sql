-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_lottery_results_user_time ON lottery_results (user_id, created_at DESC);
