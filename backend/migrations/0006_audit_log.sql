-- The audit log (production.md §8): who did what. Rows are added and never changed; whole months go after
-- a year; a chain of seals shows any change made behind the program's back.

-- Roles belong to the cluster: another database may have made them, or be making them at this moment.
DO $$
DECLARE
    name TEXT;
BEGIN
    FOREACH name IN ARRAY ARRAY['tbg_owner', 'tbg_app'] LOOP
        CONTINUE WHEN to_regrole(name) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % is missing: create it, then run SELECT tbg_grant_app()', name;
        END;
    END LOOP;
END
$$;

-- PostgreSQL wants the partition column in every unique key, so the key is (id, timestamp).
CREATE TABLE audit_log (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    timestamp TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    user_id VARCHAR(128),
    action VARCHAR(50) NOT NULL,
    resource_type VARCHAR(50) NOT NULL,
    resource_id VARCHAR(200),
    ip_address VARCHAR(45),
    user_agent VARCHAR(500),
    details JSONB NOT NULL DEFAULT '{}'::jsonb,
    status VARCHAR(20) NOT NULL DEFAULT 'success' CHECK (status IN ('success', 'failure', 'denied')),
    PRIMARY KEY (id, timestamp)
) PARTITION BY RANGE (timestamp);
-- A missing month must not stop sign-ins; rows in here raise an alert.
CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT;
CREATE INDEX idx_audit_timestamp ON audit_log (timestamp DESC);
CREATE INDEX idx_audit_user ON audit_log (user_id, timestamp DESC);
CREATE INDEX idx_audit_action ON audit_log (action, timestamp DESC);
CREATE INDEX idx_audit_resource ON audit_log (resource_type, resource_id);

-- Links of the hash chain; seal n covers the rows of [lo, hi).
CREATE TABLE audit_seals (
    seal_no BIGINT PRIMARY KEY CHECK (seal_no >= 1),
    lo TIMESTAMPTZ NOT NULL,
    hi TIMESTAMPTZ NOT NULL,
    row_count BIGINT NOT NULL CHECK (row_count >= 0),
    rows_hash BYTEA NOT NULL CHECK (octet_length(rows_hash) = 32),
    prev_hash BYTEA NOT NULL CHECK (octet_length(prev_hash) = 32),
    hash BYTEA NOT NULL CHECK (octet_length(hash) = 32),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT audit_seals_range CHECK (lo < hi),
    CONSTRAINT audit_seals_prev_hash_unique UNIQUE (prev_hash),
    CONSTRAINT audit_seals_hash_unique UNIQUE (hash)
);

CREATE FUNCTION tbg_refuse_change() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

-- ALWAYS, so that session_replication_role = replica does not get past them.
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION tbg_refuse_change();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION tbg_refuse_change();
-- Partitions get a copy of the row trigger, but not of this one.
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log_default
    FOR EACH STATEMENT EXECUTE FUNCTION tbg_refuse_change();
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_no_truncate;
ALTER TABLE audit_log_default ENABLE ALWAYS TRIGGER audit_log_append_only;
ALTER TABLE audit_log_default ENABLE ALWAYS TRIGGER audit_log_no_truncate;
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE ON audit_seals
    FOR EACH ROW EXECUTE FUNCTION tbg_refuse_change();
CREATE TRIGGER audit_seals_no_truncate BEFORE TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION tbg_refuse_change();
ALTER TABLE audit_seals ENABLE ALWAYS TRIGGER audit_seals_append_only;
ALTER TABLE audit_seals ENABLE ALWAYS TRIGGER audit_seals_no_truncate;

-- Creates the partition of the UTC month that contains `month`; returns whether it was missing. Rows that
-- DEFAULT already holds for it move along: for that the row trigger of DEFAULT is off inside this
-- transaction, under a lock that keeps everybody else out. Internal: the owner only.
CREATE FUNCTION tbg_create_audit_partition(month DATE) RETURNS BOOLEAN LANGUAGE plpgsql
SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    first_day TIMESTAMP := date_trunc('month', month::TIMESTAMP);
    child TEXT := to_char(first_day, '"audit_log_y"YYYY"m"MM');
    lower_bound TIMESTAMPTZ := first_day AT TIME ZONE 'UTC';
    upper_bound TIMESTAMPTZ := (first_day + INTERVAL '1 month') AT TIME ZONE 'UTC';
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tbg_create_audit_partition', 0));
    IF to_regclass(child) IS NOT NULL THEN
        RETURN FALSE;
    END IF;
    LOCK TABLE audit_log_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I '
                   '(LIKE audit_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', child);
    IF EXISTS (SELECT FROM audit_log_default WHERE timestamp >= lower_bound AND timestamp < upper_bound) THEN
        ALTER TABLE audit_log_default DISABLE TRIGGER audit_log_append_only;
        EXECUTE format('WITH moved AS (DELETE FROM audit_log_default WHERE timestamp >= $1 AND timestamp < $2 '
                       'RETURNING *) INSERT INTO %I SELECT * FROM moved', child)
            USING lower_bound, upper_bound;
        ALTER TABLE audit_log_default ENABLE ALWAYS TRIGGER audit_log_append_only;
    END IF;
    EXECUTE format('ALTER TABLE audit_log ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   child, lower_bound, upper_bound);
    EXECUTE format('CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON %I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION tbg_refuse_change()', child);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER audit_log_append_only', child);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER audit_log_no_truncate', child);
    -- Default privileges are for ordinary tables.
    EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', child);
    IF to_regrole('tbg_app') IS NOT NULL THEN
        EXECUTE format('REVOKE ALL ON %I FROM tbg_app', child);
    END IF;
    RETURN TRUE;
