//! Tokens that no grant gives: fixed ones, and those that another process keeps fresh.

mod static_token;
mod token_file;

pub use static_token::StaticToken;
pub use token_file::TokenFile;
