//! What a history does to the world and to the cache.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use fastrand::Rng;
use http::{Request, Response};
use tokio::{
    task::{unconstrained, yield_now},
    time::{advance, sleep},
};
use tokio_test::task::Spawn;
use tower::{BoxError, Layer, ServiceExt};
use tower_oauth::{CachedToken, Generation, OAuthLayer, Origins, TokenCache, TokenError, replay::Never};

use super::{
    BoxFuture, HOUR, MINUTE, ORIGINS, SECOND,
    api::Api,
    habits::{Habits, Step},
    issuer::Issuer,
    world::{Shared, World},
};
use crate::support::{Asleep, Body, lock};

/// What is shorter is no sleep, but clocks that drift.
const LEAST_SLEEP: Duration = Duration::from_secs(5);

/// From so many clients on, no more are started.
const CROWD: usize = 20;

pub(super) struct Simulation {
    rng: Rng,
    habits: Habits,
    world: Shared,
    asleep: Asleep,
    cache: TokenCache,
    layer: OAuthLayer,
    pending: BTreeMap<u64, Spawn<BoxFuture<Answer>>>,
    started: u64,
    seen: Vec<Generation>,
}

enum Answer {
    Response(Result<Response<Body>, BoxError>),
    Token(Result<CachedToken, TokenError>),
}

impl Simulation {
    pub(super) fn new(seed: u64, told: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let world = Arc::new(Mutex::new(World::new(rng.fork(), told)));
        let (habits, asleep) = (Habits::any(&mut rng), Asleep::default());
        let mut cache = asleep.wall_clock(TokenCache::builder(Issuer(Arc::clone(&world))));
        if let Some((most, period)) = habits.limit {
            lock(&world).fetches.limit(most, period);
            cache = cache.token_request_limit(most.try_into().unwrap(), period);
        }
        let cache = cache.build();
        let layer = OAuthLayer::new(cache.clone(), Origins::new(ORIGINS).unwrap());
        let pending = BTreeMap::new();
        Self { rng, habits, world, asleep, cache, layer, pending, started: 0, seen: Vec::new() }
    }

    pub(super) fn length(&self) -> usize {
        self.habits.length
    }

    pub(super) fn verdict(&self) -> Result<(), String> {
        lock(&self.world).wrong.take().map_or(Ok(()), Err)
    }

    pub(super) async fn step(&mut self) {
        let origin = self.habits.origin(&mut self.rng);
        match self.habits.step(&mut self.rng) {
            Step::Request | Step::Token | Step::Burst { .. } | Step::Patience
                if self.pending.len() > CROWD =>
            {
                self.poll_all();
            }
            Step::Request => self.start_any_request(origin),
            Step::Token => self.start_token(),
            Step::Burst { at_once } => self.burst(origin, at_once).await,
            Step::Patience => self.try_again_and_again(origin).await,
            Step::Poll => self.any_pending().into_iter().for_each(|id| self.poll(id)),
            Step::PollAll => self.poll_all(),
            Step::Cancel => self.any_pending().into_iter().for_each(|id| self.cancel(id)),
            Step::Pass { in_a_leap } => self.pass_any(in_a_leap).await,
            Step::Sleep => self.sleep().await,
            Step::Revoke => lock(&self.world).revoke(),
            Step::Invalidate => self.invalidate(),
            Step::RefuseEverything => lock(&self.world).refuse_everything(origin),
            Step::ChangeMood => lock(&self.world).change_mood(),
        }
        self.settle().await;
    }

    /// Lets the fetches run that clients have started.
    async fn settle(&mut self) {
        yield_now().await;
        self.look();
        let mut world = lock(&self.world);
        world.expect_renewal();
        let asleep = self.pending.iter().filter(|(_, task)| !task.is_woken());
        asleep.for_each(|(&id, _)| world.is_asleep(id));
    }

    fn look(&mut self) {
        let current = self.cache.current();
        lock(&self.world).look(current.as_ref());
        self.seen.extend(
            current.map(|token| token.generation()).filter(|generation| self.seen.last() != Some(generation)),
        );
    }

    fn any_pending(&mut self) -> Option<u64> {
        self.rng.choice(self.pending.keys().copied().collect::<Vec<_>>())
    }

    fn start_any_request(&mut self, origin: usize) {
        let is_replayable = self.rng.u8(..4) > 0;
        self.start_request(origin, is_replayable);
    }

    fn start_request(&mut self, origin: usize, is_replayable: bool) {
        let id = self.started + 1;
        lock(&self.world).starts(id, origin, is_replayable);
        let api = Api::new(&self.world, id);
        let request = Request::get(ORIGINS[origin]).body(Body::default()).unwrap();
        let sent: BoxFuture<_> = if is_replayable {
            Box::pin(self.layer.layer(api).oneshot(request))
        } else {
            Box::pin(self.layer.clone().replay(Never).layer(api).oneshot(request))
        };
        self.start(async move { Answer::Response(sent.await) });
    }

