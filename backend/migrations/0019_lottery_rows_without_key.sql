-- A draw's entries and results are written by the one job that holds the draw's row, and draws are never deleted:
-- the keys on them guarded nothing, and their checks, one for each row at the end of the statement, took as long as
-- writing the rows.
ALTER TABLE lottery_entries DROP CONSTRAINT lottery_entries_draw_id_fkey;
ALTER TABLE lottery_results DROP CONSTRAINT lottery_results_draw_id_fkey;
