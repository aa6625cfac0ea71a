-- Roles of the production database. Run once, by the image, as the superuser `postgres` in the database tbg,
-- when the data folder is new. Passwords come from secret files: in no environment, in no list of processes.
-- Before a dump goes into a cluster that this stack did not make, only the lines with CREATE ROLE run: see
-- docs/runbooks/Restore.md.
--
--   tbg_owner    owns database and tables, runs `tbg migrate`; no superuser
--   tbg_app      no login: the rights of the program (migrations 0006 and 0009 grant them)
--   tbg_service  login of API, ingest and jobs, a member of tbg_app and of nothing else
--   tbg_backup   login of the backup service: reads everything, replicates, writes nothing
--   tbg_monitor  login of the exporter
--
-- A new password without downtime: create tbg_service_b like tbg_service, give the program a new database_url,
-- and drop the old login when no replica uses it any more.
\set service_password `cat /run/secrets/db_password`
\set owner_password `cat /run/secrets/db_owner_password`
\set backup_password `cat /run/secrets/db_backup_password`
\set monitor_password `cat /run/secrets/db_monitor_password`

CREATE ROLE tbg_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE tbg_app NOLOGIN;
CREATE ROLE tbg_service LOGIN PASSWORD :'service_password' IN ROLE tbg_app;
CREATE ROLE tbg_backup LOGIN REPLICATION PASSWORD :'backup_password' IN ROLE pg_read_all_data;
CREATE ROLE tbg_monitor LOGIN PASSWORD :'monitor_password' IN ROLE pg_monitor;

ALTER DATABASE tbg OWNER TO tbg_owner;
ALTER SCHEMA public OWNER TO tbg_owner;
REVOKE ALL ON DATABASE tbg FROM PUBLIC;
GRANT CONNECT ON DATABASE tbg TO tbg_app, tbg_backup, tbg_monitor;
-- Seals of the audit log need to see whether older transactions run; the owner cannot grant this.
GRANT pg_read_all_stats TO tbg_app;

-- The image insists on a password for the superuser; it ends here.
ALTER ROLE postgres PASSWORD NULL;
