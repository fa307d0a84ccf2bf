//! What each client is to do and to get.

use http::Response;
use tokio::time::Instant;
use tower::BoxError;
use tower_oauth::{CachedToken, TokenError, TokenErrorKind};

use super::{
    api::{Origin, Said},
    token::InUse,
    world::World,
};
use crate::support::Body;

#[derive(Default)]
pub(super) struct Client {
    origin: usize,
    is_replayable: bool,
    /// In a call of the API, or at its door.
    pub(super) is_with_api: bool,
    /// When last looked at, for a token.
    waits: bool,
    shown: Vec<InUse>,
    said: Option<Said>,
    retry: Option<Retry>,
}

struct Retry {
    /// Whether the refusal took the token out of use.
    is_cause: bool,
}

impl Client {
    /// How many tokens of the past the cache knows, to see that one is given again.
    const REMEMBERED: u64 = 8;

    /// Whether the caller is to have what was said last.
    fn is_done(&self) -> bool {
        self.said.is_some() && (self.retry.is_none() || self.shown.len() > 1)
    }

    /// Whether this is the token that was refused, as far as anybody remembers.
    fn was_refused(&self, again: InUse) -> bool {
        self.shown.first().is_some_and(|refused| {
            refused.token.number == again.token.number
                && again.generation < refused.generation + Self::REMEMBERED
        })
    }
}

impl World {
    pub(super) fn starts(&mut self, id: u64, origin: usize, is_replayable: bool) {
        self.note(format_args!("{id} to origin {origin}, replayable: {is_replayable}"));
        self.clients.insert(id, Client { origin, is_replayable, ..Client::default() });
    }

    pub(super) fn client(&mut self, id: u64) -> &mut Client {
        self.clients.entry(id).or_default()
    }

    pub(super) fn origin_of(&mut self, id: u64) -> &mut Origin {
        let origin = self.client(id).origin;
        &mut self.origins[origin]
    }

    pub(super) fn is_sent(&mut self, id: u64, shown: InUse) {
        self.uses(shown);
        let client = self.client(id);
        (client.is_with_api, client.waits) = (true, false);
        let was_said = client.said.take();
        let is_needless = was_said.is_some() && client.retry.is_none() || client.shown.len() > 1;
        let was_refused = client.was_refused(shown);
        client.shown.push(shown);
        if is_needless {
            self.wrong(format_args!("{id} was sent once too often"));
        }
        if was_refused {
            self.wrong(format_args!("{id} was sent again with the token that was refused"));
        }
    }

    /// Whoever uses a stale token has it renewed.
    fn uses(&mut self, in_use: InUse) {
        self.renewal_is_due |= in_use.was_stale && self.fetches.may_begin();
    }

    /// The cache is looked at after the poll in which this is answered.
    pub(super) fn answers(&mut self, id: u64, said: Said) {
        self.note(format_args!("{id} answered: {said:?}"));
        let current = self.in_use().map(|in_use| in_use.generation);
        let client = self.client(id);
        client.is_with_api = false;
        client.said = Some(said);
        let Some(shown) = client.shown.last().map(|shown| shown.generation) else { return };
        if let Some(Retry { is_cause }) = client.retry {
            if is_cause && said.is_success() {
                self.origin_of(id).breaker.helped();
            }
            return;
        }
        if !said.is_refusal() {
            return;
        }
        let is_cause = current == Some(shown);
        if is_cause && !self.origin_of(id).breaker.permits() {
            return;
        }
        self.goes_out_of_use(shown);
        let client = self.client(id);
        client.retry = client.is_replayable.then_some(Retry { is_cause });
    }

    pub(super) fn is_pending(&mut self, id: u64) {
        let there_is_one = self.in_use().is_some();
        let client = self.client(id);
        client.waits = !client.is_with_api;
        if client.is_done() && client.waits {
            self.wrong(format_args!("{id} waits with its answer there"));
        } else if client.waits && there_is_one {
            self.wrong(format_args!("{id} waits for a token that is there"));
        }
    }

    /// Nobody has woken it since it was polled.
    pub(super) fn is_asleep(&mut self, id: u64) {
        if !self.client(id).is_with_api && !self.fetches.are_under_way() {
            self.wrong(format_args!("{id} waits for a token that nobody fetches"));
        }
    }

    pub(super) fn is_served(&mut self, id: u64) -> bool {
        self.client(id).said == Some(Said::Ok)
    }

    pub(super) fn gives(&mut self, id: u64, token: &CachedToken) {
        self.note(format_args!("{id} has generation {}", token.generation()));
        match self.in_use() {
            Some(in_use) if in_use.generation == token.generation().get() => self.uses(in_use),
            _ => self.wrong("the cache gave a token that is not in use"),
        }
    }

    pub(super) fn responds(&mut self, id: u64, response: Result<Response<Body>, BoxError>) {
        let said = self.client(id).said;
        let is_done = self.client(id).is_done();
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                match error.downcast_ref() {
                    Some(error) if !is_done => self.gives_error(id, error),
                    None if said == Some(Said::Broken) => self.note(format_args!("{id} broke")),
                    _ => self.wrong(format_args!("{id} failed with what nobody said: {error}")),
                }
                return;
            }
        };
        self.note(format_args!("{id} done: {}", response.status()));
        if response.extensions().get() != said.as_ref() {
            self.wrong(format_args!("{id} has an answer that was not the last"));
        }
        match (response.extensions().get(), self.in_use()) {
            (None, _) if is_done => {}
            (Some(error), _) if !is_done => self.gives_error(id, error),
            (None, Some(in_use)) if self.client(id).was_refused(in_use) => {}
            _ => self.wrong(format_args!("{id} was refused without need")),
        }
    }

    pub(super) fn gives_error(&mut self, id: u64, error: &TokenError) {
        self.note(format_args!("{id} failed: {error}"));
        let in_use = self.in_use();
        let client = self.client(id);
        let is_explained = match error.kind() {
            TokenErrorKind::Runtime => false,
            // The token that was refused came again, or the new one was dead before it could be used.
            TokenErrorKind::InvalidResponse => {
                client.waits || in_use.is_some_and(|in_use| client.was_refused(in_use))
            }
            _ => true,
        };
        let asks_now = !client.waits && error.kind() != TokenErrorKind::InvalidResponse;
        let next_attempt = error.next_attempt_in().map(|left| Instant::now() + left);
        if !is_explained || next_attempt.is_some_and(|at| !self.fetches.may_wait_until(at)) {
            self.wrong(format_args!("an error that the issuer did not cause: {error}"));
        }
        if asks_now && (in_use.is_some() || self.fetches.are_under_way() || self.fetches.may_begin()) {
            self.wrong(format_args!("{id} failed without an attempt: {error}"));
        }
    }
}
