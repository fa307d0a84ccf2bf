//! The steps of a run.

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
use tower_oauth::{
    CachedToken, Generation, OAuthLayer, Origins, TokenCache, TokenError, replay::NoReplay,
    test_util::FakeWallClock,
};

use super::{
    BoxFuture, HOUR, MINUTE, ORIGINS, SECOND,
    authorization_server::AuthorizationServer,
    model::{Model, SharedModel},
    resource_server::ResourceServer,
    scenario::{Scenario, Step},
};
use crate::support::{Body, lock};

/// The shortest sleep that the cache detects. It takes a shorter one for drift of the clocks.
const SHORTEST_SLEEP: Duration = Duration::from_secs(5);

/// The number of pending clients above which no more are started.
const MAX_PENDING: usize = 20;

pub(super) struct Simulation {
    rng: Rng,
    scenario: Scenario,
    model: SharedModel,
    clock: FakeWallClock,
    cache: TokenCache,
    layer: OAuthLayer,
    pending: BTreeMap<u64, Spawn<BoxFuture<Completion>>>,
    /// The number of clients so far, which is the id of the last one.
    started: u64,
    generations: Vec<Generation>,
}

enum Completion {
    Response(Result<Response<Body>, BoxError>),
    Token(Result<CachedToken, TokenError>),
}

