//! Random histories on paused time, and what must hold after every step of each.
//!
//! One that fails is told with its seed; `SIM_SEED=<seed> cargo test --test it simulation` runs it again.
//!
//! Clients are polled by hand, so that one may sleep through an answer, a refresh, or the life of a token. What the issuer
//! and the API see is written down in the [`World`]; the first thing wrong ends the history.

mod api;
mod issuer;
mod world;

use std::{
    collections::BTreeMap,
    env,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use fastrand::Rng;
use http::{Request, Response, StatusCode};
use tokio::{
    runtime,
    task::yield_now,
    time::{Instant, advance, sleep},
};
use tokio_test::task::Spawn;
use tower::{BoxError, Layer, ServiceExt};
use tower_oauth::{CachedToken, Generation, OAuthLayer, Origins, TokenCache, TokenError, replay::Never};

use self::{
    api::Api,
    issuer::Issuer,
    world::{Shared, World},
};
use crate::support::{Body, lock};

const HISTORIES: u64 = 10_000;
const STEPS: usize = 60;
const ORIGINS: [&str; 2] = ["https://a.test", "https://b.test"];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn no_random_history_breaks_an_invariant() {
    let seed = env::var("SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    let failing = seed.or_else(|| (0..HISTORIES).find(|&seed| history(seed, false).is_err()));
    if let Some(seed) = failing
        && let Err(wrong) = history(seed, true)
    {
        panic!("SIM_SEED={seed}: {wrong}");
    }
}

/// Runs the history of this seed. Ends with what went wrong.
fn history(seed: u64, told: bool) -> Result<(), String> {
    fastrand::seed(seed); // the jitter of the cache
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut simulation = Simulation::new(seed, told);
        for _ in 0..STEPS {
            simulation.step().await;
            simulation.verdict()?;
        }
        simulation.ends_well().await;
        simulation.verdict()
    })
}

struct Simulation {
    rng: Rng,
    world: Shared,
    cache: TokenCache,
    layer: OAuthLayer,
    pending: BTreeMap<u64, Spawn<BoxFuture<Answer>>>,
    started: u64,
    seen: Vec<Generation>,
    /// The token that was current when last looked at, and whether it was stale.
    current: Option<(CachedToken, bool)>,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

enum Answer {
    Response(Result<Response<Body>, BoxError>),
    Token(Result<CachedToken, TokenError>),
}

impl Simulation {
    fn new(seed: u64, told: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let world = Arc::new(Mutex::new(World {
            rng: rng.fork(),
            told,
            start: Some(Instant::now()),
            ..World::default()
        }));
        let cache = TokenCache::new(Issuer(Arc::clone(&world)));
        let layer = OAuthLayer::new(cache.clone(), Origins::new(ORIGINS).unwrap());
        let pending = BTreeMap::new();
        Self { rng, world, cache, layer, pending, started: 0, seen: Vec::new(), current: None }
    }

    fn verdict(&self) -> Result<(), String> {
        lock(&self.world).wrong.take().map_or(Ok(()), Err)
    }

    async fn step(&mut self) {
        let (origin, time) = (self.rng.usize(..ORIGINS.len()), any_duration(&mut self.rng));
        let replayable = self.rng.u8(..4) > 0;
        match self.rng.u8(..100) {
            0..24 => self.start_request(origin, replayable),
            24..32 => self.start_token(),
            32..40 => self.any_pending().into_iter().for_each(|id| self.poll(id)),
            40..64 => self.poll_all(),
            64..68 => self.any_pending().into_iter().for_each(|id| self.cancel(id)),
            68..82 => self.pass(time, false).await,
            82..86 => self.pass(time, true).await,
            86..90 => lock(&self.world).revoke(),
            90..94 => self.invalidate(),
            94..96 => lock(&self.world).refuse_everything(origin),
            96..98 => self.burst(origin).await,
            _ => lock(&self.world).change_mood(),
        }
        self.settle().await;
    }

    /// Lets the fetches run that clients have started.
    async fn settle(&mut self) {
        yield_now().await;
        self.look();
        let mut world = lock(&self.world);
        if mem::take(&mut world.renewal_is_due) {
            world.wrong("a stale token was used and is not being renewed");
        }
    }

    fn any_pending(&mut self) -> Option<u64> {
        self.rng.choice(self.pending.keys().copied().collect::<Vec<_>>())
    }

