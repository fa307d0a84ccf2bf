//! The constructors of a cache and its settings.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    core::Core, request_limit::RequestLimit, system_sleep::WallClock, token_cache::TokenCache,
};
use crate::{
    error::SettingNames,
    source::{DynTokenSource, TokenSource},
    telemetry::Telemetry,
};

impl TokenCache {
    /// The default of [`TokenCacheBuilder::refresh_timeout`]: 30 seconds.
    pub const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default of [`TokenCacheBuilder::name`].
    pub const DEFAULT_NAME: &str = "default";

    /// Creates a cache that gets its tokens from `source`, with all settings at their defaults. The
    /// first token is fetched when it is needed.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// Creates a builder, to change the settings of the cache.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder {
            source: Arc::new(source),
            name: Self::DEFAULT_NAME.into(),
            refresh_timeout: Self::DEFAULT_REFRESH_TIMEOUT,
            limit: None,
            wall_clock: WallClock::default(),
            setting_names: SettingNames::default(),
        }
    }
}

/// The settings of a [`TokenCache`], from [`TokenCache::builder`].
#[must_use]
pub struct TokenCacheBuilder {
    source: Arc<dyn DynTokenSource>,
    name: Arc<str>,
    refresh_timeout: Duration,
    limit: Option<RequestLimit>,
    wall_clock: WallClock,
    setting_names: SettingNames,
}

impl TokenCacheBuilder {
    /// Sets the name of the cache in events and metrics. Default: [`TokenCache::DEFAULT_NAME`].
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the time limit of one fetch. After it, the waiting callers get
    /// [`TokenErrorKind::Timeout`](crate::TokenErrorKind::Timeout). Default:
    /// [`TokenCache::DEFAULT_REFRESH_TIMEOUT`].
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.refresh_timeout = limit;
        self
    }

    /// Limits the token requests to `max` in any stretch of time as long as `period`, such as the
    /// daily limit of a provider. Default: no limit.
    ///
    /// When the limit is reached, the current token is used until it expires or is rejected. A
    /// caller that needs a new one gets
    /// [`TokenErrorKind::LimitReached`](crate::TokenErrorKind::LimitReached) with
    /// [`TokenError::next_attempt_in`](crate::TokenError::next_attempt_in). Failed requests
    /// count, with all their attempts to connect as one. The limit is kept by this cache alone, from its creation on: divide a daily limit among your
    /// processes, and leave room for restarts.
    ///
    /// ```
    /// # use std::{num::NonZeroU32, time::Duration};
    /// # use tower_oauth::{AccessToken, TokenCache, source_fn};
    /// const DAY: Duration = Duration::from_secs(24 * 3600);
    /// const MAX: NonZeroU32 = NonZeroU32::new(100).unwrap();
    ///
    /// let source = source_fn(|_| async { AccessToken::bearer("my-token") });
    /// let cache = TokenCache::builder(source).token_request_limit(MAX, DAY).build();
    /// ```
    pub fn token_request_limit(mut self, max: NonZeroU32, period: Duration) -> Self {
        self.limit = Some(RequestLimit::new(max, period));
        self
    }

    /// Sets the source of the wall-clock time, to test a system that was suspended, such as a
    /// [`FakeWallClock`](crate::test_util::FakeWallClock). Only differences matter. Default:
    /// [`SystemTime::now`](std::time::SystemTime::now).
    #[cfg(feature = "test-util")]
    pub fn wall_clock(
        mut self,
        now: impl Fn() -> std::time::SystemTime + Send + Sync + 'static,
    ) -> Self {
        self.wall_clock = WallClock::new(now);
        self
    }

    /// Sets the form in which errors and events name settings.
    #[cfg(feature = "config")]
    pub(crate) fn setting_names(mut self, names: SettingNames) -> Self {
        self.setting_names = names;
        self
    }

    /// Creates the cache. Needs no runtime.
    #[must_use]
    pub fn build(self) -> TokenCache {
        let core = Core::new(self.limit, self.wall_clock, Telemetry::new(self.name));
        let core = core.with_setting_names(self.setting_names);
        TokenCache::from_parts(Arc::new(core), self.source, self.refresh_timeout)
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
