//! The copies of tokens that each thread keeps for itself.
//!
//! Header values are shared by counting who has them, and a counter that all threads change with each request is what they
//! wait for. So a thread that uses a token again makes a copy, and counts on its own. The copy goes when the thread has one
//! of a newer token of the same cache, or too many of others.

use std::cell::RefCell;

use super::slot::{Credentials, Published};

/// The most copies of one thread.
const MOST: usize = 8;

struct Copies {
    held: Vec<Copy>,
    /// The edition that was asked for last and not there.
    missed: u64,
    /// Which copy makes room next.
    oldest: usize,
}

struct Copy {
    edition: u64,
    cache: u64,
    credentials: Credentials,
}

thread_local! {
    static COPIES: RefCell<Copies> = const { RefCell::new(Copies { held: Vec::new(), missed: 0, oldest: 0 }) };
}

/// Lets `read` see the thread's copy of an edition.
#[inline]
pub(super) fn read<T>(edition: u64, read: &mut impl FnMut(&Credentials) -> T) -> Option<T> {
    let found = COPIES.try_with(|copies| {
        let copies = copies.try_borrow().ok()?;
        let copy = copies.held.iter().find(|copy| copy.edition == edition)?;
        Some(read(&copy.credentials))
    });
    found.ok().flatten()
}

/// Makes a copy for this thread, if it was missed twice in a row: many tokens in turn are not worth it.
#[cold]
pub(super) fn missed(cache: u64, published: &Published) {
    // A thread that ends has no copies any more, and makes none.
    let _ = COPIES.try_with(|copies| {
        let mut copies = copies.try_borrow_mut().ok()?;
        let edition = published.edition;
        if std::mem::replace(&mut copies.missed, edition) != edition {
            return None;
        }
        let copy = Copy { edition, cache, credentials: published.credentials.copied()? };
        let replaced = copies.put(copy);
        // What goes may have parts that others wrote.
        drop(copies);
        drop(replaced);
        Some(())
    });
}

impl Copies {
    fn put(&mut self, copy: Copy) -> Option<Copy> {
        let place = match self.held.iter().position(|other| other.cache == copy.cache) {
            Some(outdated) => outdated,
            None if self.held.len() < MOST => {
                self.held.push(copy);
                return None;
            }
            None => {
                self.oldest = (self.oldest + 1) % MOST;
                self.oldest
            }
        };
        Some(std::mem::replace(&mut self.held[place], copy))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use http::HeaderValue;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        cache::{
            slot::{CachedToken, Generation, Glance, Slot},
            suspend::{Moment, WallClock},
        },
        telemetry::Telemetry,
        token::AccessToken,
    };

