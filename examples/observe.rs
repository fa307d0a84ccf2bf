//! What there is to see of a token at work: its status, events of `tracing`, and metrics.
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
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind};

const API: &str = "https://api.example.com";

/// In the place of an authorization server: tokens of four seconds, and an outage when the second one is due.
async fn new_token() -> Result<AccessToken, TokenError> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    match ASKED.fetch_add(1, Ordering::SeqCst) {
        1 => Err(TokenError::new(TokenErrorKind::Transport, "the authorization server is away")),
        number => Ok(AccessToken::bearer(format!("token-{number}"))?.expires_in(Duration::from_secs(4))),
    }
}

/// In the place of an API: it has forgotten the second token.
fn answer(request: &Request<String>) -> Result<Response<String>, BoxError> {
    let is_known = request.headers().get(AUTHORIZATION).is_some_and(|token| token != "Bearer token-2");
    let status = if is_known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    Ok(Response::builder().status(status).body(String::new())?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).init();
    // Your program would install the exporter of its monitoring instead.
    let recorder = DebuggingRecorder::new();
    let counted = recorder.snapshotter();
    recorder.install()?;

    let tokens = TokenCache::builder(new_token).name("orders").build();
    let mut changes = tokens.subscribe();
    let health = tokio::spawn(async move {
        while let Some(status) = changes.next().await {
            println!("status: {status}");
        }
    });

    // Before the first request: so none of them has to wait.
    tokio::time::timeout(Duration::from_secs(60), tokens.warm_up()).await??;

    let oauth = OAuthLayer::new(tokens.clone(), Origins::new([API])?);
    let api = service_fn(|request: Request<String>| async move { answer(&request) });
    let client = ServiceBuilder::new().layer(oauth).service(api);
    for _ in 0..10 {
        client.clone().oneshot(Request::get(format!("{API}/orders")).body(String::new())?).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    tokens.close();
    health.await?;
    for (key, _, _, value) in counted.snapshot().into_vec() {
        println!("metric: {} {value:?}", key.key());
    }
    Ok(())
}
