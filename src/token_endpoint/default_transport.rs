//! The ready-made transport: hyper-util with rustls.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower_service::Service;

use super::{
    certificates::{Certificate, parse_certificates},
    connector::Connector,
    proxy::{Proxies, Proxy},
    tls_config::{Roots, tls_config},
};
use crate::error::{BoxError, ConfigError};

/// The ready-made transport for token requests: HTTP/1.1, with TLS for `https` URLs.
///
/// [`TokenEndpoint::new`](crate::TokenEndpoint::new) makes one for each endpoint. A program with
/// many endpoints makes one itself and passes clones of it to
/// [`TokenEndpoint::with_transport`](crate::TokenEndpoint::with_transport):
///
/// ```no_run
/// use tower_oauth::{ClientAuth, ConfigError, DefaultTransport, TokenEndpoint};
///
/// # fn example(tenants: &[(&str, &str)]) -> Result<(), ConfigError> {
/// let transport = DefaultTransport::new()?;
/// for (token_url, secret) in tenants.iter().copied() {
///     let auth = ClientAuth::client_secret_basic("my-client", secret);
///     let endpoint = TokenEndpoint::with_transport(token_url, auth, transport.clone())?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Cost
///
/// Creating a transport reads the certificates of the platform: about 3 ms and 0.1 MB on Linux.
/// Clones share the TLS configuration, including these certificates, so a clone costs neither.
///
/// # TLS
///
/// TLS 1.2 or 1.3 with rustls. Its crypto provider is
///
/// 1. the one that the program has installed with `CryptoProvider::install_default` of rustls 0.23,
///    such as a provider with FIPS approval,
/// 2. or else aws-lc-rs with the feature `aws-lc-rs`,
/// 3. or else ring with the default feature `ring`.
///
/// The provider is chosen when the transport is created. It is not installed for other code.
///
/// The trusted certificate authorities are
///
/// 1. those of the platform with the default feature `platform-verifier`,
/// 2. or else those of the crate `webpki-roots`, which are a part of the program, with the feature
///    `webpki-roots`. With both features, `DefaultTransport::with_bundled_roots` chooses the latter.
///
/// The certificates given to [`new_trusting`](Self::new_trusting) are trusted as well, and they are
/// the only ones with neither of the two features.
///
/// # Behavior
///
/// - Redirects are not followed.
/// - Connections are not kept, because token requests are rare. Therefore it can be used from
///   several runtimes.
/// - One attempt to connect takes at most
///   [`TokenEndpoint::CONNECT_TIMEOUT`](crate::TokenEndpoint::CONNECT_TIMEOUT). The IPv4
///   addresses of a host share this time, and so do its IPv6 addresses. Up to two more attempts
///   follow, see [`TokenEndpoint::CONNECT_RETRY_DELAYS`](crate::TokenEndpoint::CONNECT_RETRY_DELAYS).
/// - Names are resolved with the resolver of the system, or by the proxy.
///
/// # Proxies
///
/// Requests to `https` URLs go through the HTTP proxy in the environment variable `HTTPS_PROXY`, or
/// else `ALL_PROXY`, except to the servers in `NO_PROXY` and to this machine. The names of the
/// variables may be in lower case. They are read once, when the transport is created.
///
/// - The value of a proxy variable is a URL such as `http://user:password@proxy.example.com:3128`.
///   The scheme is `http` (also without a scheme) or `https`, for a proxy that is reached with TLS.
///   The port is 80 or 443 if there is none. A variable that cannot be used is an error of each
///   request that would need it: no request bypasses the proxy because of a typing error.
/// - `NO_PROXY` is a list, separated by commas. `example.com` and `.example.com` are the server and
///   all its subdomains, `10.0.0.0/8` is a network, and `*` is everything. IPv6 addresses have no
///   brackets. Ports are not supported: an item with a port exempts no server.
/// - The proxy opens a tunnel (`CONNECT`, RFC 9110 §9.3.6). TLS is end to end: the proxy sees the
///   host and the port of the server, and no secret of this crate except its own password.
/// - `http` URLs never use a proxy of the environment: the proxy would see the client secret.
///   `HTTP_PROXY` is not read. A proxy that is named with [`proxy`](Self::proxy) is used, except to
///   this machine.
/// - An error names the proxy by its host and port. Its password is never shown.
/// - An answer such as 407, and a variable that cannot be used, are errors of kind
///   [`Configuration`](crate::TokenErrorKind::Configuration), which is
///   [final](crate::TokenError::is_final). A proxy may block a user name after a few wrong
///   passwords.
#[derive(Clone)]
pub struct DefaultTransport {
    connector: Connector,
    client: Client<Connector, Full<Bytes>>,
}

