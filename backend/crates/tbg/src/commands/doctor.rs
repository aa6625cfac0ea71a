//! `tbg doctor`: checks a deployment and says what to do about each finding.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tbg_core::config::{Environment, IngestMode, Loaded, Settings, Sources};
use tbg_core::db;

use crate::cli::{Doctor, Role};
use crate::terminal::say;

/// Datagrams that the kernel must be able to queue (contract `mining.md` §2.1).
const MIN_DGRAM_QUEUE: u64 = 4096;
/// Bytes that a sender may have in a queue; a datagram takes about 1.3 KiB of it.
const MIN_SEND_BUFFER: u64 = 4 * 1024 * 1024;
/// Sockets, files and connections of one replica.
const MIN_OPEN_FILES: u64 = 16_384;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Where an orchestrator mounts secrets.
const MOUNTED_SECRETS: &str = "/run/secrets";
/// Bits of a file's mode that let anybody but its owner in.
const FOR_OTHERS: u32 = 0o077;

/// What a check found.
enum Finding {
    Good(String),
    Note(String),
    Bad { found: String, remedy: &'static str },
}

pub async fn run(args: &Doctor) -> anyhow::Result<ExitCode> {
    let loaded = Sources::of_process().and_then(|sources| Loaded::from_sources(&sources));
    let (settings, secrets) = match loaded {
        Ok(loaded) => {
            let secrets = secret_files(&loaded);
            (loaded.settings, secrets)
        }
        Err(error) => {
            let _ =
                report("settings", &Finding::Bad { found: error.to_string(), remedy: "see `tbg config`" });
            return Ok(ExitCode::FAILURE);
        }
    };
    let has = |role| args.role.contains(&role) || args.role.contains(&Role::All);
    let mut checks = vec![
        ("settings", Finding::Good("can be read".to_owned())),
        ("secret files", secrets),
        ("database", database(&settings).await),
        ("audit log", audit_log(&settings).await),
        ("database role", database_role(&settings).await),
        ("redis", redis(&settings).await),
        ("open files", open_files()),
    ];
    if has(Role::Api) {
        checks.push(("token key", token_key(&settings)));
    }
    if has(Role::Jobs) {
        checks.push(("lottery key", lottery_key(&settings)));
    }
    if has(Role::Ingest) {
        checks.extend([
            ("pool socket", pool_socket(&settings)),
            ("spool", spool(&settings)),
            ("datagram queue", datagram_queue()),
            ("send buffer", send_buffer()),
        ]);
    }
    for (name, finding) in &checks {
        let _ = report(name, finding);
    }
    let bad = checks.iter().filter(|(_, finding)| matches!(finding, Finding::Bad { .. })).count();
    let _ = say!(
        "{}",
        if bad == 0 { "All is well." } else { "Fix what is marked, then run `tbg doctor` again." }
    );
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who else may read the files of secrets. An orchestrator's own folder is on no disk and belongs to one container.
fn secret_files(loaded: &Loaded) -> Finding {
    let files: Vec<PathBuf> =
        loaded.secret_files().filter(|path| !path.starts_with(MOUNTED_SECRETS)).collect();
    let open = files.iter().filter(|path| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & FOR_OTHERS != 0)
    });
    let open: Vec<String> = open.map(|path| path.display().to_string()).collect();
    if open.is_empty() {
        return Finding::Good(format!("{} on disk, for their owner alone", files.len()));
    }
    Finding::Bad {
        found: format!("others may read or write {}", open.join(", ")),
        remedy: "chmod 600 these files",
    }
}

fn report(name: &str, finding: &Finding) -> anyhow::Result<()> {
    match finding {
        Finding::Good(text) => say!("  ok    {name}: {text}"),
        Finding::Note(text) => say!("  note  {name}: {text}"),
        Finding::Bad { found, remedy } => say!("  FIX   {name}: {found}\n        -> {remedy}"),
    }
}

async fn connect(settings: &Settings) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect_with(&db::connect_options(settings)?).await?)
}

