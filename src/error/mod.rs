//! Error types: [`ConfigError`] for settings that cannot work, found before anything is sent, and
//! [`TokenError`] for failures to obtain a token.

mod advice;
mod box_error;
mod config_error;
mod token_error;

pub(crate) use advice::{Advice, SettingNames};
pub use box_error::BoxError;
pub use config_error::ConfigError;
pub(crate) use token_error::{ErrorResponse, is_transient_status};
pub use token_error::{TokenError, TokenErrorKind};
