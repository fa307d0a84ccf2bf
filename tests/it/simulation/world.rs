//! What is known of the world, and what the clients see of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use http::Response;
use tokio::time::Instant;
use tower::BoxError;
use tower_oauth::{CachedToken, Generation, TokenError, TokenErrorKind};

use super::{
    MINUTE,
    api::{Origin, Sent},
    issuer::{Expected, Issued},
};
use crate::support::Body;

pub(super) type Shared = Arc<Mutex<World>>;

/// Issuer, API and all that is known of what they saw.
#[allow(clippy::struct_excessive_bools)] // they are independent facts
#[derive(Default)]
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) told: bool,
    pub(super) start: Option<Instant>,
    pub(super) wrong: Option<String>,

    pub(super) mood: Mood,
    pub(super) fetching: usize,
    pub(super) nobody_asks: bool,
    pub(super) renewal_is_due: bool,
    pub(super) backoff: Expected,
    pub(super) issued: Vec<Issued>,

    pub(super) valid: BTreeSet<usize>,
    pub(super) origins: [Origin; 2],
    pub(super) requests: BTreeMap<u64, Sent>,
    pub(super) answered_with_error: Option<u64>,

    /// Tokens that were said to be refused, and the newest that has left the cache.
    pub(super) invalidated: BTreeSet<Generation>,
    pub(super) gone: Option<Generation>,
    pub(super) refused_last: usize,
    /// Since the cache was last looked at.
    pub(super) replaced: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Mood {
    /// And so is the API.
    Perfect,
    #[default]
    Well,
    Whimsical,
    Down,
}

impl World {
    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        if self.told {
            eprintln!("{:>12.3?} {what}", self.start.unwrap().elapsed());
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

    pub(super) fn delay<const N: usize>(&mut self, most: [Duration; N]) -> Duration {
        let delay = most[self.rng.usize(..N)].mul_f64(self.rng.f64());
        if matches!(self.mood, Mood::Perfect) { Duration::ZERO } else { delay }
    }

    pub(super) fn is_current(&mut self, token: &CachedToken, stale: bool) {
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

    pub(super) fn leaves(&mut self, token: &CachedToken, for_none: bool) {
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

    pub(super) fn is_over(&mut self, id: u64) {
        let Some(sent) = self.requests.get_mut(&id) else { return };
        sent.over = true;
        // Nothing was learnt of a new token: not retried, or cancelled. The breaker does not count it.
        if sent.refusals == 1 {
            self.origins[sent.origin].forgiven += 1;
        }
    }

    pub(super) fn gives(&mut self, id: u64, token: &CachedToken) {
        self.note(format_args!("{id} has generation {}", token.generation()));
        if Some(token.generation()) <= self.gone || self.is_expired(token.expose_secret().parse().unwrap()) {
            self.wrong("the cache gave a token that is out of use");
        }
    }

    pub(super) fn gives_error(&mut self, id: u64, error: &TokenError) {
        self.note(format_args!("{id} failed: {error}"));
        self.answered_with_error = Some(id);
        let next = error.next_attempt_in().map(|left| Instant::now() + left);
        if error.kind() == TokenErrorKind::Runtime || next > self.backoff.latest {
            self.wrong(format_args!("an error that the issuer did not cause: {error}"));
        }
    }

    pub(super) fn responds(
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
