-- Scheduled jobs: one row per (job, scheduled time). The primary key is what makes a job run once
-- across replicas; the lease is what lets another replica finish the run of a dead one.
CREATE TABLE job_runs (
    job VARCHAR(64) NOT NULL,
    scheduled_at TIMESTAMPTZ NOT NULL,
    attempt INT NOT NULL DEFAULT 1,
    leased_by VARCHAR(128) NOT NULL,
    leased_until TIMESTAMPTZ NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    finished_at TIMESTAMPTZ,
    error VARCHAR(500),
    PRIMARY KEY (job, scheduled_at)
);
CREATE INDEX idx_job_runs_finished ON job_runs (finished_at) WHERE finished_at IS NOT NULL;

-- The column by which a table is partitioned.
CREATE FUNCTION tbg_partition_column(parent TEXT) RETURNS TEXT LANGUAGE sql STABLE AS $$
    SELECT a.attname::TEXT
    FROM pg_partitioned_table p
    JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    WHERE p.partrelid = parent::REGCLASS
$$;

-- Creates the partition of one UTC day, moving rows that the DEFAULT partition already holds for it.
-- Building the table apart and attaching it takes weaker locks than CREATE TABLE … PARTITION OF.
-- Returns whether it was missing.
CREATE FUNCTION tbg_create_day_partition(parent TEXT, day DATE) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
DECLARE
    child TEXT := parent || to_char(day, '"_y"YYYY"m"MM"d"DD');
    col TEXT := tbg_partition_column(parent);
    lower_bound TIMESTAMPTZ := day::TIMESTAMP AT TIME ZONE 'UTC';
    upper_bound TIMESTAMPTZ := (day + 1)::TIMESTAMP AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(child) IS NOT NULL THEN
        RETURN FALSE;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)',
                   child, parent);
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= $1 AND %I < $2 RETURNING *) '
                   'INSERT INTO %I SELECT * FROM moved', parent || '_default', col, col, child)
        USING lower_bound, upper_bound;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   parent, child, lower_bound, upper_bound);
    RETURN TRUE;
END
$$;

-- The days since `keep_from` of which the DEFAULT partition holds rows: they deserve a partition.
CREATE FUNCTION tbg_default_partition_days(parent TEXT, keep_from DATE) RETURNS SETOF DATE
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT DISTINCT (%I AT TIME ZONE ''UTC'')::DATE FROM %I WHERE %I >= $1',
        tbg_partition_column(parent), parent || '_default', tbg_partition_column(parent))
        USING keep_from::TIMESTAMP AT TIME ZONE 'UTC';
END
$$;

-- Day partitions that end at or before `keep_from`.
CREATE FUNCTION tbg_expired_day_partitions(parent TEXT, keep_from DATE) RETURNS SETOF TEXT
LANGUAGE sql STABLE AS $$
    SELECT c.relname::TEXT
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = parent::REGCLASS
      AND c.relname ~ '_y\d{4}m\d{2}d\d{2}$'
      AND to_date(right(c.relname, 10), 'YYYY"m"MM"d"DD') < keep_from
    ORDER BY 1
$$;

CREATE FUNCTION tbg_drop_partition(parent TEXT, child TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, child);
    EXECUTE format('DROP TABLE %I', child);
END
$$;

-- Deletes up to `at_most` rows older than `keep_from` from the DEFAULT partition; returns how many.
CREATE FUNCTION tbg_prune_default_partition(parent TEXT, keep_from DATE, at_most INT) RETURNS BIGINT
LANGUAGE plpgsql AS $$
DECLARE
    pruned BIGINT;
BEGIN
    EXECUTE format('DELETE FROM %I WHERE ctid = ANY (ARRAY(SELECT ctid FROM %I WHERE %I < $1 LIMIT $2))',
                   parent || '_default', parent || '_default', tbg_partition_column(parent))
        USING keep_from::TIMESTAMP AT TIME ZONE 'UTC', at_most;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;

-- Partitions that lack a (valid, attached) child of an index which exists on their parent only, with
-- the statements that mend it. `tbg migrate` runs them one by one outside a transaction: this is how an
-- index reaches a partitioned table that is being written to (mining.md §5.1, online index creation).
CREATE FUNCTION tbg_missing_partition_indexes()
RETURNS TABLE (child_index TEXT, is_invalid BOOLEAN, drop_sql TEXT, create_sql TEXT, attach_sql TEXT)
LANGUAGE sql STABLE AS $$
    SELECT n.name,
           coalesce(NOT existing.indisvalid, FALSE),
           format('DROP INDEX CONCURRENTLY IF EXISTS %I', n.name),
           regexp_replace(pg_get_indexdef(idx.indexrelid),
                          '^CREATE (UNIQUE )?INDEX .*? ON ONLY \S+ ',
                          format('CREATE \1INDEX CONCURRENTLY IF NOT EXISTS %I ON %I ', n.name, part.relname)),
           format('ALTER INDEX %I ATTACH PARTITION %I', parent_index.relname, n.name)
    FROM pg_index idx
    JOIN pg_class parent_index ON parent_index.oid = idx.indexrelid AND parent_index.relkind = 'I'
    JOIN pg_inherits inh ON inh.inhparent = idx.indrelid
    JOIN pg_class part ON part.oid = inh.inhrelid
    CROSS JOIN LATERAL (SELECT left(part.relname || '_' || parent_index.relname, 63) AS name) n
    LEFT JOIN pg_class existing_class ON existing_class.relname = n.name AND existing_class.relkind = 'i'
    LEFT JOIN pg_index existing ON existing.indexrelid = existing_class.oid
    WHERE NOT idx.indisvalid
      AND NOT EXISTS (
          SELECT 1 FROM pg_index child
          JOIN pg_inherits ci ON ci.inhrelid = child.indexrelid AND ci.inhparent = idx.indexrelid
          WHERE child.indrelid = part.oid
      )
    ORDER BY 1
$$;
