//! The public type of the cache.

use std::{fmt, mem, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    cached_token::{CachedToken, TokenRecord},
    core::{Core, InvalidationCause},
    fetch_task,
    freshness::Freshness,
    single_flight::{Entry, join_or_start, start_if_stale},
    status::Status,
    token_invalidator::TokenInvalidator,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    source::DynTokenSource,
    sync::{Mutex, lock},
    telemetry::{Event, Telemetry},
    token::Generation,
};

/// One access token, shared by all that need it.
///
/// Clones share the token. Build one cache per client registration and give clones to every layer
/// and every task. The token is fetched when it is first needed, refreshed in the background well
/// before it expires, and replaced when it is rejected. **One** task fetches it, whatever the
/// number of waiting callers. The cache is useful without the layer, too:
///
/// ```
/// use tower_oauth::{AccessToken, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::TokenError> {
/// let cache = TokenCache::new(source_fn(|_| async { AccessToken::bearer("my-token") }));
/// let token = cache.token().await?;
/// // A server answers 401 to it:
/// cache.invalidate(token.generation());
/// assert!(cache.current().is_none());
/// assert!(cache.token().await?.generation() > token.generation());
/// # Ok(())
/// # }
/// ```
///
/// # Caveats
///
/// - Building a cache needs no runtime. A fetch runs on the tokio runtime of the call that starts
///   it, which needs its time driver (`enable_all`). If that runtime shuts down, the waiting
///   callers get [`TokenErrorKind::Runtime`], and the next call fetches on its own runtime. A
///   current-thread runtime that is kept but no longer run keeps its fetch from ending.
/// - A source may return a rejected token *again*. It gets a new generation, and the next request
///   sends it once more, as the rejection may have been temporary. The rejected request is not
///   repeated with it.
/// - A stale token is refreshed when it is used: an idle cache fetches nothing.
/// - Expiry causes at most one token request a second, even if a token expires sooner. Callers that
///   need a token wait for the next one.
/// - A cache lives until its last clone is dropped, including those in layers, services and
///   requests under way, or until it is [closed](Self::close).
/// - A suspended system ages the token by the wall clock. The clocks are compared every 30 s of
///   use.
/// - A failed fetch starts a back-off. Until it ends, callers that need a token get the last error
///   at once, with [`TokenError::next_attempt_in`].
#[derive(Clone)]
pub struct TokenCache(Arc<Shared>);

struct Shared {
    core: Arc<Core>,
    /// `None` after the cache was closed: the source may hold secrets.
    source: Mutex<Option<Arc<dyn DynTokenSource>>>,
    refresh_timeout: Duration,
}

