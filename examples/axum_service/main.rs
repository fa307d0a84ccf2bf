//! An axum service that calls an API with access tokens, with its settings in a file. Copy this and
//! `service.toml` to start your own service.
//!
//! ```text
//! cargo run --example fake_provider          # in another terminal: the API and its token endpoint
//! cargo run --example axum_service --features config -- examples/axum_service/service.toml
//! ```

use std::{env, fs};

use axum::{Router, body::Body, extract::State, http::StatusCode, routing::get};
use http::{Request, Response};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_oauth::{BoxError, config::ProviderConfig, replay::BufferBody};

/// The settings in the file. Keys of a provider are described in `tower_oauth::config`.
#[derive(serde::Deserialize)]
struct Settings {
    listen: String,
    orders_url: String,
    provider: ProviderConfig,
}

#[derive(Clone)]
struct AppState {
    client: BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>,
    orders_url: String,
}

async fn orders(State(app): State<AppState>) -> Result<Response<Body>, (StatusCode, String)> {
    let error = |error: BoxError| (StatusCode::BAD_GATEWAY, error.to_string());
    let request = Request::get(app.orders_url).body(Body::empty());
    app.client.oneshot(request.map_err(|cause| error(cause.into()))?).await.map_err(error)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let path = env::args().nth(1).ok_or("usage: axum_service FILE")?;
    // `message` does not quote the file, which may contain a secret.
    let settings: Settings =
        toml::from_str(&fs::read_to_string(path)?).map_err(|error| error.message().to_owned())?;

    let provider = rustls::crypto::ring::default_provider();
    let tls = HttpsConnectorBuilder::new().with_provider_and_platform_verifier(provider)?;
    let connector = tls.https_or_http().enable_http1().build();
    let http_client = Client::builder(TokioExecutor::new()).build(connector);
    // An axum body is not `Clone`: `BufferBody` keeps it for the retry.
    let oauth = settings.provider.layer()?.with_replay(BufferBody::default());
    let client = oauth.layer(http_client).map_response(|response| response.map(Body::new));
    let client = BoxCloneSyncService::new(client);
    let state = AppState { client, orders_url: settings.orders_url };

    let listener = tokio::net::TcpListener::bind(settings.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, Router::new().route("/orders", get(orders)).with_state(state)).await?)
}
