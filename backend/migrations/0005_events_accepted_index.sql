-- no-transaction
-- As 0004. The cast is safe because ingest stores `accepted` as a JSON boolean (mining.md §3.3).
CREATE INDEX IF NOT EXISTS idx_events_accepted_shares ON ONLY mining_events (ts DESC, (payload ->> 'user')) WHERE event_type = 'share_submitted' AND (payload ->> 'accepted')::boolean = true;
