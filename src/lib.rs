//! Client-side OAuth 2.0 for [tower](https://docs.rs/tower): a valid access token on every **outgoing** request.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
mod client_auth;
mod error;
pub mod future;
mod grant;
mod layer;
mod presentation;
pub mod replay;
mod service;
mod source;
mod token;
mod token_endpoint;
mod token_request;

pub use cache::{CachedToken, Generation, TokenCache, TokenCacheBuilder};
pub use client_auth::ClientAuth;
pub use error::{ConfigError, TokenError, TokenErrorKind};
pub use grant::ClientCredentials;
pub use layer::OAuthLayer;
pub use presentation::Origins;
pub use service::OAuth;
pub use source::TokenSource;
pub use token::{AccessToken, ClientSecret};
pub use token_endpoint::{TokenEndpoint, TokenUrl};
