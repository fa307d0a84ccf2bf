//! The copies of tokens that each thread keeps for itself.
//!
//! Header values are shared by counting who has them, and a counter that all threads change with each request is what they
//! wait for. So a thread that uses a token again makes a copy, and counts on its own. The copy goes when the thread has one
//! of a newer token of the same cache, or too many of others.

use std::cell::RefCell;

use super::slot::{Credentials, Published};

/// The most copies of one thread.
const MOST: usize = 8;

#[derive(Default)]
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
