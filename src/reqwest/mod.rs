//! A client that takes and returns the types of [reqwest] (feature `reqwest`).
//!
//! # The problem
//!
//! A `reqwest::Client` has request and response types of its own. They have more than those of
//! `http`: a timeout, and the URL of the response. [`OAuthLayer`](crate::OAuthLayer) needs those of
//! `http`, and a conversion in each program is easy to get wrong. reqwest also follows redirects,
//! below the layer, where the origin is not checked.
//!
//! An [`OAuthClient`] sends requests that were made with reqwest's own methods, and returns the
//! responses of reqwest, complete. It recovers from a rejected token as the layer does, and it
//! follows no redirects.
//!
//! # Example
//!
//! ```
//! use reqwest::Client;
//! use tower_oauth::{OAuthLayer, reqwest::{OAuthClient, RequestError}};
//!
//! fn client(oauth: OAuthLayer) -> reqwest::Result<OAuthClient> {
//!     OAuthClient::new(Client::builder(), oauth)
//! }
//!
//! async fn create(client: &OAuthClient, item: &str) -> Result<(), RequestError> {
//!     let request = client.get_ref().post("https://api.example.com/orders").json(&[item]);
//!     let response = client.send(request).await?;
//!     println!("{}: {}", response.url(), response.status());
//!     Ok(())
//! }
//! ```
//!
//! An [`OAuthClient`] is a tower service, too. Other layers go around it:
//!
//! ```
//! use std::time::Duration;
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//! use tower_oauth::reqwest::OAuthClient;
//!
//! async fn send(client: OAuthClient, request: reqwest::Request) -> Result<(), BoxError> {
//!     let client = ServiceBuilder::new().timeout(Duration::from_secs(30)).service(client);
//!     let response: reqwest::Response = client.oneshot(request).await?;
//!     Ok(())
//! }
//! ```
#![cfg_attr(
    feature = "reqwest-middleware",
    doc = "
With reqwest-middleware (feature `reqwest-middleware`), [`OAuthClient::into_middleware`] returns the
inner client and a middleware for it. Requests are then sent with `client.post(…).json(…).send()`."
)]
#![cfg_attr(
    not(feature = "reqwest-middleware"),
    doc = "
With reqwest-middleware (feature `reqwest-middleware`), `OAuthClient::into_middleware` returns the
inner client and a middleware for it. Requests are then sent with `client.post(…).json(…).send()`."
)]
//!
//! # Caveats
//!
//! - **`RequestBuilder::send` sends no token.** Pass the builder to [`OAuthClient::send`] instead.
//! - **Redirects are not followed.** The caller gets the response with the status 3xx. The last
//!   section shows how to follow them.
//! - **A timeout limits one attempt**, with its response body. That of a request
//!   ([`timeout`](reqwest::RequestBuilder::timeout)) and that of the client do so. They do not
//!   include the wait for a token. Put `tower::timeout` outside to limit the whole.
//! - **Streams** are sent again if no more than 64 KiB of them was sent, see
//!   [`ReqwestBody`](crate::replay::ReqwestBody). A multipart form is a stream.
//! - **Default headers of the client** are added below the layer, which does not see them. A
//!   default `Host` header is not compared with the URL. A default `Authorization` header is sent
//!   with requests that get no token.
//! - **User information in a URL**, as in `https://user:password@api.example.com`, becomes an
//!   `Authorization` header in a `RequestBuilder`. The request gets no token then.
//! - **TLS**: this feature enables no features of reqwest. Enable one in your own dependency on
//!   reqwest, such as `rustls`.
//!
//! # Redirects
//!
//! Put a layer of tower-http outside of the client. It sends one request for each hop, and the
//! origin of each is checked. It works with the types of `http`, and it repeats empty bodies only.
//!
//! ```
//! use tower::{Service, ServiceBuilder};
//! use tower_http::follow_redirect::FollowRedirectLayer;
//! use tower_oauth::reqwest::{OAuthClient, RequestError};
//!
//! fn redirecting(
//!     client: OAuthClient,
//! ) -> impl Service<
//!     http::Request<reqwest::Body>,
//!     Response = http::Response<reqwest::Body>,
//!     Error = RequestError,
//! > {
//!     ServiceBuilder::new()
//!         .layer(FollowRedirectLayer::new())
//!         .map_request(|request: http::Request<_>| {
//!             reqwest::Request::try_from(request).expect("an absolute URL")
//!         })
//!         .map_response(http::Response::<reqwest::Body>::from)
//!         .service(client)
//! }
//! ```

mod client;
mod exchange;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod request_error;

pub use self::client::OAuthClient;
#[cfg(feature = "reqwest-middleware")]
pub use self::middleware::OAuthMiddleware;
pub use self::request_error::RequestError;