END
$$;

-- Creates what is missing for the month of `moment` and the three after it; returns how many. Internal.
CREATE FUNCTION audit_log_keep_partitions_at(moment TIMESTAMPTZ) RETURNS INT LANGUAGE sql
SET search_path = public, pg_temp AS $$
    SELECT count(*) FILTER (WHERE tbg_create_audit_partition(
               (date_trunc('month', moment AT TIME ZONE 'UTC') + make_interval(months => ahead))::DATE))::INT
    FROM generate_series(0, 3) AS ahead
$$;

CREATE FUNCTION audit_log_keep_partitions() RETURNS INT LANGUAGE sql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT audit_log_keep_partitions_at(now())
$$;

-- Drops the partitions that ended a year before `moment` and whose every row is sealed; returns how many.
-- Plain DETACH: CONCURRENTLY is refused beside a DEFAULT partition. Internal.
CREATE FUNCTION audit_log_retain_at(moment TIMESTAMPTZ) RETURNS INT LANGUAGE plpgsql
SET search_path = public, pg_temp SET lock_timeout = '2s' SET timezone = 'UTC' AS $$
DECLARE
    part RECORD;
    sealed_to TIMESTAMPTZ := (SELECT hi FROM audit_seals ORDER BY seal_no DESC LIMIT 1);
    sealed_rows BIGINT;
    dropped INT := 0;
BEGIN
    FOR part IN
        SELECT c.relname AS name, bound[1]::TIMESTAMPTZ AS from_time, bound[2]::TIMESTAMPTZ AS to_time
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid),
                                        $re$FROM \('([^']+)'\) TO \('([^']+)'\)$re$) AS bound
        WHERE i.inhparent = 'audit_log'::REGCLASS
        ORDER BY 2
    LOOP
        CONTINUE WHEN part.to_time IS NULL OR part.to_time > moment - INTERVAL '1 year';
        CONTINUE WHEN sealed_to IS NULL OR sealed_to < part.to_time;
        -- Seals do not cross the end of a month.
        SELECT coalesce(sum(row_count), 0)::BIGINT INTO sealed_rows
        FROM audit_seals WHERE lo >= part.from_time AND hi <= part.to_time;
        EXECUTE format('ALTER TABLE audit_log DETACH PARTITION %I', part.name);
        EXECUTE format('DROP TABLE %I', part.name);
        INSERT INTO audit_log (action, resource_type, resource_id, details)
        VALUES ('system.audit_retention', 'partition', part.name,
                jsonb_build_object('from', part.from_time, 'to', part.to_time, 'sealed_rows', sealed_rows));
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

CREATE FUNCTION audit_log_retain() RETURNS INT LANGUAGE sql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT audit_log_retain_at(now())
$$;

-- Rows that no month covers. The program may not read partitions by name.
CREATE FUNCTION audit_log_default_rows() RETURNS BIGINT LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT count(*) FROM audit_log_default
$$;

-- No row with an earlier timestamp can still appear: a row's timestamp is the start of its transaction.
-- The minute of distance covers transactions that have started but not yet reported it. Whoever cannot see
-- the transactions of other roles must not seal, because rows might follow below the seal.
CREATE FUNCTION tbg_audit_horizon() RETURNS TIMESTAMPTZ LANGUAGE plpgsql AS $$
DECLARE
    oldest TIMESTAMPTZ;
    hidden BIGINT;
