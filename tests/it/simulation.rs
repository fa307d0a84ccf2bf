//! Random histories on paused time, and what must hold after every step of each.
//!
//! One that fails is told with its seed; `SIM_SEED=<seed> cargo test --test it simulation` runs it again.
//!
//! Clients are polled by hand, so that one may sleep through an answer, a refresh, or the life of a token. What the issuer
//! and the API see is written down in the [`World`]; the first thing wrong ends the history.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    env, fmt,
    future::{Future, pending},
    mem,
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use fastrand::Rng;
use http::{Request, Response, StatusCode};
use tokio::{
    runtime,
    task::yield_now,
    time::{Instant, Sleep, advance, sleep},
};
use tokio_test::task::Spawn;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_oauth::{
    AccessToken, CachedToken, Generation, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind,
    TokenSource, replay::Never,
};

use crate::support::{Body, bearer, lock};

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

type Shared = Arc<Mutex<World>>;

/// Issuer, API and all that is known of what they saw.
#[allow(clippy::struct_excessive_bools)] // they are independent facts
#[derive(Default)]
struct World {
    rng: Rng,
    told: bool,
    start: Option<Instant>,
    wrong: Option<String>,

    mood: Mood,
    fetching: usize,
    nobody_asks: bool,
    renewal_is_due: bool,
    backoff: Expected,
    issued: Vec<Issued>,

    valid: BTreeSet<usize>,
    origins: [Origin; 2],
    requests: BTreeMap<u64, Sent>,
    answered_with_error: Option<u64>,

    /// Tokens that were said to be refused, and the newest that has left the cache.
    invalidated: BTreeSet<Generation>,
    gone: Option<Generation>,
    refused_last: usize,
    /// Since the cache was last looked at.
    replaced: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Mood {
    /// And so is the API.
    Perfect,
    #[default]
    Well,
    Whimsical,
    Down,
}

/// What is known of the next attempt: it comes after `earliest`, and from `latest` on.
#[derive(Default)]
struct Expected {
    failures: u32,
    is_final: bool,
    failed_at: Option<Instant>,
    earliest: Option<Instant>,
    latest: Option<Instant>,
}

struct Issued {
    at: Instant,
    lifetime: Option<Duration>,
}

/// The most that an origin may have closed the breaker, and what its refusals have cost since a new token last helped.
#[derive(Default)]
struct Origin {
    refuses_everything: bool,
    strikes: u32,
    closed_until: Option<Instant>,
    since: Option<Instant>,
    cost: u32,
    forgiven: u32,
}

#[derive(Default)]
struct Sent {
    origin: usize,
    replayable: bool,
    tokens: Vec<usize>,
    /// The token of the first refusal, and whether the breaker may have been closed to it.
    refused: Option<(Generation, bool)>,
    refusals: usize,
    over: bool,
    status: Option<StatusCode>,
}

impl World {
    fn note(&self, what: fmt::Arguments<'_>) {
        if self.told {
            eprintln!("{:>12.3?} {what}", self.start.unwrap().elapsed());
        }
    }

    fn wrong(&mut self, what: impl fmt::Display) {
        self.note(format_args!("WRONG: {what}"));
        self.wrong.get_or_insert_with(|| what.to_string());
    }

    // What the history does to the world.

    fn revoke(&mut self) {
        self.note(format_args!("all tokens revoked"));
        self.valid.clear();
    }

    fn refuse_everything(&mut self, origin: usize) {
        let refuses = &mut self.origins[origin].refuses_everything;
        *refuses = !*refuses;
        let refuses = *refuses;
        self.note(format_args!("origin {origin} refuses everything: {refuses}"));
    }

    fn change_mood(&mut self) {
        self.mood = [Mood::Well, Mood::Whimsical, Mood::Down][self.rng.usize(..3)];
        self.note(format_args!("the issuer is {:?}", self.mood));
    }

    fn is_well(&mut self) {
        self.note(format_args!("all is well"));
        self.mood = Mood::Perfect;
        self.origins.iter_mut().for_each(|origin| origin.refuses_everything = false);
    }

    fn delay<const N: usize>(&mut self, most: [Duration; N]) -> Duration {
        let delay = most[self.rng.usize(..N)].mul_f64(self.rng.f64());
        if matches!(self.mood, Mood::Perfect) { Duration::ZERO } else { delay }
    }

