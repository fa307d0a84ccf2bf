//! The expected state and result of each request.

use http::Response;
use tokio::time::Instant;
use tower::BoxError;
use tower_oauth::{CachedToken, TokenError, TokenErrorKind};

use super::{
    breaker::Decision,
    current_token::CurrentToken,
    model::Model,
    resource_server::{OriginState, ServerAnswer},
};
use crate::support::Body;

#[derive(Default)]
pub(super) struct ClientState {
    origin: usize,
    is_replayable: bool,
    /// True while a call of the resource server, or its readiness, is awaited.
    pub(super) is_with_server: bool,
    /// True if the last poll left the client waiting for a token.
    waits_for_token: bool,
    sent_with: Vec<CurrentToken>,
    last_answer: Option<ServerAnswer>,
    retry: Option<Retry>,
}

#[derive(Clone, Copy)]
struct Retry {
    /// True if the rejection of the last attempt caused a refresh.
    caused_refresh: bool,
    rejected_at: Instant,
    /// The number of attempts before this retry.
    attempts_before: usize,
}

impl ClientState {
    /// The number of past tokens that the cache remembers, to recognize a token that is issued
    /// again.
    const REMEMBERED: u64 = 8;

    /// Returns true if the last answer is final, so that the caller must get it.
    fn is_done(&self) -> bool {
        let attempts_before = self.retry.map_or(0, |retry| retry.attempts_before);
        self.last_answer.is_some()
            && (self.retry.is_none() || self.sent_with.len() > attempts_before)
    }

    /// Returns true if `current` is the token that was rejected and the cache still remembers that.
    fn was_rejected_with(&self, current: CurrentToken) -> bool {
        self.sent_with.last().is_some_and(|rejected| {
            rejected.token.number == current.token.number
                && current.generation < rejected.generation + Self::REMEMBERED
        })
    }
}

impl Model {
    pub(super) fn on_start(&mut self, id: u64, origin: usize, is_replayable: bool) {
        self.log(format_args!("{id} to origin {origin}, replayable: {is_replayable}"));
        self.clients.insert(id, ClientState { origin, is_replayable, ..ClientState::default() });
    }

    pub(super) fn client(&mut self, id: u64) -> &mut ClientState {
        self.clients.entry(id).or_default()
    }

    pub(super) fn origin_of(&mut self, id: u64) -> &mut OriginState {
        let origin = self.client(id).origin;
        &mut self.origins[origin]
    }

    pub(super) fn on_sent(&mut self, id: u64, token: CurrentToken) {
        self.on_token_use(token);
        let client = self.client(id);
        (client.is_with_server, client.waits_for_token) = (true, false);
        let was_answered = client.last_answer.take().is_some();
        let is_needless = was_answered && client.retry.is_none() || client.sent_with.len() > 2;
        let was_rejected = client.was_rejected_with(token);
        client.sent_with.push(token);
        if is_needless {
            self.fail(format_args!("{id} was sent more often than allowed"));
        }
        if was_rejected {
            self.fail(format_args!("{id} was retried with the rejected token"));
        }
    }

    /// Records the use of a token. The use of a stale token must start a refresh.
    fn on_token_use(&mut self, current: CurrentToken) {
        self.refresh_is_due |= current.was_stale && self.fetches.is_surely_allowed();
    }

    /// Records an answer of the resource server. The cache is checked after the poll in which the
    /// answer arrives.
    pub(super) fn on_answer(&mut self, id: u64, answer: ServerAnswer) {
        self.log(format_args!("{id} answered: {answer:?}"));
        let current = self.usable_token().map(|current| current.generation);
        let client = self.client(id);
        client.is_with_server = false;
        client.last_answer = Some(answer);
        let Some(&sent_with) = client.sent_with.last() else { return };
        let (retry, attempts_before) = (client.retry, client.sent_with.len());
        let generation = sent_with.generation;
        if answer.is_rejection() {
            let counts =
                retry.is_some_and(|retry| sent_with.token.requested_at >= retry.rejected_at);
            if counts {
                self.origin_of(id).breaker.on_retry_rejected(generation);
            } else {
                self.on_rejection(id, sent_with, current, attempts_before);
            }
        } else if answer.is_success() {
            let breaker = &mut self.origin_of(id).breaker;
            let has_helped = match retry {
                Some(Retry { caused_refresh: true, .. }) => {
                    breaker.on_help();
                    true
                }
                _ => breaker.on_success(generation),
            };
            if has_helped {
                self.fetches.on_help();
            }
        }
    }

