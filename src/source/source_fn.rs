//! A token source made from a closure.

use std::{any::type_name, fmt, future::Future};

use super::{fetch_context::FetchContext, token_source::TokenSource};
use crate::{error::TokenError, token::AccessToken};

/// Returns a [`TokenSource`] that calls `f` for each token, as `tower::service_fn` does for
/// services.
///
/// ```
/// use tower_oauth::{AccessToken, TokenCache, source_fn};
///
/// let cache = TokenCache::new(source_fn(|_| async { AccessToken::bearer("my-token") }));
/// ```
///
/// The closure receives the [`FetchContext`]. Clone what the future needs, as one closure is called
/// many times:
///
/// ```
/// use std::sync::Arc;
/// use tower_oauth::{AccessToken, FetchReason, TokenCache, TokenError, source_fn};
///
/// # struct Vault;
/// # impl Vault {
/// #     async fn token(&self, _rotate: bool) -> Result<AccessToken, TokenError> {
/// #         AccessToken::bearer("t")
/// #     }
/// # }
/// # let vault = Arc::new(Vault);
/// let cache = TokenCache::new(source_fn(move |context| {
///     let vault = Arc::clone(&vault);
///     async move { vault.token(context.reason() == FetchReason::Rejected).await }
/// }));
/// ```
///
/// # Cancel safety
///
/// See [`TokenSource::fetch`]: the future of the closure can be dropped at each `.await`.
pub fn source_fn<F, Fut>(f: F) -> SourceFn<F>
where
    F: Fn(FetchContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, TokenError>> + Send,
{
    SourceFn { f }
}

/// A [`TokenSource`] that calls a closure. Made by [`source_fn`].
#[derive(Clone, Copy)]
pub struct SourceFn<F> {
    f: F,
}

impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(FetchContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, TokenError>> + Send,
{
    fn fetch(
        &self,
        context: FetchContext,
    ) -> impl Future<Output = Result<AccessToken, TokenError>> + Send {
        (self.f)(context)
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFn").field("f", &format_args!("{}", type_name::<F>())).finish()
    }
}