BEGIN
    -- Without a user: the server's own workers, which write no rows.
    SELECT min(xact_start), count(*) FILTER (WHERE query = '<insufficient privilege>')
    INTO oldest, hidden
    FROM pg_stat_activity
    WHERE datname = current_database() AND usesysid IS NOT NULL;
    IF hidden > 0 THEN
        RAISE EXCEPTION 'cannot see the transactions of other roles'
            USING ERRCODE = 'insufficient_privilege', HINT = 'GRANT pg_read_all_stats TO tbg_app';
    END IF;
    RETURN least(oldest, now() - INTERVAL '60 seconds');
END
$$;

-- The functions of 0003 that change tables run as their owner from now on, so that the program can
-- maintain day partitions without owning them. The audit log is not theirs.
CREATE FUNCTION tbg_refuse_audit_table(name TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    IF name ~* '^audit_' THEN
        RAISE EXCEPTION '% is not kept by days', name USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION tbg_create_day_partition(parent TEXT, day DATE) RETURNS BOOLEAN LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    child TEXT := parent || to_char(day, '"_y"YYYY"m"MM"d"DD');
    col TEXT := tbg_partition_column(parent);
    lower_bound TIMESTAMPTZ := day::TIMESTAMP AT TIME ZONE 'UTC';
    upper_bound TIMESTAMPTZ := (day + 1)::TIMESTAMP AT TIME ZONE 'UTC';
BEGIN
    PERFORM tbg_refuse_audit_table(parent);
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

CREATE OR REPLACE FUNCTION tbg_drop_partition(parent TEXT, child TEXT) RETURNS VOID LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM tbg_refuse_audit_table(parent), tbg_refuse_audit_table(child);
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, child);
    EXECUTE format('DROP TABLE %I', child);
END
$$;

CREATE OR REPLACE FUNCTION tbg_prune_default_partition(parent TEXT, keep_from DATE, at_most INT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    pruned BIGINT;
BEGIN
    PERFORM tbg_refuse_audit_table(parent);
    EXECUTE format('DELETE FROM %I WHERE ctid = ANY (ARRAY(SELECT ctid FROM %I WHERE %I < $1 LIMIT $2))',
                   parent || '_default', parent || '_default', tbg_partition_column(parent))
        USING keep_from::TIMESTAMP AT TIME ZONE 'UTC', at_most;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;

-- What runs as its owner is for the program only; what takes a time or a month is for nobody else at all.
REVOKE ALL ON FUNCTION
    audit_log_keep_partitions(), audit_log_keep_partitions_at(TIMESTAMPTZ),
    audit_log_retain(), audit_log_retain_at(TIMESTAMPTZ), audit_log_default_rows(),
    tbg_create_audit_partition(DATE), tbg_create_day_partition(TEXT, DATE),
    tbg_drop_partition(TEXT, TEXT), tbg_prune_default_partition(TEXT, DATE, INT)
FROM PUBLIC;

-- Gives the program's role its rights on everything that the caller owns. Safe to run again, for example
-- after an administrator has created the role. Later tables of the same owner need no call.
CREATE FUNCTION tbg_grant_app() RETURNS VOID LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    item RECORD;
BEGIN
    IF to_regrole('tbg_app') IS NULL THEN
        RAISE NOTICE 'role tbg_app is missing: nothing is granted';
        RETURN;
    END IF;
    FOR item IN
        SELECT c.oid::REGCLASS AS name, c.relname, c.relkind
        FROM pg_class c
        WHERE c.relnamespace = 'public'::REGNAMESPACE AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
          AND pg_has_role(c.relowner, 'USAGE')
    LOOP
        IF item.relname ~ '^audit_' THEN
            EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, tbg_app', item.name);
        ELSIF item.relname = '_sqlx_migrations' THEN
            EXECUTE format('GRANT SELECT ON %s TO tbg_app', item.name);
        ELSIF item.relkind = 'S' THEN
            EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %s TO tbg_app', item.name);
        ELSE
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO tbg_app', item.name);
        END IF;
    END LOOP;
    GRANT SELECT, INSERT ON audit_log, audit_seals TO tbg_app;
    GRANT EXECUTE ON FUNCTION
        audit_log_keep_partitions(), audit_log_retain(), audit_log_default_rows(),
        tbg_create_day_partition(TEXT, DATE), tbg_drop_partition(TEXT, TEXT),
        tbg_prune_default_partition(TEXT, DATE, INT)
    TO tbg_app;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tbg_app;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO tbg_app;
    IF NOT pg_has_role('tbg_app', 'pg_read_all_stats', 'USAGE') THEN
        BEGIN
            GRANT pg_read_all_stats TO tbg_app;
        EXCEPTION
            WHEN unique_violation OR duplicate_object THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'tbg_app cannot seal the audit log yet: GRANT pg_read_all_stats TO tbg_app';
        END;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION tbg_grant_app() FROM PUBLIC;

SELECT audit_log_keep_partitions_at(now());
SELECT tbg_grant_app();