    fn start_request(&mut self, origin: usize, replayable: bool) {
        self.started += 1;
        let id = self.started;
        lock(&self.world).starts(id, origin, replayable);
        let api = Api { world: Arc::clone(&self.world), cache: self.cache.clone(), door: None };
        let request = Request::get(format!("{}/{id}", ORIGINS[origin])).body(Body::default()).unwrap();
        let sent: BoxFuture<_> = if replayable {
            Box::pin(self.layer.layer(api).oneshot(request))
        } else {
            Box::pin(self.layer.clone().replay(Never).layer(api).oneshot(request))
        };
        self.start(id, async move { Answer::Response(sent.await) });
    }

    /// One request after another.
    async fn burst(&mut self, origin: usize) {
        for _ in 0..10 {
            self.start_request(origin, true);
            self.settle().await;
            self.poll_all();
        }
    }

    fn start_token(&mut self) {
        self.started += 1;
        let cache = self.cache.clone();
        let (has_one, may_try) = (cache.current().is_some(), lock(&self.world).may_try());
        let (failed_at, id) = (lock(&self.world).backoff.failed_at, self.started);
        self.start(id, async move { Answer::Token(cache.token().await) });
        let mut world = lock(&self.world);
        world.renewal_is_due = may_try && self.current.as_ref().is_some_and(|(_, is_stale)| *is_stale);
        if has_one && self.pending.contains_key(&id) {
            world.wrong("a token that could be used was waited for");
        }
        if may_try && world.answered_with_error == Some(id) && failed_at == world.backoff.failed_at {
            world.wrong("no attempt was made after the back-off");
        }
    }

    fn start(&mut self, id: u64, answer: impl Future<Output = Answer> + 'static) {
        self.pending.insert(id, tokio_test::task::spawn(Box::pin(answer)));
        self.poll(id);
    }

    fn poll(&mut self, id: u64) {
        let answer = self.pending.get_mut(&id).map(Spawn::poll);
        self.look();
        let Some(Poll::Ready(answer)) = answer else { return };
        self.pending.remove(&id);
        let current = self.current.as_ref().map(|(token, _)| token);
        let mut world = lock(&self.world);
        match answer {
            Answer::Token(Ok(token)) => world.gives(id, &token),
            Answer::Token(Err(error)) => world.gives_error(id, &error),
            Answer::Response(response) => world.responds(id, response, current),
        }
    }

    fn cancel(&mut self, id: u64) {
        self.pending.remove(&id);
        let mut world = lock(&self.world);
        world.note(format_args!("{id} cancelled"));
        world.is_over(id);
    }

    fn poll_all(&mut self) {
        self.pending.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.poll(id));
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

    fn invalidate(&mut self) {
        let Some(&refused) = self.rng.choice(&self.seen) else { return };
        let current = self.current.as_ref().map(|(token, _)| token.generation());
        let accepted = self.cache.invalidate(refused);
        let mut world = lock(&self.world);
        world.note(format_args!("{refused} invalidated: {accepted}"));
        if current == Some(refused) {
            world.invalidated.insert(refused);
        } else if accepted && current.is_some() {
            world.wrong("the invalidation of an old token was accepted");
        }
    }

    /// Compares the current token with the one before.
    fn look(&mut self) {
        let current = self.cache.current();
        let mut world = lock(&self.world);
        let stale = current.as_ref().is_some_and(CachedToken::is_stale);
        if let Some((before, was_stale)) = &self.current {
            match &current {
                Some(current) if current.generation() == before.generation() => {
                    if *was_stale && !stale && !world.replaced {
                        world.wrong("a stale token is fresh again");
                    }
                }
                _ => world.leaves(before, current.is_none()),
            }
        }
        if let Some(token) = &current {
            world.is_current(token, stale);
            if self.seen.last() != Some(&token.generation()) {
                self.seen.push(token.generation());
            }
        }
        world.replaced = false;
        self.current = current.map(|token| (token, stale));
    }

    /// With everybody well again, nobody is left waiting, and the next request succeeds.
    async fn ends_well(&mut self) {
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
            let status = lock(&self.world).requests[&self.started].status;
            if status != Some(StatusCode::OK) {
                lock(&self.world).wrong(format_args!("all is well, and the answer is {status:?}"));
            }
        }
    }

    async fn run_what_is_woken(&mut self, limit: Duration) {
        self.settle().await;
        for part in [0, 1, 10, 100] {
            self.pass(limit * part / 100, false).await;
            while let Some((&id, _)) = self.pending.iter().find(|(_, task)| task.is_woken()) {
                self.poll(id);
                self.settle().await;
            }
        }
    }
}

/// From milliseconds to hours.
fn any_duration(rng: &mut Rng) -> Duration {
    let most = [SECOND, 20 * SECOND, 10 * MINUTE, HOUR, 8 * HOUR][rng.usize(..5)];
    most.mul_f64(rng.f64())
}
