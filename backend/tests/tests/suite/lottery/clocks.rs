//! Clocks that are wrong: the clock decides when, never who (contract `games.md` §2.7). Times of these tests are
//! the true ones unless they are called shown.

use chrono::{DateTime, TimeDelta, Utc};
use tbg_tests::app::App;
use tbg_tests::at;

use super::{SEAL, best_of, cycle_at_once, frozen, status, users_of_five, watermark};

/// The last share, if nobody mines after the week.
const LAST_SHARE: &str = "2026-03-01T23:59:59.999999Z";

/// When the last share is mined, if people go on.
const TUESDAY: &str = "2026-03-03T00:00:00Z";

/// The week of the five on its Sunday evening: the third's last share is not committed yet.
async fn sunday_evening() -> App {
    let app = users_of_five("2026-03-01T22:30:00Z").await;
    for user in [1, 2, 4, 5] {
        best_of(&app, user).await;
    }
    app
}

/// What ingest has committed at a minute: all shares until then, the last of the week four minutes late.
async fn ingest(app: &App, minute: DateTime<Utc>, last_share: DateTime<Utc>) {
    watermark(app, &minute.min(last_share).to_rfc3339()).await;
    if minute == at("2026-03-02T00:04:00Z") {
        best_of(app, 3).await;
    }
}

/// Runs the cycle of processes whose clocks are off by so much.
async fn run(app: &App, minute: DateTime<Utc>, off: &[TimeDelta]) {
    let clocks: Vec<DateTime<Utc>> = off.iter().map(|off| minute + *off).collect();
    cycle_at_once(app, &clocks).await;
}

/// Lives through the end of the week minute by minute. Returns when it was frozen, and when it was drawn.
async fn live(app: &App, last_share: &str, off: &[TimeDelta]) -> (String, String) {
    let last_share = at(last_share);
    let (mut frozen, mut drawn) = (String::new(), String::new());
    for minute in (0..230).map(|minute| at("2026-03-01T22:30:00Z") + TimeDelta::minutes(minute)) {
        app.clock.set(minute);
        ingest(app, minute, last_share).await;
        run(app, minute, off).await;
        let (status, now) = (status(app).await, minute.format("%a %H:%M").to_string());
        if status != "open" && !status.is_empty() && frozen.is_empty() {
            frozen.clone_from(&now);
        }
        if status == "completed" {
            drawn = now;
            break;
        }
    }
    app.consume().await;
    (frozen, drawn)
}

/// Who is in the draw, with which number, and what it pays: all but its times.
async fn who(app: &App) -> Vec<String> {
    let mut rows = frozen(app).await;
    for sql in [
        "SELECT sum_best_difficulty, winning_difficulty, winner_user_id, status
         FROM lottery_draws WHERE week_iso = '2026-W09'",
        "SELECT user_id, rank, best_difficulty, total_shares, xp_awarded, percentile
         FROM lottery_results ORDER BY rank",
        "SELECT idempotency_key, amount FROM xp_ledger ORDER BY idempotency_key",
    ] {
        rows.extend(app.db.rows(sql).await);
    }
    rows
}

