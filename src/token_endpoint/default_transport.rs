use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use super::transport::Transport;
use crate::error::ConfigError;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type Certificate = CertificateDer<'static>;

/// HTTP/1.1 over TLS with the platform's trust. A token is asked for about once an hour, so that no connection is kept;
/// redirects are not followed.
pub(super) fn default_transport(https: bool, authorities: &[Certificate]) -> Result<Transport, ConfigError> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_max_idle_per_host(0);
    if !https {
        return Ok(Transport::new(client.build::<_, Full<Bytes>>(tcp)));
    }
    let tls = tls_config(authorities).map_err(|error| ConfigError::Tls { reason: error.to_string() })?;
    let tls =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
    Ok(Transport::new(client.build::<_, Full<Bytes>>(tls)))
}

fn tls_config(authorities: &[Certificate]) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(authorities.iter().cloned(), Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, ConfigError> {
    let refuse = |reason: String| ConfigError::Certificates { reason };
    let certificates: Vec<_> = Certificate::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| refuse(format!("they are not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(refuse("there is no certificate in it".into()));
    }
    let mut authorities = RootCertStore::empty();
    for certificate in &certificates {
        authorities.add(certificate.clone()).map_err(|error| refuse(error.to_string()))?;
    }
    Ok(certificates)
}