impl DefaultTransport {
    /// Creates a transport that trusts public certificate authorities: those of the platform, or
    /// the bundled ones without the feature `platform-verifier`.
    ///
    /// # Errors
    ///
    /// - [`ConfigError::Tls`] if TLS cannot be set up, for example on a machine without root
    ///   certificates.
    /// - [`ConfigError::NoCryptoProvider`] without the features `ring` and `aws-lc-rs`, if the
    ///   program has not installed a provider.
    /// - [`ConfigError::NoRootCertificates`] without the features `platform-verifier` and
    ///   `webpki-roots`.
    pub fn new() -> Result<Self, ConfigError> {
        Self::trusting(Vec::new())
    }

    /// Creates a transport that trusts the public certificate authorities in the crate
    /// `webpki-roots` (those of Mozilla), and none of the platform: for containers without root
    /// certificates. An update of that crate updates them.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Tls`] and [`ConfigError::NoCryptoProvider`], as for [`new`](Self::new).
    #[cfg(feature = "webpki-roots")]
    pub fn with_bundled_roots() -> Result<Self, ConfigError> {
        Self::with_roots(Roots::Bundled, Vec::new())
    }

    /// Creates a transport like [`with_bundled_roots`](Self::with_bundled_roots) that also trusts
    /// the certificates in `pem`, as described at [`new_trusting`](Self::new_trusting).
    ///
    /// # Errors
    ///
    /// Those of [`with_bundled_roots`](Self::with_bundled_roots), and
    /// [`ConfigError::Certificates`] if `pem` contains no certificate, or one that cannot be read.
    #[cfg(feature = "webpki-roots")]
    pub fn with_bundled_roots_trusting(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::with_roots(Roots::Bundled, parse_certificates(pem.as_ref())?)
    }

    /// Creates a transport that also trusts the certificates in `pem`: for a server with a private
    /// certificate authority or a self-signed certificate.
    ///
    /// Each certificate is trusted as an authority (RFC 5280 §6.1.1). It is also accepted as the
    /// certificate of a server if the server sends exactly this certificate, even one that says
    /// `CA:TRUE`, as `openssl req -x509` makes it. The name of the server and the validity period
    /// are checked in both cases.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), except [`ConfigError::NoRootCertificates`], and
    /// [`ConfigError::Certificates`] if `pem` contains no certificate, or one that cannot be read.
    pub fn new_trusting(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::trusting(parse_certificates(pem.as_ref())?)
    }

    /// Sets the HTTP proxy for all requests, instead of that of the [environment](Self#proxies).
    /// `NO_PROXY` is ignored. Only requests to `http` URLs of this machine do not use the proxy.
    ///
    /// `url` is a URL such as `http://user:password@proxy.example.com:3128`. User name and password
    /// are optional. They are percent-encoded, and sent to the proxy with HTTP Basic. With an `http`
    /// URL, everyone on the way to the proxy can read them.
    ///
    /// ```
    /// # fn main() -> Result<(), tower_oauth::ConfigError> {
    /// # if cfg!(not(feature = "ring")) { return Ok(()); }
    /// use tower_oauth::{ClientAuth, DefaultTransport, TokenEndpoint};
    ///
    /// let transport = DefaultTransport::new()?.proxy("http://proxy.example.com:3128")?;
    /// let auth = ClientAuth::client_secret_basic("my-client", "hunter2");
    /// let url = "https://auth.example.com/oauth2/token";
    /// let endpoint = TokenEndpoint::with_transport(url, auth, transport)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Proxy`] if `url` is not the URL of an HTTP proxy. It does not show the URL.
    pub fn proxy(self, url: &str) -> Result<Self, ConfigError> {
        self.proxy_in_setting(url, "DefaultTransport::proxy")
    }

