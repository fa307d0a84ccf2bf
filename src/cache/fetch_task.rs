//! The detached task that calls the token source.

use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{Either, select},
};
use tokio::{runtime::Handle, time::timeout};

use super::{
    single_flight::{RefreshGuard, panicked},
    state::closed,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    source::DynTokenSource,
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
                let fetch = timeout(limit, source.fetch_boxed(guard.context()));
                let fetch = AssertUnwindSafe(fetch).catch_unwind().map(|fetched| match fetched {
                    Ok(Ok(fetched)) => fetched,
                    Ok(Err(_elapsed)) => Err(timed_out(limit)),
                    Err(_panic) => Err(panicked()),
                });
                let fetch = guard.instrument(fetch);
                let fetched = match select(pin!(guard.closed()), pin!(fetch)).await {
                    Either::Left(_) => Err(closed()),
                    Either::Right((fetched, _)) => fetched,
                };
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

fn timed_out(limit: Duration) -> TokenError {
    let message = format!("the token source returned no token within {limit:?}");
    let advice = "check the server that the token source uses, or raise \
                  {TokenCacheBuilder::refresh_timeout|refresh_timeout}";
    TokenError::new(TokenErrorKind::Timeout, message).with_advice(advice)
}
