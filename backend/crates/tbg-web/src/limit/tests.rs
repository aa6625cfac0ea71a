//! The limiter without a Redis. With one: the suite of the tests package.

use metrics_exporter_prometheus::PrometheusBuilder;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tbg_core::MockClock;
use tbg_core::random::SeededEntropy;

use super::*;

const START: &str = "2026-02-23T00:00:00.250Z";
const KEY: &str = "ratelimit:auth:42";

/// A limiter whose Redis refuses every connection.
fn stranded(clock: &MockClock) -> Limiter {
    let client = redis::Client::open("redis://127.0.0.1:1/").unwrap();
    let no_retries = ConnectionManagerConfig::new().set_number_of_retries(0);
    let redis = ConnectionManager::new_lazy_with_config(client, no_retries).unwrap();
    Limiter::new(redis.into(), Arc::new(clock.clone()), Arc::new(SeededEntropy::new(7)))
}

#[tokio::test(start_paused = true)]
async fn without_redis_the_limit_is_exact_and_the_headers_are_the_same() {
    let clock = MockClock::at(START.parse().unwrap());
    let limiter = stranded(&clock);
    assert!(limiter.redis_is_up());

    for used in 1..=120 {
        let decision = limiter.decide(Tier::User, KEY, 120).await;
        assert_eq!((decision.allowed, decision.remaining), (true, 120 - used));
        assert_eq!((decision.reset_epoch_s, decision.retry_after_s), (1_771_804_861, None));
    }
    let refused = limiter.decide(Tier::User, KEY, 120).await;

    assert!(!limiter.redis_is_up());
    assert_eq!(
        refused,
        Decision {
            allowed: false,
            limit: 120,
            remaining: 0,
            reset_epoch_s: 1_771_804_861,
            retry_after_s: Some(60),
        }
    );
    tokio::time::advance(WINDOW).await;
    assert!(limiter.decide(Tier::User, KEY, 120).await.allowed);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_share_one_window_without_redis() {
    let clock = MockClock::at(START.parse().unwrap());
    let limiter = stranded(&clock);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let limiter = limiter.clone();
        running.spawn(async move { limiter.decide(Tier::AuthEndpoint, KEY, 5).await.allowed });
    }
    let passed = running.join_all().await.into_iter().filter(|allowed| *allowed).count();
    assert_eq!(passed, 5);
}

#[tokio::test(start_paused = true)]
async fn all_tiers_are_shown_from_the_start_and_denials_and_fallback_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    register_metrics();
    let shown = recorder.handle().render();
    for tier in Tier::ALL {
        let line = format!("tbg_rate_limit_hits_total{{tier=\"{}\"}} 0", tier.metric_label());
        assert!(shown.contains(&line), "{shown}");
    }
    assert!(shown.contains("tbg_rate_limit_fallback_active 0"), "{shown}");

    let limiter = stranded(&MockClock::at(START.parse().unwrap()));
    for _ in 0..3 {
        limiter.decide(Tier::ApiKey, KEY, 1).await;
    }
    // A few probes later it is still away.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let shown = recorder.handle().render();
    assert!(shown.contains("tbg_rate_limit_hits_total{tier=\"api_key\"} 2"), "{shown}");
    assert!(shown.contains("tbg_rate_limit_hits_total{tier=\"auth\"} 0"), "{shown}");
    assert!(shown.contains("tbg_rate_limit_fallback_active 1"), "{shown}");
}
