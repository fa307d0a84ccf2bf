//! The status of a token cache, its `tracing` events and its metrics, while the token is refreshed,
//! a refresh fails, and a token is rejected.
//!
//! ```text
//! cargo run --example observe --features tracing,metrics
//! ```

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use metrics_util::debugging::DebuggingRecorder;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_oauth::{
    AccessToken, BoxError, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind, source_fn,
};

const API: &str = "https://api.example.com";

/// Simulates an authorization server: each token lives for 4 s, and the second request fails.
fn new_token() -> Result<AccessToken, TokenError> {
    static REQUESTS: AtomicU32 = AtomicU32::new(0);
    match REQUESTS.fetch_add(1, Ordering::SeqCst) {
        1 => Err(TokenError::new(TokenErrorKind::Transport, "connection refused")),
        number => {
            let token = AccessToken::bearer(format!("token-{number}"))?;
            Ok(token.expires_in(Duration::from_secs(4)))
        }
    }
}

/// Simulates an API that rejects the second token.
fn respond(request: &Request<String>) -> Result<Response<String>, BoxError> {
    let authorization = request.headers().get(AUTHORIZATION);
    let is_accepted = authorization.is_some_and(|value| value != "Bearer token-2");
    let status = if is_accepted { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    Ok(Response::builder().status(status).body(String::new())?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).init();
    // A real program installs the exporter of its monitoring system instead.
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install()?;

    let tokens = TokenCache::builder(source_fn(|_| async { new_token() })).name("orders").build();
    let mut changes = tokens.subscribe();
    let status_printer = tokio::spawn(async move {
        while let Some(status) = changes.next().await {
            println!("status: {status}");
        }
    });

    // With a token before the first request, no request has to wait for one.
    tokio::time::timeout(Duration::from_secs(60), tokens.warm_up()).await??;

    let oauth = OAuthLayer::new(tokens.clone(), Origins::new([API])?);
    let api = service_fn(|request: Request<String>| async move { respond(&request) });
    let client = ServiceBuilder::new().layer(oauth).service(api);
    for _ in 0..10 {
        client.clone().oneshot(Request::get(format!("{API}/orders")).body(String::new())?).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    // Closing the cache ends the subscription.
    tokens.close();
    status_printer.await?;
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        println!("metric: {} {value:?}", key.key());
    }
    Ok(())
}
