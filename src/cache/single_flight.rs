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

use std::{pin::pin, sync::Arc};

use futures_util::future::{Either, select};
use tokio::{
    runtime,
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{
    freshness::Freshness,
    ledger::{self, Ledger, Outcome, closed},
    limit::Limit,
    slot::{CachedToken, Credentials, Generation, Glance, Slot},
    status::{Activity, Survey},
    suspend::{Moment, WallClock},
};
use crate::{
    error::{TokenError, TokenErrorKind},
    sync::{Mutex, MutexGuard, lock, try_lock, watch},
    telemetry::{Attached, Happening, RefreshSpan, Telemetry},
    token::AccessToken,
};

pub(super) struct SingleFlight {
    pub(super) slot: Slot,
    ledger: Mutex<Ledger>,
    /// Rung after each change of the two.
    change: Notify,
    wall_clock: WallClock,
    telemetry: Telemetry,
}

/// What somebody who needs a token does next.
pub(super) enum Entry {
    Cached(CachedToken),
    /// No attempt is to be made now.
    Blocked(TokenError),
    Joined(Flight),
    Opened(Ticket, Flight),
}

/// Why a flight was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    First,
    Stale,
    Expired,
    Refused,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
}

impl SingleFlight {
    pub(super) fn new(limit: Option<Limit>, wall_clock: WallClock, telemetry: Telemetry) -> Self {
        let ledger = Mutex::new(Ledger::new(limit));
        Self { slot: Slot::new(), ledger, change: Notify::new(), wall_clock, telemetry }
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Lets `read` see the token that may be sent now, if this thread has a copy of it that is under lease.
    #[inline]
    pub(super) fn read_leased<T>(&self, read: &mut impl FnMut(&Credentials) -> T) -> Option<T> {
        self.slot.leased(read)
    }

    /// Lets `read` see the token that may be sent now. Takes no lock.
    pub(super) fn read<T>(&self, read: &mut impl FnMut(&Credentials) -> T) -> Option<(T, Freshness)> {
        loop {
            match self.slot.glance(read) {
                Glance::Token(seen, freshness) => return Some((seen, freshness)),
                Glance::Nothing => return None,
                Glance::ClocksAreDue => self.compare_clocks(),
            }
        }
    }

    /// The token that may be sent now, and how fresh it was a moment ago. Takes no lock.
    pub(super) fn current(&self) -> Option<(CachedToken, Freshness)> {
        let is_leased = self.slot.is_leased();
        let freshness = if is_leased { Freshness::Fresh } else { self.read(&mut |_| ())?.1 };
        Some((self.slot.get()?, freshness))
    }

    /// Whether this is the token that is there, whatever its age.
    pub(super) fn holds(&self, token: &CachedToken) -> bool {
        self.slot.holds(token)
    }

    #[cold]
    pub(super) fn compare_clocks(&self) {
        let Some(token) = self.slot.get() else { return };
        self.slot.lease().count_anew();
        let Some((slept, older)) = token.after_sleep(&self.wall_clock) else {
            return self.tell_remaining(&token);
        };
        let ledger = self.lock();
        // Unless it was refused or replaced meanwhile, or another has found the same.
        let is_news = self.slot.holds(&token);
        if is_news {
            self.slot.publish(&older);
        }
        drop(ledger);
        if is_news {
            self.change.notify_waiters();
            self.telemetry.tell(Happening::Slept(slept));
            self.tell_remaining(&older);
        }
    }

    fn tell_remaining(&self, token: &CachedToken) {
        if let Some(left) = token.remaining() {
            self.telemetry.tell(Happening::Remaining(left));
        }
    }

    /// For somebody who has no token.
    pub(super) fn enter(self: &Arc<Self>) -> Entry {
        let mut ledger = self.lock();
        if let Some(token) = self.slot.load() {
            return Entry::Cached(token);
        }
        if let Some(error) = ledger.blocked(Instant::now()) {
            return Entry::Blocked(error);
        }
        if let Some(flight) = ledger.flight() {
            return Entry::Joined(Flight(flight.clone()));
        }
        let reason = match (self.slot.generation(), ledger.last_generation()) {
            (Some(_), _) => Reason::Expired,
            (None, None) => Reason::First,
            (None, Some(_)) => Reason::Refused,
        };
        let ticket = self.open(&mut ledger, reason);
        let flight = Flight(ticket.subscribe());
        Entry::Opened(ticket, flight)
    }

    /// For somebody whose token is stale: a ticket, where the renewal is now and nobody else's. With a token in hand nobody
    /// waits for the lock: whoever has it, or comes next, sees to the renewal.
    pub(super) fn renew(self: &Arc<Self>) -> Option<Ticket> {
        let mut ledger = try_lock(&self.ledger)?;
        let due = self.slot.load().is_some_and(|token| token.is_stale());
        let free = ledger.activity(Instant::now()) == Activity::Idle;
        (due && free).then(|| self.open(&mut ledger, Reason::Stale))
    }

    fn open(self: &Arc<Self>, ledger: &mut Ledger, reason: Reason) -> Ticket {
        let (outcome, flight) = watch::channel(None);
        ledger.opened(flight);
        let replaces = ledger.last_generation();
        Ticket { of: Arc::clone(self), outcome: Some(outcome), reason, replaces, departure: None }
    }

    /// Takes the refused token out of use, unless a newer one is there already.
    pub(super) fn invalidate(&self, refused: Generation) -> bool {
        let ledger = self.lock();
        let current = self.slot.generation() == Some(refused);
        if current {
            self.slot.clear();
        }
        drop(ledger);
        if current {
            self.change.notify_waiters();
        }
        current
    }

    /// Whether two generations are the very same token. `false` where one of them was too long ago.
    pub(super) fn are_same(&self, one: Generation, other: Generation) -> bool {
        let ledger = self.lock();
        match (ledger.token(one), ledger.token(other)) {
            (Some(one), Some(other)) => one.header_value() == other.header_value(),
            _ => false,
        }
    }

    /// Ends everything, for good: there is no token any more, and the flight in the air lands without one.
    pub(super) fn close(&self) {
        let mut ledger = self.lock();
        let is_news = ledger.close();
        self.slot.clear();
        unlock(ledger);
        if is_news {
            self.change.notify_waiters();
            self.telemetry.tell(Happening::Closed);
        }
    }

    pub(super) async fn closed(&self) {
        loop {
            let mut changed = pin!(self.changed());
            changed.as_mut().enable();
            if self.lock().is_closed() {
                return;
            }
            changed.await;
        }
    }

    /// The next change of what [`survey`](Self::survey) sees, but for those by the mere passing of time.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.change.notified()
    }

