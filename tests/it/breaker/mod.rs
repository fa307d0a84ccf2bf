//! Revocations and rejections in scenarios, with bounds on the token requests and on the 401s that
//! callers see. Each scenario runs with several random latencies.

mod servers;

use std::{future::Future, time::Duration};

use http::{Request, StatusCode};
use tokio::{
    runtime,
    time::{Instant, sleep},
};
use tower::ServiceExt;

use self::servers::{Answered, Arrival, Requests, Servers, UNCHECKED, uri};
use crate::support::Body;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs a scenario with several seeds, each on its own paused clock.
fn with_seeds<F: Future<Output = ()>>(seeds: u64, scenario: impl Fn(u64) -> F) {
    for seed in 0..seeds {
        eprintln!("seed {seed}");
        fastrand::seed(seed);
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(scenario(seed));
    }
}

fn accept_all(_: Arrival<'_>) -> bool {
    true
}

fn rejected(answers: &[Answered]) -> usize {
    answers.iter().filter(|answer| answer.status == StatusCode::UNAUTHORIZED).count()
}

/// Asserts that no rejection was seen later than 150 ms after the last token was issued: it takes up
/// to 50 ms to arrive, and a request up to 100 ms.
#[track_caller]
fn assert_none_rejected_after(last_issued_at: Instant, answers: &[Answered]) {
    let end = last_issued_at + Duration::from_millis(150);
    let late = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::UNAUTHORIZED && answer.at > end);
    assert_eq!(late.count(), 0);
}

#[track_caller]
fn assert_at_most(count: usize, bound: usize, what: &str) {
    eprintln!("{count} {what}, at most {bound}");
    assert!(count <= bound, "{count} {what}, at most {bound} expected");
}

#[test]
fn one_revocation_costs_one_refresh_and_no_401() {
    for per_second in [1, 100, 1000] {
        with_seeds(3, async |seed| {
            let servers = Servers::new(seed, 1, HOUR, accept_all);
            servers.revoke_every(5 * SECOND, 1);
            let answers = servers.send(Requests::new(per_second, 10 * SECOND)).await;
            assert_eq!((servers.refreshes(), rejected(&answers)), (1, 0));
        });
    }
}

#[test]
fn revocation_every_15_s_costs_one_refresh_each() {
    for (per_second, seeds) in [(1, 3), (100, 1)] {
        with_seeds(seeds, async |seed| {
            let servers = Servers::new(seed, 1, HOUR, accept_all);
            servers.revoke_every(15 * SECOND, 119);
            let answers = servers.send(Requests::new(per_second, 30 * MINUTE)).await;
            assert_at_most(servers.refreshes(), 119, "refreshes");
            assert_at_most(rejected(&answers), 2 * 119, "rejections");
        });
    }
}

/// Some revocations come during a refresh, so the new token is dead as well.
#[test]
fn revocation_every_7_s_with_short_tokens_is_recovered() {
    with_seeds(2, async |seed| {
        let servers = Servers::new(seed, 1, 20 * SECOND, accept_all);
        let (revocations, time) = (42, 5 * MINUTE);
        servers.revoke_every(7 * SECOND, revocations);
        let answers = servers.send(Requests::new(200, time)).await;
        let due_refreshes = time.as_secs() / 10 + 1;
        let bound = usize::try_from(u64::from(revocations) + due_refreshes).unwrap();
        assert_at_most(servers.refreshes(), bound, "refreshes");
        assert_at_most(rejected(&answers), answers.len() / 100, "rejections");
    });
}

#[test]
fn second_revocation_after_5_ms_is_recovered_under_load() {
    with_seeds(10, async |seed| {
        let servers = Servers::new(seed, 1, HOUR, accept_all);
        let other = servers.clone();
        tokio::spawn(async move {
            sleep(5 * SECOND).await;
            other.revoke_all();
            // The second revocation comes 5 ms after the token for the first one was issued.
            while other.refreshes() == 0 || !other.has_issued(2) {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_millis(5)).await;
            other.revoke_all();
        });
        let answers = servers.send(Requests::new(200, 10 * SECOND)).await;
        assert_eq!(servers.refreshes(), 2);
        assert_none_rejected_after(servers.issued_at(3), &answers);
    });
}

#[test]
fn two_revocations_within_5_ms_are_recovered_under_load() {
    with_seeds(10, async |seed| {
        let servers = Servers::new(seed, 1, HOUR, accept_all);
        servers.revoke_every(5 * SECOND, 1);
        let other = servers.clone();
        tokio::spawn(async move {
            sleep(5 * SECOND + Duration::from_millis(5)).await;
            other.revoke_all();
        });
        let answers = servers.send(Requests::new(200, 10 * SECOND)).await;
        assert_at_most(servers.refreshes(), 2, "refreshes");
        assert_none_rejected_after(servers.issued_at(servers.refreshes() + 1), &answers);
    });
}

#[test]
fn rejecting_api_costs_at_most_15_refreshes_in_10_min() {
    for per_second in [1, 10] {
        with_seeds(3, async |seed| {
            let servers = Servers::new(seed, 1, HOUR, |_| false);
            servers.send(Requests::new(per_second, 10 * MINUTE)).await;
            assert_at_most(servers.refreshes(), 15, "refreshes");
        });
    }
}

