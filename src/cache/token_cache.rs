use std::{
    fmt,
    future::{Future, poll_fn},
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use futures_util::future::select;
use tokio::{runtime::Handle, time::Instant};

use super::{
    freshness::Freshness,
    keeper,
    limit::Limit,
    single_flight::{Entry, SingleFlight, Ticket, panicked},
    slot::{CachedToken, Credentials, Generation},
    status::{Status, StatusChanges},
    suspend::WallClock,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    source::{DynTokenSource, TokenSource},
    telemetry::{Happening, Telemetry},
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
/// - While a token is much used on a multi-thread runtime, the one that has fetched it, a task there watches the clock. It ends
///   within a minute after the last use, or with the cache.
/// - It lives until its last clone is dropped, those in layers and their services included, or until it is
///   [closed](Self::close): that ends its background work, too.
/// - Where the machine sleeps, the token grows older by the wall clock. That is looked at every 30 s while the token is used.
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
    /// What a cache is called, unless [`TokenCacheBuilder::name`] says otherwise.
    pub const DEFAULT_NAME: &str = "default";

    /// A cache that has no token yet and gets it from `source`, with all settings at their defaults.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// A cache with settings of your own.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder {
            source: Arc::new(source),
            name: Self::DEFAULT_NAME.into(),
            refresh_timeout: Self::DEFAULT_REFRESH_TIMEOUT,
            limit: None,
            wall_clock: WallClock::default(),
        }
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
            if let Some((token, freshness)) = self.0.single_flight.current() {
                self.after_use(freshness);
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
            self.0.single_flight.telemetry().tell(Happening::Waited);
            let landed = flight.landed().await?;
            if !self.0.single_flight.holds(&landed) {
                continue; // it is out of use by now
            }
            match landed.freshness(Instant::now()) {
                Freshness::Expired if came_too_late => return Err(too_short_lived()),
                // As this task was not run for long.
                Freshness::Expired => came_too_late = true,
                freshness => {
                    self.after_use(freshness);
                    return Ok(landed);
                }
            }
        }
    }

    /// The token to use now, if there is one. Neither fetches nor waits.
    #[must_use]
    pub fn current(&self) -> Option<CachedToken> {
        self.0.single_flight.current().map(|(token, _)| token)
    }

    /// Takes a refused token out of use: the next call of [`token`](Self::token) fetches. Says whether it was still in use;
    /// nothing happens when a newer one is there, so that a late refusal costs nothing.
    #[allow(clippy::must_use_candidate)] // called for what it does
    pub fn invalidate(&self, refused: Generation) -> bool {
        self.0.single_flight.invalidate(refused)
    }

    /// Gets a token before the first request needs one. Where the failure may pass without anybody's doing
    /// ([`Transport`](TokenErrorKind::Transport), [`Timeout`](TokenErrorKind::Timeout), [`Server`](TokenErrorKind::Server),
    /// [`LimitReached`](TokenErrorKind::LimitReached)), it tries again after each back-off, for as long as it takes: bound it
    /// with `tokio::time::timeout`. For a single attempt there is [`token`](Self::token).
    ///
    /// ```no_run
    /// # async fn example(cache: tower_oauth::TokenCache) -> Result<(), tower::BoxError> {
    /// // At start-up: an authorization server that is not up yet is waited for, a wrong secret is found at once.
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
    /// What somebody has to mend: every other [`TokenErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, like [`token`](Self::token).
    pub async fn warm_up(&self) -> Result<(), TokenError> {
        loop {
            match self.token().await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind().may_pass() => {
                    let back_off = tokio::time::sleep(error.next_attempt_in().unwrap_or_default());
                    select(pin!(self.0.single_flight.closed()), pin!(back_off)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What the cache has and does now. Neither fetches nor waits.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.single_flight.survey().status()
    }

    /// Follows the [`status`](Self::status).
    #[must_use]
    pub fn subscribe(&self) -> StatusChanges {
        StatusChanges::of(Arc::clone(&self.0.single_flight))
    }

    /// Ends the cache, with all its clones: the fetch under way is called off, the token is dropped, and whoever needs one, now
    /// or later, gets [`TokenErrorKind::Closed`]. Dropping the last clone does the same. A thread that has sent requests may
    /// keep a copy of the header value in its memory until it ends or sends with other tokens; it is not sent any more.
    ///
    /// The fetch ends when its runtime next runs it. Requests that are under way with the token end as they will.
    pub fn close(&self) {
        self.0.single_flight.close();
    }

    pub(crate) fn in_use(&self) -> TokensInUse {
        TokensInUse(Arc::clone(&self.0.single_flight))
    }

    /// Whether a source gave the very token of one generation again as the other.
    pub(crate) fn are_same(&self, one: Generation, other: Generation) -> bool {
        self.0.single_flight.are_same(one, other)
    }

    /// Lets `read` see the current token, once, without taking a share of it.
    #[inline]
    pub(crate) fn read<T>(&self, mut read: impl FnMut(&Credentials) -> T) -> Option<T> {
        self.0.single_flight.read_leased(&mut read).or_else(|| self.read_by_the_clock(&mut read))
    }

    fn read_by_the_clock<T>(&self, read: &mut impl FnMut(&Credentials) -> T) -> Option<T> {
        let (seen, freshness) = self.0.single_flight.read(read)?;
        self.after_use(freshness);
        Some(seen)
    }

    fn after_use(&self, freshness: Freshness) {
        match freshness {
            Freshness::Stale => self.renew(),
            Freshness::Fresh if self.0.single_flight.wants_keeper() => keeper::begin(&self.0.single_flight),
            Freshness::Fresh | Freshness::Expired => {}
        }
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        self.0.single_flight.telemetry()
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
    fn take_off(&self, mut ticket: Ticket) {
        let source = Arc::clone(&self.0.source);
        let limit = self.0.refresh_timeout;
        match Handle::try_current() {
            Ok(runtime) => {
                ticket.depart();
                runtime.spawn(fetch(ticket, source, limit));
            }
            Err(_) => ticket.finish(Err(TokenError::new(
                TokenErrorKind::Runtime,
                "a token has to be fetched, and there is no tokio runtime to fetch it on",
            ))),
        }
    }
}

/// The tokens of a cache, for those who may take one out of use. It does not keep the cache open.
pub(crate) struct TokensInUse(Arc<SingleFlight>);

impl TokensInUse {
    /// Whether `generation` is the token to use now.
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        self.0.current().is_some_and(|(token, _)| token.generation() == generation)
    }

    /// See [`TokenCache::invalidate`].
    pub(crate) fn invalidate(&self, refused: Generation) -> bool {
        self.0.invalidate(refused)
    }

    /// Where something went wrong, and the token may have expired behind the back of whoever watches the clock.
    pub(crate) fn doubt_lease(&self) {
        self.0.doubt_lease();
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        self.0.telemetry()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.single_flight.close();
    }
}

async fn fetch(ticket: Ticket, source: Arc<dyn DynTokenSource>, limit: Duration) {
    let fetched = ticket.fly(caught(async {
        let fetched = tokio::time::timeout(limit, source.fetch_boxed());
        // It would have panicked otherwise.
        ticket.found_timer(Handle::current().id());
        match fetched.await {
            Ok(fetched) => fetched,
            Err(_) => Err(TokenError::new(
                TokenErrorKind::Timeout,
                format!("the token source gave no token within {limit:?}"),
            )),
        }
    }));
    let fetched = fetched.await;
    ticket.finish(fetched);
}

/// With an error in the place of a panic.
async fn caught(
    fetch: impl Future<Output = Result<AccessToken, TokenError>>,
) -> Result<AccessToken, TokenError> {
    let mut fetch = pin!(fetch);
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| fetch.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
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
            .field("name", &self.telemetry().name())
            .field("current", &self.current())
            .field("refresh_timeout", &self.0.refresh_timeout)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`TokenCache`], from [`TokenCache::builder`].
#[must_use]
pub struct TokenCacheBuilder {
    source: Arc<dyn DynTokenSource>,
    name: Arc<str>,
    refresh_timeout: Duration,
    limit: Option<Limit>,
    wall_clock: WallClock,
}

impl TokenCacheBuilder {
    /// What the cache is called in events and metrics, where there are several; by default [`TokenCache::DEFAULT_NAME`].
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How long one fetch may take before those who wait get [`TokenErrorKind::Timeout`]; by default
    /// [`TokenCache::DEFAULT_REFRESH_TIMEOUT`].
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.refresh_timeout = limit;
        self
    }

    /// At most so many token requests in any stretch of time as long as `period`, such as the daily limit of the provider. By
    /// default there is none: reuse and back-off keep them few.
    ///
    /// Once it is used up, the token that is there is served until it expires or is refused; who needs a new one gets
    /// [`TokenErrorKind::LimitReached`], with [`TokenError::next_attempt_in`]. Failed requests count. It is kept by this cache
    /// alone, from its beginning on: share a daily limit among your processes, and leave room for restarts.
    ///
    /// ```
    /// # use std::{num::NonZeroU32, time::Duration};
    /// # use tower_oauth::{AccessToken, TokenCache};
    /// const DAY: Duration = Duration::from_secs(24 * 3600);
    /// const MOST: NonZeroU32 = NonZeroU32::new(100).unwrap();
    ///
    /// let cache = TokenCache::builder(|| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") })
    ///     .token_request_limit(MOST, DAY)
    ///     .build();
    /// ```
    pub fn token_request_limit(mut self, most: NonZeroU32, period: Duration) -> Self {
        self.limit = Some(Limit::new(most, period));
        self
    }

    /// What tells the time of day, for tests of a machine that slept; by default [`SystemTime::now`]. Only differences count.
    pub fn wall_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.wall_clock = WallClock::new(now);
        self
    }

    /// The cache. Needs no runtime.
    #[must_use]
    pub fn build(self) -> TokenCache {
        let telemetry = Telemetry::of(self.name);
        TokenCache(Arc::new(Shared {
            single_flight: Arc::new(SingleFlight::new(self.limit, self.wall_clock, telemetry)),
            source: self.source,
            refresh_timeout: self.refresh_timeout,
        }))
    }
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("name", &self.name)
            .field("refresh_timeout", &self.refresh_timeout)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl TokenCache {
    /// The token under lease of which this thread has a copy.
    pub(crate) fn leased_generation(&self) -> Option<Generation> {
        self.0.single_flight.read_leased(&mut |credentials| credentials.generation)
    }
}
