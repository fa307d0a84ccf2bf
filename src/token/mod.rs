//! Values: access tokens with their lifetime, their generation in a cache, and client secrets
//! (RFC 6749 §1.4, §2.3.1, §5.1).

mod access_token;
mod generation;
mod read_secret_file;
mod secret;
mod unreadable_lifetime;

pub use access_token::AccessToken;
pub(crate) use access_token::{
    RefreshTiming, Scheme, basic_credentials, usable_age, without_scheme,
};
pub use generation::Generation;
pub(crate) use read_secret_file::read_secret_file;
pub use secret::Secret;
pub(crate) use secret::sensitive_header;
pub(crate) use unreadable_lifetime::UnreadableLifetime;
