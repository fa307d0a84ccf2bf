//! The one token that may be sent now.

use std::{fmt, num::NonZeroU64, ops::Deref, sync::Arc};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::freshness::{Freshness, Schedule};
use crate::token::AccessToken;

/// Which token of a [`TokenCache`](crate::TokenCache) this is: the first one fetched is 1, each later one is greater.
///
/// It names a token where the token itself must not appear, such as in a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

impl Generation {
    pub(super) const FIRST: Self = Self(NonZeroU64::MIN);

    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A token of a [`TokenCache`](crate::TokenCache) with its [`Generation`]. Cheap to clone; `Debug` does not show the token.
#[derive(Clone)]
pub struct CachedToken(Arc<Published>);

struct Published {
    token: AccessToken,
    schedule: Schedule,
    generation: Generation,
}

impl CachedToken {
    pub(super) fn new(token: AccessToken, generation: Generation, schedule: Schedule) -> Self {
        Self(Arc::new(Published { token, schedule, generation }))
    }

    /// What to pass to [`TokenCache::invalidate`](crate::TokenCache::invalidate) when this token was refused.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// Whether the token is past its expiry less the margin (see [`AccessToken::MAX_EXPIRY_MARGIN`]) and is not to be
    /// sent any more.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.freshness() == Freshness::Expired
    }

    /// Whether the token is due for renewal: it may be sent, and the next use of it through the cache has it renewed.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.freshness() == Freshness::Stale
    }

    pub(super) fn freshness(&self) -> Freshness {
        self.0.schedule.at(Instant::now())
    }
}

impl Deref for CachedToken {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.0.token
    }
}

impl fmt::Debug for CachedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedToken")
            .field("generation", &self.0.generation)
            .field("token", &self.0.token)
            .finish_non_exhaustive()
    }
}

/// Holds the token that may be sent now. Reading takes no lock; writing is serialized by the single flight.
#[derive(Default)]
pub(super) struct Slot(ArcSwapOption<Published>);

impl Slot {
    /// The token, unless it has expired.
    pub(super) fn load(&self) -> Option<CachedToken> {
        self.0.load_full().map(CachedToken).filter(|token| !token.is_expired())
    }

    /// The guard of the lock-free pointer lives in here only, never across an await (design invariant 7).
    pub(super) fn read<T>(&self, read: impl FnOnce(&AccessToken, Generation) -> T) -> Option<(T, Freshness)> {
        let guard = self.0.load();
        let Published { token, schedule, generation } = &**guard.as_ref()?;
        match schedule.at(Instant::now()) {
            Freshness::Expired => None,
            freshness => Some((read(token, *generation), freshness)),
        }
    }

    pub(super) fn publish(&self, token: &CachedToken) {
        self.0.store(Some(Arc::clone(&token.0)));
    }

    /// Whatever its age: also an expired token is there until it is replaced.
    pub(super) fn generation(&self) -> Option<Generation> {
        self.0.load().as_ref().map(|published| published.generation)
    }

    pub(super) fn clear(&self) {
        self.0.store(None);
    }
}