    pub(super) fn survey(&self) -> Survey {
        // For the sake of the clocks.
        self.read(&mut |_| ());
        let mut ledger = self.lock();
        let now = Instant::now();
        let token = self.slot.get().filter(|token| token.freshness(now) != Freshness::Expired);
        let activity = ledger.activity(now);
        Survey { now, token, activity, last_error: ledger.last_error(), landed: ledger.flights() }
    }

    fn publish(&self, ledger: &mut Ledger, arrival: Arrival) -> Outcome {
        let Arrival { token, departed, attached } = arrival;
        // A renewal that brings the same token again is no new one: a refusal of it must not be taken for a late one.
        let current = self.slot.load().filter(|current| current.header_value() == token.header_value());
        let generation = current.map_or_else(|| ledger.next_generation(), |current| current.generation());
        let token = CachedToken::new(token, generation, fastrand::f64(), departed, attached);
        if token.is_expired() {
            return Err(expired_on_arrival());
        }
        self.slot.publish(&token);
        ledger.remember(token.clone());
        Ok(token)
    }

    /// Looks at the clock in the place of a keeper that may be late, or not run at all.
    #[cold]
    pub(super) fn doubt_lease(&self) {
        if self.slot.has_outlived_lease(Instant::now()) {
            let _ledger = self.lock();
            if self.slot.has_outlived_lease(Instant::now()) {
                self.slot.lease().end();
            }
        }
    }

    /// Asked by whoever has read a token by the clock: whether it is time for a keeper.
    pub(super) fn wants_keeper(&self) -> bool {
        self.slot.wants_lease()
    }

    /// Whether this runtime has a timer, as far as is known.
    pub(super) fn has_timer(&self, runtime: runtime::Id) -> bool {
        try_lock(&self.ledger).is_some_and(|ledger| ledger.has_timer(runtime))
    }

