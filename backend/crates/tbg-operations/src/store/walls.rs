//! The walls around the audit log, as PostgreSQL's catalog describes them (contract `production.md` §8.2).

use sqlx::PgConnection;

/// Whether the audit log has been migrated into this database.
///
/// # Errors
/// When the database does not answer.
pub async fn has_audit_log(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT to_regclass('public.audit_log') IS NOT NULL AS "exists!""#)
        .fetch_one(conn)
        .await
}

/// What is missing of the walls around the audit log, in words; nothing if they stand: every table has its
/// triggers, and the program may add rows and read them through the parent, and nothing else. The rights are
/// those of `tbg_app` and of who asks, unless that is somebody whom no wall stops ([`session_powers`]).
///
/// # Errors
/// When the database does not answer.
pub async fn guards(conn: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    // 27: before update or delete, for each row; 34: before truncate. Rights on a single column count too.
    // Who acts under another role needs no rights besides it, but must not have more.
    sqlx::query_scalar!(
        r#"WITH guarded AS (
               SELECT c.oid, c.relname, c.relowner, c.relispartition,
                      CASE c.relname WHEN 'audit_seals' THEN 'audit_seals' ELSE 'audit_log' END AS family
               FROM pg_class c
               WHERE c.oid = to_regclass('public.audit_seals')
                  OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass('public.audit_log')))
           ), asked AS (
               SELECT r.oid, r.rolname FROM pg_roles r
               WHERE r.rolname = 'tbg_app'
                  OR (r.rolname = session_user
                      AND NOT EXISTS (SELECT 1 FROM guarded g WHERE pg_has_role(r.oid, g.relowner, 'MEMBER')))
           )
           SELECT name || ' does not exist' AS "found!"
           FROM unnest(ARRAY['audit_log', 'audit_seals']) AS name WHERE to_regclass('public.' || name) IS NULL
           UNION ALL
           SELECT 'the role tbg_app does not exist'
           WHERE NOT EXISTS (SELECT 1 FROM asked WHERE rolname = 'tbg_app')
           UNION ALL
           SELECT g.relname || ': the trigger ' || g.family || w.suffix
                  || ' is missing, changed or not always on'
           FROM guarded g CROSS JOIN (VALUES ('_append_only', 27), ('_no_truncate', 34)) AS w (suffix, fires)
           WHERE NOT EXISTS (
               SELECT 1 FROM pg_trigger t
               WHERE t.tgrelid = g.oid AND t.tgname = g.family || w.suffix AND t.tgenabled = 'A'
                 AND t.tgfoid = to_regprocedure('public.tbg_refuse_change()') AND t.tgtype = w.fires
                 AND t.tgqual IS NULL AND t.tgattr::TEXT = '')
           UNION ALL
           SELECT g.relname || ': ' || a.rolname || ' has the right to ' || p.privilege
           FROM guarded g CROSS JOIN asked a
           CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS p (privilege)
           WHERE (g.relispartition OR p.privilege = 'UPDATE')
             AND has_any_column_privilege(a.oid, g.oid, p.privilege)
           UNION ALL
           SELECT g.relname || ': ' || a.rolname || ' has the right to ' || p.privilege
           FROM guarded g CROSS JOIN asked a
           CROSS JOIN unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) AS p (privilege)
           WHERE has_table_privilege(a.oid, g.oid, p.privilege)
           UNION ALL
           SELECT g.relname || ': ' || a.rolname || ' lacks the right to ' || p.privilege
           FROM guarded g CROSS JOIN asked a CROSS JOIN unnest(ARRAY['SELECT', 'INSERT']) AS p (privilege)
           WHERE NOT g.relispartition AND a.rolname IN ('tbg_app', current_user)
             AND NOT has_table_privilege(a.oid, g.oid, p.privilege)
           UNION ALL
           SELECT g.relname || ': tbg_app owns it, or may act as its owner'
           FROM guarded g JOIN asked a ON a.rolname = 'tbg_app' AND pg_has_role(a.oid, g.relowner, 'MEMBER')
           UNION ALL
           SELECT a.rolname || ' is no member of pg_read_all_stats: it cannot seal'
           FROM asked a
           WHERE a.rolname IN ('tbg_app', current_user)
             AND NOT pg_has_role(a.oid, 'pg_read_all_stats', 'USAGE')
           ORDER BY 1"#
    )
    .fetch_all(conn)
    .await
}

/// Why the walls would not stop who asks, in words; nothing if they would. Superusers and owners can take
/// the triggers down, so a server must not connect as one.
///
/// # Errors
/// When the database does not answer.
pub async fn session_powers(conn: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"WITH me AS (
               SELECT session_user::TEXT AS name,
                      EXISTS (SELECT 1 FROM pg_roles r
                              WHERE r.rolsuper AND pg_has_role(session_user, r.oid, 'MEMBER')) AS is_superuser
           )
           SELECT name || ' is a superuser, or may become one' AS "power!" FROM me WHERE is_superuser
           UNION ALL
           SELECT me.name || ' owns audit_log, or may act as its owner'
           FROM me JOIN pg_class c ON c.oid = to_regclass('public.audit_log')
           WHERE NOT me.is_superuser AND pg_has_role(session_user, c.relowner, 'MEMBER')"#
    )
    .fetch_all(conn)
    .await
}
