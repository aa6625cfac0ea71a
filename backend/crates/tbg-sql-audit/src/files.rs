//! Which files are scanned, and where SQL has its place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Modules besides the stores that are made of SQL, each with the reason.
const CORE: [(&str, &str); 6] = [
    ("tbg-core/src/db.rs", "migrations and what they leave to be done"),
    ("tbg-core/src/jobs.rs", "the leases of jobs"),
    ("tbg-core/src/outbox.rs", "the outbox: written in the transaction of every other part"),
    ("tbg-core/src/partitions.rs", "the upkeep of partitions"),
    ("tbg-core/src/users.rs", "who holds an address: asked by every other part"),
    ("tbg-local/src/postgres.rs", "for development: makes a database while there is none to connect to"),
];

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rust,
    Migration,
    Lua,
    Python,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "rs" => Some(Self::Rust),
            "sql" => Some(Self::Migration),
            "lua" => Some(Self::Lua),
            "py" => Some(Self::Python),
            _ => None,
        }
    }
}

/// A file to scan.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// How reports call it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Whether SQL has its place here: a store, a test, or a module of [`CORE`].
    pub(crate) may_hold_sql: bool,
    /// Whether it is of the tests package, where sqlx's own `&'static str` is the guard of run-time queries.
    pub(crate) is_test: bool,
}

/// The repository around `from`: the nearest folder that holds `backend/Cargo.toml` or `.git`.
#[must_use]
pub fn repository_root(from: &Path) -> Option<PathBuf> {
    from.ancestors()
        .find(|folder| folder.join("backend/Cargo.toml").is_file() || folder.join(".git").exists())
        .map(Path::to_owned)
}

/// The files of `paths`, or of `root`.
pub(crate) fn list(root: &Path, paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let root = fs::canonicalize(root).with_context(|| format!("no folder {}", root.display()))?;
    let asked = if paths.is_empty() { std::slice::from_ref(&root) } else { paths };
    let mut sources: Vec<Source> = Vec::new();
    for path in asked {
        let path = fs::canonicalize(path).with_context(|| format!("no file {}", path.display()))?;
        let mut files = Vec::new();
        if path.is_dir() {
            walk(&path, &mut files)?;
        } else {
            files.push(path.clone());
        }
        // What lies elsewhere is judged by its place below the folder that was asked for.
        let base = if path.starts_with(&root) || path.is_file() { root.as_path() } else { path.as_path() };
        sources.extend(files.into_iter().filter_map(|file| source(file, &root, base)));
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources.dedup_by(|a, b| a.path == b.path);
    Ok(sources)
}

fn source(path: PathBuf, root: &Path, base: &Path) -> Option<Source> {
    let kind = Kind::of(&path)?;
    let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
    let place = match path.strip_prefix(base) {
        Ok(place) => place,
        Err(_) => Path::new(path.file_name()?),
    };
    let (may_hold_sql, is_test) = (may_hold_sql(place), place.starts_with("backend/tests"));
    Some(Source { name, kind, may_hold_sql, is_test, path })
}

fn may_hold_sql(path: &Path) -> bool {
    let file = path.file_name().and_then(|name| name.to_str());
    let folders = path.parent().into_iter().flat_map(Path::components);
    matches!(file, Some("store.rs" | "tests.rs"))
        || folders.map(|folder| folder.as_os_str()).any(|folder| folder == "store" || folder == "tests")
        || CORE.iter().any(|(core, _)| path.ends_with(core))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let cannot = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let (path, kind) = (entry.path(), entry.file_type().with_context(cannot)?);
        if kind.is_dir() {
            if !is_left_out(&path) {
                walk(&path, files)?;
            }
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// What is not ours: history, installed packages, what cargo builds (but not a module that is called
/// `target`), and the risks that are planted for the tests of this crate.
fn is_left_out(folder: &Path) -> bool {
    let parent = folder.parent().unwrap_or(folder);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some(".git" | ".venv" | "node_modules") => true,
        Some("target") => parent.join("Cargo.toml").is_file() || folder.join("CACHEDIR.TAG").is_file(),
        Some("fixtures") => parent.ends_with("tbg-sql-audit"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_has_its_place() {
        for place in [
            "backend/crates/tbg-mining/src/store.rs",
            "backend/crates/tbg-mining/src/store/blocks.rs",
            "backend/crates/tbg-core/src/db.rs",
            "backend/crates/tbg-sim/src/tests.rs",
            "backend/tests/src/lib.rs",
        ] {
            assert!(may_hold_sql(Path::new(place)), "{place}");
        }
        for place in [
            "backend/crates/tbg-mining/src/rebuild.rs",
            "backend/crates/tbg-mining/src/restore.rs",
            "backend/crates/tbg-web/src/db.rs",
            "backend/crates/tbg-sql-audit/fixtures/s3.rs",
        ] {
            assert!(!may_hold_sql(Path::new(place)), "{place}");
        }
    }
}