/// What the database answers, or the finding that it did not. Only the server's own words are told: those
/// of the driver may hold parts of the URL.
async fn answer<T>(check: impl Future<Output = anyhow::Result<T>>) -> Result<T, Finding> {
    let error = match tokio::time::timeout(TIMEOUT, check).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_) => {
            return Err(Finding::Bad {
                found: format!("no answer within {} s", TIMEOUT.as_secs()),
                remedy: "is the network between here and PostgreSQL open?",
            });
        }
    };
    let refusal = error.downcast_ref::<sqlx::Error>().and_then(|error| error.as_database_error());
    Err(match refusal {
        Some(refusal) => Finding::Bad {
            found: format!("PostgreSQL refuses: {}", refusal.message()),
            remedy: "is TBG_DATABASE_URL (or its _FILE) right, and may its role use this database?",
        },
        None => Finding::Bad {
            found: "cannot connect".to_owned(),
            remedy: "is PostgreSQL running, and is TBG_DATABASE_URL (or its _FILE) right?",
        },
    })
}

async fn database(settings: &Settings) -> Finding {
    let check = async {
        let mut conn = connect(settings).await?;
        let version = conn.server_version_num().unwrap_or(0);
        anyhow::Ok((version, db::missing_migrations(&mut conn).await?))
    };
    match answer(check).await {
        Ok((version, _)) if version < 150_000 => Finding::Bad {
            found: format!("PostgreSQL {}", version / 10_000),
            remedy: "PostgreSQL 15 or newer is needed",
        },
        Ok((version, missing)) if missing.is_empty() => {
            Finding::Good(format!("PostgreSQL {}, schema is up to date", version / 10_000))
        }
        Ok((_, missing)) => Finding::Bad {
            found: format!("{} migration(s) missing: {}", missing.len(), missing.join(", ")),
            remedy: "run `tbg migrate`",
        },
        Err(finding) => finding,
    }
}

/// Whether the walls around the audit log stand.
async fn audit_log(settings: &Settings) -> Finding {
    let check = async {
        let mut conn = connect(settings).await?;
        if !tbg_operations::has_audit_log(&mut conn).await? {
            return anyhow::Ok(None);
        }
        anyhow::Ok(Some(tbg_operations::guards(&mut conn).await?))
    };
    match answer(check).await {
        Ok(None) => Finding::Note("not checked: the table audit_log does not exist yet".to_owned()),
        Ok(Some(faults)) if faults.is_empty() => {
            Finding::Good("append-only: triggers are on, tbg_app may read and add".to_owned())
        }
        Ok(Some(faults)) => Finding::Bad {
            found: faults.join("; "),
            remedy: "as the owner: SELECT tbg_grant_app(), and ALTER TABLE … ENABLE ALWAYS TRIGGER …; \
                     as a superuser: GRANT pg_read_all_stats TO tbg_app",
        },
        Err(finding) => finding,
    }
}

/// Whether the walls hold for the role with which this process connects.
async fn database_role(settings: &Settings) -> Finding {
    let check = async {
        let mut conn = connect(settings).await?;
        anyhow::Ok(tbg_operations::session_powers(&mut conn).await?)
    };
    match (answer(check).await, settings.environment) {
        (Ok(powers), _) if powers.is_empty() => {
            Finding::Good("neither a superuser nor the owner of the audit log".to_owned())
        }
        (Ok(powers), Environment::Development | Environment::Test) => {
            Finding::Note(format!("{}: fine here, not in production", powers.join("; ")))
        }
        (Ok(powers), _) => Finding::Bad {
            found: format!("{}: it can change the audit log", powers.join("; ")),
            remedy: "connect as a role that is a member of tbg_app only; the owner is for `tbg migrate`",
        },
        (Err(finding), _) => finding,
    }
}

fn token_key(settings: &Settings) -> Finding {
    match (settings.jwt_private_key.expose().is_empty(), settings.environment) {
        (false, _) => match crate::roles::token_keys(settings) {
            Ok(_) => Finding::Good("can be used".to_owned()),
            Err(error) => Finding::Bad {
                found: format!("{error:#}"),
                remedy: "make a key with `tbg keys new` and mount it as a secret",
            },
        },
        (true, Environment::Development | Environment::Test) => {
            Finding::Note("not set: each start makes one, and sessions end with the process".to_owned())
        }
        (true, _) => Finding::Bad {
            found: "TBG_JWT_PRIVATE_KEY_FILE is not set".to_owned(),
            remedy: "make a key with `tbg keys new` and mount it as a secret",
        },
    }
}

