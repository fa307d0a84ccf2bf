use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING},
};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, Service};

#[cfg(feature = "default-transport")]
use super::default_transport;
use super::{
    location::Location,
    response,
    response_format::ResponseFormat,
    round_trip::RoundTrip,
    token_url::TokenUrl,
    transport::{MAX_RESPONSE_BYTES, Transport},
};
use crate::{
    client_auth::ClientAuth,
    error::{ConfigError, TokenError},
    token::{AccessToken, Renewal},
    token_request::{BodyFormat, TokenRequest},
};

const OWN_HEADERS: [HeaderName; 7] =
    [ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING];

/// A token endpoint (RFC 6749 §3.2) and how this client talks to it: URL, client authentication, transport, limits.
///
/// [`new`](Self::new) brings a transport (hyper-util with rustls and the platform's trust, HTTP/1.1, no redirects, no kept
/// connection). [`with_transport`](Self::with_transport) takes any tower HTTP service instead, so that proxies, retries,
/// tracing and TLS of the token request are yours to compose:
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower_oauth::{AccessToken, ClientAuth, ClientCredentials, TokenCache, TokenEndpoint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let transport = tower::service_fn(|request: Request<Full<Bytes>>| async move {
///     let answer = r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"Bearer","expires_in":3600}"#;
///     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(answer)))
/// });
/// let auth = ClientAuth::client_secret_basic("my-client", "hunter2");
/// let endpoint = TokenEndpoint::with_transport("https://auth.example.com/token", auth, transport)?;
/// let token = TokenCache::new(ClientCredentials::new(endpoint)).token().await?;
/// assert_eq!(token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
/// # Ok(())
/// # }
/// ```
///
/// # Caveats
///
/// - Do not build the transport out of the service that the layer guards: a limit that both share deadlocks.
/// - A transport that follows redirects shows the client's secret to wherever it is sent.
/// - The answer is a JSON object, by default that of RFC 6749 §5.1 (see [`ResponseFormat`]), of at most
///   [`MAX_RESPONSE_BYTES`](Self::MAX_RESPONSE_BYTES).
#[derive(Clone)]
pub struct TokenEndpoint {
    location: Location,
    auth: ClientAuth,
    round_trip: RoundTrip,
    body_format: BodyFormat,
    headers: HeaderMap,
    response_format: ResponseFormat,
    default_lifetime: Duration,
    renewal: Renewal,
}

impl TokenEndpoint {
    /// How long the ready-made transport may take to connect (TCP).
    #[cfg(feature = "default-transport")]
    pub const CONNECT_TIMEOUT: Duration = default_transport::CONNECT_TIMEOUT;
    /// How long a round trip may take, body included, unless [`timeout`](Self::timeout) says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
    /// How long a token lasts whose answer has no `expires_in`, unless [`default_lifetime`](Self::default_lifetime) says
    /// otherwise.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
    /// The most bytes that are read of an answer.
    pub const MAX_RESPONSE_BYTES: usize = MAX_RESPONSE_BYTES;

    /// An endpoint with the ready-made transport. `location` is a URL, or an [`Issuer`](crate::Issuer).
    ///
    /// # Errors
    ///
    /// [`ConfigError::TokenUrl`] and [`ConfigError::InsecureTokenUrl`] for a URL that cannot be used, [`ConfigError::Tls`]
    /// where TLS cannot be set up.
    #[cfg(feature = "default-transport")]
    pub fn new<L>(location: L, auth: ClientAuth) -> Result<Self, ConfigError>
    where
        L: TryInto<Location>,
        ConfigError: From<L::Error>,
    {
        Self::with_trust(location, auth, &[])
    }

    /// [`new`](Self::new), which trusts the certificate authorities in `pem` besides those of the platform: for a server with
    /// a certificate of your own.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and [`ConfigError::Certificates`] where `pem` has no certificate, or one that cannot be
    /// read.
    #[cfg(feature = "default-transport")]
    pub fn new_trusting<L>(location: L, auth: ClientAuth, pem: impl AsRef<[u8]>) -> Result<Self, ConfigError>
    where
        L: TryInto<Location>,
        ConfigError: From<L::Error>,
    {
        let authorities = default_transport::certificates(pem.as_ref())?;
        Self::with_trust(location, auth, &authorities)
    }

    #[cfg(feature = "default-transport")]
    fn with_trust<L>(
        location: L,
        auth: ClientAuth,
        authorities: &[default_transport::Certificate],
    ) -> Result<Self, ConfigError>
    where
        L: TryInto<Location>,
        ConfigError: From<L::Error>,
    {
        let location = location.try_into()?;
        let transport = default_transport::default_transport(location.is_https(), authorities)?;
        Ok(Self::build(location, auth, transport))
    }

    /// An endpoint behind a tower service of yours. Its request body is anything that can be made from [`Bytes`], such as
    /// `Full<Bytes>`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TokenUrl`] and [`ConfigError::InsecureTokenUrl`] for a URL that cannot be used.
    pub fn with_transport<L, S, ReqBody, ResBody>(
        location: L,
        auth: ClientAuth,
        transport: S,
    ) -> Result<Self, ConfigError>
    where
        L: TryInto<Location>,
        ConfigError: From<L::Error>,
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        ReqBody: From<Bytes> + 'static,
        ResBody: Body + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        Ok(Self::build(location.try_into()?, auth, Transport::new(transport)))
    }

    fn build(location: Location, auth: ClientAuth, transport: Transport) -> Self {
        Self {
            location,
            auth,
            round_trip: RoundTrip { transport, timeout: Self::DEFAULT_TIMEOUT },
            body_format: BodyFormat::default(),
            headers: HeaderMap::new(),
            response_format: ResponseFormat::default(),
            default_lifetime: Self::DEFAULT_LIFETIME,
            renewal: Renewal::default(),
        }
    }

    /// How long a round trip may take, body included; by default [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT). The refresh
    /// timeout of the [`TokenCache`](crate::TokenCache) bounds it as well.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.round_trip.timeout = timeout;
        self
    }

    /// How long a token lasts whose answer has no `expires_in`; by default [`DEFAULT_LIFETIME`](Self::DEFAULT_LIFETIME).
    #[must_use]
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.default_lifetime = lifetime;
        self
    }

    /// How the parameters are written; by default [`BodyFormat::Form`].
    #[must_use]
    pub fn body_format(mut self, format: BodyFormat) -> Self {
        self.body_format = format;
        self
    }

    /// Where in the answer its members stand; by default where RFC 6749 §5.1 has them.
    #[must_use]
    pub fn response_format(mut self, format: ResponseFormat) -> Self {
        self.response_format = format;
        self
    }

    /// Adds a header to the token request, such as the key of an API gateway. Its value is marked sensitive.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Header`] for what is no header, and for a header that is written by other means.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ConfigError> {
        let refuse = |reason| Err(ConfigError::Header { name: name.to_owned(), reason });
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            return refuse("is not a header name");
        };
        if OWN_HEADERS.contains(&header) {
            return refuse("is written by this crate or the HTTP client");
        }
        let Ok(mut value) = HeaderValue::from_str(value) else {
            return refuse("has a value that no header can have");
        };
        value.set_sensitive(true);
        if self.headers.insert(header, value).is_some() {
            return refuse("is there already");
        }
        Ok(self)
    }

    /// Renews a token at this age, where that comes before it would be renewed by default: for providers that ask for it, such
    /// as "renew daily" for tokens of 25 hours. The old token is used until the new one is there.
    #[must_use]
    pub fn renew_at_age(mut self, age: Duration) -> Self {
        self.renewal = Renewal::AtAge(age);
        self
    }

    /// Renews a token so long before its expiry, or at half of a lifetime that is too short for that; by default it is 20
    /// minutes less a little at random. Never less than twice the margin at which it expires. The old token is used until the
    /// new one is there, or until it is within [`AccessToken::MAX_EXPIRY_MARGIN`] of its expiry.
    #[must_use]
    pub fn renew_before_expiry(mut self, remaining: Duration) -> Self {
        self.renewal = Renewal::BeforeExpiry(remaining);
        self
    }

    /// Adds the client authentication to what a grant has written, and makes the round trip.
    pub(crate) async fn fetch(&self, mut request: TokenRequest) -> Result<AccessToken, TokenError> {
        let url = self.location.token_url(self.auth.method(), &self.round_trip).await?;
        self.auth.authenticate(&mut request).await?;
        let token = self.fetch_from(&url, request).await;
        token.map_err(|error| {
            self.location.forget();
            error.at("token endpoint", &url.to_string())
        })
    }

    /// A key in the query of the URL, or in a header, is a secret, too.
    fn own_secrets(&self, url: &TokenUrl) -> Vec<String> {
        let query = url.uri().query().unwrap_or_default();
        let values = form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned());
        let raw = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
        let headers = self.headers.values().filter_map(|value| value.to_str().ok().map(str::to_owned));
        [query.to_owned()].into_iter().chain(values).chain(raw).chain(headers).collect()
    }

    async fn fetch_from(&self, url: &TokenUrl, mut request: TokenRequest) -> Result<AccessToken, TokenError> {
        let asked_at = Instant::now();
        for secret in self.own_secrets(url) {
            request.keep_secret(&secret);
        }
        let (request, redactor) = request.into_parts(url.uri(), self.body_format, &self.headers);
        let answer = self.round_trip.send(request, &redactor).await?;
        let granted = response::read(&answer, &self.response_format, &redactor)?;
        Ok(granted.into_access_token(asked_at, self.default_lifetime).renewed(self.renewal))
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("location", &self.location)
            .field("auth", &self.auth)
            .field("timeout", &self.round_trip.timeout)
            .field("default_lifetime", &self.default_lifetime)
            .field("body_format", &self.body_format)
            .field("headers", &self.headers)
            .field("response_format", &self.response_format)
            .field("renewal", &self.renewal)
            .finish_non_exhaustive()
    }
}
