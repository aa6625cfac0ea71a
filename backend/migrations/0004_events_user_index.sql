-- no-transaction
-- First step of the online recipe (mining.md §5.1): the index on the parent only, which takes no time.
-- `tbg migrate` then builds it CONCURRENTLY on every partition and attaches it.
CREATE INDEX IF NOT EXISTS idx_events_user_ts ON ONLY mining_events ((payload ->> 'user'), ts DESC) WHERE event_type = 'share_submitted';
