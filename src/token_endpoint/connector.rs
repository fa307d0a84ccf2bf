//! Opens the connections of the ready-made transport: TCP, and TLS for `https` URLs.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::error::BoxError;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connector for `http` URLs, and for `https` URLs if it has a TLS configuration.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Self { tcp, tls }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let is_plain = url.scheme() == Some(&Scheme::HTTP);
        match &self.tls {
            Some(tls) => HttpsConnector::from((self.tcp.clone(), Arc::clone(tls))).call(url),
            None if is_plain => {
                let connecting = self.tcp.call(url);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            None => Box::pin(std::future::ready(Err(io::Error::other(
                "this transport has no TLS, so it cannot send a request to an https URL",
            )
            .into()))),
        }
    }
}
