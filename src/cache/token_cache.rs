use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    freshness::Freshness,
    single_flight::{Entry, SingleFlight, Ticket},
    slot::{CachedToken, Generation},
};
use crate::{
    error::{TokenError, TokenErrorKind},
    source::{DynTokenSource, TokenSource},
    token::AccessToken,
};

/// A token on its way, as a future that can be named and moved.
pub(crate) type PendingToken = Pin<Box<dyn Future<Output = Result<CachedToken, TokenError>> + Send>>;

/// One access token, shared by everything that needs it.
///
/// Clones share the token. Build one cache for each client registration and hand clones to every layer and every
/// task: the token is fetched when it is first needed, renewed in the background well before it expires, replaced when it is
/// refused, and fetched by **one** task whatever the number of those who wait. It is useful without the layer, too:
///
/// ```
/// use tower_oauth::{AccessToken, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::TokenError> {
/// let cache = TokenCache::new(|| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") });
/// let token = cache.token().await?;
/// // Somebody answered 401 to it:
/// cache.invalidate(token.generation());
/// assert!(cache.current().is_none());
/// assert!(cache.token().await?.generation() > token.generation());
/// # Ok(())
/// # }
/// ```
///
/// # Caveats
///
/// - Building a cache needs no runtime. A fetch runs on the tokio runtime of the call that starts it, which needs its time
///   driver (`enable_all`), and ends with that runtime: those who wait get [`TokenErrorKind::Runtime`], the next call
///   fetches on its own runtime. A current-thread runtime that is kept but no longer run keeps its fetch from ending.
/// - A source that gives a refused token *again* starts a new generation with it: the next request shows it once more, as
///   the refusal may have been a passing one. The request that was refused is not repeated with it.
/// - A stale token is renewed when it is used: an idle cache fetches nothing.
/// - After a fetch that failed, the next one is not made before the back-off has passed. Until then, whoever needs a token gets
///   the error of the last one at once, with [`TokenError::next_attempt_in`].
#[derive(Clone)]
pub struct TokenCache(Arc<Shared>);

struct Shared {
    single_flight: Arc<SingleFlight>,
    source: Arc<dyn DynTokenSource>,
    refresh_timeout: Duration,
}

impl TokenCache {
    /// How long one fetch may take, unless [`TokenCacheBuilder::refresh_timeout`] says otherwise.
    pub const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

    /// A cache that has no token yet and gets it from `source`, with all settings at their defaults.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// A cache with settings of your own.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder { source: Arc::new(source), refresh_timeout: Self::DEFAULT_REFRESH_TIMEOUT }
    }

    /// The token to use now. Fetches it, or waits for the fetch under way, where there is none.
    ///
    /// # Errors
    ///
    /// What the fetch ended with, the same for all who waited for it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. The fetch goes on for the others and for the next call.
    pub async fn token(&self) -> Result<CachedToken, TokenError> {
        let mut came_too_late = false;
        loop {
            if let Some(token) = self.current() {
                if token.is_stale() {
                    self.renew();
                }
                return Ok(token);
            }
            let flight = match self.0.single_flight.enter() {
                Entry::Cached(token) => return Ok(token),
                Entry::Blocked(error) => return Err(error),
                Entry::Joined(flight) => flight,
                Entry::Opened(ticket, flight) => {
                    self.take_off(ticket);
                    flight
                }
            };
            let landed = flight.landed().await?;
            // It may have been refused meanwhile, or have expired where this task was not run for long: once more, then.
            if self.0.single_flight.slot().generation() == Some(landed.generation()) {
                match landed.is_expired() {
                    false => return Ok(landed),
                    true if came_too_late => return Err(too_short_lived()),
                    true => came_too_late = true,
                }
            }
        }
    }

    /// The token to use now, if there is one. Neither fetches nor waits.
    #[must_use]
    pub fn current(&self) -> Option<CachedToken> {
        self.0.single_flight.slot().load()
    }

    /// Takes a refused token out of use: the next call of [`token`](Self::token) fetches. Says whether it was still in use;
    /// nothing happens when a newer one is there, so that a late refusal costs nothing.
    #[allow(clippy::must_use_candidate)] // called for what it does
    pub fn invalidate(&self, refused: Generation) -> bool {
        self.0.single_flight.invalidate(refused)
    }

    /// Whether `generation` is the token to use now.
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        self.current().is_some_and(|token| token.generation() == generation)
    }

    /// Whether a source gave the very token of one generation again as the other.
    pub(crate) fn are_same(&self, one: Generation, other: Generation) -> bool {
        self.0.single_flight.are_same(one, other)
    }

    /// Lets `read` see the current token without taking a share of it.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&AccessToken, Generation) -> T) -> Option<T> {
        let (read, freshness) = self.0.single_flight.slot().read(read)?;
        if freshness == Freshness::Stale {
            self.renew();
        }
        Some(read)
    }

    /// Renews a stale token behind the back of whoever uses it.
    #[cold]
    fn renew(&self) {
        if Handle::try_current().is_ok()
            && let Some(ticket) = self.0.single_flight.renew()
        {
            self.take_off(ticket);
        }
    }

    pub(crate) fn pending_token(&self) -> PendingToken {
        let cache = self.clone();
        Box::pin(async move { cache.token().await })
    }

    /// Detached from the caller: neither its cancellation nor its panic ends the fetch.
    fn take_off(&self, ticket: Ticket) {
        let source = Arc::clone(&self.0.source);
        let limit = self.0.refresh_timeout;
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(fetch(ticket, source, limit))),
            Err(_) => ticket.finish(Err(TokenError::new(
                TokenErrorKind::Runtime,
                "a token has to be fetched, and there is no tokio runtime to fetch it on",
            ))),
        }
    }
}

async fn fetch(ticket: Ticket, source: Arc<dyn DynTokenSource>, limit: Duration) {
    let fetched = tokio::time::timeout(limit, async { source.fetch_boxed().await }).await;
    ticket.finish(fetched.unwrap_or_else(|_| {
        Err(TokenError::new(
            TokenErrorKind::Timeout,
            format!("the token source gave no token within {limit:?}"),
        ))
    }));
}

fn too_short_lived() -> TokenError {
    TokenError::new(
        TokenErrorKind::InvalidResponse,
        "the new access token expired before it could be used: its lifetime is too short",
    )
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("current", &self.current())
            .field("refresh_timeout", &self.0.refresh_timeout)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`TokenCache`], from [`TokenCache::builder`].
#[must_use]
pub struct TokenCacheBuilder {
    source: Arc<dyn DynTokenSource>,
    refresh_timeout: Duration,
}

impl TokenCacheBuilder {
    /// How long one fetch may take before those who wait get [`TokenErrorKind::Timeout`]; by default
    /// [`TokenCache::DEFAULT_REFRESH_TIMEOUT`].
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.refresh_timeout = limit;
        self
    }

    /// The cache. Needs no runtime.
    #[must_use]
    pub fn build(self) -> TokenCache {
        TokenCache(Arc::new(Shared {
            single_flight: Arc::default(),
            source: self.source,
            refresh_timeout: self.refresh_timeout,
        }))
    }
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("refresh_timeout", &self.refresh_timeout)
            .finish_non_exhaustive()
    }
}
