//! The detached task that calls the token source.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{runtime::Handle, time::timeout};

use super::{
    single_flight::{RefreshGuard, panicked},
    state::closed,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    source::DynTokenSource,
    token::AccessToken,
};

/// Fetches a token in a task of its own, so that neither the cancellation nor the panic of a caller
/// ends the fetch. The fetch is cancelled when the cache is closed. Without a tokio runtime, the
/// refresh fails at once.
pub(super) fn spawn(
    mut guard: Box<RefreshGuard>,
    source: Option<Arc<dyn DynTokenSource>>,
    limit: Duration,
) {
    // A cache that was closed meanwhile has dropped its source and ended the refresh.
    let Some(source) = source else { return };
    match Handle::try_current() {
        Ok(runtime) => {
            guard.begin();
            runtime.spawn(async move {
                let fetched = fetch(&guard, &*source, limit).await;
                let names = guard.setting_names();
                guard.finish(fetched.map_err(|error| error.with_setting_names(names)));
            });
        }
        Err(_) => guard.finish(Err(TokenError::new(
            TokenErrorKind::Runtime,
            "a token must be fetched, but there is no tokio runtime to fetch it on",
        ))),
    }
}

/// Calls the source, within its time limit, until the cache is closed.
async fn fetch(
    guard: &RefreshGuard,
    source: &dyn DynTokenSource,
    limit: Duration,
) -> Result<AccessToken, TokenError> {
    let fetch = timeout(limit, source.fetch_boxed(guard.context()));
    // The block owns the future of the source, which is therefore dropped within the span as well.
    let fetch = async move {
        let mut fetch = pin!(fetch);
        let fetch = poll_fn(|cx| {
            let poll = AssertUnwindSafe(|| fetch.as_mut().poll(cx));
            catch_unwind(poll).unwrap_or_else(|_panic| Poll::Ready(Ok(Err(panicked()))))
        });
        fetch.await
    };
    let mut fetch = pin!(guard.instrument(fetch));
    let mut until_closed = pin!(guard.closed());
    let fetched = poll_fn(|cx| match until_closed.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(Err(closed()))),
        Poll::Pending => fetch.as_mut().poll(cx),
    });
    fetched.await.unwrap_or_else(|_elapsed| Err(timed_out(limit)))
}

fn timed_out(limit: Duration) -> TokenError {
    let message = format!("the token source returned no token within {limit:?}");
    let advice = "check the server that the token source uses, or raise \
                  {TokenCacheBuilder::refresh_timeout|refresh_timeout}";
    TokenError::new(TokenErrorKind::Timeout, message).with_advice(advice)
}
