//! Opens the connections of the ready-made transport, with TLS for `https` URLs.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use rustls::ClientConfig;
use tower_service::Service;

use super::{
    proxy::Proxies,
    proxy_connector::{ProxyConnector, Stream},
};
use crate::error::BoxError;

/// A connector for `http` URLs, and for `https` URLs if it has a TLS configuration.
#[derive(Clone)]
pub(super) struct Connector {
    inner: ProxyConnector,
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(tls: Arc<ClientConfig>, proxies: Proxies) -> Self {
        let inner = ProxyConnector::new(Some((proxies, Arc::clone(&tls))));
        Self { inner, tls: Some(tls) }
    }

    /// Creates a connector without TLS and without proxies.
    pub(super) fn for_plain_http() -> Self {
        Self { inner: ProxyConnector::new(None), tls: None }
    }

    /// Returns this connector with other proxies. Without TLS, there are no proxies.
    pub(super) fn with_proxies(self, proxies: Proxies) -> Self {
        match self.tls {
            Some(tls) => Self::new(tls, proxies),
            None => self,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Stream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let is_plain = url.scheme() == Some(&Scheme::HTTP);
        match &self.tls {
            Some(tls) => HttpsConnector::from((self.inner.clone(), Arc::clone(tls))).call(url),
            None if is_plain => {
                let connecting = self.inner.call(url);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            None => Box::pin(std::future::ready(Err(io::Error::other(
                "this transport has no TLS, so it cannot send a request to an https URL",
            )
            .into()))),
        }
    }
}
