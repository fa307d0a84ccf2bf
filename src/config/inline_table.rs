//! A table of which the keys are not nested: the environment variables of a provider.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

/// The values that no key has taken yet. Clones share them: each table of the configuration takes
/// the values of its keys.
pub(super) struct InlineTable<T>(Rc<RefCell<Entries<T>>>);

struct Entries<T> {
    rest: BTreeMap<String, T>,
    /// The keys that tables have asked for.
    known: Vec<&'static str>,
}

impl<T> InlineTable<T> {
    pub(super) fn new(entries: BTreeMap<String, T>) -> Self {
        Self(Rc::new(RefCell::new(Entries { rest: entries, known: Vec::new() })))
    }

    /// Adds keys that a table has.
    pub(super) fn add_keys(&self, keys: &[&'static str]) {
        self.0.borrow_mut().known.extend(keys);
    }

    pub(super) fn take(&self, key: &str) -> Option<T> {
        self.0.borrow_mut().rest.remove(key)
    }

    /// Returns the first key that no table has.
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
