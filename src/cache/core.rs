//! The slot with the current token, the state of its refreshes, and the notification of changes.
//!
//! Invariants, all under the one lock of the core:
//!
//! 1. The state holds a refresh until its guard ends it (see `single_flight`) or the cache is
//!    closed.
//! 2. The slot changes only while the lock is held, and its generation never decreases.
//! 3. A refresh ends in the same critical section in which its token is published: no caller can
//!    see neither of the two and start a second refresh.
//! 4. No user code, no await and no wake-up runs under the lock.

use std::{pin::pin, sync::Arc, thread};

use tokio::{
    sync::{
        Notify,
        futures::{Notified, OwnedNotified},
    },
    time::Instant,
};

use super::{
    cached_token::{CachedToken, RejectedToken},
    freshness::Freshness,
    request_limit::RequestLimit,
    slot::Slot,
    state::{State, closed},
    status_snapshot::Snapshot,
    system_sleep::{Timestamps, WallClock},
};
use crate::{
    error::SettingNames,
    sync::{Mutex, MutexGuard, lock, try_lock},
    telemetry::{Event, SuppressReason, Telemetry},
    token::Generation,
};

pub(super) struct Core {
    pub(super) slot: Slot,
    state: Mutex<State>,
    /// Notified after each change of slot or state.
    changed: Arc<Notify>,
    pub(super) wall_clock: WallClock,
    pub(super) telemetry: Telemetry,
    /// The form in which errors and events name settings.
    pub(super) setting_names: SettingNames,
}

/// The cause that takes a token out of use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InvalidationCause {
    /// The user of the cache asks for it.
    Call,
    /// A server has rejected the token.
    Rejection,
}

impl Core {
    pub(super) fn new(
        limit: Option<RequestLimit>,
        wall_clock: WallClock,
        telemetry: Telemetry,
    ) -> Self {
        let state = Mutex::new(State::new(limit));
        let (slot, changed) = (Slot::new(), Arc::default());
        let setting_names = SettingNames::default();
        Self { slot, state, changed, wall_clock, telemetry, setting_names }
    }

    pub(super) fn with_setting_names(mut self, names: SettingNames) -> Self {
        self.setting_names = names;
        self
    }

    /// Returns the token that may be sent now, and its freshness. Compares the clocks if that is
    /// due.
    pub(super) fn current(&self) -> Option<(CachedToken, Freshness)> {
        let token = loop {
            let token = self.slot.load()?;
            if !token.is_clock_check_due(Instant::now()) {
                break token;
            }
            // Loaded again after the comparison, in which user code runs: the token may have been
            // invalidated meanwhile.
            if !self.compare_clocks(&token) {
                break token;
            }
        };
        match token.freshness(Instant::now()) {
            Freshness::Expired => None,
            freshness => Some((token, freshness)),
        }
    }

    /// Compares the clocks and ages the token in the slot if the system slept. Returns false if
    /// another thread holds the lock: a request with a usable token does not wait for it, and a
    /// later request compares the clocks.
    #[cold]
    pub(super) fn compare_clocks(&self, token: &CachedToken) -> bool {
        // The next comparison is scheduled first: the wall clock may be user code that uses the
        // cache.
        let checked = token.with_next_clock_check(Instant::now());
        let Some(state) = self.try_lock() else { return false };
        if !self.replace(state, token, &checked) {
            return true;
        }
        let now = Timestamps::now(&self.wall_clock);
        let mut current = checked;
        if let Some(slept) = current.slept_until(now) {
            let aged = current.aged_by(slept, now);
            // Waits for the lock: later requests must not send a token that expired during the
            // sleep.
            if !self.replace(self.lock(), &current, &aged) {
                return true;
            }
            current = aged;
            self.notify();
            self.telemetry.emit(Event::ClockJumped(slept));
        }
        if let Some(remaining) = current.remaining() {
            self.telemetry.emit(Event::Remaining(remaining));
        }
        true
    }

    /// Replaces the token in the slot by an updated one. Returns false if the slot holds another
    /// token, which must stay.
    fn replace(
        &self,
        state: MutexGuard<'_, State>,
        token: &CachedToken,
        updated: &CachedToken,
    ) -> bool {
        let is_current = self.slot.holds(token);
        let replaced = is_current.then(|| self.slot.replace(Some(updated)));
        drop(state);
        drop(replaced);
        is_current
    }

