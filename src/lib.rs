//! Client-side OAuth 2.0 for [tower](https://docs.rs/tower): a layer that puts a valid access token
//! on every **outgoing** request and replaces a rejected token without the caller noticing.
//!
//! (Other crates use the name `OAuthLayer` for a layer that validates tokens in a server. This
//! crate is for clients only.)
//!
//! # The problem
//!
//! Machine-to-machine APIs all ask the same of their clients: get a token with the client
//! credentials grant (RFC 6749 §4.4), reuse it for hours, refresh it when it expires or a 401 says
//! so, and never fetch one per call. Written by hand, this is a header, a mutex and a retry, with
//! three races: a hundred requests that meet a revoked token fetch a hundred new ones; a cancelled
//! caller cancels the fetch of all others; a late 401 discards the new token.
//!
//! # Example
//!
//! ```no_run
//! # #[cfg(feature = "default-transport")] {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_oauth::{ClientAuth, ClientCredentials, TokenEndpoint};
//! use tower_oauth::{OAuthLayer, Origins, TokenCache};
//! # use tower_oauth::BoxError;
//!
//! # async fn example<S, B>(http_client: S, secret: String) -> Result<(), BoxError>
//! # where
//! #     S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>> + Clone,
//! #     B: http_body::Body + 'static,
//! # {
//! // Once per client registration: the source of the tokens, and the cache that all clients share.
//! let auth = ClientAuth::client_secret_basic("my-client", secret);
//! let endpoint = TokenEndpoint::new("https://auth.example.com/oauth2/token", auth)?;
//! let tokens = TokenCache::new(ClientCredentials::new(endpoint).scope("orders:read"));
//!
//! // Once per API: the servers that may receive the token.
//! let oauth = OAuthLayer::new(tokens, Origins::new(["https://api.example.com"])?);
//! let client = ServiceBuilder::new().layer(oauth).service(http_client);
//!
//! let request = Request::get("https://api.example.com/orders").body(Full::default())?;
//! let response = client.oneshot(request).await?;
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! 1. The current token is read without a lock and attached as a prebuilt, sensitive header value.
//! 2. If there is no token, the request waits for **one** fetch that all callers share. A token in
//!    use is refreshed in the background well before it expires.
//! 3. A 401 takes the rejected token out of use, unless a newer one is there already. The request
//!    waits for the new token and is sent once more. If the second attempt is rejected, or if the
//!    refresh fails, the caller gets the 401. There is one exception: a second attempt does not
//!    count if its token was already being fetched at the time of the 401. The caller also gets a
//!    first 401 at once if new tokens have not helped recently.
//!
//! # Other clients
//!
//! With reqwest and its own types (feature `reqwest`, module `reqwest`):
//!
//! ```no_run
//! # #[cfg(feature = "reqwest")] {
//! # use reqwest::Client;
//! # use tower_oauth::{BoxError, OAuthLayer, reqwest::OAuthClient};
//! # async fn example(oauth: OAuthLayer, order: [u8; 2]) -> Result<(), BoxError> {
//! let client = OAuthClient::new(Client::builder(), oauth)?;
//! let request = client.get_ref().post("https://api.example.com/orders").json(&order);
//! let response = client.send(request).await?;
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! With tonic (feature `tonic`), where `UNAUTHENTICATED` is recovered like a 401, streams included:
//!
//! ```no_run
//! # #[cfg(feature = "tonic")] {
//! # use tonic_health::pb::health_client::HealthClient as GreeterClient;
//! # use tower::ServiceBuilder;
//! # use tower_oauth::{OAuthLayer, Origins, TokenCache};
//! # fn example(tokens: TokenCache, channel: tonic::transport::Channel) {
//! let oauth = OAuthLayer::new(tokens, Origins::without_authority()).grpc();
//! let client = GreeterClient::new(ServiceBuilder::new().layer(oauth).service(channel));
//! # }
//! # }
//! ```
//!
//! # Overview
//!
//! | to | see |
//! | --- | --- |
//! | wrap a client | [`OAuthLayer`], [`Origins`] |
//! | use reqwest | the module `reqwest` (feature `reqwest`) |
//! | get tokens from a provider | [`ClientCredentials`], [`TokenEndpoint`], [`ClientAuth`] |
//! | find its endpoint by the issuer, or read a non-standard response | [`Issuer`], [`ResponseFormat`], [`RequestFormat`] |
//! | share one transport among many endpoints | `DefaultTransport` (feature `default-transport`) |
//! | send token requests through a proxy | `HTTPS_PROXY`, or `DefaultTransport::proxy` |
//! | send a grant that this crate does not have | [`TokenEndpoint::send`], [`TokenRequest`], [`TokenResponse`] |
//! | keep providers in a file or in environment variables | the module `config` (feature `config`) |
//! | get tokens from elsewhere | [`StaticToken`], [`TokenFile`], [`source_fn`], [`TokenSource`] |
//! | use the token without the layer, warm it up, close it | [`TokenCache`] |
//! | limit token requests, name a cache | [`TokenCacheBuilder`] |
//! | observe a token | [`Status`], [`StatusChanges`], [the chapter on telemetry](docs::telemetry) |
//! | send its spans to OpenTelemetry | [the chapter on OpenTelemetry](docs::opentelemetry) |
//! | choose how bodies are kept for the retry | [`replay`] |
//! | know which requests are retried | [the chapter on replay](docs::replay) |
//! | handle errors | [`TokenError`], [`TokenErrorKind`]; before anything is sent [`ConfigError`] |
//! | know the effect of each fault | [the chapter on faults](docs::faults) |
//! | know the cost of a request | [the chapter on cost](docs::cost) |
//! | test code that uses this crate | the module `test_util` (feature `test-util`), [the chapter on testing](docs::testing) |
//! | compare it with other crates | [the comparison](docs::comparison) |
//! | know its limitations | [the chapter on limitations](docs::limitations) |
//! | read or change the source | [the chapter on architecture](docs::architecture) |
//!
//! # Caveats
//!
//! - **A 401 although a token is configured?** A request gets no token if its origin is not among
//!   the [`Origins`] (`localhost` is not `127.0.0.1`), if its `Host` header names another server, or
//!   if it brings its own `Authorization` header. See the reason in the event "request sent without
//!   a token".
//! - **Position in the stack.** Put a layer that follows redirects *outside* (before) this one, so
//!   that every hop is checked against the [`Origins`]. Put a timeout for the whole exchange
//!   outside, and a timeout for each attempt inside. A layer that must see the token (request
//!   signing, logging) goes inside.
//! - **Reverse proxies.** Remove the incoming `Host` header before the layer. It names the proxy and
//!   not the API, and such a request gets no token.
//! - **The token request has its own transport.** It never goes through the wrapped service.
//! - **Services must be `Clone`**, as for `tower::retry`: a retry may need a second one.
//! - **Tokio.** Building a layer or a cache needs no runtime. A fetch needs one, with its time
//!   driver.
//!
//! # Cargo features
//!
#![doc = include_str!("docs/features.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Parts of the shared modules serve the token endpoint only.
#![cfg_attr(not(feature = "client-credentials"), allow(dead_code, unused_imports))]