    // What the issuer sees.

    fn may_try(&self) -> bool {
        self.fetching == 0 && self.backoff.latest.is_none_or(|latest| latest < Instant::now())
    }

    fn fetch_begins(&mut self) {
        self.note(format_args!("fetch"));
        self.fetching += 1;
        self.renewal_is_due = false;
        if self.fetching > 1 {
            self.wrong("two fetches at once");
        }
        if self.nobody_asks {
            self.wrong("a fetch that nobody asked for");
        }
        if self.backoff.earliest.is_some_and(|earliest| Instant::now() < earliest) {
            self.wrong("a fetch during the back-off");
        }
    }

    fn fetch_ended(&mut self, outcome: Outcome) {
        self.note(format_args!("fetched: {outcome:?}"));
        self.fetching -= 1;
        let is_final = match outcome {
            Outcome::Cancelled => return self.wrong("a fetch was cancelled"),
            Outcome::Issued => {
                self.replaced = true;
                return self.backoff = Expected::default();
            }
            Outcome::Passing => false,
            Outcome::Final => true,
        };
        let now = Instant::now();
        let failures = if is_final == self.backoff.is_final { self.backoff.failures + 1 } else { 1 };
        let (first, longest) = if is_final { (MINUTE, HOUR) } else { (SECOND, 2 * MINUTE) };
        let delay = (first * (1 << (failures - 1).min(12))).min(longest);
        let (earliest, latest) = (Some(now + delay.mul_f64(0.799)), Some(now + delay.mul_f64(1.201)));
        self.backoff = Expected { failures, is_final, failed_at: Some(now), earliest, latest };
    }

    fn plan(&mut self) -> (Duration, Plan) {
        let takes = self.delay([Duration::ZERO, 20 * SECOND]);
        let plan = match (self.mood, self.rng.u8(..10)) {
            (Mood::Perfect | Mood::Well, _) | (Mood::Whimsical, 0..3) => Plan::Issue,
            (Mood::Whimsical, 3..5) => Plan::SameAgain,
            (_, 5) => Plan::Hang,
            (_, 6) => Plan::Panic,
            (_, 7) => Plan::Fail(TokenErrorKind::Refused),
            (_, 8) => Plan::Fail(TokenErrorKind::Server),
            _ => Plan::Fail(TokenErrorKind::Transport),
        };
        (takes, plan)
    }

    fn issue(&mut self, again: bool) -> Result<AccessToken, TokenError> {
        let lifetime = match self.rng.u8(..10) {
            _ if matches!(self.mood, Mood::Perfect) => Some(12 * HOUR),
            0 => None,
            1..5 => Some(SECOND.mul_f64(1.0 + 200.0 * self.rng.f64())),
            _ => Some(10 * MINUTE + (24 * HOUR).mul_f64(self.rng.f64().powi(3))),
        };
        let issued = Issued { at: Instant::now(), lifetime };
        match self.issued.last_mut() {
            Some(last) if again => *last = issued,
            _ => {
                self.valid.insert(self.issued.len());
                self.issued.push(issued);
            }
        }
        let number = self.issued.len() - 1;
        self.note(format_args!("token {number} for {lifetime:?}"));
        let token = AccessToken::bearer(number.to_string())?;
        Ok(match lifetime {
            Some(lifetime) => token.expires_in(lifetime),
            None => token,
        })
    }

    fn is_expired(&self, number: usize) -> bool {
        let Issued { at, lifetime } = self.issued[number];
        lifetime.is_some_and(|lifetime| {
            at + lifetime.saturating_sub((lifetime / 10).min(30 * SECOND)) <= Instant::now()
        })
    }

    // What the API sees.

    fn starts(&mut self, id: u64, origin: usize, replayable: bool) {
        self.note(format_args!("{id} to origin {origin}, replayable: {replayable}"));
        self.requests.insert(id, Sent { origin, replayable, ..Sent::default() });
    }