    /// Takes the token out of use. Returns false if a newer one is there or the slot is empty, or if
    /// a server has rejected the token and no new one may be requested.
    pub(super) fn invalidate(&self, generation: Generation, cause: InvalidationCause) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let is_rejection = cause == InvalidationCause::Rejection;
        if self.slot.generation() != Some(generation)
            || (is_rejection && state.suppress_reason(now).is_some())
        {
            return false;
        }
        if is_rejection {
            state.count_rejection(now);
        }
        state.drop_later(self.slot.replace(None));
        release(state);
        self.notify();
        true
    }

    /// Returns the rejected token if it is in use and a new one may be requested now. Otherwise the
    /// token stays in use: one server that rejects everything must not take it from the others.
    pub(super) fn replaceable(
        &self,
        rejected: Generation,
    ) -> Result<RejectedToken, SuppressReason> {
        let current = self.slot.load_valid().filter(|token| token.generation() == rejected);
        let token = current.ok_or(SuppressReason::Late)?;
        match self.lock().suppress_reason(Instant::now()) {
            Some(reason) => Err(reason),
            None => Ok(RejectedToken {
                generation: rejected,
                requested_at: token.record().requested_at,
            }),
        }
    }

    /// Returns true if the source returned the same token for both generations. Returns false if
    /// one of them is too old to be remembered.
    pub(super) fn is_same_token(&self, one: Generation, other: Generation) -> bool {
        let state = self.lock();
        match (state.token(one), state.token(other)) {
            (Some(one), Some(other)) => one.header_value() == other.header_value(),
            _ => false,
        }
    }

    /// Returns true if the fetch of this token began before `instant`. Returns false if the token
    /// is too old to be remembered.
    pub(super) fn was_requested_before(&self, generation: Generation, instant: Instant) -> bool {
        let state = self.lock();
        let token = state.token(generation);
        token.is_some_and(|token| token.record().requested_at < instant)
    }

    /// Closes the cache for good: drops the token and ends the running refresh without one. The
    /// waiting callers get the error at once, even if the runtime of the fetch no longer runs.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        let was_open = state.close();
        state.drop_later(self.slot.replace(None));
        let ended = state.end_refresh(Err(closed()), Instant::now(), 0.0);
        release(state);
        if let Some((sender, outcome)) = ended {
            sender.send_replace(Some(outcome));
        }
        if was_open {
            self.notify();
            // During a panic no event is emitted: the subscriber may be the code that panicked.
            if !thread::panicking() {
                self.telemetry.emit(Event::Closed);
            }
        }
    }

    /// Completes when the cache is closed.
    pub(super) async fn closed(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the check, so that no change between the two is missed.
            changed.as_mut().enable();
            if self.lock().is_closed() {
                return;
            }
            changed.await;
        }
    }

    /// Returns a future for the next change of slot or state.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Returns a future for the next change, like [`changed`](Self::changed), for a short wait.
    pub(super) fn notified(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Returns everything about the cache at one instant.
    pub(super) fn snapshot(&self) -> Snapshot {
        // Compares the clocks if that is due.
        self.current();
        let mut state = self.lock();
        let now = Instant::now();
        let token = self.slot.load();
        let is_due = token.as_ref().is_some_and(|token| token.freshness(now) != Freshness::Fresh);
        Snapshot {
            now,
            token: token.filter(|token| token.freshness(now) != Freshness::Expired),
            activity: if is_due { state.activity_after_expiry(now) } else { state.activity(now) },
            last_error: state.last_error().cloned(),
            finished_refreshes: state.finished_refreshes(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Locks the state, or returns `None` if another thread holds the lock.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        try_lock(&self.state)
    }
}

/// Releases the lock, then drops the values that were removed under it.
pub(super) fn release(mut state: MutexGuard<'_, State>) {
    let removed = state.take_removed();
    drop(state);
    drop(removed);
}

#[cfg(test)]
mod tests {
    use std::{
        num::NonZeroU32,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
            mpsc,
        },
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::{
        cache::single_flight::{Entry, join_or_start},
        token::AccessToken,
    };

    #[tokio::test(start_paused = true)]
    async fn sleep_found_while_the_lock_is_held_ages_the_token() {
        static SLEPT_HOURS: AtomicU64 = AtomicU64::new(0);
        let cell = Arc::new(OnceLock::<Arc<Core>>::new());
        let core_of_clock = Arc::clone(&cell);
        let start = SystemTime::now();
        // The first reading after the sleep lets another thread take the lock.
        let wall_clock = WallClock::new(move || {
            let hours = SLEPT_HOURS.load(Ordering::SeqCst);
            if let (1.., Some(core)) = (hours, core_of_clock.get()) {
                let (core, (locked, is_locked)) = (Arc::clone(core), mpsc::channel());
                thread::spawn(move || {
                    let _state = core.lock();
                    locked.send(()).unwrap();
                    thread::sleep(Duration::from_millis(20));
                });
                is_locked.recv().unwrap();
            }
            start + Duration::from_secs(hours * 3600)
        });
        let core = Arc::new(Core::new(None, wall_clock, Telemetry::new("test".into())));
        let Entry::Started(mut guard, _) = join_or_start(&core) else { panic!("no token yet") };
        guard.finish(Ok(AccessToken::bearer("t").unwrap().expires_in(Duration::from_secs(3600))));
        cell.set(Arc::clone(&core)).ok().unwrap();
        tokio::time::advance(Duration::from_secs(31)).await;
        SLEPT_HOURS.store(8, Ordering::SeqCst);
        assert!(core.current().is_none());
        assert!(core.slot.read_fresh(|_| ()).is_none(), "later requests do not send it either");
    }

    #[tokio::test(start_paused = true)]
    async fn token_aged_by_a_sleep_is_read_without_another_check() {
        static SLEPT_HOURS: AtomicU64 = AtomicU64::new(0);
        let start = SystemTime::now();
        let hours = |hours| Duration::from_secs(hours * 3600);
        let wall_clock = WallClock::new(move || start + hours(SLEPT_HOURS.load(Ordering::SeqCst)));
        let core = Arc::new(Core::new(None, wall_clock, Telemetry::new("test".into())));
        let Entry::Started(mut guard, _) = join_or_start(&core) else { panic!("no token yet") };
        guard.finish(Ok(AccessToken::bearer("t").unwrap().expires_in(hours(24))));
        tokio::time::advance(Duration::from_secs(31)).await;
        SLEPT_HOURS.store(8, Ordering::SeqCst);
        assert!(core.slot.read_fresh(|_| ()).is_none(), "the check is due");
        let (aged, _) = core.current().unwrap();
        assert!(aged.remaining().unwrap() <= hours(16));
        assert!(core.slot.read_fresh(|_| ()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn last_eight_tokens_are_remembered() {
        let core = Arc::new(Core::new(None, WallClock::default(), Telemetry::new("test".into())));
        let mut generations = Vec::new();
        for _ in 0..9 {
            let Entry::Started(mut guard, _) = join_or_start(&core) else { panic!("no token yet") };
            guard.finish(AccessToken::bearer("t"));
            generations.push(core.slot.generation().unwrap());
            assert!(core.invalidate(generations[generations.len() - 1], InvalidationCause::Call));
        }
        let later = Instant::now() + Duration::from_secs(1);
        let is_remembered = |generation: &_| core.was_requested_before(*generation, later);
        let remembered = generations.iter().filter(|generation| is_remembered(generation));
        assert_eq!(remembered.collect::<Vec<_>>(), generations[1..].iter().collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn limit_reached_before_the_invalidation_keeps_the_token() {
        let limit = RequestLimit::new(NonZeroU32::MIN, Duration::from_secs(3600));
        let telemetry = Telemetry::new("test".into());
        let core = Arc::new(Core::new(Some(limit), WallClock::default(), telemetry));
        let Entry::Started(mut guard, _) = join_or_start(&core) else { panic!("no token yet") };
        core.lock().count_request(Instant::now());
        guard.finish(AccessToken::bearer("t"));
        assert!(!core.invalidate(Generation::FIRST, InvalidationCause::Rejection));
        assert!(core.current().is_some());
    }
}
