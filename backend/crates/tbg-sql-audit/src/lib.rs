//! The SQL scanner.
//!
//! `sqlx::query!` checks statements at compile time, but nothing in the compiler keeps somebody from
//! putting a statement together out of strings. This crate does: it reads the tokens of every Rust file
//! (so comments, line breaks and raw strings cannot hide anything), the migrations and the scripts.
//!
//! A comment `sql-audit: allow(S2) reason` allows what the next statement does, or, behind code, what its
//! line does. Every use is counted and printed; one without a reason, or one that allows nothing, is a
//! finding itself.

mod files;
mod literal;
mod markers;
mod migration;
mod rust;
mod scripts;
mod statement;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::ensure;

pub use files::repository_root;
use files::{Kind, Source};
use markers::Judged;

/// The exit code when something could not be scanned.
pub const UNSCANNABLE: u8 = 2;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A marker that allows nothing, or gives no reason. Cannot be allowed.
    S0,
    /// SQL text that is put together at run time.
    S1,
    /// SQL that the compiler has not seen.
    S2,
    /// SQL outside of a store.
    S3,
    /// Dynamic SQL in a migration, or a function that runs as its owner with the caller's search path.
    S4,
    /// Lua that is put together at run time.
    S5,
    /// SQL text that is put together in Python.
    S6,
}

impl Rule {
    /// The rule that a marker names.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::S1, Self::S2, Self::S3, Self::S4, Self::S5, Self::S6]
            .into_iter()
            .find(|rule| rule.to_string() == name)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A place in a text. Both numbers begin at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    /// The place of a byte of `text`.
    pub(crate) fn of_byte(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// What a rule saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    pub(crate) place: Place,
    pub(crate) rule: Rule,
    pub(crate) message: &'static str,
}

/// Why a text cannot be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreadable {
    pub(crate) place: Place,
    pub(crate) message: &'static str,
}

/// A risk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as seen from the root of the scan where it lies below it.
    pub path: String,
    /// The line; the first is 1.
    pub line: usize,
    /// The column in characters; the first is 1.
    pub column: usize,
    /// The rule.
    pub rule: Rule,
    /// What is wrong, or the reason why it is allowed.
    pub message: String,
}

impl Finding {
    fn new(path: &str, hit: Hit, message: impl Into<String>) -> Self {
        let Place { line, column } = hit.place;
        Self { path: path.to_owned(), line, column, rule: hit.rule, message: message.into() }
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many files were read.
    pub files: usize,
    /// The risks.
    pub findings: Vec<Finding>,
    /// What markers allow; each message is the marker's reason.
    pub allowed: Vec<Finding>,
    /// What could not be read, each with its place and why.
    pub unreadable: Vec<String>,
}

impl Report {
    /// 0 without findings, 1 with findings, [`UNSCANNABLE`] when something could not be read.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.unreadable.is_empty() { u8::from(!self.findings.is_empty()) } else { UNSCANNABLE }
    }

    fn add(&mut self, path: &str, judged: Judged) {
        self.findings.extend(judged.hits.into_iter().map(|hit| Finding::new(path, hit, hit.message)));
        self.allowed.extend(judged.allowed.into_iter().map(|(hit, why)| Finding::new(path, hit, why)));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { path, line, column, rule, message } in &self.allowed {
            writeln!(f, "{path}:{line}:{column} {rule} allowed: {message}")?;
        }
        for Finding { path, line, column, rule, message } in &self.findings {
            writeln!(f, "{path}:{line}:{column} {rule} {message}")?;
        }
        for error in &self.unreadable {
            writeln!(f, "{error}")?;
        }
        let (risks, allowed) = (self.findings.len(), self.allowed.len());
        match self.exit_code() {
            0 => writeln!(f, "PASS: 0 risks ({} files, {allowed} allowed)", self.files),
            1 => writeln!(f, "FAIL: {risks} risks ({} files, {allowed} allowed)", self.files),
            _ => writeln!(f, "FAIL: {} files could not be scanned, {risks} risks", self.unreadable.len()),
        }
    }
}

/// Scans files and folders, or all of `root` if none are named.
///
/// # Errors
/// When a path is not there, a folder cannot be listed, or there is nothing to scan.
pub fn scan(root: &Path, paths: &[PathBuf]) -> anyhow::Result<Report> {
    let sources = files::list(root, paths)?;
    ensure!(!sources.is_empty(), "there is nothing to scan");
    let mut report = Report { files: sources.len(), ..Report::default() };
    for source in &sources {
        let text = match fs::read_to_string(&source.path) {
            Ok(text) => text,
            Err(error) => {
                report.unreadable.push(format!("{}: {error}", source.name));
                continue;
            }
        };
        match judge(source, &text) {
            Ok(judged) => report.add(&source.name, judged),
            Err(Unreadable { place: Place { line, column }, message }) => {
                report.unreadable.push(format!("{}:{line}:{column} {message}", source.name));
            }
        }
    }
    Ok(report)
}

fn judge(source: &Source, text: &str) -> Result<Judged, Unreadable> {
    match source.kind {
        Kind::Rust => rust::scan(text, source.may_hold_sql, source.is_test),
        Kind::Migration => migration::scan(text),
        Kind::Lua => Ok(scripts::lua(text)),
        Kind::Python => Ok(scripts::python(text)),
    }
}
