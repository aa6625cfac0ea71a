-- The functions that maintain day partitions run as their owner (0006). They take names from the program, so
-- they must work on its own day-partitioned tables and on nothing else: not on temporary tables of the same
-- name, whose defaults and triggers would run with the owner's rights, and not on the audit log.
DO $$
BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'temporary tables stay allowed: REVOKE TEMPORARY ON DATABASE … FROM PUBLIC as its owner';
END
$$;

-- Refuses every name that is not a partitioned table of the caller's in public, apart from the audit log.
CREATE FUNCTION tbg_require_day_partitioned(parent TEXT) RETURNS VOID LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF parent ~* '^audit_' OR NOT EXISTS (
        SELECT FROM pg_class c
        WHERE c.relnamespace = 'public'::REGNAMESPACE AND c.relname = parent AND c.relkind = 'p'
          AND pg_get_userbyid(c.relowner) = current_user
    ) THEN
        RAISE EXCEPTION '% is not kept by days', parent USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- Refuses every name that is not a partition of `parent` in public. `parent` has been required before.
CREATE FUNCTION tbg_require_partition(parent TEXT, child TEXT) RETURNS VOID LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_inherits i
        JOIN pg_class p ON p.oid = i.inhparent
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE p.relnamespace = 'public'::REGNAMESPACE AND p.relname = parent
          AND c.relnamespace = 'public'::REGNAMESPACE AND c.relname = child
    ) THEN
        RAISE EXCEPTION '% is no partition of %', child, parent USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION tbg_create_day_partition(parent TEXT, day DATE) RETURNS BOOLEAN LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    child TEXT := parent || to_char(day, '"_y"YYYY"m"MM"d"DD');
    col TEXT;
    lower_bound TIMESTAMPTZ := day::TIMESTAMP AT TIME ZONE 'UTC';
    upper_bound TIMESTAMPTZ := (day + 1)::TIMESTAMP AT TIME ZONE 'UTC';
BEGIN
    PERFORM tbg_require_day_partitioned(parent), tbg_require_partition(parent, parent || '_default');
    IF to_regclass(format('public.%I', child)) IS NOT NULL THEN
        RETURN FALSE;
    END IF;
    col := tbg_partition_column(format('public.%I', parent));
    EXECUTE format('CREATE TABLE public.%I '
                   '(LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', child, parent);
    EXECUTE format('WITH moved AS (DELETE FROM public.%I WHERE %I >= $1 AND %I < $2 RETURNING *) '
                   'INSERT INTO public.%I SELECT * FROM moved', parent || '_default', col, col, child)
        USING lower_bound, upper_bound;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, child, lower_bound, upper_bound);
    RETURN TRUE;
END
$$;

CREATE OR REPLACE FUNCTION tbg_drop_partition(parent TEXT, child TEXT) RETURNS VOID LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM tbg_require_day_partitioned(parent), tbg_require_partition(parent, child);
    EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I', parent, child);
    EXECUTE format('DROP TABLE public.%I', child);
END
$$;

CREATE OR REPLACE FUNCTION tbg_prune_default_partition(parent TEXT, keep_from DATE, at_most INT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    child TEXT := parent || '_default';
    pruned BIGINT;
BEGIN
    PERFORM tbg_require_day_partitioned(parent), tbg_require_partition(parent, child);
    EXECUTE format('DELETE FROM public.%I WHERE ctid = ANY '
                   '(ARRAY(SELECT ctid FROM public.%I WHERE %I < $1 LIMIT $2))',
                   child, child, tbg_partition_column(format('public.%I', parent)))
        USING keep_from::TIMESTAMP AT TIME ZONE 'UTC', at_most;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;

DROP FUNCTION tbg_refuse_audit_table(TEXT);
REVOKE ALL ON FUNCTION tbg_require_day_partitioned(TEXT), tbg_require_partition(TEXT, TEXT) FROM PUBLIC;
