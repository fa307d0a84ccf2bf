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

use super::single_flight::{RefreshGuard, panicked};
use crate::{
    error::{TokenError, TokenErrorKind},
    source::DynTokenSource,
    token::AccessToken,
};

/// Fetches a token in a task of its own, so that neither the cancellation nor the panic of a caller
/// ends the fetch. Without a tokio runtime, the refresh fails at once.
pub(super) fn spawn(
    mut guard: Box<RefreshGuard>,
    source: Arc<dyn DynTokenSource>,
    limit: Duration,
) {
    match Handle::try_current() {
        Ok(runtime) => {
            guard.begin();
            runtime.spawn(async move {
                let fetched = guard.run(catch_panic(fetch(&*source, &guard, limit))).await;
                guard.finish(fetched);
            });
        }
        Err(_) => guard.finish(Err(TokenError::new(
            TokenErrorKind::Runtime,
            "a token must be fetched, but there is no tokio runtime to fetch it on",
        ))),
    }
}

async fn fetch(
    source: &dyn DynTokenSource,
    guard: &RefreshGuard,
    limit: Duration,
) -> Result<AccessToken, TokenError> {
    timeout(limit, source.fetch_boxed(guard.context())).await.unwrap_or_else(|_| {
        Err(TokenError::new(
            TokenErrorKind::Timeout,
            format!("the token source returned no token within {limit:?}"),
        ))
    })
}

/// Turns a panic of the fetch into an error.
async fn catch_panic(
    fetch: impl Future<Output = Result<AccessToken, TokenError>>,
) -> Result<AccessToken, TokenError> {
    let mut fetch = pin!(fetch);
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| fetch.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
}
