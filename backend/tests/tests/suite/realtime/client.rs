//! The dashboard's own client through what happens to it: reconnects, an expired token, two replicas.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_core::UserId;
use tbg_core::live::{LiveEvent, LiveMessage};
use tbg_tests::app::App;
use tbg_tests::socket::Dashboard;

use super::publish;

fn slugs(client: &Dashboard) -> Vec<&str> {
    client.handled.iter().filter_map(|data| data["badge_slug"].as_str()).collect()
}

async fn badge(app: &App, user: i64, slug: &str) {
    let message = LiveMessage::personal(LiveEvent::BadgeEarned, UserId(user), json!({ "badge_slug": slug }));
    app.bus.publish(&[message]).await;
}

const MOMENT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_replica_goes_and_its_clients_come_back_on_the_other() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let (a, b) = (app.serve().await, app.serve().await);
    let bases = [a.base.clone(), b.base.clone()];
    let mut old = Dashboard::new(&bases, &person.access, &["gamification"]);
    let mut new = Dashboard::new(&bases, &person.access, &["gamification"]).resuming();
    old.work(MOMENT).await;
    new.work(MOMENT).await;
    badge(&app, person.id, "before").await;
    old.work(MOMENT).await;
    new.work(MOMENT).await;

    a.stop().await;
    badge(&app, person.id, "while away").await;
    old.work(MOMENT * 4).await;
    new.work(MOMENT * 4).await;
    badge(&app, person.id, "after").await;
    old.work(MOMENT).await;
    new.work(MOMENT).await;

    assert!(old.is_open() && new.is_open());
    assert_eq!(slugs(&new), ["before", "while away", "after"], "resume is complete and doubles nothing");
    assert_eq!(slugs(&old), ["before", "after"], "an old client reads the rest over REST");
    drop(b);
}

#[tokio::test]
async fn a_token_that_expires_keeps_its_socket_and_opens_no_other() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let bases = [replica.base.clone()];
    let mut client = Dashboard::new(&bases, &person.access, &["gamification"]);
    client.work(MOMENT).await;
    app.clock.advance(TimeDelta::hours(2));

    badge(&app, person.id, "late").await;
    client.work(MOMENT).await;

    assert_eq!(slugs(&client), ["late"]);
    assert_eq!(replica.refused(&person.access).await.status, 401);
}

#[tokio::test]
async fn example_15_logging_out_closes_the_sockets_of_that_session_only() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let again = tbg_tests::people::Person::of(&app.connect(&tbg_tests::people::wallet(1), false).await.ok());
    let replica = app.serve().await;
    let (mut ended, mut kept) = (replica.open(&person.access).await, replica.open(&again.access).await);

    app.post("/api/v1/auth/logout", Some(&person.access), json!({ "refresh_token": person.refresh })).await;

    let closed = ended.next_within(Duration::from_secs(1)).await.expect("closed within a second");
    assert_eq!(closed, tbg_tests::socket::Came::Closed(4001, "session revoked".to_owned()));
    assert!(kept.until_pong().await.is_empty());

    let everywhere = json!({ "user_id": person.id, "sid": null });
    publish(&app, "auth:revoked", &everywhere).await;
    assert_eq!(kept.next().await, tbg_tests::socket::Came::Closed(4001, "session revoked".to_owned()));
}

#[tokio::test]
async fn global_events_come_exactly_once_through_two_replicas() {
    let app = App::new().await;
    let people = [app.miner(1).await, app.miner(2).await, app.miner(3).await];
    let (a, b) = (app.serve().await, app.serve().await);
    let mut clients: Vec<Dashboard> = Vec::new();
    for (index, person) in people.iter().enumerate() {
        let mut bases = vec![a.base.clone(), b.base.clone()];
        bases.rotate_left(index % 2);
        let mut client = Dashboard::new(&bases, &person.access, &["competition"]);
        client.work(MOMENT).await;
        clients.push(client);
    }

    for number in 0..20 {
        publish(&app, "pubsub:league_update", &json!({ "league_id": number })).await;
    }

    for client in &mut clients {
        client.work(MOMENT).await;
        let got: Vec<&Value> = client.handled.iter().map(|data| &data["league_id"]).collect();
        let expected: Vec<Value> = (0..20).map(Value::from).collect();
        assert_eq!(got, expected.iter().collect::<Vec<_>>());
    }
}
