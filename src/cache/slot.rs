//! The token that may be sent now, behind a lock-free pointer.

use std::sync::Arc;

use tokio::time::Instant;

use super::cached_token::{CachedToken, TokenRecord};
use crate::{sync::ArcSwapOption, token::Generation};

/// Holds the current token. Reading takes no lock. The core serializes the writes.
pub(super) struct Slot(ArcSwapOption<TokenRecord>);

impl Slot {
    pub(super) fn new() -> Self {
        Self(ArcSwapOption::empty())
    }

    /// Calls `read` with the token if it is fresh and no clock check is due. This is the path of
    /// nearly all requests: load the pointer, compare the clock.
    #[inline]
    pub(super) fn read_fresh<T>(&self, read: impl FnOnce(&TokenRecord) -> T) -> Option<T> {
        let record = self.0.load();
        let record = record.as_deref()?;
        (Instant::now() < record.use_unchecked_until).then(|| read(record))
    }

    /// Returns the token, whatever its age: an expired token stays until it is replaced.
    pub(super) fn load(&self) -> Option<CachedToken> {
        self.0.load_full().map(CachedToken::from_record)
    }

    /// Returns the token unless it has expired.
    pub(super) fn load_valid(&self) -> Option<CachedToken> {
        self.load().filter(|token| !token.is_expired())
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        self.0.load().as_deref().map(|record| record.generation)
    }

    /// Returns true if the slot holds this very record, not merely an equal one.
    pub(super) fn holds(&self, token: &CachedToken) -> bool {
        self.0.load().as_ref().is_some_and(|record| Arc::ptr_eq(record, token.record()))
    }

    /// Replaces the token. Returns the previous one, for the caller to drop after it has released
    /// its lock.
    #[must_use]
    pub(super) fn replace(&self, token: Option<&CachedToken>) -> Option<CachedToken> {
        let record = token.map(|token| Arc::clone(token.record()));
        self.0.swap(record).map(CachedToken::from_record)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::SeqCst},
        thread,
    };

    use super::*;
    use crate::{
        cache::system_sleep::{Timestamps, WallClock},
        telemetry::Telemetry,
        token::AccessToken,
    };

    fn publish(slot: &Slot, generation: Generation) {
        let counter = Telemetry::new("test".into()).request_counter();
        let requested_at = Timestamps::now(&WallClock::default());
        let token = AccessToken::bearer("t").unwrap();
        let token = CachedToken::new(token, generation, 0.0, requested_at, counter);
        drop(slot.replace(Some(&token)));
    }

    #[test]
    fn read_after_a_publication_sees_no_older_token() {
        const LAST: u64 = 1000;

        let (slot, published) = (Slot::new(), AtomicU64::new(0));
        let seen = [AtomicU64::new(0), AtomicU64::new(0)];
        publish(&slot, Generation::FIRST);
        thread::scope(|scope| {
            for seen in &seen {
                let (slot, published) = (&slot, &published);
                scope.spawn(move || {
                    while seen.load(SeqCst) < LAST {
                        let known = published.load(SeqCst);
                        let read = slot.read_fresh(|record| record.generation.get()).unwrap();
                        assert!(read >= known, "read {read} after {known} was published");
                        seen.store(read, SeqCst);
                    }
                });
            }
            let mut generation = Generation::FIRST;
            while generation.get() < LAST {
                generation = generation.next();
                publish(&slot, generation);
                published.store(generation.get(), SeqCst);
                thread::yield_now();
            }
        });
        assert!(seen.iter().all(|seen| seen.load(SeqCst) == LAST));
    }
}
