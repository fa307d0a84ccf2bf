//! The interface between a token cache and the code that obtains tokens.

use std::{future::Future, pin::Pin, sync::Arc};

use super::fetch_context::FetchContext;
use crate::{error::TokenError, token::AccessToken};

/// A source of new access tokens: a grant of this crate, or a type of your own.
///
/// A [`TokenCache`](crate::TokenCache) calls [`fetch`](Self::fetch) in a task of its own. It makes
/// at most one call at a time and limits each call to its
/// [refresh timeout](crate::TokenCacheBuilder::refresh_timeout). A call that hangs, fails or panics
/// affects only the callers that wait for this token, and the callers during the back-off that it
/// starts. A call must not block its thread: run blocking code with
/// [`tokio::task::spawn_blocking`].
///
/// For a closure, use [`source_fn`](crate::source_fn).
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::{AccessToken, FetchContext, TokenCache, TokenError, TokenSource};
///
/// struct Vault;
///
/// impl TokenSource for Vault {
///     async fn fetch(&self, _context: FetchContext) -> Result<AccessToken, TokenError> {
///         Ok(AccessToken::bearer("token-from-the-vault")?.expires_in(Duration::from_secs(600)))
///     }
/// }
///
/// let cache = TokenCache::new(Vault);
/// ```
///
/// An error of another library becomes a [`TokenError`] with a kind and a message:
///
/// ```
/// use tower_oauth::{AccessToken, TokenCache, TokenError, TokenErrorKind, source_fn};
///
/// # async fn read_vault() -> std::io::Result<String> { Ok("t".to_owned()) }
/// let cache = TokenCache::new(source_fn(|_| async {
///     let token = read_vault().await.map_err(|error| {
///         TokenError::new(TokenErrorKind::Transport, "the vault is down").with_source(error)
///     })?;
///     AccessToken::bearer(token)
/// }));
/// ```
///
/// The trait is not dyn-compatible. Where the source is chosen at run time, store a
/// [`TokenCache`](crate::TokenCache): it has no type parameter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a token source",
    label = "the trait `TokenSource` is not implemented for this type",
    note = "for a closure, use `source_fn(|_| async {{ .. }})`",
    note = "for a type of your own, implement `TokenSource`"
)]
pub trait TokenSource: Send + Sync + 'static {
    /// Obtains a **new** token.
    ///
    /// `context` says why the cache wants a token, and which token was rejected, if any. A source
    /// that reads from another cache or store must not return the rejected token again. See
    /// [`TokenCache`](crate::TokenCache) for what happens if it does.
    ///
    /// # Errors
    ///
    /// The [kind](TokenError::kind) of an error decides when the cache calls again. See
    /// [`TokenErrorKind`](crate::TokenErrorKind).
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at each `.await`: when the refresh timeout passes, when the
    /// cache is closed, and when the runtime shuts down.
    fn fetch(
        &self,
        context: FetchContext,
    ) -> impl Future<Output = Result<AccessToken, TokenError>> + Send;
}

impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    fn fetch(
        &self,
        context: FetchContext,
    ) -> impl Future<Output = Result<AccessToken, TokenError>> + Send {
        (**self).fetch(context)
    }
}

/// The dyn-compatible form of [`TokenSource`], so that a cache needs no type parameter.
pub(crate) trait DynTokenSource: Send + Sync {
    fn fetch_boxed(&self, context: FetchContext) -> BoxFetch<'_>;
}

pub(crate) type BoxFetch<'a> =
    Pin<Box<dyn Future<Output = Result<AccessToken, TokenError>> + Send + 'a>>;

impl<T: TokenSource> DynTokenSource for T {
    fn fetch_boxed(&self, context: FetchContext) -> BoxFetch<'_> {
        Box::pin(self.fetch(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::block_on;

    use super::*;
    use crate::source::{fetch_context::FetchReason, source_fn::source_fn};

    #[test]
    fn shared_source_passes_the_context_on() {
        let source = Arc::new(source_fn(|context: FetchContext| async move {
            AccessToken::bearer(context.reason().as_str())
        }));
        let token = block_on(source.fetch_boxed(FetchContext::new(FetchReason::Stale))).unwrap();
        assert_eq!(token.expose_secret(), "stale");
    }
}
