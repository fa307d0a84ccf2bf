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

use std::{pin::pin, sync::Arc};

use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

use super::{
    cached_token::CachedToken,
    freshness::Freshness,
    request_limit::RequestLimit,
    slot::Slot,
    state::{State, closed},
    status_snapshot::Snapshot,
    system_sleep::{Timestamps, WallClock},
};
use crate::{
    sync::{Mutex, MutexGuard, lock, try_lock},
    telemetry::{Event, Telemetry},
    token::Generation,
};

pub(super) struct Core {
    pub(super) slot: Slot,
    state: Mutex<State>,
    /// Notified after each change of slot or state.
    changed: Arc<Notify>,
    pub(super) wall_clock: WallClock,
    pub(super) telemetry: Telemetry,
}

impl Core {
    pub(super) fn new(
        limit: Option<RequestLimit>,
        wall_clock: WallClock,
        telemetry: Telemetry,
    ) -> Self {
        let state = Mutex::new(State::new(limit));
        Self { slot: Slot::new(), state, changed: Arc::default(), wall_clock, telemetry }
    }

    /// Returns the token that may be sent now, and its freshness. Compares the clocks if that is
    /// due.
    pub(super) fn current(&self) -> Option<(CachedToken, Freshness)> {
        let token = loop {
            let token = self.slot.load()?;
            if !token.is_clock_check_due(Instant::now()) {
                break token;
            }
            if let Some(checked) = self.compare_clocks(&token) {
                break checked;
            }
        };
        match token.freshness(Instant::now()) {
            Freshness::Expired => None,
            freshness => Some((token, freshness)),
        }
    }

    /// Compares the clocks and ages the token if the system slept. Returns the token as it is now,
    /// or `None` if the slot holds another one by now.
    ///
    /// A request with a usable token never waits for the lock. If another thread holds it, that
    /// thread changes the slot, or a later request compares the clocks.
    #[cold]
    pub(super) fn compare_clocks(&self, token: &CachedToken) -> Option<CachedToken> {
        // The next comparison is scheduled first: the wall clock may be user code that uses the
        // cache.
        let checked = token.with_next_clock_check(Instant::now());
        match self.try_replace(token, &checked) {
            Some(true) => {}
            Some(false) => return None,
            None => return Some(token.clone()),
        }
        let now = Timestamps::now(&self.wall_clock);
        let slept = checked.slept_until(now);
        let current = slept.map_or_else(|| checked.clone(), |slept| checked.aged_by(slept, now));
        if let Some(slept) = slept {
            if self.try_replace(&checked, &current) == Some(false) {
                return None;
            }
            self.notify();
            self.telemetry.emit(Event::ClockJumped(slept));
        }
        if let Some(remaining) = current.remaining() {
            self.telemetry.emit(Event::Remaining(remaining));
        }
        Some(current)
    }

    /// Replaces the token in the slot by an updated one. Returns false if the slot holds another
    /// token, which must stay. Returns `None` if another thread holds the lock.
    fn try_replace(&self, token: &CachedToken, updated: &CachedToken) -> Option<bool> {
        let state = self.try_lock()?;
        let is_current = self.slot.holds(token);
        let replaced = is_current.then(|| self.slot.replace(Some(updated)));
        drop(state);
        drop(replaced);
        Some(is_current)
    }

    /// Takes the token out of use. Returns false if a newer one is there or the slot is empty.
    pub(super) fn invalidate(&self, rejected: Generation) -> bool {
        self.invalidate_locked(self.lock(), rejected)
    }

    /// Takes the token out of use after a rejection by a server. The token stays in use if no new
    /// one may be requested: one server that rejects everything must not take it from the others.
    pub(super) fn invalidate_rejected(&self, rejected: Generation) -> bool {
        let mut state = self.lock();
        let is_current = self.slot.generation() == Some(rejected);
        if is_current && let Some(reason) = state.suppress_reason(Instant::now()) {
            drop(state);
            let generation = rejected.get();
            self.telemetry.emit(Event::RefreshSuppressed { generation, reason });
            return false;
        }
        self.invalidate_locked(state, rejected)
    }

    fn invalidate_locked(&self, mut state: MutexGuard<'_, State>, rejected: Generation) -> bool {
        let is_current = self.slot.generation() == Some(rejected);
        if is_current {
            state.drop_later(self.slot.replace(None));
        }
        release(state);
        if is_current {
            self.notify();
        }
        is_current
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
            self.telemetry.emit(Event::Closed);
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
