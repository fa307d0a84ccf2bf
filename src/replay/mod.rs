//! The ways to keep the body of a request for a retry.
//!
//! The layer retries a rejected request once, with a new token. The HTTP client has consumed the
//! body by then. The layer therefore passes each body through a [`Replay`] before it sends the
//! request. The `Replay` returns the body to send and a copy for the retry. It is a type parameter
//! of the layer and is set with [`OAuthLayer::with_replay`](crate::OAuthLayer::with_replay):
//!
//! | type | bodies | retried | cost per request |
//! | --- | --- | --- | --- |
//! | [`CloneBody`] (default) | `Clone`, such as `Full<_>` | always | copied headers, cloned body |
//! | [`BufferBody`] | any, streams included | up to a size cap | copied headers, shared frames |
//! | [`NoReplay`] | any | never | none |
#![cfg_attr(
    feature = "tonic",
    doc = "| [`TonicBody`] | tonic's | up to a size cap | copied headers, shared frames |"
)]
#![cfg_attr(
    feature = "reqwest",
    doc = "| [`ReqwestBody`] | reqwest's | in memory; streams up to a size cap | copied headers |"
)]
//!
//! [The chapter on replay](crate::docs::replay) lists which requests are retried.
//!
//! # Example
//!
//! A second layer for uploads that must not be repeated. It shares its tokens with the first:
//!
//! ```
//! use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, replay::NoReplay, source_fn};
//!
//! let source = source_fn(|_| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") });
//! let origins = Origins::new(["https://api.example.com"])?;
//! let oauth = OAuthLayer::new(TokenCache::new(source), origins);
//! let uploads = oauth.clone().with_replay(NoReplay);
//! # Ok::<_, tower_oauth::ConfigError>(())
//! ```
//!
//! # Caveats
//!
//! - The layer retries requests of every method, because a server that rejects a token does not
//!   process the request. Use [`NoReplay`] for a server that may do so.
//! - A rejected token is invalidated even if its request is not retried, so that the next request
//!   is sent with a new token. The layer suppresses this while new tokens are rejected as well.
//! - The compiler error "`oneshot` exists for `OAuth<…>`, but its trait bounds were not satisfied"
//!   has one of three causes. If the request body is not `Clone`, use [`BufferBody`]. If the inner
//!   service is not an HTTP service, convert its requests and responses. For a `reqwest::Client`,
//!   the module `reqwest` does that (feature `reqwest`). The third cause is a response body that
//!   does not implement [`http_body::Body`].
//! - The clones of some bodies share one stream, and a retry would send only the rest of it. Use
//!   [`BufferBody`] for such a body.

mod buffer_body;
mod clone_body;
mod no_replay;
mod recorded_body;
mod replay_trait;
#[cfg(feature = "reqwest")]
mod reqwest_body;
mod saved_request;
#[cfg(feature = "tonic")]
mod tonic_body;

pub use self::buffer_body::{BufferBody, Buffered};
pub use self::clone_body::CloneBody;
pub use self::no_replay::NoReplay;
pub use self::replay_trait::Replay;
#[cfg(feature = "reqwest")]
pub use self::reqwest_body::ReqwestBody;
pub(crate) use self::saved_request::SavedRequest;
#[cfg(feature = "tonic")]
pub use self::tonic_body::TonicBody;
