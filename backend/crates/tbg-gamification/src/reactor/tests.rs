//! What a batch is asked for, and the rule against farming: connections and workers are worth nothing.

use proptest::prelude::*;
use tbg_core::users::Holder;
use tbg_engine::PoolEvent;
use tbg_engine::event::{BlockFound, Connected, Share};

use super::*;

const USER: UserId = UserId(1);
const ADDRESS: &str = "bc1qexample";

fn event(seconds: i64, worker: &str, kind: EventKind) -> BatchEvent {
    let pool = PoolEvent {
        ts: DateTime::from_timestamp(1_772_409_600 + seconds, 0).unwrap(),
        kind,
        source: "hosted".to_owned(),
        region: String::new(),
        event_id: None,
        user: ADDRESS.to_owned(),
        worker: worker.to_owned(),
        payload: String::new(),
    };
    BatchEvent { key: Default::default(), pool: Arc::new(pool), aged: false }
}

fn share(seconds: i64, worker: &str, difficulty: f64) -> BatchEvent {
    let share = Share { diff: 1.0, sdiff: difficulty, accepted: true, ..Share::default() };
    event(seconds, worker, EventKind::ShareSubmitted(share))
}

fn batch(events: Vec<BatchEvent>) -> Batch {
    let holder = Holder {
        id: USER,
        display_name: None,
        is_banned: false,
        is_test: false,
        is_public: true,
        country_code: None,
    };
    Batch {
        events,
        holders: HashMap::from([(ADDRESS.to_owned(), holder)]),
        processed_at: DateTime::default(),
    }
}

fn outcome(events: Vec<BatchEvent>) -> Outcome {
    let player = Player { user: USER, has_whole_calendar: true, ..Player::default() };
    let state =
        State { catalogue: Arc::new(Catalogue::of_mining()), players: HashMap::from([(USER, player)]) };
    GameReactor::new().react(state, &batch(events), &[]).changes.outcome
}

#[test]
fn a_batch_asks_for_the_greatest_difficulty_of_each_week_and_for_finders() {
    let mut aged = share(-100 * 86_400, "a", 9e9);
    aged.aged = true;
    let rejected = EventKind::ShareSubmitted(Share { sdiff: 9e9, ..Share::default() });
    let wanted = wanted(&batch(vec![
        aged,
        share(-1, "a", 2.0),
        share(0, "a", 5.0),
        share(1, "b", 3.0),
        event(2, "a", EventKind::ShareBestDiff { new_best: 7.0 }),
        event(3, "a", rejected),
    ]));
    let week = |text| IsoWeek::parse(text).unwrap();
    assert_eq!(
        wanted.weeks.into_iter().collect::<Vec<_>>(),
        [((USER, week("2026-W09")), 2.0), ((USER, week("2026-W10")), 7.0)]
    );
    assert!(wanted.finders.is_empty());
    let found = EventKind::BlockFound(BlockFound::default());
    let wanted = super::wanted(&batch(vec![event(0, "a", found)]));
    assert!(wanted.users.contains_key(&USER) && wanted.finders.contains(&USER));
}

#[test]
fn a_worker_that_only_connects_earns_nothing() {
    let connects = (0..1_000).flat_map(|n| {
        let connected = EventKind::MinerConnected(Connected::default());
        [event(2 * n, "a", connected), event(2 * n + 1, "a", EventKind::MinerDisconnected)]
    });
    assert_eq!(outcome(connects.collect()), Outcome::default());
}

proptest! {
    #[test]
    fn shares_pay_the_same_through_one_worker_or_many_however_often_they_reconnect(
        shares in prop::collection::vec((0_i64..40 * 86_400, 1.0..3e6, 0_u8..20, any::<bool>()), 1..80),
    ) {
        let mut shares = shares;
        shares.sort_by_key(|(seconds, ..)| *seconds);
        let one = shares.iter().map(|(seconds, difficulty, ..)| share(*seconds, "a", *difficulty));
        let many = shares.iter().flat_map(|(seconds, difficulty, worker, reconnects)| {
            let worker = format!("rig{worker}");
            let connections = [
                event(*seconds, &worker, EventKind::MinerDisconnected),
                event(*seconds, &worker, EventKind::MinerConnected(Connected::default())),
            ];
            let connections = connections.into_iter().filter(|_| *reconnects);
            connections.chain([share(*seconds, &worker, *difficulty)]).collect::<Vec<_>>()
        });
        prop_assert_eq!(outcome(one.collect()), outcome(many.collect()));
    }
}
