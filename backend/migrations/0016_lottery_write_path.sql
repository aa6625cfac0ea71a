-- A draw over a million entries writes each of them twice: what a write costs there is indexes and foreign keys.
-- Rows of `users` are never deleted (deletion empties them, auth-users.md), so the two keys on them guarded
-- nothing and locked every participant's row; one index by (user, draw) answers for both orders of the question.
ALTER TABLE lottery_entries DROP CONSTRAINT lottery_entries_user_id_fkey;
ALTER TABLE lottery_results DROP CONSTRAINT lottery_results_user_id_fkey;
ALTER TABLE lottery_entries DROP CONSTRAINT lottery_entries_user_unique;
ALTER TABLE lottery_entries ADD CONSTRAINT lottery_entries_user_unique UNIQUE (user_id, draw_id);
DROP INDEX idx_lottery_entries_user;

-- The events of a draw are long, and read once: compressing them cost more than writing them.
ALTER TABLE domain_outbox ALTER COLUMN payload SET STORAGE EXTERNAL;