    /// How long the answer takes, and whether the token is looked at before or after.
    fn arrives(&mut self, id: u64, number: usize, current: Option<Generation>) -> (Duration, bool) {
        self.note(format_args!("{id} sent with token {number} of generation {current:?}"));
        match current {
            None => self.wrong("sent with a token that is not to be used"),
            Some(current) if Some(current) <= self.gone => {
                self.wrong("sent with a token that was out of use");
            }
            Some(_) => {}
        }
        if self.is_expired(number) {
            self.wrong("sent with an expired token");
        }
        let sent = self.requests.entry(id).or_default();
        let shown_before = sent.tokens.contains(&number);
        sent.tokens.push(number);
        if shown_before || sent.tokens.len() > 2 {
            self.wrong(format_args!("{id} was sent once too often"));
        }
        (self.delay([Duration::ZERO, Duration::ZERO, 5 * SECOND, 3 * MINUTE]), self.rng.bool())
    }

    fn takes(&self, id: u64, number: usize) -> bool {
        !self.origins[self.requests[&id].origin].refuses_everything && self.valid.contains(&number)
    }

    fn answers(&mut self, id: u64, shown: Generation, current: Option<Generation>, ok: bool) {
        self.note(format_args!("{id} answered to generation {shown}: {ok}"));
        let others_retry = self.requests.iter().any(|(other, sent)| {
            *other != id && sent.origin == self.requests[&id].origin && sent.refused.is_some() && !sent.over
        });
        let Some(sent) = self.requests.get_mut(&id) else { return };
        let (index, is_retry) = (sent.origin, sent.refusals > 0);
        let origin = &mut self.origins[index];
        if ok {
            if is_retry {
                *origin = Origin { refuses_everything: origin.refuses_everything, ..Origin::default() };
            }
            return;
        }
        let is_late = current > Some(shown);
        let is_closed = others_retry || origin.closed_until.is_some_and(|until| Instant::now() < until);
        sent.refused.get_or_insert((shown, is_closed && !is_late));
        sent.refusals += 1;
        self.refused_last = index;
        self.invalidated.insert(shown);
        if is_retry || !is_late {
            origin.strike();
        }
    }

    // What the clients see.

    fn is_current(&mut self, token: &CachedToken, stale: bool) {
        if Some(token.generation()) <= self.gone {
            self.wrong("a token that was out of use is back");
        }
        let number: usize = token.expose_secret().parse().unwrap();
        let Issued { at, lifetime: Some(lifetime) } = self.issued[number] else { return };
        let (window, left) = ((lifetime / 2).min(20 * MINUTE), lifetime.saturating_sub(at.elapsed()));
        if stale && left > window || !stale && left < window.mul_f64(0.899) {
            self.wrong(format_args!("stale: {stale}, with {left:?} left of {lifetime:?}"));
        }
    }

    fn leaves(&mut self, token: &CachedToken, for_none: bool) {
        self.note(format_args!("generation {} is out of use", token.generation()));
        self.gone = self.gone.max(Some(token.generation()));
        if self.replaced || !for_none || self.is_expired(token.expose_secret().parse().unwrap()) {
            return;
        }
        if !self.invalidated.contains(&token.generation()) {
            return self.wrong("a token went out of use that nobody refused");
        }
        let origin = &mut self.origins[self.refused_last];
        let since = *origin.since.get_or_insert_with(Instant::now);
        origin.cost += 1;
        let seconds = since.elapsed().as_secs();
        let most = 4 + (seconds + 1).ilog2() + u32::try_from(seconds / 300).unwrap() + origin.forgiven;
        if origin.cost > most {
            let cost = origin.cost;
            self.wrong(format_args!("refusals of one origin cost {cost} tokens in {seconds} s"));
        }
    }

    fn is_over(&mut self, id: u64) {
        let Some(sent) = self.requests.get_mut(&id) else { return };
        sent.over = true;
        // Nothing was learnt of a new token: not retried, or cancelled. The breaker does not count it.
        if sent.refusals == 1 {
            self.origins[sent.origin].forgiven += 1;
        }
    }

    fn gives(&mut self, id: u64, token: &CachedToken) {
        self.note(format_args!("{id} has generation {}", token.generation()));
        if Some(token.generation()) <= self.gone || self.is_expired(token.expose_secret().parse().unwrap()) {
            self.wrong("the cache gave a token that is out of use");
        }
    }

    fn gives_error(&mut self, id: u64, error: &TokenError) {
        self.note(format_args!("{id} failed: {error}"));
        self.answered_with_error = Some(id);
        let next = error.next_attempt_in().map(|left| Instant::now() + left);
        if error.kind() == TokenErrorKind::Runtime || next > self.backoff.latest {
            self.wrong(format_args!("an error that the issuer did not cause: {error}"));
        }
    }

