//! Error types: [`ConfigError`] for settings that cannot work, found before anything is sent, and
//! [`TokenError`] for failures to obtain a token.

mod box_error;
mod config_error;
mod token_error;

pub use box_error::BoxError;
pub use config_error::ConfigError;
pub(crate) use token_error::ErrorResponse;
pub use token_error::{TokenError, TokenErrorKind};