fn lottery_key(settings: &Settings) -> Finding {
    match crate::roles::salt_key(settings) {
        Ok(_) if !settings.lottery_salt_key.expose().is_empty() => Finding::Good("is set".to_owned()),
        Ok(_) => Finding::Note("not set: draws of this machine prove nothing".to_owned()),
        Err(error) => Finding::Bad {
            found: error.to_string(),
            remedy: "mount 64 hex digits as a secret, and keep them for as long as the game runs",
        },
    }
}

async fn redis(settings: &Settings) -> Finding {
    let check = async {
        let client = tbg_core::redis::client(settings)?;
        let mut conn = tbg_core::redis::dedicated(&client).await?;
        let info: String = redis::cmd("INFO").query_async(&mut conn).await?;
        anyhow::Ok(info)
    };
    match tokio::time::timeout(TIMEOUT, check).await {
        Ok(Ok(info)) => {
            let field = |name: &str| {
                info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned()
            };
            if field("aof_enabled:") == "1" {
                Finding::Good(format!("Redis {}, append-only file on", field("redis_version:")))
            } else {
                Finding::Bad {
                    found: "the append-only file is off: accepted events do not survive a restart".to_owned(),
                    remedy: "set `appendonly yes` in redis.conf",
                }
            }
        }
        _ => Finding::Bad {
            found: "cannot connect".to_owned(),
            remedy: "is Redis running, and is TBG_REDIS_URL (or its _FILE) right?",
        },
    }
}

fn pool_socket(settings: &Settings) -> Finding {
    let path = &settings.event_socket_path;
    if settings.ingest_mode != IngestMode::Embedded {
        return Finding::Note("not used in this ingest mode".to_owned());
    }
    match UnixDatagram::unbound().and_then(|socket| socket.connect(path)) {
        Ok(()) => Finding::Good(format!("a receiver listens at {}", path.display())),
        Err(_) => match path.parent().map(writable) {
            Some(true) => Finding::Note(format!("nobody listens at {} yet", path.display())),
            _ => Finding::Bad {
                found: format!("the folder of {} is not writable", path.display()),
                remedy: "make it writable for this user, or set TBG_EVENT_SOCKET_PATH",
            },
        },
    }
}

fn spool(settings: &Settings) -> Finding {
    if writable(&settings.spool_dir) {
        return Finding::Good(format!("{} is writable", settings.spool_dir.display()));
    }
    Finding::Bad {
        found: format!("{} is not writable", settings.spool_dir.display()),
        remedy: "make it writable for this user, or set TBG_SPOOL_DIR",
    }
}

/// Whether a file can be made there; makes the folder, as the server would.
fn writable(dir: &Path) -> bool {
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    let made = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&probe, b""));
    let _ = std::fs::remove_file(&probe);
    made.is_ok()
}

fn kernel_setting(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The pool sends from one socket: its send buffer bounds what waits in our queue.
fn send_buffer() -> Finding {
    match kernel_setting("/proc/sys/net/core/wmem_default") {
        Some(bytes) if bytes >= MIN_SEND_BUFFER => Finding::Good(format!("{bytes} bytes")),
        Some(bytes) => Finding::Bad {
            found: format!("a sender may queue {bytes} bytes, some {} datagrams", bytes / 1_300),
            remedy: "sysctl -w net.core.wmem_default=8388608 before the pool starts (and in /etc/sysctl.d)",
        },
        None => Finding::Note("cannot be read on this system".to_owned()),
    }
}

fn datagram_queue() -> Finding {
    match kernel_setting("/proc/sys/net/unix/max_dgram_qlen") {
        Some(limit) if limit >= MIN_DGRAM_QUEUE => Finding::Good(format!("{limit} datagrams")),
        Some(limit) => Finding::Bad {
            found: format!("the kernel queues {limit} datagrams: bursts of the pool are dropped"),
            remedy: "sysctl -w net.unix.max_dgram_qlen=4096 (and in /etc/sysctl.d to keep it)",
        },
        None => Finding::Note("cannot be read on this system".to_owned()),
    }
}

fn open_files() -> Finding {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .map(|soft| soft.parse::<u64>().unwrap_or(u64::MAX));
    match soft {
        Some(soft) if soft >= MIN_OPEN_FILES => Finding::Good(format!("{soft}")),
        Some(soft) => Finding::Bad {
            found: format!("a process may open {soft} files"),
            remedy: "raise the limit to 16384 or more (LimitNOFILE=, ulimit -n)",
        },
        None => Finding::Note("cannot be read on this system".to_owned()),
    }
}
