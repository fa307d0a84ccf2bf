//! Values: what a token is, how long it lasts, what must not be shown (RFC 6749 §1.4, §5.1).

mod access_token;
mod secret;

pub use access_token::AccessToken;
pub(crate) use access_token::{Renewal, Scheme};
pub use secret::ClientSecret;
pub(crate) use secret::read_secret_file;
