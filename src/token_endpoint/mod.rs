//! One round trip to the token endpoint (RFC 6749 §3.2).
//!
//! | file | subject |
//! | --- | --- |
//! | `endpoint` | what users set up, and the round trip |
//! | `token_url` | where the request goes, and whether a secret may go there |
//! | `transport` | the tower service that carries it |
//! | `default_transport` | the ready-made one |
//! | `response` | reading the answer |

#[cfg(feature = "default-transport")]
mod default_transport;
mod endpoint;
mod response;
mod token_url;
mod transport;

pub use endpoint::TokenEndpoint;
pub use token_url::TokenUrl;
