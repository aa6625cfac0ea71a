use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Row A of contract `production.md` §20, example 8.
fn row_a() -> AuditRow {
    AuditRow {
        id: "01936000-0000-7000-8000-000000000001".parse().unwrap(),
        timestamp: at("2026-11-24T12:00:00Z"),
        user_id: Some("42".to_owned()),
        action: "auth.login".to_owned(),
        resource_type: "session".to_owned(),
        resource_id: None,
        ip_address: Some("203.0.113.7".to_owned()),
        user_agent: None,
        details: r#"{"method": "wallet"}"#.to_owned(),
        status: "success".to_owned(),
    }
}

/// Row B of the same example.
fn row_b() -> AuditRow {
    AuditRow {
        id: "01936000-0000-7000-8000-000000000002".parse().unwrap(),
        timestamp: at("2026-11-24T12:00:00.000001Z"),
        user_id: None,
        action: "auth.failed_login".to_owned(),
        resource_type: "user".to_owned(),
        details: "{}".to_owned(),
        status: "failure".to_owned(),
        ..row_a()
    }
}

fn rows(rows: &[AuditRow]) -> RowsHash {
    let mut hash = RowsHash::default();
    rows.iter().for_each(|row| hash.add(row));
    hash
}

/// Seals 1 and 2 of contract `production.md` §20, example 9.
fn seals() -> (Seal, Seal) {
    let lo = at("2026-11-24T12:00:00Z");
    let first = Seal::after(None, lo, at("2026-11-24T12:01:00Z"), rows(&[row_a(), row_b()]));
    let second = Seal::after(Some(&first), first.hi, at("2026-11-24T13:01:00Z"), rows(&[]));
    (first, second)
}

#[test]
fn the_leaves_of_the_examples_are_the_contracts() {
    assert_eq!(hex(&leaf(&row_a())), "aa429fbf0945d4ffbfb759b5e3dfcce93b8d19defbe67ab81215890ec5c862e5");
    assert_eq!(hex(&leaf(&row_b())), "153d5ce87ce158d02fab0f4833af41aef86a6e7d4e0b012106d02c9e14af3ec3");
}

#[test]
fn the_seals_of_the_examples_are_the_contracts() {
    let (first, second) = seals();

    assert_eq!(hex(&first.hash), "2e3857ae0eb8d58e132b811887435eeff769f9525af3fec8d26aa665f4f9d4ac");
    assert_eq!(hex(&second.hash), "5bc851f3af0cbc54d131ef1fe2b1ce41f46008abbbf5092184ceeaa6a164db69");
    assert_eq!((first.row_count, second.row_count), (2, 0));
}

#[test]
fn an_absent_text_differs_from_an_empty_one_and_columns_do_not_run_together() {
    let empty = AuditRow { user_agent: Some(String::new()), ..row_a() };
    let moved = AuditRow { action: "auth.logins".to_owned(), resource_type: "ession".to_owned(), ..row_a() };

    assert_ne!(leaf(&empty), leaf(&row_a()));
    assert_ne!(leaf(&moved), leaf(&row_a()));
}

#[test]
fn a_seal_follows_only_its_predecessor() {
    let (first, second) = seals();

    assert!(first.follows(None) && second.follows(Some(&first)));
    assert!(!second.follows(None) && !first.follows(Some(&second)));
    let gap = Seal { lo: at("2026-11-24T12:02:00Z"), ..second.clone() };
    assert!(!gap.follows(Some(&first)));
    assert_ne!(gap.computed_hash(), second.hash);
}

#[test]
fn a_seal_ends_a_minute_ago_and_below_the_horizon() {
    let lo = at("2026-11-24T11:50:00Z");
    let far = at("2026-11-24T18:00:00Z");

    let end = |now, horizon| end_of_seal(lo, at(now), horizon);

    assert_eq!(end("2026-11-24T12:01:59.999999Z", far), Some(at("2026-11-24T12:00:00Z")));
    assert_eq!(end("2026-11-24T12:02:00Z", far), Some(at("2026-11-24T12:01:00Z")));
    assert_eq!(end("2026-11-24T13:00:00Z", at("2026-11-24T12:00:30Z")), Some(at("2026-11-24T12:00:00Z")));
    assert_eq!(end("2026-11-24T11:51:59Z", far), None);
    assert_eq!(end("2026-11-24T13:00:00Z", at("2026-11-24T11:40:00Z")), None);
}

#[test]
fn no_seal_crosses_the_end_of_a_month_and_none_gets_stuck_there() {
    let lo = at("2026-11-30T23:59:00Z");
    let (now, far) = (at("2026-12-05T00:00:00Z"), at("2026-12-05T00:00:00Z"));

    let hi = end_of_seal(lo, now, far).unwrap();

    assert_eq!(hi, at("2026-12-01T00:00:00Z"));
    assert!(is_due(&rows(&[]), lo, hi));
    assert_eq!(end_of_seal(hi, now, far), Some(at("2026-12-04T23:59:00Z")));
    assert_eq!(month_end(at("2026-12-31T23:59:59Z")), at("2027-01-01T00:00:00Z"));
}

#[test]
fn without_rows_there_is_one_seal_an_hour() {
    let lo = at("2026-11-24T12:01:00Z");

    assert!(!is_due(&rows(&[]), lo, at("2026-11-24T13:00:00Z")));
    assert!(is_due(&rows(&[]), lo, at("2026-11-24T13:01:00Z")));
    assert!(is_due(&rows(&[row_a()]), lo, at("2026-11-24T12:02:00Z")));
}

#[test]
fn partitions_are_named_by_month() {
    assert_eq!(partition_of(at("2025-10-31T23:59:59Z")), "audit_log_y2025m10");
}

#[test]
fn an_anchor_is_a_number_and_64_digits() {
    let (first, _) = seals();

    assert_eq!(parse_anchor(&format!("1:{}", hex(&first.hash))), Some((1, first.hash)));
    let digits = "0".repeat(64);
    for bad in
        ["", "1", "1:", "1:00", ":", &format!("0:{digits}"), &format!("x:{digits}"), &format!("1:{digits}0")]
    {
        assert_eq!(parse_anchor(bad), None, "{bad}");
    }
}
