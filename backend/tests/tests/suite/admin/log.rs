//! The audit log: filters, pages, and that looking is recorded (contract `production.md` §20 example 12).

use serde_json::{Value, from_value, json};
use tbg_operations::AuditQuery;
use tbg_web::ErrorCode;

use super::{LOOKS, Office};

/// One column of the rows of a page.
fn column(page: &Value, name: &str) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
}

/// Rows of some days, each with something of its own.
const ROWS: &str =
    "INSERT INTO audit_log (timestamp, user_id, action, resource_type, resource_id, ip_address, status)
     VALUES
     ('2031-11-01T00:00:00Z', '42', 'auth.login', 'session', 's1', '198.51.100.1', 'success'),
     ('2031-11-02T00:00:00Z', NULL, 'auth.failed_login', 'user', '42', '198.51.100.1', 'failure'),
     ('2031-11-03T00:00:00Z', NULL, 'auth.failed_login', 'user', '43', '2001:db8::1', 'denied'),
     ('2031-11-04T00:00:00Z', '43', 'user.profile_updated', 'user', '43', '198.51.100.2', 'success'),
     ('2031-11-05T00:00:00Z', '43', 'auth.token_refresh', 'session', 's2', '198.51.100.1', 'failure'),
     ('2031-11-05T00:00:00Z', '44', 'coop.created', 'coop', '42', NULL, 'success')";

#[tokio::test]
async fn the_newest_failure_of_a_group_is_the_first_page_of_one() {
    let office = Office::new().await;
    office.run(ROWS).await;

    let page = office.page(json!({ "action": "auth.*", "status": "failure", "limit": 1 })).await.unwrap();

    assert_eq!(column(&page, "action"), ["auth.token_refresh"]);
    let row = page["data"][0].as_object().unwrap();
    let fields = [
        "id",
        "timestamp",
        "user_id",
        "action",
        "resource_type",
        "resource_id",
        "ip_address",
        "user_agent",
        "details",
        "status",
    ];
    assert_eq!(row.len(), fields.len());
    assert!(fields.iter().all(|field| row.contains_key(*field)), "{row:?}");
    assert_eq!(
        (&row["timestamp"], &row["user_agent"], &row["details"]),
        (&json!("2031-11-05T00:00:00Z"), &Value::Null, &json!({}))
    );
    assert_eq!(page["pagination"]["has_more"], true);
    let cursor = page["pagination"]["next_cursor"].as_str().unwrap();
    let query = json!({ "action": "auth.*", "status": "failure", "limit": 1, "cursor": cursor });
    let next = office.page(query).await.unwrap();
    assert_eq!(
        (column(&next, "resource_id"), &next["pagination"]["next_cursor"]),
        (vec!["42".to_owned()], &Value::Null)
    );

    let looked = json!({ "filters": { "action": "auth.*", "status": "failure" } });
    assert_eq!(office.details_of("admin.audit_viewed").await, [looked.clone(), looked]);
    assert_eq!(office.db.number(LOOKS).await, 2);
}

#[tokio::test]
async fn every_filter_holds_and_all_hold_at_once() {
    let office = Office::new().await;
    office.run(ROWS).await;
    let november = ("2031-11-01T00:00:00Z", "2031-12-01T00:00:00Z");

    for (query, expected) in [
        (json!({ "user_id": "43" }), vec!["s2", "43"]),
        (json!({ "user_id": "42' OR '1'='1" }), vec![]),
        (json!({ "action": "auth.failed_login" }), vec!["43", "42"]),
        (json!({ "action": "coop.*" }), vec!["42"]),
        (json!({ "resource_type": "user" }), vec!["43", "43", "42"]),
        (json!({ "resource_type": "user", "resource_id": "43" }), vec!["43", "43"]),
        (json!({ "resource_type": "user", "resource_id": "43", "status": "denied" }), vec!["43"]),
        (json!({ "status": "failure" }), vec!["s2", "42"]),
        (json!({ "from": "2031-11-02T00:00:00Z", "to": "2031-11-04T00:00:00Z" }), vec!["43", "42"]),
        (json!({ "from": "2031-11-04T02:00:00+02:00", "user_id": "43" }), vec!["s2", "43"]),
        (json!({ "from": "2031-11-04T00:00:00Z", "to": "2031-11-04T00:00:00Z" }), vec![]),
        (
            json!({ "ip_address": "::ffff:198.51.100.1", "from": november.0, "to": "2031-12-02T00:00:00Z" }),
            vec!["s2", "42", "s1"],
        ),
        (json!({ "ip_address": "2001:DB8::1", "from": november.0, "to": november.1 }), vec!["43"]),
        (
            json!({ "ip_address": "198.51.100.1", "from": november.0, "to": november.1, "action": "auth.login" }),
            vec!["s1"],
        ),
    ] {
        // What the looks themselves left behind is about another kind of thing.
        let page = office.page(query.clone()).await.unwrap();
        assert_eq!(column(&page, "resource_id"), expected, "{query}");
    }

    let told = json!({ "filters": { "ip_address": "2001:db8::1", "from": november.0, "to": november.1 } });
    let mut described = office.details_of("admin.audit_viewed").await.into_iter();
    assert!(described.any(|details| details == told), "{told}");
}

