//! The shared state of a run. The servers and the clients report to it what happens. The first
//! violation ends the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    authorization_server::{FetchHistory, ServerBehavior},
    client::ClientState,
    current_token::CurrentToken,
    resource_server::OriginState,
};

pub(super) type SharedModel = Arc<Mutex<Model>>;

pub(super) struct Model {
    pub(super) rng: Rng,
    verbose: bool,
    start: Instant,
    pub(super) violation: Option<String>,

    pub(super) behavior: ServerBehavior,
    pub(super) fetches: FetchHistory,
    /// True while time passes and no client is polled.
    pub(super) is_idle: bool,
    pub(super) refresh_is_due: bool,

    /// The number of the token that was issued last. Tokens are identified by their numbers.
    pub(super) newest: u64,
    pub(super) valid: BTreeSet<u64>,
    /// The token of the cache. It may have expired.
    pub(super) current_token: Option<CurrentToken>,
    pub(super) last_generation: u64,

    pub(super) origins: [OriginState; 2],
    pub(super) clients: BTreeMap<u64, ClientState>,
}

impl Model {
    pub(super) fn new(rng: Rng, verbose: bool) -> Self {
        Self {
            rng,
            verbose,
            start: Instant::now(),
            violation: None,
            behavior: ServerBehavior::default(),
            fetches: FetchHistory::default(),
            is_idle: false,
            refresh_is_due: false,
            newest: 0,
            valid: BTreeSet::new(),
            current_token: None,
            last_generation: 0,
            origins: Default::default(),
            clients: BTreeMap::new(),
        }
    }

    /// Prints one line of the log, if the run is verbose.
    pub(super) fn log(&self, message: fmt::Arguments<'_>) {
        if self.verbose {
            eprintln!("{:>12.3?} {message}", self.start.elapsed());
        }
    }

    /// Records a violation. The first one is the result of the run.
    pub(super) fn fail(&mut self, violation: impl fmt::Display) {
        self.log(format_args!("VIOLATION: {violation}"));
        self.violation.get_or_insert_with(|| violation.to_string());
    }

    pub(super) fn revoke_all(&mut self) {
        self.log(format_args!("all tokens revoked"));
        self.valid.clear();
    }

    pub(super) fn toggle_reject_all(&mut self, origin: usize) {
        let rejects_all = &mut self.origins[origin].rejects_all;
        *rejects_all = !*rejects_all;
        let rejects_all = *rejects_all;
        self.log(format_args!("origin {origin} rejects every token: {rejects_all}"));
    }

    pub(super) fn change_behavior(&mut self) {
        let behaviors = [ServerBehavior::Healthy, ServerBehavior::Unreliable, ServerBehavior::Down];
        self.behavior = behaviors[self.rng.usize(..3)];
        self.log(format_args!("server behavior: {:?}", self.behavior));
    }

    /// Ends all failures of the servers.
    pub(super) fn heal(&mut self) {
        self.log(format_args!("all servers are healthy"));
        self.behavior = ServerBehavior::Perfect;
        self.origins.iter_mut().for_each(|origin| origin.rejects_all = false);
    }

    /// Makes the current token older by the time that the machine slept. Nothing else changes.
    pub(super) fn on_system_sleep(&mut self, time: Duration) {
        self.log(format_args!("slept for {time:?}"));
        if let Some(current) = &mut self.current_token {
            current.token.issued_at -= time;
        }
    }

    /// Returns a random part of one of the given times, or zero if the servers are perfect.
    pub(super) fn delay<const N: usize>(&mut self, longest: [Duration; N]) -> Duration {
        let delay = longest[self.rng.usize(..N)].mul_f64(self.rng.f64());
        if matches!(self.behavior, ServerBehavior::Perfect) { Duration::ZERO } else { delay }
    }

    pub(super) fn time_to_breaker_end(&self, origin: usize) -> Duration {
        let blocked_until = self.origins[origin].breaker.blocked_until();
        blocked_until.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Returns the time to a random moment at which time alone changes a decision of the cache or
    /// of the breaker, or to just before or after that moment.
    pub(super) fn time_to_state_change(&mut self) -> Option<Duration> {
        let breakers = self.origins.iter().flat_map(|origin| origin.breaker.change_times());
        let token = self.current_token.iter().flat_map(CurrentToken::change_times);
        let times = breakers.chain(token).chain(self.fetches.change_times());
        let remaining = times.filter_map(|at| at.checked_duration_since(Instant::now()));
        let remaining: Vec<_> = remaining.filter(|time| !time.is_zero()).collect();
        let time = *self.rng.choice(&remaining)?;
        let tick = Duration::from_millis(1);
        Some([time.saturating_sub(tick), time, time + tick][self.rng.usize(..3)])
    }
}
