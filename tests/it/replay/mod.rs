//! Request bodies on a retry: a body is sent again completely, or the request is not retried.

mod connection;
mod early_rejection;
mod property;
mod table;

use std::sync::atomic::{AtomicUsize, Ordering};

use tower_oauth::{AccessToken, TokenCache, source_fn};

/// Returns a cache with the tokens `token-1`, `token-2`, …
fn cache_of_numbered_tokens() -> TokenCache {
    let issued = AtomicUsize::new(0);
    TokenCache::new(source_fn(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
        async move { AccessToken::bearer(format!("token-{number}")) }
    }))
}
