//! One refresh for everybody.
//!
//! A refresh is a *flight*. Whoever finds no token either joins the flight in the air or opens one and gets its
//! [`Ticket`]; the ticket travels with the task that fetches. A ticket always ends its flight: with what was fetched, or,
//! dropped before that by a panic or a runtime that shuts down, with an error.
//!
//! Invariants, all under the one lock of [`SingleFlight::ledger`]:
//!
//! 1. There is a flight in the ledger exactly as long as its ticket lives.
//! 2. The slot changes only here, and its generation never goes back.
//! 3. A flight is closed in the same step in which its token is published: nobody who looks can see neither.
//! 4. No code of a user, no await and no wake-up happens under the lock.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, time::Instant};

use super::{
    backoff::Backoff,
    freshness::Schedule,
    slot::{CachedToken, Generation, Slot},
};
use crate::{
    error::{TokenError, TokenErrorKind},
    token::AccessToken,
};

type Outcome = Result<CachedToken, TokenError>;

#[derive(Default)]
pub(super) struct SingleFlight {
    slot: Slot,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    /// The last few tokens, also when they were refused or have expired: a source may give one of them again.
    recent: VecDeque<CachedToken>,
    flight: Option<watch::Receiver<Option<Outcome>>>,
    backoff: Backoff,
}

impl Ledger {
    const REMEMBERED: usize = 8;
}

/// What somebody who needs a token does next.
pub(super) enum Entry {
    Cached(CachedToken),
    /// The last attempt failed, and the next one is not to be made yet.
    Blocked(TokenError),
    Joined(Flight),
    Opened(Ticket, Flight),
}

impl SingleFlight {
    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// For somebody who has no token.
    pub(super) fn enter(self: &Arc<Self>) -> Entry {
        let mut ledger = self.lock();
        if let Some(token) = self.slot.load() {
            return Entry::Cached(token);
        }
        if let Some(flight) = &ledger.flight {
            return Entry::Joined(Flight(flight.clone()));
        }
        if let Some(error) = ledger.backoff.blocked(Instant::now()) {
            return Entry::Blocked(error);
        }
        let ticket = self.open(&mut ledger);
        let flight = Flight(ticket.subscribe());
        Entry::Opened(ticket, flight)
    }

    /// For somebody whose token is stale: a ticket, where the renewal is now and nobody else's.
    pub(super) fn renew(self: &Arc<Self>) -> Option<Ticket> {
        let mut ledger = self.lock();
        let due = self.slot.load().is_some_and(|token| token.is_stale());
        let free = ledger.flight.is_none() && ledger.backoff.blocked(Instant::now()).is_none();
        (due && free).then(|| self.open(&mut ledger))
    }

    fn open(self: &Arc<Self>, ledger: &mut Ledger) -> Ticket {
        let (outcome, flight) = watch::channel(None);
        ledger.flight = Some(flight);
        Ticket { of: Arc::clone(self), outcome: Some(outcome) }
    }

    /// Takes the refused token out of use, unless a newer one is there already.
    pub(super) fn invalidate(&self, refused: Generation) -> bool {
        let _ledger = self.lock();
        let current = self.slot.generation() == Some(refused);
        if current {
            self.slot.clear();
        }
        current
    }

    /// Whether two generations are the very same token. `false` where one of them was too long ago.
    pub(super) fn are_same(&self, one: Generation, other: Generation) -> bool {
        let ledger = self.lock();
        let token = |generation| ledger.recent.iter().find(|token| token.generation() == generation);
        match (token(one), token(other)) {
            (Some(one), Some(other)) => one.header_value() == other.header_value(),
            _ => false,
        }
    }

