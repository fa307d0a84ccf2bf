//! The token endpoint (RFC 6749 §3.2): one request, its client authentication, and its response.
//!
//! | file | subject |
//! | --- | --- |
//! | `endpoint` | the settings of an endpoint; sending a request |
//! | `location` | a URL or an issuer |
//! | `token_url` | a checked URL |
//! | `issuer` | finding the URL through the metadata of the server (RFC 8414) |
//! | `client_auth` | client authentication |
//! | `token_request` | the parameters of a request and its secrets |
//! | `request_format` | encoding the parameters |
//! | `round_trip` | one request and its complete response, within limits |
//! | `connect_error` | recognizing the errors of a transport: connection, certificate, proxy |
//! | `transport` | the tower service that sends it |
//! | `default_transport` | the ready-made service |
//! | `connector` | the connections of the ready-made service |
//! | `proxy_connector` | its connections without TLS, through a proxy or not |
//! | `proxy` | the proxy of a request |
//! | `proxy_error` | the errors of a proxy |
//! | `tls_config` | its crypto provider and trust anchors |
//! | `certificates` | reading the certificates that it trusts |
//! | `certificate_verifier` | verifying the certificate of a server |
//! | `response_body` | reading the body of a response |
//! | `response_format` | the positions of the members in a response |
//! | `parse_response` | reading a response |
//! | `missing_scope` | the scope values that were not granted |
//! | `lifetime` | reading the lifetime of a token |
//! | `token_response` | the result |
//! | `recent_tokens` | the last results, for redaction |
//! | `advice` | the advice about a failed request |

mod advice;
#[cfg(feature = "default-transport")]
mod certificate_verifier;
#[cfg(feature = "default-transport")]
mod certificates;
mod client_auth;
mod connect_error;
#[cfg(feature = "default-transport")]
mod connector;
#[cfg(feature = "default-transport")]
mod default_transport;
mod endpoint;
mod issuer;
mod lifetime;
mod location;
mod missing_scope;
mod parse_response;
#[cfg(feature = "default-transport")]
mod proxy;
#[cfg(feature = "default-transport")]
mod proxy_connector;
#[cfg(feature = "default-transport")]
mod proxy_error;
mod recent_tokens;
mod request_format;
mod response_body;
mod response_format;
mod round_trip;
#[cfg(feature = "default-transport")]
mod tls_config;
mod token_request;
mod token_response;
mod token_url;
mod transport;

#[cfg(all(feature = "config", feature = "default-transport"))]
pub(crate) use certificates::{Certificate, parse_certificates};
pub use client_auth::ClientAuth;
#[cfg(feature = "default-transport")]
pub use default_transport::DefaultTransport;
pub use endpoint::TokenEndpoint;
pub use issuer::Issuer;
pub use location::Location;
pub use request_format::RequestFormat;
#[cfg(feature = "config")]
pub(crate) use response_body::ResponseEncoding;
pub use response_format::ResponseFormat;
pub use token_request::TokenRequest;
pub(crate) use token_request::is_client_auth_parameter;
pub use token_response::TokenResponse;
pub use token_url::TokenUrl;
