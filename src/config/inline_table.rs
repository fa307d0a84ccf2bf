//! The environment variables of a provider: one set of values, from which each table of the
//! configuration takes those of its keys.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

/// The values that no key has taken yet. Clones share them, so that several tables can take values
/// from one set. `T` is a `Tree`, which this file cannot import: `tree.rs` imports this file.
pub(super) struct InlineTable<T>(Rc<RefCell<Entries<T>>>);

struct Entries<T> {
    rest: BTreeMap<String, T>,
    /// The keys of all tables that have taken values.
    known: Vec<&'static str>,
}

impl<T> InlineTable<T> {
    pub(super) fn new(entries: BTreeMap<String, T>) -> Self {
        Self(Rc::new(RefCell::new(Entries { rest: entries, known: Vec::new() })))
    }

    /// Adds the keys of a table to the known ones.
    pub(super) fn add_keys(&self, keys: &[&'static str]) {
        self.0.borrow_mut().known.extend(keys);
    }

    pub(super) fn take(&self, key: &str) -> Option<T> {
        self.0.borrow_mut().rest.remove(key)
    }

    /// Returns the first key of which no table has taken the value.
    pub(super) fn unknown_key(&self) -> Option<String> {
        self.0.borrow().rest.keys().next().cloned()
    }

    /// Returns the keys of all tables.
    pub(super) fn known_keys(&self) -> Vec<&'static str> {
        self.0.borrow().known.clone()
    }
}

impl<T> Clone for InlineTable<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}
