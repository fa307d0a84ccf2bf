//! The seam between the cache and wherever tokens come from.

use std::{future::Future, pin::Pin};

use crate::{error::TokenError, token::AccessToken};

/// Where new access tokens come from: a grant of this crate, or yours. A closure will do.
///
/// The cache calls [`fetch`](Self::fetch) from a task of its own, one call at a time, and bounds it with its refresh
/// timeout: a source that hangs, fails or panics harms nobody but those who wait for this very token. It must not block its
/// thread, though: use `tokio::task::spawn_blocking` for what does.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::{AccessToken, TokenCache, TokenError, TokenSource};
///
/// // A type of your own …
/// struct Vault;
///
/// impl TokenSource for Vault {
///     async fn fetch(&self) -> Result<AccessToken, TokenError> {
///         Ok(AccessToken::bearer("from-the-vault")?.expires_in(Duration::from_secs(600)))
///     }
/// }
/// let cache = TokenCache::new(Vault);
///
/// // … or a closure.
/// let cache = TokenCache::new(|| async { AccessToken::bearer("from-a-closure") });
/// ```
///
/// Errors of other libraries become a [`TokenError`] with a kind and a message of yours:
///
/// ```
/// use tower_oauth::{AccessToken, TokenCache, TokenError, TokenErrorKind};
///
/// let cache = TokenCache::new(|| async {
///     let token = std::fs::read_to_string("/run/token").map_err(|error| {
///         TokenError::new(TokenErrorKind::Configuration, "the token file cannot be read").with_source(error)
///     })?;
///     AccessToken::bearer(token.trim())
/// });
/// ```
///
/// The trait is not dyn-compatible; keep a [`TokenCache`](crate::TokenCache), which has no type parameter, where the choice
/// is made at run time.
pub trait TokenSource: Send + Sync + 'static {
    /// Obtains a **new** token. An answer out of another cache gives a refused token back: see
    /// [`TokenCache`](crate::TokenCache) for what happens then.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped where it stands when the refresh timeout passes or the runtime shuts down.
    fn fetch(&self) -> impl Future<Output = Result<AccessToken, TokenError>> + Send;
}

impl<F, Fut> TokenSource for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, TokenError>> + Send,
{
    fn fetch(&self) -> impl Future<Output = Result<AccessToken, TokenError>> + Send {
        self()
    }
}

/// [`TokenSource`] behind a pointer, so that the cache needs no type parameter.
pub(crate) trait DynTokenSource: Send + Sync {
    fn fetch_boxed(&self) -> BoxFetch<'_>;
}

pub(crate) type BoxFetch<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, TokenError>> + Send + 'a>>;

impl<T: TokenSource> DynTokenSource for T {
    fn fetch_boxed(&self) -> BoxFetch<'_> {
        Box::pin(self.fetch())
    }
}
