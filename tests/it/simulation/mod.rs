//! Random histories on paused time, and what must hold after every step of each.
//!
//! One that fails is told with its seed; `SIM_SEED=<seed> cargo test --test it simulation` runs it again.
//!
//! | file | subject |
//! | --- | --- |
//! | `mod` | the steps; clients are polled by hand, so that one may sleep through an answer, a refresh, or the life of a token |
//! | `client` | what each client is to do and to get |
//! | `api` | who takes tokens, or does not |
//! | `issuer` | who issues tokens, or does not, and when it may be asked |
//! | `token` | which token is to be in use now |
//! | `breaker` | when a refusal may cost a token |
//! | `world` | all of that together |

mod api;
mod breaker;
mod client;
mod issuer;
mod token;
mod world;

use std::{
    collections::BTreeMap,
    env,
    future::Future,
    panic::catch_unwind,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    thread,
    time::Duration,
};

use fastrand::Rng;
use http::{Request, Response};
use tokio::{
    runtime,
    task::yield_now,
    time::{advance, sleep},
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
const THREADS: usize = 2;
const STEPS: usize = 60;
const ORIGINS: [&str; 2] = ["https://a.test", "https://b.test"];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn no_random_history_breaks_an_invariant() {
    let seed = env::var("SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    let Some(seed) = seed.or_else(first_failing) else { return };
    eprintln!("SIM_SEED={seed}");
    if let Err(wrong) = history(seed, true) {
        panic!("SIM_SEED={seed}: {wrong}");
    }
}

fn first_failing() -> Option<u64> {
    let fails = |&seed: &u64| !matches!(catch_unwind(|| history(seed, false)), Ok(Ok(())));
    let first = |from: u64| (from..HISTORIES).step_by(THREADS).find(fails);
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..HISTORIES).take(THREADS).map(|from| scope.spawn(move || first(from))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).min()
    })
}

/// Runs the history of this seed. Ends with what went wrong.
fn history(seed: u64, told: bool) -> Result<(), String> {
    fastrand::seed(seed); // the jitter of the cache, which is drawn on this thread
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
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

enum Answer {
    Response(Result<Response<Body>, BoxError>),
    Token(Result<CachedToken, TokenError>),
}

impl Simulation {
    fn new(seed: u64, told: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let world = Arc::new(Mutex::new(World::new(rng.fork(), told)));
        let cache = TokenCache::new(Issuer(Arc::clone(&world)));
        let layer = OAuthLayer::new(cache.clone(), Origins::new(ORIGINS).unwrap());
        Self { rng, world, cache, layer, pending: BTreeMap::new(), started: 0, seen: Vec::new() }
    }

    fn verdict(&self) -> Result<(), String> {
        lock(&self.world).wrong.take().map_or(Ok(()), Err)
    }

    async fn step(&mut self) {
        let (origin, is_replayable) = (self.rng.usize(..ORIGINS.len()), self.rng.u8(..4) > 0);
        match self.rng.u8(..100) {
            0..24 => self.start_request(origin, is_replayable),
            24..32 => self.start_token(),
            32..40 => self.any_pending().into_iter().for_each(|id| self.poll(id)),
            40..64 => self.poll_all(),
            64..68 => self.any_pending().into_iter().for_each(|id| self.cancel(id)),
            68..82 => self.pass_any(false).await,
            82..86 => self.pass_any(true).await,
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
        world.expect_renewal();
        let asleep = self.pending.iter().filter(|(_, task)| !task.is_woken());
        asleep.for_each(|(&id, _)| world.waits_for_nothing(id));
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

    /// One request after another.
    async fn burst(&mut self, origin: usize) {
        for _ in 0..10 {
            self.start_request(origin, true);
            self.settle().await;
            self.poll_all();
        }
    }

    fn start_token(&mut self) {
        let cache = self.cache.clone();
        self.start(async move { Answer::Token(cache.token().await) });
    }

    fn start(&mut self, answer: impl Future<Output = Answer> + 'static) {
        self.started += 1;
        self.pending.insert(self.started, tokio_test::task::spawn(Box::pin(answer)));
        self.poll(self.started);
    }

    fn poll(&mut self, id: u64) {
        let Some(task) = self.pending.get_mut(&id) else { return };
        let answer = task.poll();
        self.look();
        let mut world = lock(&self.world);
        let Poll::Ready(answer) = answer else { return world.is_left_waiting(id) };
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
        let most = [SECOND, 20 * SECOND, 10 * MINUTE, HOUR, 8 * HOUR][self.rng.usize(..5)];
        let time = most.mul_f64(self.rng.f64());
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
            if self.pending.contains_key(&self.started) || !lock(&self.world).is_served(self.started) {
                lock(&self.world).wrong("all is well, and a request is not served");
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
