//! The scanner finds what is planted in `fixtures/`, all of it and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use tbg_sql_audit::{Report, Rule, scan};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
const PROGRAM: &str = env!("CARGO_BIN_EXE_tbg-sql-audit");

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");

fn scan_fixture(name: &str) -> anyhow::Result<Report> {
    scan(Path::new(ROOT), &[Path::new(FIXTURES).join(name)])
}

/// What the fixture says itself: `~ S1` for the line, `~^ S1` for the line before, and so on.
fn planted(name: &str) -> std::io::Result<BTreeSet<(usize, String)>> {
    let text = fs::read_to_string(Path::new(FIXTURES).join(name))?;
    let mut planted = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some((_, rules)) = ["//~", "--~", "#~"].iter().find_map(|sign| line.split_once(*sign)) else {
            continue;
        };
        let words = rules.trim_start_matches('^');
        let number = number - (rules.len() - words.len());
        planted.extend(words.split_whitespace().map(|rule| (number, rule.to_owned())));
    }
    Ok(planted)
}

fn found(report: &Report) -> BTreeSet<(usize, String)> {
    report.findings.iter().map(|finding| (finding.line, finding.rule.to_string())).collect()
}

#[test]
fn every_planted_risk_is_found() {
    for (name, rule) in [
        ("s1.rs", Rule::S1),
        ("s2.rs", Rule::S2),
        ("s3.rs", Rule::S3),
        ("s4.sql", Rule::S4),
        ("s5.rs", Rule::S5),
        ("s5.lua", Rule::S5),
        ("s6.py", Rule::S6),
    ] {
        let report = scan_fixture(name).unwrap();
        assert_eq!(found(&report), planted(name).unwrap(), "{name}");
        assert!(report.findings.iter().any(|finding| finding.rule == rule), "{name}");
        assert!(report.findings.iter().all(|finding| finding.path.ends_with(name)), "{name}");
        assert_eq!(report.exit_code(), 1, "{name}");
    }
}

#[test]
fn what_is_clean_stays_clean() {
    let report = scan_fixture("clean.rs").unwrap();
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(report.exit_code(), 0);
    assert_eq!(report.to_string(), "PASS: 0 risks (1 files, 0 allowed)\n");
}

#[test]
fn markers_allow_with_a_reason() {
    let report = scan_fixture("markers.rs").unwrap();
    assert_eq!(found(&report), planted("markers.rs").unwrap());
    let allowed: Vec<_> = report.allowed.iter().map(|it| (it.line, it.rule, it.message.as_str())).collect();
    assert_eq!(
        allowed,
        [
            (5, Rule::S1, "a name that is a constant"),
            (5, Rule::S3, "a name that is a constant"),
            (6, Rule::S3, "a statement that is shown, not run"),
            (17, Rule::S3, "one statement, not two"),
        ]
    );
}

#[test]
fn a_store_may_hold_sql_but_not_put_it_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("crates/some/src/store");
    fs::create_dir_all(&store).unwrap();
    fs::copy(Path::new(FIXTURES).join("s1.rs"), store.join("some.rs")).unwrap();
    let report = scan(dir.path(), &[]).unwrap();
    let expected: BTreeSet<_> =
        planted("s1.rs").unwrap().into_iter().filter(|(_, rule)| rule == "S1").collect();
    assert_eq!(found(&report), expected);
    assert_eq!(report.findings[0].path, "crates/some/src/store/some.rs");
}

#[test]
fn what_cannot_be_read_fails() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("broken.rs"), "fn broken() {\n    (\n}").unwrap();
    fs::write(dir.path().join("bytes.py"), [0xff_u8, 0xfe]).unwrap();
    fs::write(dir.path().join("open.sql"), "SELECT 'open").unwrap();
    let report = scan(dir.path(), &[]).unwrap();
    assert_eq!(report.exit_code(), 2);
    assert_eq!(report.files, 3);
    for (error, name) in report.unreadable.iter().zip(["broken.rs:3:1 ", "bytes.py: ", "open.sql:1:8 "]) {
        assert!(error.starts_with(name), "{error}");
    }
    assert!(report.to_string().ends_with("\nFAIL: 3 files could not be scanned, 0 risks\n"), "{report}");
}

#[test]
fn nothing_to_scan_fails() {
    let dir = tempfile::tempdir().unwrap();
    assert!(scan(dir.path(), &[]).is_err());
    assert!(scan(dir.path(), &[dir.path().join("missing")]).is_err());
}

#[test]
fn what_is_built_or_planted_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "const SQL: &str = \"SELECT 1\";").unwrap();
    };
    put("backend/target/debug/build/out.rs");
    put("backend/crates/tbg-sql-audit/fixtures/s3.rs");
    put(".git/hooks/hook.rs");
    put("backend/src/target/module.rs");
    fs::write(dir.path().join("backend/Cargo.toml"), "").unwrap();
    let report = scan(dir.path(), &[]).unwrap();
    let paths: Vec<_> = report.findings.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(paths, ["backend/src/target/module.rs"]);
}

#[test]
fn the_program_reports_and_exits() {
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).current_dir(FIXTURES).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, output) = run(&["s2.rs"]);
    assert_eq!(code, Some(1));
    assert!(output.starts_with("backend/crates/tbg-sql-audit/fixtures/s2.rs:3:11 S2 "), "{output}");
    assert!(output.lines().last().unwrap().starts_with("FAIL: "), "{output}");
    let (code, output) = run(&["clean.rs"]);
    assert_eq!((code, output.as_str()), (Some(0), "PASS: 0 risks (1 files, 0 allowed)\n"));
    assert_eq!(run(&["missing.rs"]).0, Some(2));
}
