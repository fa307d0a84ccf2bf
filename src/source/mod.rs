//! Everything that yields tokens: the trait [`TokenSource`] and its implementations.

#[cfg(feature = "client-credentials")]
mod client_credentials;
mod fetch_context;
mod source_fn;
mod static_token;
mod token_file;
mod token_source;

#[cfg(feature = "client-credentials")]
pub use client_credentials::ClientCredentials;
pub use fetch_context::{FetchContext, FetchReason};
pub use source_fn::{SourceFn, source_fn};
pub use static_token::StaticToken;
pub use token_file::TokenFile;
pub(crate) use token_source::DynTokenSource;
pub use token_source::TokenSource;