    /// The post of the keeper, if it is free.
    pub(super) fn take_post(self: &Arc<Self>) -> Option<Post> {
        let taken = try_lock(&self.ledger).is_some_and(|mut ledger| ledger.take_post());
        if !taken {
            self.slot.lease().count_anew();
        }
        taken.then(|| Post(Arc::clone(self)))
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

/// What was crossed out is dropped when the lock is free again.
fn unlock(mut ledger: MutexGuard<'_, Ledger>) {
    let discarded = ledger.discarded();
    drop(ledger);
    drop(discarded);
}

/// The duty to watch the clocks for those to whom the token is leased.
pub(super) struct Post(Arc<SingleFlight>);

impl Post {
    /// Leases the token, and says until when that is to be looked at again. `None`: there is none to be leased.
    pub(super) fn extend_lease(&self) -> Option<Instant> {
        self.0.compare_clocks();
        let _ledger = self.0.lock();
        self.0.slot.extend_lease(Instant::now())
    }

    /// Whether the lease was used since this was asked last.
    pub(super) fn was_used(&self) -> bool {
        self.0.slot.lease().was_used()
    }

    pub(super) fn changed(&self) -> Notified<'_> {
        self.0.changed()
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let mut ledger = self.0.lock();
        ledger.leave_post();
        self.0.slot.lease().end();
    }
}

/// The duty to end a flight.
pub(super) struct Ticket {
    of: Arc<SingleFlight>,
    outcome: Option<watch::Sender<Option<Outcome>>>,
    reason: Reason,
    replaces: Option<Generation>,
    departure: Option<Departure>,
}

/// The beginning of the fetch.
struct Departure {
    at: Moment,
    span: RefreshSpan,
}

/// What has been fetched, with all that has to be asked of others' code before the lock is taken.
struct Arrival {
    token: AccessToken,
    departed: Moment,
    attached: Attached,
}

impl Ticket {
    fn subscribe(&self) -> watch::Receiver<Option<Outcome>> {
        self.outcome.as_ref().map_or_else(|| watch::channel(None).1, watch::Sender::subscribe)
    }

    /// To be called by whoever starts the fetch, when that is certain.
    pub(super) fn depart(&mut self) {
        let of = &*self.of;
        let span = of.telemetry.refresh_span(self.reason.as_str(), self.replaces.map(Generation::get));
        self.departure = Some(Departure { at: Moment::now(&of.wall_clock), span });
        let is_last_until = of.lock().departed(Instant::now());
        of.change.notify_waiters();
        if let Some(until) = is_last_until {
            let next_request = until.saturating_duration_since(Instant::now());
            of.telemetry.tell(Happening::LimitReached { next_request });
        }
    }

    /// To be called on the runtime of the fetch, when that has turned out to have a timer.
    pub(super) fn found_timer(&self, runtime: runtime::Id) {
        self.of.lock().found_timer(runtime);
    }

    /// Ends `fetch` where the cache is closed.
    pub(super) async fn fly<T>(
        &self,
        fetch: impl Future<Output = Result<T, TokenError>>,
    ) -> Result<T, TokenError> {
        let span = self.departure.as_ref().map(|departure| departure.span.clone()).unwrap_or_default();
        match select(pin!(self.of.closed()), pin!(span.around(fetch))).await {
            Either::Left(_) => Err(closed()),
            Either::Right((fetched, _)) => fetched,
        }
    }

    pub(super) fn finish(mut self, fetched: Result<AccessToken, TokenError>) {
        let arrival = fetched.map(|token| Arrival {
            token,
            departed: match &self.departure {
                Some(departure) => departure.at,
                None => Moment::now(&self.of.wall_clock),
            },
            attached: self.of.telemetry.attached(),
        });
        self.close(arrival);
    }

    fn close(&mut self, arrival: Result<Arrival, TokenError>) {
        let Some(sender) = self.outcome.take() else { return };
        let mut ledger = self.of.lock();
        let outcome = match arrival {
            _ if ledger.is_closed() => Err(closed()),
            Ok(arrival) => self.of.publish(&mut ledger, arrival),
            Err(error) => Err(error),
        };
        let outcome = ledger.landed(outcome, Instant::now(), fastrand::f64());
        let is_closed = ledger.is_closed();
        unlock(ledger);
        sender.send_replace(Some(outcome.clone()));
        self.of.change.notify_waiters();
        // What panics may be what it would be told to.
        if !is_closed && !std::thread::panicking() {
            self.report(&outcome);
        }
    }

