-- Shares of the whole pool by hour (production.md §9): what an overview sums instead of the rows of every
-- address. Derived from hourly_shares; a job keeps it current.
CREATE TABLE pool_hourly_totals (
    bucket TIMESTAMPTZ PRIMARY KEY,
    total BIGINT NOT NULL DEFAULT 0,
    accepted BIGINT NOT NULL DEFAULT 0,
    rejected BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

-- The hours that are already over: the job looks back a week at most.
INSERT INTO pool_hourly_totals (bucket, total, accepted, rejected)
SELECT bucket, sum(total), sum(accepted), sum(rejected) FROM hourly_shares GROUP BY bucket;
