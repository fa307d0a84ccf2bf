//! A token under lease is read without a look at the clock, as somebody else looks.
//!
//! While a token is fresh and much used, one task, its *keeper*, watches the clocks in the place of all readers. It leases the
//! token to them until it wakes next: when the token becomes stale, or when the clocks are to be compared. A token that
//! nobody has used meanwhile is leased no longer, and its keeper ends, so that an idle cache costs nothing.
//!
//! A keeper that wakes too late, on an overloaded runtime, delays the renewal of a token but not its end: only those are
//! leased that stay valid for [`LEAST_LEEWAY`] after they became stale. Where it is later than that, or not run at all, the
//! first answer that is an error ends the lease. It needs a runtime with threads of its own: one that is run by `block_on`
//! does nothing between two calls of that.

use std::time::Duration;

use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// How long a token has to be valid after it became stale, to be leased before.
pub(super) const LEAST_LEEWAY: Duration = Duration::from_secs(60);

/// How many readers look at the clock themselves until a keeper is worth its while.
const WORTH_A_KEEPER: u32 = 8;

/// Which edition of a token is under lease. Granted and ended under the lock of the single flight.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Zero: none.
    edition: AtomicU64,
    is_used: AtomicBool,
    reads_without: AtomicU32,
}

impl Lease {
    #[inline]
    pub(super) fn edition(&self) -> Option<u64> {
        Some(self.edition.load(Ordering::Acquire)).filter(|edition| *edition != 0)
    }

    /// Called with each use, so that it writes once in a term only: what is written is not shared by threads.
    #[inline]
    pub(super) fn used(&self) {
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    /// Begins a term, and says whether the lease was used in the last one.
    pub(super) fn was_used(&self) -> bool {
        self.is_used.swap(false, Ordering::Relaxed)
    }

    pub(super) fn grant(&self, edition: u64) {
        self.edition.store(edition, Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.edition.store(0, Ordering::Release);
        self.count_anew();
    }

    /// Counts a read without a lease, and says whether it is time for a keeper. Not exact where threads meet.
    pub(super) fn is_wanted(&self) -> bool {
        let reads = self.reads_without.load(Ordering::Relaxed) + 1;
        if reads <= WORTH_A_KEEPER {
            self.reads_without.store(reads, Ordering::Relaxed);
        }
        reads == WORTH_A_KEEPER
    }

    pub(super) fn count_anew(&self) {
        self.reads_without.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_is_wanted_once_when_enough_have_read_without_a_lease() {
        let lease = Lease::default();
        let wanted = |reads: u32| (1..=reads).filter(|_| lease.is_wanted()).count();
        assert_eq!(wanted(WORTH_A_KEEPER - 1), 0);
        assert_eq!(wanted(1), 1);
        assert_eq!(wanted(100), 0);
        lease.count_anew();
        assert_eq!(wanted(WORTH_A_KEEPER - 1), 0);
        lease.end();
        assert_eq!(wanted(WORTH_A_KEEPER - 1), 0, "the end of a lease counts anew, too");
        assert_eq!(wanted(1), 1);
    }

    #[test]
    fn a_term_was_used_or_not_whatever_the_one_before() {
        let lease = Lease::default();
        assert!(!lease.was_used());
        lease.used();
        lease.used();
        assert!(lease.was_used());
        assert!(!lease.was_used());
    }
}
