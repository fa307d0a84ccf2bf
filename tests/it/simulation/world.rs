//! All that is known, as the issuer, the API and the clients tell it. The first thing wrong ends the history.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    api::Origin,
    client::Client,
    issuer::{Fetches, Mood},
    token::InUse,
};

pub(super) type Shared = Arc<Mutex<World>>;

pub(super) struct World {
    pub(super) rng: Rng,
    told: bool,
    start: Instant,
    pub(super) wrong: Option<String>,

    pub(super) mood: Mood,
    pub(super) fetches: Fetches,
    /// Time passes, and no client does anything.
    pub(super) nobody_asks: bool,
    pub(super) renewal_is_due: bool,

    /// Tokens are known by their numbers.
    pub(super) newest: u64,
    pub(super) valid: BTreeSet<u64>,
    /// May be past its expiry.
    pub(super) in_use: Option<InUse>,
    pub(super) last_generation: u64,

    pub(super) origins: [Origin; 2],
    pub(super) clients: BTreeMap<u64, Client>,
}

impl World {
    pub(super) fn new(rng: Rng, told: bool) -> Self {
        Self {
            rng,
            told,
            start: Instant::now(),
            wrong: None,
            mood: Mood::default(),
            fetches: Fetches::default(),
            nobody_asks: false,
            renewal_is_due: false,
            newest: 0,
            valid: BTreeSet::new(),
            in_use: None,
            last_generation: 0,
            origins: Default::default(),
            clients: BTreeMap::new(),
        }
    }

    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        if self.told {
            eprintln!("{:>12.3?} {what}", self.start.elapsed());
        }
    }

    pub(super) fn wrong(&mut self, what: impl fmt::Display) {
        self.note(format_args!("WRONG: {what}"));
        self.wrong.get_or_insert_with(|| what.to_string());
    }

    pub(super) fn revoke(&mut self) {
        self.note(format_args!("all tokens revoked"));
        self.valid.clear();
    }

    pub(super) fn refuse_everything(&mut self, origin: usize) {
        let refuses = &mut self.origins[origin].refuses_everything;
        *refuses = !*refuses;
        let refuses = *refuses;
        self.note(format_args!("origin {origin} refuses everything: {refuses}"));
    }

    pub(super) fn change_mood(&mut self) {
        self.mood = [Mood::Well, Mood::Whimsical, Mood::Down][self.rng.usize(..3)];
        self.note(format_args!("the issuer is {:?}", self.mood));
    }

    pub(super) fn is_well(&mut self) {
        self.note(format_args!("all is well"));
        self.mood = Mood::Perfect;
        self.origins.iter_mut().for_each(|origin| origin.refuses_everything = false);
    }

    /// The machine slept: the token is so much older, and nothing else has happened.
    pub(super) fn slept(&mut self, time: Duration) {
        self.note(format_args!("slept for {time:?}"));
        if let Some(in_use) = &mut self.in_use {
            in_use.token.at -= time;
        }
    }

    pub(super) fn delay<const N: usize>(&mut self, most: [Duration; N]) -> Duration {
        let delay = most[self.rng.usize(..N)].mul_f64(self.rng.f64());
        if matches!(self.mood, Mood::Perfect) { Duration::ZERO } else { delay }
    }

    pub(super) fn until_breaker_opens(&self, origin: usize) -> Duration {
        let opens_at = self.origins[origin].breaker.opens_at();
        opens_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    /// From now to a moment at which something turns that is decided by time alone, or to just before or after it.
    pub(super) fn until_turning_point(&mut self) -> Option<Duration> {
        let breakers = self.origins.iter().flat_map(|origin| origin.breaker.turning_points());
        let token = self.in_use.iter().flat_map(InUse::turning_points);
        let points = breakers.chain(token).chain(self.fetches.turning_points());
        let ahead = points.filter_map(|at| at.checked_duration_since(Instant::now()));
        let ahead: Vec<_> = ahead.filter(|left| !left.is_zero()).collect();
        let left = *self.rng.choice(&ahead)?;
        let tick = Duration::from_millis(1);
        Some([left.saturating_sub(tick), left, left + tick][self.rng.usize(..3)])
    }
}
