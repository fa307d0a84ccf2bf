//! One round trip to the token endpoint (RFC 6749 §3.2).
//!
//! | file | subject |
//! | --- | --- |
//! | `endpoint` | what users set up |
//! | `location` | where it is: a URL, or an issuer |
//! | `token_url` | a URL, and whether a secret may go there |
//! | `issuer` | finding the URL by the server's metadata (RFC 8414) |
//! | `round_trip` | one request and its whole answer, within limits |
//! | `transport` | the tower service that carries it |
//! | `default_transport` | the ready-made one |
//! | `response_format` | where in the answer its members stand |
//! | `response` | reading the answer |

#[cfg(feature = "default-transport")]
mod default_transport;
mod endpoint;
mod issuer;
mod location;
mod response;
mod response_format;
mod round_trip;
mod token_url;
mod transport;

pub use endpoint::TokenEndpoint;
pub use issuer::Issuer;
pub use location::Location;
pub use response_format::ResponseFormat;
pub use token_url::TokenUrl;