#[tokio::test]
async fn filters_that_do_not_go_together_and_foreign_cursors_are_refused() {
    let office = Office::new().await;
    let micros = "2031-12-02T00:00:00.000001Z";
    for (query, code) in [
        (json!({ "resource_id": "43" }), ErrorCode::ValidationError),
        (json!({ "ip_address": "198.51.100.1" }), ErrorCode::ValidationError),
        (json!({ "ip_address": "198.51.100.1", "from": "2031-11-01T00:00:00Z" }), ErrorCode::ValidationError),
        (
            json!({ "ip_address": "198.51.100.1", "from": "2031-11-01T00:00:00Z", "to": micros }),
            ErrorCode::ValidationError,
        ),
        (json!({ "cursor": "" }), ErrorCode::InvalidCursor),
        (
            json!({ "cursor": "eyJ2IjoxLCJrIjpbIjIwMjYtMDMtMTVUMTQ6MzA6MDAuMDAwMDAwWiIsNDJdfQ" }),
            ErrorCode::InvalidCursor,
        ),
    ] {
        assert_eq!(office.page(query.clone()).await.unwrap_err().code(), code, "{query}");
    }
    for query in [
        json!({ "action": "auth" }),
        json!({ "action": "nobody.*" }),
        json!({ "status": "ok" }),
        json!({ "from": "2031-11-01T00:00:00" }),
        json!({ "ip_address": "localhost" }),
        json!({ "limit": 101 }),
    ] {
        assert!(from_value::<AuditQuery>(query.clone()).is_err(), "{query}");
    }
    assert_eq!(office.db.number(LOOKS).await, 0);
}

#[tokio::test]
async fn pages_over_equal_times_show_every_row_once() {
    let office = Office::new().await;
    office
        .run(
            "INSERT INTO audit_log (timestamp, user_id, action, resource_type)
             SELECT '2031-11-05T00:00:00.123456Z', '42', 'auth.login', 'session' FROM generate_series(1, 7);
             INSERT INTO audit_log (timestamp, user_id, action, resource_type) VALUES
             ('2031-11-05T00:00:00.123457Z', '42', 'auth.login', 'session'),
             ('2031-11-05T00:00:00.123455Z', '42', 'auth.login', 'session')",
        )
        .await;

    let (mut ids, mut sizes, mut cursor) = (Vec::new(), Vec::new(), Value::Null);
    loop {
        let mut query = json!({ "user_id": "42", "limit": 3 });
        if cursor.is_string() {
            query["cursor"] = cursor;
        }
        let page = office.page(query).await.unwrap();
        let seen = column(&page, "id");
        sizes.push(seen.len());
        ids.extend(seen);
        cursor = page["pagination"]["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }

    let sql = "SELECT id::TEXT FROM audit_log WHERE user_id = '42' ORDER BY timestamp DESC, id DESC";
    let expected: Vec<String> = sqlx::query_scalar(sql).fetch_all(&office.db.pool).await.unwrap();
    assert_eq!(sizes, [3, 3, 3]);
    assert_eq!(ids, expected);
}
