-- no-transaction
DROP INDEX CONCURRENTLY IF EXISTS idx_lottery_results_user;