/// Each step was taken once, and told once.
async fn assert_once(app: &App) {
    let seal = "SELECT encode(seal, 'hex') AS seal FROM lottery_draws WHERE week_iso = '2026-W09'";
    assert_eq!(app.db.rows(seal).await, [format!(r#"{{"seal": "{SEAL}"}}"#)]);
    let counts = "SELECT (SELECT count(*) FROM audit_log WHERE action = 'lottery.frozen') AS frozen,
        (SELECT count(*) FROM audit_log WHERE action = 'lottery.drawn') AS drawn,
        (SELECT count(*) FROM xp_ledger) AS paid,
        (SELECT count(*) FROM notifications WHERE subtype = 'lottery_results') AS told,
        (SELECT count(*) FROM activity_feed WHERE event_type = 'competition') AS news";
    let expected = r#"{"news": 1, "paid": 5, "told": 5, "drawn": 1, "frozen": 1}"#;
    assert_eq!(app.db.rows(counts).await, [expected]);
}

/// The week is frozen and drawn at these times by a clock that is right, one that is an hour ahead and one that is
/// an hour behind, and every time it is the same draw.
async fn assert_same_draw(last_share: &str, [right, ahead, behind]: [(&str, &str); 3]) {
    let mut draws = Vec::new();
    for (hours, (frozen, drawn)) in [(0, right), (1, ahead), (-1, behind)] {
        let app = sunday_evening().await;
        let times = live(&app, last_share, &[TimeDelta::hours(hours)]).await;
        assert_eq!(times, (frozen.to_owned(), drawn.to_owned()), "{hours} h");
        assert_once(&app).await;
        draws.push(who(&app).await);
    }
    assert_eq!(draws[0], draws[1], "an hour ahead");
    assert_eq!(draws[0], draws[2], "an hour behind");
}

/// Ahead: it looks at the week early and waits for its shares like any other. Behind: it only comes later.
#[tokio::test]
async fn a_clock_that_is_an_hour_off_changes_when_and_not_who() {
    let times = [("Mon 00:10", "Mon 00:15"), ("Mon 00:05", "Mon 00:10"), ("Mon 01:10", "Mon 01:15")];
    assert_same_draw(TUESDAY, times).await;
}

/// The hour in which shares are waited for is as long as the clock is ahead: it ends no sooner than the grace.
#[tokio::test]
async fn a_clock_that_is_an_hour_off_waits_for_the_end_also_if_nobody_mines_after_it() {
    let times = [("Mon 01:10", "Mon 01:15"), ("Mon 00:10", "Mon 00:15"), ("Mon 02:10", "Mon 02:15")];
    assert_same_draw(LAST_SHARE, times).await;
}

#[tokio::test]
async fn replicas_with_clocks_two_hours_apart_take_each_step_once() {
    let app = sunday_evening().await;
    let times = live(&app, TUESDAY, &[TimeDelta::hours(1), TimeDelta::hours(-1)]).await;
    assert_eq!(times, ("Mon 00:05".to_owned(), "Mon 00:10".to_owned()), "whoever is ahead is first");
    // Whoever is behind sees the week end later, and finds it drawn.
    let before = who(&app).await;
    for minute in (0..150).map(|minute| at("2026-03-02T00:11:00Z") + TimeDelta::minutes(minute)) {
        run(&app, minute, &[TimeDelta::hours(-1), TimeDelta::hours(1)]).await;
    }
    app.consume().await;
    assert_once(&app).await;
    assert_eq!(who(&app).await, before);

    let alone = sunday_evening().await;
    live(&alone, TUESDAY, &[TimeDelta::zero()]).await;
    assert_eq!(before, who(&alone).await, "as one with the right clock draws it");
}

/// The root stays public for the reveal delay by the clock that counts.
#[tokio::test]
async fn what_a_clock_ahead_has_frozen_a_clock_behind_draws() {
    let app = sunday_evening().await;
    for minute in ["00:04", "00:05"] {
        let minute = at(&format!("2026-03-02T{minute}:00Z"));
        ingest(&app, minute, minute).await;
        run(&app, minute, &[TimeDelta::hours(1)]).await;
    }
    assert_eq!(status(&app).await, "processing");
    let shown = app.db.rows("SELECT frozen_at FROM lottery_draws WHERE status = 'processing'").await;
    assert_eq!(shown, [r#"{"frozen_at": "2026-03-02T01:05:00+00:00"}"#]);

    // It dies; the other shows an hour less than the truth.
    for (minute, expected) in [("00:10", "processing"), ("02:09", "processing"), ("02:10", "completed")] {
        let minute = at(&format!("2026-03-02T{minute}:00Z"));
        run(&app, minute, &[TimeDelta::hours(-1)]).await;
        assert_eq!(status(&app).await, expected, "{minute}");
    }
    app.consume().await;
    assert_once(&app).await;
}
