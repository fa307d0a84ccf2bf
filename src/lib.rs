//! Client-side OAuth 2.0 for [tower](https://docs.rs/tower): a valid access token on every **outgoing** request, and a
//! rejected one replaced without the caller noticing.
//!
//! (Other crates call `OAuthLayer` what validates tokens in a server. This one is for clients only.)
//!
//! # The problem
//!
//! Machine-to-machine APIs all ask the same of their clients: get a token with the client credentials grant (RFC 6749 §4.4),
//! reuse it for hours, renew it when it expires or a 401 says so, and never fetch one per call. Written by hand it is a
//! header, a mutex and a retry, and three races: a hundred requests that meet a revoked token fetch a hundred new ones; a
//! caller that is cancelled takes the fetch of all others with it; a late 401 throws the new token away.
//!
//! # How it works
//!
//! ```no_run
//! # #[cfg(feature = "default-transport")] {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
//! use tower_oauth::{ClientAuth, ClientCredentials, OAuthLayer, Origins, TokenCache, TokenEndpoint};
//!
//! # async fn example<S, B>(http_client: S, secret: String) -> Result<(), BoxError>
//! # where
//! #     S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>> + Clone,
//! #     B: http_body::Body + 'static,
//! # {
//! // Once for each client registration: where tokens come from, and the one that all share.
//! let auth = ClientAuth::client_secret_basic("my-client", secret);
//! let endpoint = TokenEndpoint::new("https://auth.example.com/oauth2/token", auth)?;
//! let tokens = TokenCache::new(ClientCredentials::new(endpoint).scope("orders:read"));
//!
//! // Once for each API: who may see the token.
//! let oauth = OAuthLayer::new(tokens, Origins::new(["https://api.example.com"])?);
//! let client = ServiceBuilder::new().layer(oauth).service(http_client); // hyper-util, reqwest, tonic, …
//!
//! let request = Request::get("https://api.example.com/orders").body(Full::default())?;
//! let response = client.oneshot(request).await?;
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! 1. The current token is read without a lock and put on as a prebuilt, sensitive header value.
//! 2. Where there is none, the request waits for **one** fetch that everybody shares. A token that is used is renewed in the
//!    background well before it expires, so that this is the first request and hardly any other.
//! 3. An answer of 401 takes the refused token out of use, unless a newer one is there already; the request waits for the new
//!    one and is sent once more. A second 401, or a refresh that fails, gives the caller the 401; and so does a first one where
//!    new tokens have not helped of late.
//!
//! # With other clients
//!
//! Over reqwest, with its redirects off, as it follows them inside of the layer:
//!
//! ```no_run
//! # use bytes::Bytes;
//! # use tower::ServiceBuilder;
//! # use tower_oauth::OAuthLayer;
//! # fn example(oauth: OAuthLayer) -> reqwest::Result<()> {
//! let reqwest = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
//! let client = ServiceBuilder::new()
//!     .layer(oauth)
//!     .map_request(|request: http::Request<Bytes>| reqwest::Request::try_from(request).expect("a whole URL"))
//!     .map_response(http::Response::<reqwest::Body>::from)
//!     .service(reqwest);
//! # let _: Box<dyn tower::Service<_, Response = _, Error = _, Future = _>> = Box::new(client);
//! # Ok(())
//! # }
//! ```
//!
//! Bodies that are streams need one line more, `.map_request(|request: http::Request<Buffered<_>>|
//! request.map(reqwest::Body::wrap))` with [`BufferBody`](replay::BufferBody): see `examples/reqwest`.
//!
//! Over tonic (feature `tonic`), where `UNAUTHENTICATED` is recovered like a 401, streams included:
//!
//! ```no_run
//! # #[cfg(feature = "tonic")] {
//! # use tonic_health::pb::health_client::HealthClient as GreeterClient;
//! # use tower::ServiceBuilder;
//! # use tower_oauth::{OAuthLayer, Origins, TokenCache};
//! # fn example(tokens: TokenCache, channel: tonic::transport::Channel) {
//! let oauth = OAuthLayer::new(tokens, Origins::of_inner_service()).grpc();
//! let client = GreeterClient::new(ServiceBuilder::new().layer(oauth).service(channel));
//! # }
//! # }
//! ```
//!
//! # What is where
//!
//! | to | see |
//! | --- | --- |
//! | wrap a client | [`OAuthLayer`], [`Origins`] |
//! | get tokens from a provider | [`ClientCredentials`], [`TokenEndpoint`], [`ClientAuth`] |
//! | find it by its issuer, or read its own kind of answer | [`Issuer`], [`ResponseFormat`], [`BodyFormat`] |
//! | keep providers in a file | the module `config` (feature `config`) |
//! | get tokens from elsewhere | [`StaticToken`], [`TokenFile`], [`TokenSource`] |
//! | use the token without the layer, warm it up, close it | [`TokenCache`] |
//! | bound token requests, name a cache | [`TokenCacheBuilder`] |
//! | see what a token does | [`Status`], [`StatusChanges`], [the chapter on telemetry](docs::telemetry) |
//! | say how bodies are kept for the retry | [`replay`] |
//! | know which requests are retried | [the chapter on replay](docs::replay) |
//! | tell errors apart | [`TokenError`], [`TokenErrorKind`]; before anything is sent [`ConfigError`] |
//! | know what a fault costs, and who notices | [the chapter on faults](docs::faults) |
//! | know what a request pays | [the chapter on cost](docs::cost) |
//! | know what it does not do | [the chapter on limitations](docs::limitations) |
//! | find your way in the source | [the chapter on its architecture](docs::architecture) |
//!
//! # Caveats
//!
//! - **A 401 although a token is configured?** The request has no token when its origin is not among the [`Origins`]
//!   (`localhost` is not `127.0.0.1`), or when it brings an `Authorization` header of its own.
//! - **Where it stands in the stack.** Put a layer that follows redirects *outside* (before) this one, so that every hop is
//!   checked against the [`Origins`]. Put timeouts outside for the whole exchange, inside for each attempt. Whatever should see
//!   the token (signing, logging of sensitive headers) goes inside.
//! - **The token fetch has its own transport.** It never goes through the guarded service.
//! - **Services must be `Clone`**, as for `tower::retry`: the retry may need a second one.
//! - **Tokio.** Building anything needs no runtime; fetching does, with its time driver.
//!
//! # Cargo features
//!
//! | feature | default | brings | turn it on for |
//! | --- | --- | --- | --- |
//! | `default-transport` | yes | hyper-util, rustls with ring and the platform's trust | `TokenEndpoint::new` |
//! | `config` | no | serde | the module `config`: providers in TOML, YAML or JSON |
//! | `tonic` | no | tonic without its transport | `OAuthLayer::grpc` |
//! | `tracing` | no | tracing | [events and spans](docs::telemetry) |
//! | `metrics` | no | the metrics facade | [counters and a gauge](docs::telemetry); an atomic addition with each request |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod authority;
mod cache;
mod client_auth;
#[cfg(feature = "config")]
pub mod config;
mod credential;
mod error;
pub mod future;
mod grant;
mod layer;
mod presentation;
pub mod replay;
mod service;
mod source;
mod sync;
mod telemetry;
mod token;
mod token_endpoint;
mod token_request;

