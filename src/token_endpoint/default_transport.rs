use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::crypto::ring;

use super::{token_url::TokenUrl, transport::Transport};
use crate::error::ConfigError;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP/1.1 over TLS with the platform's trust. A token is asked for about once an hour, so that no connection is kept;
/// redirects are not followed.
pub(super) fn default_transport(url: &TokenUrl) -> Result<Transport, ConfigError> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_max_idle_per_host(0);
    if !url.is_https() {
        return Ok(Transport::new(client.build::<_, Full<Bytes>>(tcp)));
    }
    let tls = HttpsConnectorBuilder::new()
        .with_provider_and_platform_verifier(ring::default_provider())
        .map_err(|error| ConfigError::Tls { reason: error.to_string() })?
        .https_only()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Transport::new(client.build::<_, Full<Bytes>>(tls)))
}
