//! The module `reqwest` over real sockets. `replay/table.rs` checks its bodies.

mod client;
mod errors;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod redirects;

use std::net::SocketAddr;

use tower_oauth::{
    AccessToken, OAuthLayer, Origins, TokenCache, replay::ReqwestBody, reqwest::OAuthClient,
    source_fn,
};

/// Returns a client that ignores the proxies of the environment.
fn client(oauth: OAuthLayer<impl Into<ReqwestBody>>) -> OAuthClient {
    OAuthClient::new(reqwest::Client::builder().no_proxy(), oauth).unwrap()
}

/// Returns a layer for the API at `address`. It gets one token after another: `A`, `AA`, `AAA`, …
fn layer(address: SocketAddr) -> OAuthLayer {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let tokens = TokenCache::new(source_fn(move |_| {
        let count = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        async move { AccessToken::bearer("A".repeat(count)) }
    }));
    OAuthLayer::new(tokens, Origins::new([format!("http://{address}")]).unwrap())
}