    /// Sets the proxy like [`proxy`](Self::proxy). Errors name `setting` instead of that method.
    pub(crate) fn proxy_in_setting(
        self,
        url: &str,
        setting: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let proxy = Proxy::parse(url, setting)?;
        Ok(Self::with_connector(self.connector.with_proxies(Proxies::Always(proxy))))
    }

    /// Sends all requests without a proxy. The [environment](Self#proxies) is ignored.
    #[must_use]
    pub fn no_proxy(self) -> Self {
        Self::with_connector(self.connector.with_proxies(Proxies::None))
    }

    pub(crate) fn trusting(certificates: Vec<Certificate>) -> Result<Self, ConfigError> {
        Self::with_roots(Roots::DEFAULT, certificates)
    }

    /// Creates a transport that trusts the bundled roots and `certificates`. Without the feature
    /// `webpki-roots`, there are no roots to bundle.
    #[cfg(feature = "config")]
    pub(crate) fn with_bundled_roots_and(
        certificates: Vec<Certificate>,
    ) -> Result<Self, ConfigError> {
        #[cfg(feature = "webpki-roots")]
        let transport = Self::with_roots(Roots::Bundled, certificates);
        #[cfg(not(feature = "webpki-roots"))]
        let transport = {
            drop(certificates);
            Err(ConfigError::NoRootCertificates)
        };
        transport
    }

    fn with_roots(roots: Roots, extra: Vec<Certificate>) -> Result<Self, ConfigError> {
        let tls = Arc::new(tls_config(roots, extra)?);
        Ok(Self::with_connector(Connector::new(tls, Proxies::from_environment())))
    }

    /// Creates a transport for `http` URLs. It needs neither root certificates nor a crypto
    /// provider.
    pub(crate) fn for_plain_http() -> Self {
        Self::with_connector(Connector::for_plain_http())
    }

    fn with_connector(connector: Connector) -> Self {
        let mut client = Client::builder(TokioExecutor::new());
        let client = client.pool_max_idle_per_host(0).build(connector.clone());
        Self { connector, client }
    }
}

impl Service<Request<Bytes>> for DefaultTransport {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    /// Returns ready, always.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let response = self.client.request(request.map(Full::new));
        Box::pin(async move { Ok(response.await?.map(ResponseBody::new)) })
    }
}

/// The response body of a [`DefaultTransport`], so that the public API names no type of hyper.
#[derive(Debug)]
pub struct ResponseBody(UnsyncBoxBody<Bytes, BoxError>);

impl ResponseBody {
    fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for DefaultTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DefaultTransport").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::token_endpoint::{ClientAuth, TokenEndpoint, TokenRequest};

    /// A server that responds to each connection with the same token, and closes it.
    async fn serve(token: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let body = format!(r#"{{"access_token":"{token}"}}"#);
                let length = body.len();
                let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                let mut request = [0; 1024];
                assert_ne!(stream.read(&mut request).await.unwrap(), 0);
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        });
        url
    }

    #[test]
    fn response_body_has_the_size_and_the_end_of_the_original() {
        let body = ResponseBody::new(Full::new(Bytes::from_static(b"12345")));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        assert!(ResponseBody::new(Full::new(Bytes::new())).is_end_stream());
    }

    #[tokio::test]
    async fn one_transport_serves_several_endpoints() {
        let transport = DefaultTransport::for_plain_http();
        assert_eq!(format!("{transport:?}"), "DefaultTransport { .. }");
        for token in ["T0KEN-1", "T0KEN-2"] {
            let url = serve(token).await;
            let auth = ClientAuth::client_secret_basic("id", "S3CRET");
            let endpoint = TokenEndpoint::with_transport(url, auth, transport.clone()).unwrap();
            for _ in 0..2 {
                let response = endpoint.send(TokenRequest::new("x")).await.unwrap();
                assert_eq!(response.access_token().expose_secret(), token);
            }
        }
    }
}