mod attach;
mod cache;
#[cfg(feature = "config")]
pub mod config;
mod doubling_delay;
mod error;
pub mod future;
mod host_header;
mod layer;
mod log_text;
mod origins;
mod pace;
#[cfg(feature = "client-credentials")]
mod redact;
mod rejection;
pub mod replay;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod service;
mod source;
mod sync;
mod telemetry;
#[cfg(feature = "test-util")]
pub mod test_util;
mod token;
#[cfg(feature = "client-credentials")]
mod token_endpoint;
mod url_check;

pub use cache::{
    CachedToken, RefreshState, Status, StatusChanges, TokenCache, TokenCacheBuilder, TokenState,
};
pub use error::{BoxError, ConfigError, TokenError, TokenErrorKind};
pub use layer::OAuthLayer;
#[doc(hidden)]
pub use origins::OriginList;
pub use origins::Origins;
pub use service::OAuth;
#[cfg(feature = "client-credentials")]
pub use source::ClientCredentials;
pub use source::{
    FetchContext, FetchReason, SourceFn, StaticToken, TokenFile, TokenSource, source_fn,
};
pub use token::{AccessToken, Generation, Secret};
#[cfg(feature = "default-transport")]
pub use token_endpoint::DefaultTransport;
#[cfg(feature = "client-credentials")]
#[doc(hidden)]
pub use token_endpoint::Location;
#[cfg(feature = "client-credentials")]
pub use token_endpoint::{
    ClientAuth, Issuer, RequestFormat, ResponseFormat, TokenEndpoint, TokenRequest, TokenResponse,
    TokenUrl,
};

#[cfg(any(doc, doctest))]
pub mod docs {
    //! Chapters on subjects that do not belong to a single item.

    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}

    #[doc = include_str!("docs/comparison.md")]
    pub mod comparison {}

    #[doc = include_str!("docs/cost.md")]
    pub mod cost {}

    #[doc = include_str!("docs/faults.md")]
    pub mod faults {}

    #[doc = include_str!("docs/limitations.md")]
    pub mod limitations {}

    #[doc = include_str!("docs/opentelemetry.md")]
    pub mod opentelemetry {}

    #[doc = include_str!("docs/replay.md")]
    pub mod replay {}

    #[doc = include_str!("docs/telemetry.md")]
    pub mod telemetry {}

    // The examples are compiled with the features that they need.
    #[cfg_attr(
        any(not(doctest), all(feature = "default-transport", feature = "test-util")),
        doc = include_str!("docs/testing.md")
    )]
    pub mod testing {}
}
