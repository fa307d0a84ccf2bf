//! Long stretches of time, in a moment.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{OAuthLayer, Origins};

use crate::support::{API, Body, Plan, World, get};

const DAY: Duration = Duration::from_secs(86_400);

/// A day of 20 requests a second. Says how many of them waited for a token.
async fn day(world: &World, mut each: impl FnMut(Instant)) -> usize {
    let api = tower::service_fn(|request: Request<Body>| {
        assert!(request.headers().contains_key("authorization"));
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::default())))
    });
    let mut client = OAuthLayer::new(world.cache.clone(), Origins::new([API]).unwrap()).layer(api);
    let start = Instant::now();
    let mut waited = 0;
    while start.elapsed() < DAY {
        each(start);
        let before = Instant::now();
        client.ready().await.unwrap().call(get("/")).await.unwrap();
        waited += usize::from(before.elapsed() > Duration::ZERO);
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    waited
}

/// A token request takes a while.
fn slow(world: &World) {
    world.issuer.takes(Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_day_with_an_outage_of_a_quarter_of_an_hour_at_the_worst_moment_fails_no_request() {
    let world = World::new();
    slow(&world);
    let mut outage_from = None;
    let waited = day(&world, |start| {
        // The worst moment: when the renewal of a token is due, in the middle of the day.
        let noon = start + DAY / 2;
        if outage_from.is_none()
            && Instant::now() > noon
            && world.cache.current().is_some_and(|token| token.is_stale())
        {
            outage_from = Some(Instant::now());
        }
        let out = outage_from.is_some_and(|from| from.elapsed() < Duration::from_secs(15 * 60));
        world.issuer.is_down(out);
    })
    .await;
    assert!(outage_from.is_some());
    assert_eq!(waited, 1, "the first");
    let asked = world.issuer.asked();
    assert!((24..=60).contains(&asked), "{asked} token requests");
}

#[tokio::test(start_paused = true)]
async fn a_day_with_tokens_of_a_day_costs_two_of_them() {
    let world = World::new();
    world.issuer.plan((0..3).map(|_| Plan::Issue(DAY)));
    slow(&world);
    assert_eq!(day(&world, |_| {}).await, 1);
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn chance_is_drawn_once_for_a_token_and_not_with_each_request() {
    for _ in 0..20 {
        let world = World::new();
        world.issuer.plan([Plan::Issue(Duration::from_secs(1000))]);
        world.get().await.unwrap();
        world.issuer.close_the_door();
        // Stale from 500 to 550 seconds on, by chance.
        tokio::time::advance(Duration::from_secs(525)).await;
        world.get().await.unwrap();
        let asked = world.issuer.asked();
        for _ in 0..50 {
            world.get().await.unwrap();
        }
        assert_eq!(world.issuer.asked(), asked);
    }
}