pub use cache::{
    CachedToken, Generation, RefreshState, Status, StatusChanges, TokenCache, TokenCacheBuilder, TokenState,
};
pub use client_auth::ClientAuth;
pub use credential::{StaticToken, TokenFile};
pub use error::{ConfigError, TokenError, TokenErrorKind};
pub use grant::ClientCredentials;
pub use layer::OAuthLayer;
pub use presentation::Origins;
pub use service::OAuth;
pub use source::TokenSource;
pub use token::{AccessToken, ClientSecret};
pub use token_endpoint::{Issuer, Location, ResponseFormat, TokenEndpoint, TokenUrl};
pub use token_request::BodyFormat;

#[cfg(any(doc, doctest))]
pub mod docs {
    //! Chapters: what does not belong to a single item.

    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}

    #[doc = include_str!("docs/cost.md")]
    #[doc = include_str!("docs/cost_threads.svg")]
    #[doc = include_str!("docs/cost_refresh.svg")]
    pub mod cost {}

    #[doc = include_str!("docs/faults.md")]
    pub mod faults {}

    #[doc = include_str!("docs/limitations.md")]
    pub mod limitations {}

    #[doc = include_str!("docs/replay.md")]
    pub mod replay {}

    #[doc = include_str!("docs/telemetry.md")]
    pub mod telemetry {}
}