impl TokenCache {
    pub(super) fn from_parts(
        core: Arc<Core>,
        source: Arc<dyn DynTokenSource>,
        refresh_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Shared { core, source: Mutex::new(Some(source)), refresh_timeout }))
    }

    /// Returns the token to use now. Fetches one, or waits for the running fetch, if there is none.
    ///
    /// # Errors
    ///
    /// The error of the fetch, the same for all callers that waited for it. The error of the last
    /// fetch during a back-off. [`TokenErrorKind::LimitReached`], [`TokenErrorKind::Closed`], and
    /// [`TokenErrorKind::InvalidResponse`] for a token that expires before it can be used.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. The fetch goes on for the other callers and for the next call.
    pub async fn token(&self) -> Result<CachedToken, TokenError> {
        let mut was_expired = false;
        loop {
            if let Some(token) = self.current_or_stale() {
                return Ok(token);
            }
            let refresh = {
                // Created before the check, so that no change between the two is missed.
                let changed = self.core().notified();
                match join_or_start(self.core()) {
                    Entry::Cached(token) => return Ok(token),
                    Entry::Blocked(error) => return Err(error),
                    Entry::Pausing(until) => {
                        // A refresh for another reason, such as a rejection, ends the wait early.
                        let _ = timeout_at(until, changed).await;
                        continue;
                    }
                    Entry::Joined(refresh) => refresh,
                    Entry::Started(guard, refresh) => {
                        fetch_task::spawn(guard, self.source(), self.0.refresh_timeout);
                        refresh
                    }
                }
            };
            self.telemetry().emit(Event::Waiting);
            let token = refresh.finished().await?;
            if self.core().slot.read_fresh(|record| record.generation) == Some(token.generation()) {
                return Ok(token);
            }
            // The next round returns the token if it is stale by now, and waits again if it was
            // invalidated.
            if token.is_expired() && mem::replace(&mut was_expired, true) {
                return Err(expired_before_use());
            }
        }
    }

    /// Returns the token to use now, if there is one. Neither fetches nor waits.
    #[must_use]
    pub fn current(&self) -> Option<CachedToken> {
        self.core().current().map(|(token, _)| token)
    }

    /// Takes a rejected token out of use: the next call of [`token`](Self::token) fetches another
    /// one. Returns true if the token was still in use. Does nothing if a newer one is there, so
    /// that a late rejection costs nothing.
    #[allow(clippy::must_use_candidate)] // called for its effect
    pub fn invalidate(&self, rejected: Generation) -> bool {
        self.core().invalidate(rejected, InvalidationCause::Call)
    }

    /// Gets a token before the first request needs one. After a transient error, such as a server
    /// that is down, it tries again at the end of each back-off, without a limit: bound it with
    /// `tokio::time::timeout`. For a single attempt there is [`token`](Self::token).
    ///
    /// ```no_run
    /// # async fn example(cache: tower_oauth::TokenCache) -> Result<(), tower_oauth::BoxError> {
    /// // Waits for an authorization server that is not up yet. A wrong secret fails at once.
    /// match tokio::time::timeout(std::time::Duration::from_secs(60), cache.warm_up()).await {
    ///     Ok(warm) => warm?,
    ///     Err(_) => eprintln!("no token after a minute: {:?}", cache.status().last_error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The first error that is [final](TokenError::is_final), such as that for a wrong secret.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, like [`token`](Self::token).
    pub async fn warm_up(&self) -> Result<(), TokenError> {
        loop {
            match self.token().await {
                Ok(_) => return Ok(()),
                Err(error) if !error.is_final() => {
                    let backoff = error.next_attempt_in().unwrap_or_default();
                    let _ = timeout(backoff, self.core().closed()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the state of the cache now. Neither fetches nor waits.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core().snapshot().into_status()
    }

    /// Closes the cache and all its clones: cancels the running fetch, and drops the token and the
    /// token source. Callers that need a token, now or later, get [`TokenErrorKind::Closed`] at
    /// once. Dropping the last clone does the same.
    ///
    /// The task of the fetch ends when its runtime next runs it. Requests that were sent with the
    /// token complete as usual.
    pub fn close(&self) {
        self.core().close();
        // Dropped without the lock, because its drop may run user code.
        let source = lock(&self.0.source).take();
        drop(source);
    }

    /// Calls `read` with the current token. A fresh token is read without a lock, and without a
    /// change of its reference count. Starts a background refresh if the token is stale.
    #[inline]
    pub(crate) fn read<T>(&self, mut read: impl FnMut(&TokenRecord) -> T) -> Option<T> {
        if let Some(result) = self.0.core.slot.read_fresh(&mut read) {
            return Some(result);
        }
        self.current_or_stale().map(|token| read(token.record()))
    }

    /// Returns the current token. Starts a background refresh if the token is stale.
    fn current_or_stale(&self) -> Option<CachedToken> {
        let (token, freshness) = self.core().current()?;
        if freshness == Freshness::Stale
            && Handle::try_current().is_ok()
            && let Some(guard) = start_if_stale(self.core())
        {
            fetch_task::spawn(guard, self.source(), self.0.refresh_timeout);
            // Read again: user code has run, and the token may have been invalidated meanwhile.
            return self.current();
        }
        Some(token)
    }

    /// Returns the source, unless the cache was closed.
    fn source(&self) -> Option<Arc<dyn DynTokenSource>> {
        lock(&self.0.source).clone()
    }

    pub(crate) fn invalidator(&self) -> TokenInvalidator {
        TokenInvalidator::new(Arc::clone(self.core()))
    }

    /// Returns true if the source returned the same token for both generations.
    pub(crate) fn is_same_token(&self, one: Generation, other: Generation) -> bool {
        self.core().is_same_token(one, other)
    }

    /// Returns true if the fetch of this token began before `instant`.
    pub(crate) fn was_requested_before(&self, generation: Generation, instant: Instant) -> bool {
        self.core().was_requested_before(generation, instant)
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.core().telemetry
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.core.close();
    }
}

fn expired_before_use() -> TokenError {
    TokenError::new(
        TokenErrorKind::InvalidResponse,
        "the new access token expired before it could be used: its lifetime is too short",
    )
    .with_advice("obtain tokens with a longer lifetime")
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("name", &self.telemetry().cache_name())
            .field("current", &self.current())
            .field("refresh_timeout", &self.0.refresh_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{status::RefreshState, system_sleep::Timestamps},
        source::source_fn,
        token::AccessToken,
    };

    #[test]
    fn stale_token_outside_of_a_runtime_is_read_without_a_refresh() {
        let cache = TokenCache::new(source_fn(|_| async { AccessToken::bearer("new") }));
        let core = cache.core();
        let mut requested_at = Timestamps::now(&core.wall_clock);
        requested_at.monotonic -= Duration::from_secs(70);
        let lifetime = Duration::from_secs(100);
        let token = AccessToken::bearer("t").unwrap();
        let token = token.expires_in_from(requested_at.monotonic, lifetime);
        let counter = core.telemetry.request_counter();
        let token = CachedToken::new(token, Generation::FIRST, 0.0, requested_at, counter);
        assert!(token.is_stale());
        drop(core.slot.replace(Some(&token)));
        assert!(cache.read(|_| ()).is_some());
        let status = cache.status();
        assert_eq!(status.refresh, RefreshState::Idle);
        assert!(status.last_error.is_none());
    }
}
