//! Authorization grants (RFC 6749 §1.3): what is asked for, as a [`TokenSource`](crate::TokenSource).

mod client_credentials;

pub use client_credentials::ClientCredentials;