    fn report(&self, outcome: &Outcome) {
        let departure = self.departure.as_ref();
        let took = departure.map(|departure| departure.at.monotonic.elapsed()).unwrap_or_default();
        let happening = match outcome {
            Ok(token) => Happening::Fetched {
                generation: token.generation().get(),
                reason: self.reason.as_str(),
                lifetime: token.lifetime(),
                took,
            },
            Err(error) => Happening::FetchFailed {
                kind: error.kind().as_str(),
                reason: self.reason.as_str(),
                error,
                took,
            },
        };
        let span = departure.map(|departure| departure.span.clone()).unwrap_or_default();
        span.within(|| self.of.telemetry.tell(happening));
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
pub(super) struct Flight(ledger::Flight);

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

pub(super) fn panicked() -> TokenError {
    TokenError::new(TokenErrorKind::Panicked, "the token source panicked")
}

fn shut_down() -> TokenError {
    TokenError::new(TokenErrorKind::Runtime, "the tokio runtime that fetched the token was shut down")
}

#[cfg(test)]
impl SingleFlight {
    /// The edition under lease, and that of the token.
    pub(super) fn editions(&self) -> (Option<u64>, Option<u64>) {
        self.slot.editions()
    }

    pub(super) fn is_leased(&self) -> bool {
        let (leased, published) = self.editions();
        leased.is_some() && leased == published
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::token::Renewal;

    fn open(single_flight: &Arc<SingleFlight>) -> Ticket {
        match single_flight.enter() {
            Entry::Opened(ticket, _) => ticket,
            Entry::Joined(_) => panic!("there is a flight already"),
            Entry::Cached(_) => panic!("there is a token already"),
            Entry::Blocked(error) => panic!("{error}"),
        }
    }

    fn single_flight() -> Arc<SingleFlight> {
        Arc::new(SingleFlight::new(None, WallClock::default(), Telemetry::of("test".into())))
    }

    fn token() -> Result<AccessToken, TokenError> {
        AccessToken::bearer("t")
    }

    #[test]
    fn whoever_comes_after_the_landing_finds_the_token_and_opens_no_flight() {
        let single_flight = single_flight();
        open(&single_flight).finish(token());
        assert!(matches!(single_flight.enter(), Entry::Cached(_)));
    }

    #[test]
    fn whoever_comes_during_the_flight_joins_it() {
        let single_flight = single_flight();
        let ticket = open(&single_flight);
        assert!(matches!(single_flight.enter(), Entry::Joined(_)));
        ticket.finish(token());
    }

    #[test]
    fn a_flight_that_lost_its_ticket_makes_way_for_the_next() {
        let single_flight = single_flight();
        drop(open(&single_flight));
        open(&single_flight).finish(token());
    }

    #[test]
    fn a_flight_that_failed_keeps_the_next_one_away_for_a_while() {
        let single_flight = single_flight();
        open(&single_flight).finish(Err(panicked()));
        assert!(matches!(single_flight.enter(), Entry::Blocked(error) if error.next_attempt_in().is_some()));
    }

    #[test]
    fn a_refusal_during_the_flight_does_not_touch_its_token() {
        let single_flight = single_flight();
        open(&single_flight).finish(token());
        let refused = single_flight.slot.generation().unwrap();
        assert!(single_flight.invalidate(refused));
        let ticket = open(&single_flight);
        assert!(!single_flight.invalidate(refused));
        ticket.finish(token());
        assert!(!single_flight.invalidate(refused));
        assert_eq!(single_flight.slot.generation(), Some(refused.next()));
    }

    /// The least of a lease: fresh for one more second, and then valid for half a minute.
    fn nearly_stale() -> Result<AccessToken, TokenError> {
        let fetched = Instant::now() - Duration::from_secs(3479);
        let token = AccessToken::bearer("t")?.renewed(Renewal::BeforeExpiry(Duration::from_secs(120)));
        Ok(token.expires_in_from(fetched, Duration::from_secs(3600)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_ends_the_lease_of_a_keeper_that_is_not_run() {
        tokio::time::advance(Duration::from_secs(7200)).await;
        let single_flight = single_flight();
        open(&single_flight).finish(nearly_stale());
        let read = || {
            let mut generation = |credentials: &Credentials| credentials.generation;
            let leased = single_flight.read_leased(&mut generation);
            leased.or_else(|| single_flight.read(&mut generation).map(|(generation, _)| generation))
        };
        let post = single_flight.take_post().unwrap();
        assert!(post.extend_lease().is_some());
        for _ in 0..4 {
            assert!(read().is_some());
        }
        // Its runtime is busy, or its machine was halted.
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(read().is_some(), "nobody can know");
        single_flight.doubt_lease();
        assert!(read().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_doubted_before_its_time_goes_on() {
        let single_flight = single_flight();
        open(&single_flight).finish(token());
        let post = single_flight.take_post().unwrap();
        assert!(post.extend_lease().is_some());
        single_flight.doubt_lease();
        assert!(single_flight.slot.is_leased());
    }
}