    /// On a thread that has no copies yet.
    fn on_a_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(test).join().unwrap())
    }

    /// With a token under lease.
    fn slot() -> Slot {
        let slot = Slot::new();
        publish(&slot, "t");
        slot
    }

    fn publish(slot: &Slot, token: &str) {
        let token = AccessToken::bearer(token).unwrap();
        let fetched_at = Moment::now(&WallClock::default());
        let attached = Telemetry::of("test".into()).attached();
        slot.publish(&CachedToken::new(token, Generation::FIRST, 0.0, fetched_at, attached));
        slot.extend_lease(Instant::now()).unwrap();
    }

    fn copy(slot: &Slot) -> Option<HeaderValue> {
        slot.leased(&mut |seen| seen.value.clone())
    }

    /// Misses the copy, if there is none.
    fn by_the_clock(slot: &Slot) -> HeaderValue {
        match slot.glance(&mut |seen| seen.value.clone()) {
            Glance::Token(value, _) => value,
            Glance::Nothing | Glance::ClocksAreDue => panic!("there is a fresh token"),
        }
    }

    fn copied(slot: &Slot) -> HeaderValue {
        by_the_clock(slot);
        by_the_clock(slot);
        copy(slot).expect("it was missed twice")
    }

    fn held() -> usize {
        COPIES.with_borrow(|copies| copies.held.len())
    }

    #[test]
    fn a_copy_is_equal_and_sensitive_and_shares_nothing_with_others() {
        let slot = slot();
        let (original, first) = on_a_thread(|| (by_the_clock(&slot), copied(&slot)));
        let (second, again) = on_a_thread(|| (copied(&slot), copy(&slot).unwrap()));
        for copy in [&first, &second] {
            assert_eq!(copy, "Bearer t");
            assert!(copy.is_sensitive());
        }
        let place = |value: &HeaderValue| value.as_bytes().as_ptr();
        assert_ne!(place(&first), place(&original));
        assert_ne!(place(&second), place(&original));
        assert_ne!(place(&first), place(&second));
        assert_eq!(place(&second), place(&again), "one for a thread");
    }

    #[test]
    fn a_value_that_is_not_sensitive_is_copied_as_such() {
        let token = AccessToken::bearer("t").unwrap();
        let mut value = token.header_value().clone();
        value.set_sensitive(false);
        let credentials = Credentials {
            value,
            scheme: token.scheme(),
            generation: Generation::FIRST,
            attached: Telemetry::of("test".into()).attached(),
        };
        assert!(!credentials.copied().unwrap().value.is_sensitive());
    }

    #[test]
    fn a_copy_is_made_when_it_is_missed_for_the_second_time_in_a_row() {
        let slot = slot();
        on_a_thread(|| {
            assert_eq!(copy(&slot), None);
            by_the_clock(&slot);
            assert_eq!(copy(&slot), None);
            by_the_clock(&slot);
            assert!(copy(&slot).is_some());
        });
    }

    #[test]
    fn a_token_without_a_lease_is_not_copied_and_a_copy_of_it_not_read() {
        let slot = slot();
        on_a_thread(|| {
            slot.lease().end();
            by_the_clock(&slot);
            by_the_clock(&slot);
            assert_eq!(held(), 0);
            slot.extend_lease(Instant::now());
            copied(&slot);
            slot.lease().end();
            assert_eq!(copy(&slot), None);
            slot.extend_lease(Instant::now());
            assert!(copy(&slot).is_some(), "it is there for the next lease");
        });
    }

    #[test]
    fn tokens_in_turn_are_not_copied() {
        let slots = [slot(), slot()];
        on_a_thread(|| {
            for slot in slots.iter().cycle().take(50) {
                assert_eq!(copy(slot), None);
                by_the_clock(slot);
            }
            assert_eq!(held(), 0);
        });
    }

    #[test]
    fn a_thread_has_at_most_eight_copies_and_the_newest_among_them() {
        let slots: Vec<_> = (0..20).map(|_| slot()).collect();
        on_a_thread(|| {
            for (count, slot) in slots.iter().enumerate() {
                copied(slot);
                assert!(copy(slot).is_some());
                let with_copy = slots.iter().filter(|slot| copy(slot).is_some()).count();
                assert_eq!((with_copy, held()), ((count + 1).min(8), (count + 1).min(8)));
            }
            // Each makes room in its turn, so that those from before the last eight are gone.
            let with_copy: Vec<_> = (0..20).filter(|slot| copy(&slots[*slot]).is_some()).collect();
            assert!(with_copy.iter().copied().eq(12..20), "{with_copy:?}");
        });
    }

    #[test]
    fn the_copy_of_a_newer_token_takes_the_place_of_that_of_the_older_one() {
        let (slot, other) = (slot(), slot());
        on_a_thread(|| {
            copied(&other);
            copied(&slot);
            publish(&slot, "newer");
            assert_eq!(copy(&slot), None, "there is one of the older token only");
            assert_eq!(copied(&slot), "Bearer newer");
            assert_eq!(held(), 2);
            assert!(copy(&other).is_some());
        });
    }

    #[test]
    fn who_reads_while_reading_gets_what_is_there() {
        let (slot, other) = (slot(), slot());
        on_a_thread(|| {
            copied(&slot);
            let inner = slot.leased(&mut |_| {
                by_the_clock(&other);
                by_the_clock(&other);
                (copy(&slot), copy(&other), by_the_clock(&other))
            });
            let (own, missing, others) = inner.unwrap();
            assert_eq!(own.unwrap(), "Bearer t");
            assert_eq!(missing, None, "no copy is made during a read");
            assert_eq!(others, "Bearer t");
            assert!(copied(&other).is_sensitive());
        });
    }

    #[test]
    fn a_read_that_panics_leaves_the_copies_as_they_are() {
        let slot = slot();
        on_a_thread(|| {
            copied(&slot);
            let read =
                std::panic::AssertUnwindSafe(|| slot.leased(&mut |_| -> () { std::panic::panic_any(1) }));
            std::panic::catch_unwind(read).unwrap_err();
            publish(&slot, "newer");
            assert_eq!(copied(&slot), "Bearer newer");
        });
    }

    /// Reads at the end of its thread.
    struct Last(&'static Slot, std::sync::mpsc::Sender<HeaderValue>);

    impl Drop for Last {
        fn drop(&mut self) {
            for _ in 0..3 {
                self.1.send(copy(self.0).unwrap_or_else(|| by_the_clock(self.0))).unwrap();
            }
        }
    }

    thread_local! {
        static BEFORE: RefCell<Option<Last>> = const { RefCell::new(None) };
        static AFTER: RefCell<Option<Last>> = const { RefCell::new(None) };
    }

    #[test]
    fn a_thread_that_ends_reads_to_its_end() {
        let slot = Box::leak(Box::new(slot()));
        let (sender, seen) = std::sync::mpsc::channel();
        let (before, after) = (Last(slot, sender.clone()), Last(slot, sender));
        // Before its copies are dropped, and after.
        thread::spawn(|| {
            BEFORE.set(Some(before));
            copied(slot);
            AFTER.set(Some(after));
        })
        .join()
        .unwrap();
        assert_eq!(seen.iter().filter(|value| value == "Bearer t").count(), 6);
    }
}