    fn on_rejection(
        &mut self,
        id: u64,
        sent_with: CurrentToken,
        current: Option<u64>,
        attempts_before: usize,
    ) {
        let is_replayable = self.client(id).is_replayable && attempts_before <= 2;
        let mut caused_refresh = false;
        if current == Some(sent_with.generation) {
            if self.fetches.keeps_rejected_token || self.fetches.are_rejections_too_frequent() {
                self.client(id).retry = None;
                return;
            }
            match self.origin_of(id).breaker.decide(sent_with, is_replayable) {
                Decision::Refresh => caused_refresh = true,
                Decision::AlreadyPermitted => {}
                Decision::Suppress => {
                    self.client(id).retry = None;
                    return;
                }
            }
            self.fetches.count_rejection();
            self.invalidate(sent_with.generation);
        }
        let rejected_at = Instant::now();
        self.client(id).retry =
            is_replayable.then_some(Retry { caused_refresh, rejected_at, attempts_before });
    }

    pub(super) fn check_pending(&mut self, id: u64) {
        let has_token = self.usable_token().is_some();
        let client = self.client(id);
        client.waits_for_token = !client.is_with_server;
        if client.is_done() && client.waits_for_token {
            self.fail(format_args!("{id} is pending although its answer has arrived"));
        } else if client.waits_for_token && has_token {
            self.fail(format_args!("{id} waits for a token although there is one"));
        }
    }

    /// Checks a client that has not been woken since its last poll.
    pub(super) fn check_not_woken(&mut self, id: u64) {
        let is_expected = self.fetches.is_in_progress() || self.fetches.is_pausing();
        if !self.client(id).is_with_server && !is_expected {
            self.fail(format_args!("{id} waits for a token, and no fetch is in progress"));
        }
    }

    pub(super) fn was_served(&mut self, id: u64) -> bool {
        self.client(id).last_answer == Some(ServerAnswer::Ok)
    }

    pub(super) fn on_token(&mut self, id: u64, token: &CachedToken) {
        self.log(format_args!("{id} got generation {}", token.generation()));
        match self.usable_token() {
            Some(current) if current.generation == token.generation().get() => {
                self.on_token_use(current);
            }
            _ => self.fail("the cache returned a token that is not current"),
        }
    }

    pub(super) fn on_response(&mut self, id: u64, response: Result<Response<Body>, BoxError>) {
        let last_answer = self.client(id).last_answer;
        let is_done = self.client(id).is_done();
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                match error.downcast_ref() {
                    Some(error) if !is_done => self.on_error(id, error),
                    None if last_answer == Some(ServerAnswer::ConnectionBroken) => {
                        self.log(format_args!("{id} done: connection broken"));
                    }
                    _ => self.fail(format_args!(
                        "{id} failed with an error that no server caused: {error}"
                    )),
                }
                return;
            }
        };
        self.log(format_args!("{id} done: {}", response.status()));
        if response.extensions().get() != last_answer.as_ref() {
            self.fail(format_args!("{id} got a response that is not the last answer"));
        }
        match (response.extensions().get(), self.usable_token()) {
            (None, _) if is_done => {}
            (Some(error), _) if !is_done => self.on_error(id, error),
            (None, Some(current)) if self.client(id).was_rejected_with(current) => {}
            _ => self.fail(format_args!("{id} got a rejection that a retry could have avoided")),
        }
    }

    pub(super) fn on_error(&mut self, id: u64, error: &TokenError) {
        self.log(format_args!("{id} failed: {error}"));
        let current = self.usable_token();
        let client = self.client(id);
        let is_explained = match error.kind() {
            TokenErrorKind::Runtime => false,
            // The source issued the rejected token again, or the new token expired before its use.
            TokenErrorKind::InvalidResponse => {
                client.waits_for_token
                    || current.is_some_and(|current| client.was_rejected_with(current))
            }
            _ => true,
        };
        let failed_at_once =
            !client.waits_for_token && error.kind() != TokenErrorKind::InvalidResponse;
        let next_attempt = error.next_attempt_in().map(|left| Instant::now() + left);
        if !is_explained || next_attempt.is_some_and(|at| !self.fetches.allows_next_attempt_at(at))
        {
            self.fail(format_args!("an error that no server caused: {error}"));
        }
        if failed_at_once
            && (current.is_some()
                || self.fetches.is_in_progress()
                || self.fetches.is_surely_allowed())
        {
            self.fail(format_args!("{id} failed without an attempt: {error}"));
        }
    }
}