#[test]
fn lagging_one_of_two_replicas_is_recovered_within_30_s() {
    with_seeds(5, async |seed| {
        let servers = Servers::new(seed, 1, HOUR, |arrival| {
            arrival.arrivals % 2 == 0 || arrival.token_age >= 10 * SECOND
        });
        let start = Instant::now();
        let answers = servers.send(Requests::new(1, MINUTE)).await;
        assert_at_most(servers.refreshes(), 10, "refreshes");
        assert_at_most(rejected(&answers), 15, "rejections");
        let last = answers.iter().rfind(|answer| answer.status == StatusCode::UNAUTHORIZED);
        let recovered_after = last.map_or(Duration::ZERO, |answer| answer.at - start);
        assert!(recovered_after < 30 * SECOND, "{recovered_after:?}");
    });
}

#[test]
fn lagging_one_of_ten_replicas_costs_few_refreshes() {
    with_seeds(2, async |seed| {
        let servers = Servers::new(seed, 1, HOUR, |arrival| {
            arrival.arrivals % 10 != 9 || arrival.token_age >= 10 * SECOND
        });
        let answers = servers.send(Requests::new(100, 5 * MINUTE)).await;
        assert_at_most(servers.refreshes(), 10, "refreshes");
        // Each token is rejected by the replica for 10 s, at 10 requests a second.
        assert_at_most(rejected(&answers), 10 * 10 * 10, "rejections");
    });
}

#[test]
fn random_401_to_half_of_the_requests_costs_few_refreshes() {
    with_seeds(10, async |seed| {
        let servers = Servers::new(seed, 1, HOUR, |arrival| arrival.rng.bool());
        let answers = servers.send(Requests::new(100, 20 * SECOND)).await;
        assert_at_most(servers.refreshes(), 15, "refreshes");
        assert_at_most(rejected(&answers), answers.len() * 55 / 100, "rejections");
    });
}

#[test]
fn random_401_to_a_twentieth_costs_few_refreshes() {
    with_seeds(3, async |seed| {
        let servers = Servers::new(seed, 1, HOUR, |arrival| arrival.rng.u8(..20) > 0);
        let answers = servers.send(Requests::new(100, 5 * MINUTE)).await;
        assert_at_most(servers.refreshes(), 40, "refreshes");
        assert_at_most(rejected(&answers), answers.len() * 6 / 100, "rejections");
    });
}

#[test]
fn thousand_rejecting_origins_share_50_refreshes_in_10_min() {
    with_seeds(1, async |seed| {
        // One task sends all requests, so that many of them take little time.
        let servers = Servers::new(seed, 1000, HOUR, |_| false).without_latency();
        let client = servers.client("client");
        let start = Instant::now();
        while start.elapsed() < 10 * MINUTE {
            for origin in 0..1000 {
                let request = Request::get(uri(origin)).body(Body::default()).unwrap();
                let response = client.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            }
            // With an interval of one second, the result is the same and the test takes longer.
            sleep(10 * SECOND).await;
        }
        assert_at_most(servers.refreshes(), 50, "refreshes");
    });
}

/// The requests of one client are always rejected. The honest client of the same origin is
/// recovered after each of twelve revocations.
#[test]
fn always_rejected_client_does_not_hold_the_breaker() {
    for honest_offset in [0, 500, 900] {
        with_seeds(1, async |seed| {
            let servers = Servers::new(seed, 1, 24 * HOUR, |arrival| arrival.client != "rejected");
            servers.revoke_every(20 * MINUTE, 11);
            let requests = Requests::new(1, 4 * HOUR);
            let offset = Duration::from_millis(honest_offset);
            let (always_rejected, honest) = tokio::join!(
                servers.send(Requests { client: "rejected", ..requests }),
                servers.send(Requests { client: "honest", offset, ..requests }),
            );
            assert_eq!(rejected(&always_rejected), always_rejected.len());
            assert!(honest.iter().all(|answer| answer.client == "honest"));
            assert_at_most(servers.refreshes(), 11 + 15, "refreshes");
            assert_at_most(rejected(&honest), 2 * 11, "rejections of the honest client");
        });
    }
}

#[test]
fn outage_that_begins_with_a_revocation_names_its_reason() {
    with_seeds(3, async |seed| {
        let servers = Servers::new(seed, 1, HOUR, accept_all);
        let other = servers.clone();
        tokio::spawn(async move {
            sleep(10 * SECOND).await;
            other.set_down(true);
            other.revoke_all();
            sleep(5 * MINUTE).await;
            other.set_down(false);
        });
        let answers = servers.send(Requests::new(10, 10 * MINUTE)).await;
        let failed = answers.iter().filter(|answer| answer.status == StatusCode::UNAUTHORIZED);
        assert!(failed.clone().all(|answer| answer.has_error));
        assert!(failed.count() >= 10 * 300);
        // The back-off of 1, 2, 4, … 120 s, less 20 %, within five minutes.
        assert_at_most(servers.refreshes(), 12, "token requests");
        assert_eq!(answers.last().unwrap().status, StatusCode::OK);
    });
}

/// Some endpoints do not check the token, and their responses come between the rejections of a dead
/// token, as do the responses of a client that asks for them again and again.
#[test]
fn responses_without_a_check_do_not_keep_a_dead_token() {
    with_seeds(2, async |seed| {
        let servers = Servers::new(seed, 1, 24 * HOUR, |arrival| arrival.client != "rejected");
        servers.revoke_every(5 * MINUTE, 1);
        let requests = Requests::new(1, 10 * MINUTE);
        let at = |client, millis| {
            servers.send(Requests { client, offset: Duration::from_millis(millis), ..requests })
        };
        let (_, honest, _) = tokio::join!(at("rejected", 0), at("honest", 300), at(UNCHECKED, 700));
        assert_eq!(honest.last().unwrap().status, StatusCode::OK);
        assert_at_most(servers.refreshes(), 6, "refreshes");
        assert_at_most(rejected(&honest), 4 * 60, "rejections of the honest client");
    });
}