    fn publish(&self, ledger: &mut Ledger, token: AccessToken) -> Outcome {
        // A renewal that brings the same token again is no new one: a refusal of it must not be taken for a late one.
        let current = self.slot.load().filter(|current| current.header_value() == token.header_value());
        let generation = match (&current, ledger.recent.back()) {
            (Some(current), _) => current.generation(),
            (None, Some(last)) => last.generation().next(),
            (None, None) => Generation::FIRST,
        };
        let schedule = Schedule::of(&token, fastrand::f64());
        let token = CachedToken::new(token, generation, schedule);
        if token.is_expired() {
            return Err(expired_on_arrival());
        }
        self.slot.publish(&token);
        if current.is_some() {
            ledger.recent.pop_back();
        }
        ledger.recent.push_back(token.clone());
        if ledger.recent.len() > Ledger::REMEMBERED {
            ledger.recent.pop_front();
        }
        Ok(token)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to end a flight.
pub(super) struct Ticket {
    of: Arc<SingleFlight>,
    outcome: Option<watch::Sender<Option<Outcome>>>,
}

impl Ticket {
    fn subscribe(&self) -> watch::Receiver<Option<Outcome>> {
        self.outcome.as_ref().map_or_else(|| watch::channel(None).1, watch::Sender::subscribe)
    }

    pub(super) fn finish(mut self, fetched: Result<AccessToken, TokenError>) {
        self.close(fetched);
    }

    fn close(&mut self, fetched: Result<AccessToken, TokenError>) {
        let Some(sender) = self.outcome.take() else { return };
        let mut ledger = self.of.lock();
        let outcome = match fetched.and_then(|token| self.of.publish(&mut ledger, token)) {
            Ok(token) => {
                ledger.backoff.succeeded();
                Ok(token)
            }
            Err(error) => Err(ledger.backoff.failed(error, Instant::now(), fastrand::f64())),
        };
        let flight = ledger.flight.take();
        drop(ledger);
        drop(flight);
        sender.send_replace(Some(outcome));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.outcome.is_some() {
            let error = if std::thread::panicking() { panicked() } else { shut_down() };
            self.close(Err(error));
        }
    }
}

/// A flight as those see it who wait for it.
pub(super) struct Flight(watch::Receiver<Option<Outcome>>);

impl Flight {
    /// Cancel safe: the flight goes on without those who stop waiting.
    pub(super) async fn landed(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err(shut_down()),
        }
    }
}

fn expired_on_arrival() -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, "the new access token has already expired")
}

fn panicked() -> TokenError {
    TokenError::new(TokenErrorKind::Panicked, "the token source panicked")
}

fn shut_down() -> TokenError {
    TokenError::new(TokenErrorKind::Runtime, "the tokio runtime that fetched the token was shut down")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(single_flight: &Arc<SingleFlight>) -> Ticket {
        match single_flight.enter() {
            Entry::Opened(ticket, _) => ticket,
            Entry::Joined(_) => panic!("there is a flight already"),
            Entry::Cached(_) => panic!("there is a token already"),
            Entry::Blocked(error) => panic!("{error}"),
        }
    }

    fn token() -> Result<AccessToken, TokenError> {
        AccessToken::bearer("t")
    }

    #[test]
    fn whoever_comes_after_the_landing_finds_the_token_and_opens_no_flight() {
        let single_flight = Arc::new(SingleFlight::default());
        open(&single_flight).finish(token());
        assert!(matches!(single_flight.enter(), Entry::Cached(_)));
    }

    #[test]
    fn whoever_comes_during_the_flight_joins_it() {
        let single_flight = Arc::new(SingleFlight::default());
        let ticket = open(&single_flight);
        assert!(matches!(single_flight.enter(), Entry::Joined(_)));
        ticket.finish(token());
    }

    #[test]
    fn a_flight_that_lost_its_ticket_makes_way_for_the_next() {
        let single_flight = Arc::new(SingleFlight::default());
        drop(open(&single_flight));
        open(&single_flight).finish(token());
    }

    #[test]
    fn a_flight_that_failed_keeps_the_next_one_away_for_a_while() {
        let single_flight = Arc::new(SingleFlight::default());
        open(&single_flight).finish(Err(panicked()));
        assert!(matches!(single_flight.enter(), Entry::Blocked(error) if error.next_attempt_in().is_some()));
    }

    #[test]
    fn a_refusal_during_the_flight_does_not_touch_its_token() {
        let single_flight = Arc::new(SingleFlight::default());
        open(&single_flight).finish(token());
        let refused = single_flight.slot().generation().unwrap();
        assert!(single_flight.invalidate(refused));
        let ticket = open(&single_flight);
        assert!(!single_flight.invalidate(refused));
        ticket.finish(token());
        assert!(!single_flight.invalidate(refused));
        assert_eq!(single_flight.slot().generation(), Some(refused.next()));
    }
}