    fn responds(
        &mut self,
        id: u64,
        response: Result<Response<Body>, BoxError>,
        current: Option<&CachedToken>,
    ) {
        self.is_over(id);
        let response = match response {
            Ok(response) => response,
            Err(error) => return self.gives_error(id, error.downcast_ref().unwrap()),
        };
        self.note(format_args!("{id} done: {}", response.status()));
        if let Some(error) = response.extensions().get() {
            self.gives_error(id, error);
        }
        let sent = self.requests.get_mut(&id).unwrap();
        sent.status = Some(response.status());
        let Some((refused, was_closed)) = sent.refused else { return };
        if sent.tokens.len() > 1 {
            return;
        }
        let origin = &mut self.origins[sent.origin];
        let is_same = current.is_some_and(|current| {
            current.generation() > refused && current.expose_secret() == sent.tokens[0].to_string()
        });
        let had_error = response.extensions().get::<TokenError>().is_some();
        let explained = if sent.replayable {
            is_same || was_closed || had_error
        } else {
            was_closed || current.is_none_or(|current| current.generation() > refused)
        };
        if sent.replayable && is_same {
            origin.strike();
        }
        if !explained {
            self.wrong(format_args!("{id} was refused without need"));
        }
    }
}

impl Origin {
    fn strike(&mut self) {
        let delay = (SECOND * (1 << self.strikes.min(12))).min(5 * MINUTE);
        self.closed_until = self.closed_until.max(Some(Instant::now() + delay));
        self.strikes += 1;
    }
}

struct Issuer(Shared);

enum Plan {
    Issue,
    SameAgain,
    Fail(TokenErrorKind),
    Hang,
    Panic,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Cancelled,
    Issued,
    Passing,
    Final,
}

/// Tells the world when a fetch ends, however it does.
struct Fetch<'a> {
    world: &'a Shared,
    outcome: Outcome,
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        lock(self.world).fetch_ended(self.outcome);
    }
}

impl TokenSource for Issuer {
    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        lock(&self.0).fetch_begins();
        let mut fetch = Fetch { world: &self.0, outcome: Outcome::Cancelled };
        let (takes, plan) = lock(&self.0).plan();
        if !takes.is_zero() {
            sleep(takes).await;
        }
        fetch.outcome = match plan {
            Plan::Issue | Plan::SameAgain => Outcome::Issued,
            Plan::Fail(TokenErrorKind::Refused) => Outcome::Final,
            Plan::Fail(_) | Plan::Hang | Plan::Panic => Outcome::Passing,
        };
        match plan {
            Plan::Issue => lock(&self.0).issue(false),
            Plan::SameAgain => lock(&self.0).issue(true),
            Plan::Fail(kind) => Err(TokenError::new(kind, "the issuer fails")),
            Plan::Hang => pending().await,
            Plan::Panic => resume_unwind(Box::new("the issuer has a bug")),
        }
    }
}

struct Api {
    world: Shared,
    cache: TokenCache,
    door: Option<Pin<Box<Sleep>>>,
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self { world: Arc::clone(&self.world), cache: self.cache.clone(), door: None }
    }
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Body>, Infallible>>;

    /// Ready at once, mostly.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        const BUSY_FOR: [Duration; 8] = {
            let mut most = [Duration::ZERO; 8];
            (most[0], most[1]) = (SECOND, HOUR);
            most
        };
        let busy_for = || Box::pin(sleep(lock(&self.world).delay(BUSY_FOR)));
        self.door.get_or_insert_with(busy_for).as_mut().poll(context).map(Ok)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.door = None;
        let id = request.uri().path()[1..].parse().unwrap();
        let number = bearer(&request).unwrap().parse().unwrap();
        let current = |cache: &TokenCache| cache.current().map(|token| token.generation());
        let shown = current(&self.cache);
        let (takes, at_once) = lock(&self.world).arrives(id, number, shown);
        let early = at_once.then(|| lock(&self.world).takes(id, number));
        let (world, cache) = (Arc::clone(&self.world), self.cache.clone());
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            let newest = current(&cache);
            let mut world = lock(&world);
            let ok = early.unwrap_or_else(|| world.takes(id, number));
            if let Some(shown) = shown {
                world.answers(id, shown, newest, ok);
            }
            let mut response = Response::new(Body::default());
            *response.status_mut() = if ok { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            Ok(response)
        })
    }
}