impl Simulation {
    pub(super) fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let model = Arc::new(Mutex::new(Model::new(rng.fork(), verbose)));
        let (scenario, clock) = (Scenario::random(&mut rng), FakeWallClock::new());
        let server = AuthorizationServer(Arc::clone(&model));
        let mut cache = TokenCache::builder(server).wall_clock(clock.reader());
        if let Some((requests, period)) = scenario.token_request_limit {
            lock(&model).fetches.set_limit(requests, period);
            cache = cache.token_request_limit(requests.try_into().unwrap(), period);
        }
        let cache = cache.build();
        Self {
            rng,
            scenario,
            model,
            clock,
            layer: OAuthLayer::new(cache.clone(), Origins::new(ORIGINS).unwrap()),
            cache,
            pending: BTreeMap::new(),
            started: 0,
            generations: Vec::new(),
        }
    }

    pub(super) fn length(&self) -> usize {
        self.scenario.length
    }

    /// Returns the first violation as an error.
    pub(super) fn result(&self) -> Result<(), String> {
        lock(&self.model).violation.take().map_or(Ok(()), Err)
    }

    pub(super) async fn step(&mut self) {
        let origin = self.scenario.origin(&mut self.rng);
        match self.scenario.step(&mut self.rng) {
            Step::Request | Step::Token | Step::Burst { .. } | Step::RequestsAfterBreaker
                if self.pending.len() > MAX_PENDING =>
            {
                self.poll_all();
            }
            Step::Request => self.start_random_request(origin),
            Step::Token => self.start_token(),
            Step::Burst { at_once } => self.burst(origin, at_once).await,
            Step::RequestsAfterBreaker => self.send_after_breaker(origin).await,
            Step::Poll => self.random_pending().into_iter().for_each(|id| self.poll(id)),
            Step::PollAll => self.poll_all(),
            Step::Cancel => self.random_pending().into_iter().for_each(|id| self.cancel(id)),
            Step::PassTime { in_one_jump } => self.pass_random_time(in_one_jump).await,
            Step::SystemSleep => self.system_sleep().await,
            Step::Revoke => lock(&self.model).revoke_all(),
            Step::Invalidate => self.invalidate(),
            Step::ToggleRejectAll => lock(&self.model).toggle_reject_all(origin),
            Step::ChangeBehavior => lock(&self.model).change_behavior(),
        }
        self.settle().await;
    }

    /// Runs the fetches that clients have started.
    async fn settle(&mut self) {
        yield_now().await;
        self.check_current_token();
        let mut model = lock(&self.model);
        model.check_refresh_started();
        let not_woken = self.pending.iter().filter(|(_, task)| !task.is_woken());
        not_woken.for_each(|(&id, _)| model.check_not_woken(id));
    }

    fn check_current_token(&mut self) {
        let current = self.cache.current();
        lock(&self.model).check_current_token(current.as_ref());
        let generation = current.map(|token| token.generation());
        let is_new = |generation: &Generation| self.generations.last() != Some(generation);
        let new_generation = generation.filter(is_new);
        self.generations.extend(new_generation);
    }

    fn random_pending(&mut self) -> Option<u64> {
        self.rng.choice(self.pending.keys().copied().collect::<Vec<_>>())
    }

    fn start_random_request(&mut self, origin: usize) {
        let is_replayable = self.rng.u8(..4) > 0;
        self.start_request(origin, is_replayable);
    }

    fn start_request(&mut self, origin: usize, is_replayable: bool) {
        let id = self.started + 1;
        lock(&self.model).on_start(id, origin, is_replayable);
        let server = ResourceServer::new(&self.model, id);
        let request = Request::get(ORIGINS[origin]).body(Body::default()).unwrap();
        let response: BoxFuture<_> = if is_replayable {
            Box::pin(self.layer.layer(server).oneshot(request))
        } else {
            Box::pin(self.layer.clone().with_replay(NoReplay).layer(server).oneshot(request))
        };
        self.start(async move { Completion::Response(response.await) });
    }

    /// Starts several requests, either all at once or one after another.
    async fn burst(&mut self, origin: usize, at_once: bool) {
        for _ in 0..5 {
            self.start_random_request(origin);
            if !at_once {
                self.settle().await;
                self.poll_all();
            }
        }
    }

    /// Starts several requests, each at the moment when a rejection may cause a refresh again.
    async fn send_after_breaker(&mut self, origin: usize) {
        for _ in 0..12 {
            let time = lock(&self.model).time_to_breaker_end(origin);
            self.pass_time(time, false).await;
            self.settle().await;
            self.start_random_request(origin);
            self.settle().await;
            self.poll_all();
            self.settle().await;
        }
    }

    fn start_token(&mut self) {
        let cache = self.cache.clone();
        self.start(async move { Completion::Token(cache.token().await) });
    }

    fn start(&mut self, future: impl Future<Output = Completion> + 'static) {
        self.started += 1;
        // All clients are polled in one task and must not share its cooperative budget.
        let future: BoxFuture<_> = Box::pin(unconstrained(future));
        self.pending.insert(self.started, tokio_test::task::spawn(future));
        self.poll(self.started);
    }

    fn poll(&mut self, id: u64) {
        let Some(task) = self.pending.get_mut(&id) else { return };
        let refresh = self.cache.status().refresh;
        lock(&self.model).fetches.observe(refresh);
        let poll = task.poll();
        self.check_current_token();
        let mut model = lock(&self.model);
        let Poll::Ready(completion) = poll else { return model.check_pending(id) };
        self.pending.remove(&id);
        match completion {
            Completion::Token(Ok(token)) => model.on_token(id, &token),
            Completion::Token(Err(error)) => model.on_error(id, &error),
            Completion::Response(response) => model.on_response(id, response),
        }
    }

    fn poll_all(&mut self) {
        self.pending.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.poll(id));
    }

    fn cancel(&mut self, id: u64) {
        self.pending.remove(&id);
        lock(&self.model).log(format_args!("{id} cancelled"));
    }

    async fn pass_random_time(&mut self, in_one_jump: bool) {
        let time = self.scenario.time(&mut self.rng);
        let to_change = lock(&self.model).time_to_state_change().filter(|_| self.rng.bool());
        self.pass_time(to_change.unwrap_or(time), in_one_jump).await;
    }

    /// Lets time pass: timer by timer, or in one jump, as if no task had run meanwhile.
    async fn pass_time(&mut self, time: Duration, in_one_jump: bool) {
        let suffix = if in_one_jump { " in one jump" } else { "" };
        lock(&self.model).log(format_args!("{time:?} pass{suffix}"));
        lock(&self.model).is_idle = true;
        if in_one_jump {
            advance(time).await;
        } else {
            sleep(time).await;
        }
        lock(&self.model).is_idle = false;
    }

    /// Moves the wall clock alone. A cache that is in use compares the clocks every 30 s.
    async fn system_sleep(&mut self) {
        let time = self.scenario.time(&mut self.rng);
        if lock(&self.model).fetches.is_in_progress() || time < SHORTEST_SLEEP {
            return;
        }
        self.clock.advance(time);
        self.pass_time(Duration::from_secs(31), false).await;
        lock(&self.model).on_system_sleep(time);
    }

    fn invalidate(&mut self) {
        let Some(&generation) = self.rng.choice(&self.generations) else { return };
        let was_current = self.cache.invalidate(generation);
        let mut model = lock(&self.model);
        model.log(format_args!("invalidate({generation}) returned {was_current}"));
        if was_current != model.invalidate(generation.get()) {
            model.fail(format_args!("invalidate({generation}) returned {was_current}"));
        }
    }

    /// Checks that no client stays pending, and that a new request succeeds, after all servers have
    /// become healthy.
    pub(super) async fn check_recovery(&mut self) {
        lock(&self.model).heal();
        for time in [SECOND, MINUTE, HOUR, 2 * HOUR] {
            self.poll_woken_for(time).await;
        }
        if !self.pending.is_empty() {
            let pending: Vec<_> = self.pending.keys().collect();
            lock(&self.model).fail(format_args!("still pending: {pending:?}"));
        }
        for origin in 0..ORIGINS.len() {
            self.start_request(origin, true);
            self.poll_woken_for(2 * HOUR).await;
            let is_pending = self.pending.contains_key(&self.started);
            if is_pending || !lock(&self.model).was_served(self.started) {
                lock(&self.model).fail("a request failed although all servers are healthy");
            }
        }
    }

    /// Polls the woken clients at several moments within `time`.
    async fn poll_woken_for(&mut self, time: Duration) {
        self.settle().await;
        for percent in [0, 1, 10, 100] {
            self.pass_time(time * percent / 100, false).await;
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