    /// Many requests, at once or one after another.
    async fn burst(&mut self, origin: usize, at_once: bool) {
        for _ in 0..5 {
            self.start_any_request(origin);
            if !at_once {
                self.settle().await;
                self.poll_all();
            }
        }
    }

    /// Each request comes when a refusal may cost a token again.
    async fn try_again_and_again(&mut self, origin: usize) {
        for _ in 0..12 {
            let time = lock(&self.world).until_breaker_opens(origin);
            self.pass(time, false).await;
            self.settle().await;
            self.start_any_request(origin);
            self.settle().await;
            self.poll_all();
            self.settle().await;
        }
    }

    fn start_token(&mut self) {
        let cache = self.cache.clone();
        self.start(async move { Answer::Token(cache.token().await) });
    }

    fn start(&mut self, answer: impl Future<Output = Answer> + 'static) {
        self.started += 1;
        // Each client has a task of its own, as far as tokio's budget for one poll goes.
        self.pending.insert(self.started, tokio_test::task::spawn(Box::pin(unconstrained(answer))));
        self.poll(self.started);
    }

    fn poll(&mut self, id: u64) {
        let Some(task) = self.pending.get_mut(&id) else { return };
        let answer = task.poll();
        self.look();
        let mut world = lock(&self.world);
        let Poll::Ready(answer) = answer else { return world.is_pending(id) };
        self.pending.remove(&id);
        match answer {
            Answer::Token(Ok(token)) => world.gives(id, &token),
            Answer::Token(Err(error)) => world.gives_error(id, &error),
            Answer::Response(response) => world.responds(id, response),
        }
    }

    fn poll_all(&mut self) {
        self.pending.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.poll(id));
    }

    fn cancel(&mut self, id: u64) {
        self.pending.remove(&id);
        lock(&self.world).note(format_args!("{id} cancelled"));
    }

    async fn pass_any(&mut self, in_a_leap: bool) {
        let time = self.habits.time(&mut self.rng);
        let to_a_turn = lock(&self.world).until_turning_point().filter(|_| self.rng.bool());
        self.pass(to_a_turn.unwrap_or(time), in_a_leap).await;
    }

    /// Time passes: timer by timer, or in one leap as on a machine that slept.
    async fn pass(&mut self, time: Duration, in_a_leap: bool) {
        lock(&self.world).note(format_args!("{time:?} pass{}", if in_a_leap { " in a leap" } else { "" }));
        lock(&self.world).nobody_asks = true;
        if in_a_leap {
            advance(time).await;
        } else {
            sleep(time).await;
        }
        lock(&self.world).nobody_asks = false;
    }

    /// The wall clock goes on alone. The cache looks at it every half a minute, when it is used.
    async fn sleep(&mut self) {
        let time = self.habits.time(&mut self.rng);
        if lock(&self.world).fetches.are_under_way() || time < LEAST_SLEEP {
            return;
        }
        self.asleep.for_another(time);
        self.pass(Duration::from_secs(31), false).await;
        lock(&self.world).slept(time);
    }

    fn invalidate(&mut self) {
        let Some(&refused) = self.rng.choice(&self.seen) else { return };
        let accepted = self.cache.invalidate(refused);
        let mut world = lock(&self.world);
        world.note(format_args!("{refused} invalidated: {accepted}"));
        if accepted != world.goes_out_of_use(refused.get()) {
            world.wrong(format_args!("the invalidation of generation {refused} was accepted: {accepted}"));
        }
    }

    /// With everybody well again, nobody is left waiting, and the next request succeeds.
    pub(super) async fn ends_well(&mut self) {
        lock(&self.world).is_well();
        for time in [SECOND, MINUTE, HOUR, 2 * HOUR] {
            self.run_what_is_woken(time).await;
        }
        if !self.pending.is_empty() {
            let left: Vec<_> = self.pending.keys().collect();
            lock(&self.world).wrong(format_args!("left waiting: {left:?}"));
        }
        for origin in 0..ORIGINS.len() {
            self.start_request(origin, true);
            self.run_what_is_woken(2 * HOUR).await;
            if self.pending.contains_key(&self.started) || !lock(&self.world).is_served(self.started) {
                lock(&self.world).wrong("all is well, and a request is not served");
            }
        }
    }

    async fn run_what_is_woken(&mut self, limit: Duration) {
        self.settle().await;
        for part in [0, 1, 10, 100] {
            self.pass(limit * part / 100, false).await;
            loop {
                let woken = self.pending.iter().filter(|(_, task)| task.is_woken());
                let woken: Vec<_> = woken.map(|(&id, _)| id).collect();
                if woken.is_empty() {
                    break;
                }
                for id in woken {
                    self.poll(id);
                }
                self.settle().await;
            }
        }
    }
}
