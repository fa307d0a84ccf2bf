//! The settings of a token endpoint, and sending a request to it.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, Response,
    header::{
        ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING,
        USER_AGENT,
    },
};
use http_body::Body;
use tokio::{runtime::Handle, time::Instant};
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    advice::RequestFacts,
    client_auth::ClientAuth,
    location::Location,
    missing_scope::missing_scope,
    parse_response::parse_response,
    recent_tokens::RecentTokens,
    request_format::RequestFormat,
    response_format::ResponseFormat,
    round_trip::{CONNECT_RETRY_DELAYS, DEFAULT_USER_AGENT, RoundTrip},
    token_request::TokenRequest,
    token_response::TokenResponse,
    token_url::TokenUrl,
    transport::{MAX_RESPONSE_BYTES, Transport},
};
#[cfg(feature = "default-transport")]
use super::{
    certificates::parse_certificates, default_transport::DefaultTransport,
    proxy_connector::CONNECT_TIMEOUT,
};
use crate::{
    error::{BoxError, ConfigError, TokenError, TokenErrorKind},
    redact::{MIN_REPLACED_BYTES, Redactor},
    telemetry::{Event, emit_current},
    token::{AccessToken, RefreshTiming, sensitive_header},
};

/// The headers that [`TokenEndpoint::header`] does not accept: they are set by this crate or by the
/// HTTP client.
const RESERVED_HEADERS: [HeaderName; 7] =
    [ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING];

/// A token endpoint (RFC 6749 §3.2): its URL, the client authentication, the transport, the formats
/// and the limits.
///
/// [`new`](Self::new) uses the [`DefaultTransport`](crate::DefaultTransport).
/// [`with_transport`](Self::with_transport) takes any other tower HTTP service, to add proxies,
/// retries, tracing or your own TLS settings to the token request:
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower_oauth::{ClientAuth, ClientCredentials, TokenCache, TokenEndpoint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// let transport = tower::service_fn(|request: Request<Full<Bytes>>| async move {
///     let body = r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","expires_in":3600}"#;
///     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(body)))
/// });
/// let auth = ClientAuth::client_secret_basic("my-client", "hunter2");
/// let url = "https://auth.example.com/token";
/// let endpoint = TokenEndpoint::with_transport(url, auth, transport)?;
/// let token = TokenCache::new(ClientCredentials::new(endpoint)).token().await?;
/// assert_eq!(token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
/// # Ok(())
/// # }
/// ```
///
/// [`send`](Self::send) sends any grant, including those that this crate does not have.
///
/// The response is a JSON object of at most [`MAX_RESPONSE_BYTES`](Self::MAX_RESPONSE_BYTES), by
/// default that of RFC 6749 §5.1 (see [`ResponseFormat`]).
///
/// # Caveats
///
/// - Do not build the transport from the service that the layer wraps: if both share a concurrency
///   limit, a request that waits for a token can deadlock.
/// - A transport that follows redirects sends the client's secret to the target of the redirect.
/// - Errors do not show the secrets of this endpoint and its requests, and the last four access
///   tokens that it returned. A secret that a transport adds itself is unknown here: name it with
///   [`secret`](Self::secret).
#[derive(Clone)]
pub struct TokenEndpoint {
    location: Location,
    auth: ClientAuth,
    round_trip: RoundTrip,
    request_format: RequestFormat,
    headers: HeaderMap,
    response_format: ResponseFormat,
    default_lifetime: Duration,
    max_token_bytes: usize,
    refresh_timing: RefreshTiming,
    secrets: Vec<Zeroizing<String>>,
    recent_tokens: RecentTokens,
}

impl TokenEndpoint {
    /// The time limit of the [`DefaultTransport`](crate::DefaultTransport) for establishing a TCP
    /// connection, or a tunnel through a proxy.
    #[cfg(feature = "default-transport")]
    pub const CONNECT_TIMEOUT: Duration = CONNECT_TIMEOUT;
    /// The pauses before the second and the third attempt of a request that cannot connect.
    ///
    /// Nothing was sent then, so the request cannot be repeated by this. A request that was sent is
    /// never sent again. Connecting is not tried again after a TLS error, such as a certificate
    /// that is not trusted, or after the refusal of a proxy, such as a wrong password for it.
    ///
    /// A transport says that it could not connect with an error that is, or has as a source, a
    /// `hyper_util::client::legacy::Error` with `is_connect`: so do the
    /// [`DefaultTransport`](crate::DefaultTransport), hyper-util and reqwest. There is no second
    /// attempt after other errors, and none without the feature `default-transport`.
    pub const CONNECT_RETRY_DELAYS: [Duration; 2] = CONNECT_RETRY_DELAYS;
    /// The `User-Agent` of all requests (RFC 9110 §10.1.5): `tower-oauth/` and the version of this
    /// crate. [`header`](Self::header) sets another one.
    pub const DEFAULT_USER_AGENT: &str = DEFAULT_USER_AGENT;
    /// The default of [`timeout`](Self::timeout).
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
    /// The default of [`default_lifetime`](Self::default_lifetime).
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
    /// The lifetime of a token that has none left when it arrives, as with `expires_in: 0`: 100 ms.
    ///
    /// Servers round the lifetime down to seconds, so the token is good for one use. The cache then
    /// requests the next token, but at most one a second.
    pub const MIN_LIFETIME: Duration = Duration::from_millis(100);
    /// The default of [`max_token_bytes`](Self::max_token_bytes): 64 KiB.
    pub const DEFAULT_MAX_TOKEN_BYTES: usize = 64 * 1024;
    /// The maximum size of a response body. A larger response is an error of kind
    /// [`InvalidResponse`](crate::TokenErrorKind::InvalidResponse).
    pub const MAX_RESPONSE_BYTES: usize = MAX_RESPONSE_BYTES;

    /// Creates an endpoint with a [`DefaultTransport`](crate::DefaultTransport) of its own.
    ///
    /// `location` is a URL (a string or a [`TokenUrl`]) or an [`Issuer`](crate::Issuer).
    ///
    /// # Errors
    ///
    /// - [`ConfigError::TokenUrl`] and [`ConfigError::InsecureTokenUrl`] if `location` is a string
    ///   that is not a usable URL. See [`TokenUrl`].
    /// - [`ConfigError::ClientAuth`] if the client id or the secret cannot be sent.
    /// - [`ConfigError::Tls`], [`ConfigError::NoCryptoProvider`] and
    ///   [`ConfigError::NoRootCertificates`] if TLS cannot be set up, see
    ///   [`DefaultTransport::new`](crate::DefaultTransport::new). This cannot happen for an `http`
    ///   URL.
    #[cfg(feature = "default-transport")]
    pub fn new<L>(location: L, auth: ClientAuth) -> Result<Self, ConfigError>
    where
        L: TryInto<Location>,
        ConfigError: From<L::Error>,
    {
        Self::with_default_transport(location.try_into()?, auth, DefaultTransport::new)
    }

    /// Creates an endpoint like [`new`](Self::new) that also trusts the certificates in `pem`: for
    /// a server with a private certificate authority or a self-signed certificate. See
    /// [`DefaultTransport::new_trusting`](crate::DefaultTransport::new_trusting).
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and [`ConfigError::Certificates`] if `pem` contains no
    /// certificate, or one that cannot be read.
    #[cfg(feature = "default-transport")]
    pub fn new_trusting<L>(
        location: L,
        auth: ClientAuth,
        pem: impl AsRef<[u8]>,
    ) -> Result<Self, ConfigError>
    where
        L: TryInto<Location>,
        ConfigError: From<L::Error>,
    {
        // The certificates are checked for an `http` URL as well.
        let certificates = parse_certificates(pem.as_ref())?;
        Self::with_default_transport(location.try_into()?, auth, || {
            DefaultTransport::trusting(certificates)
        })
    }

    #[cfg(feature = "default-transport")]
    fn with_default_transport(
        location: Location,
        auth: ClientAuth,
        for_https: impl FnOnce() -> Result<DefaultTransport, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let transport =
            if location.is_https() { for_https()? } else { DefaultTransport::for_plain_http() };
        Self::with_transport(location, auth, transport)
    }

    /// Creates an endpoint that sends its requests through `transport`.
    ///
    /// `location` is a URL (a string or a [`TokenUrl`]) or an [`Issuer`](crate::Issuer). The
    /// request body of the transport can be any type that is made from [`Bytes`], such as
    /// `Full<Bytes>`. The transport is cloned for each request.
    ///
    /// # Errors
    ///
    /// - [`ConfigError::TokenUrl`] and [`ConfigError::InsecureTokenUrl`] if `location` is a string
    ///   that is not a usable URL. See [`TokenUrl`].
    /// - [`ConfigError::ClientAuth`] if the client id or the secret cannot be sent.
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
        auth.check()?;
        Ok(Self {
            location: location.try_into()?,
            auth,
            round_trip: RoundTrip {
                transport: Transport::new(transport),
                timeout: Self::DEFAULT_TIMEOUT,
                user_agent: None,
            },
            request_format: RequestFormat::default(),
            headers: HeaderMap::new(),
            response_format: ResponseFormat::default(),
            default_lifetime: Self::DEFAULT_LIFETIME,
            max_token_bytes: Self::DEFAULT_MAX_TOKEN_BYTES,
            refresh_timing: RefreshTiming::default(),
            secrets: Vec::new(),
            recent_tokens: RecentTokens::default(),
        })
    }

    /// Sets the time limit for one request and its complete response, including all
    /// [attempts to connect](Self::CONNECT_RETRY_DELAYS). Default:
    /// [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT).
    ///
    /// The [refresh timeout](crate::TokenCacheBuilder::refresh_timeout) of a cache is a second
    /// limit, for all requests of one refresh.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.round_trip.timeout = timeout;
        self
    }

    /// Sets the lifetime that a token has if its response contains none, or none that can be read.
    /// Default: [`DEFAULT_LIFETIME`](Self::DEFAULT_LIFETIME).
    #[must_use]
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.default_lifetime = lifetime;
        self
    }

    /// Sets the maximum length of an access token in bytes. A longer one is an error of kind
    /// [`InvalidResponse`](crate::TokenErrorKind::InvalidResponse): the token is sent with each
    /// request, and most servers accept less. Default:
    /// [`DEFAULT_MAX_TOKEN_BYTES`](Self::DEFAULT_MAX_TOKEN_BYTES).
    #[must_use]
    pub fn max_token_bytes(mut self, max: usize) -> Self {
        self.max_token_bytes = max;
        self
    }

    /// Sets the encoding of the request parameters. Default: [`RequestFormat::Form`].
    #[must_use]
    pub fn request_format(mut self, format: RequestFormat) -> Self {
        self.request_format = format;
        self
    }

    /// Sets the positions of the members in the response. Default: those of RFC 6749 §5.1.
    #[must_use]
    pub fn response_format(mut self, format: ResponseFormat) -> Self {
        self.response_format = format;
        self
    }

    /// Adds a header to token requests, such as the key of an API gateway. Its value is marked
    /// sensitive, and no error shows it.
    ///
    /// A `User-Agent` replaces the [default](Self::DEFAULT_USER_AGENT). It is also sent with the
    /// metadata requests of an [`Issuer`](crate::Issuer), and it is no secret.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Header`] if the name or the value is invalid, if this crate or the HTTP
    /// client sets this header, or if it was added before.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ConfigError> {
        let error = |reason| Err(ConfigError::Header { name: name.to_owned(), reason });
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            return error("is not a header name");
        };
        if RESERVED_HEADERS.contains(&header) {
            return error("is set by this crate or the HTTP client");
        }
        let Ok(mut value) = sensitive_header(Zeroizing::new(value.to_owned())) else {
            return error("has a value with a control character: remove it");
        };
        let replaced = if header == USER_AGENT {
            value.set_sensitive(false);
            self.round_trip.user_agent.replace(value)
        } else {
            self.headers.insert(header, value)
        };
        if replaced.is_some() {
            return error("is there already: add it once");
        }
        Ok(self)
    }

    /// Adds a secret that no error shows, such as a key that the transport adds to the requests. All
    /// other secrets of this endpoint and its requests are known already.
    ///
    /// A text of the server or of the transport that contains a secret of fewer than 4 bytes is not
    /// shown at all.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(Zeroizing::new(secret.into()));
        self
    }

    /// Sets the age at which tokens are refreshed in the background, if that is earlier than the
    /// default time: for providers that ask for it, such as "refresh daily" for tokens of 25 hours.
    /// Replaces [`refresh_before_expiry`](Self::refresh_before_expiry).
    #[must_use]
    pub fn refresh_at_age(mut self, age: Duration) -> Self {
        self.refresh_timing = RefreshTiming::AtAge(age);
        self
    }

    /// Sets the time before their expiry at which tokens are refreshed in the background. Default:
    /// 20 minutes, minus a random part. Replaces [`refresh_at_age`](Self::refresh_at_age).
    ///
    /// It is at most half of the lifetime, and at least twice the margin before the expiry at which
    /// a token counts as expired (see [`AccessToken::MAX_EXPIRY_MARGIN`]).
    ///
    /// [`AccessToken::MAX_EXPIRY_MARGIN`]: crate::AccessToken::MAX_EXPIRY_MARGIN
    #[must_use]
    pub fn refresh_before_expiry(mut self, remaining: Duration) -> Self {
        self.refresh_timing = RefreshTiming::BeforeExpiry(remaining);
        self
    }

    /// Sends a token request: any grant, with the client authentication, the headers and the
    /// formats of this endpoint.
    ///
    /// [`ClientCredentials`](crate::ClientCredentials) is implemented with this function. A grant
    /// of your own is a [`TokenSource`](crate::TokenSource) that calls it. For example, the refresh
    /// token grant (RFC 6749 §6), with a refresh token that the server may rotate:
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use tower_oauth::{
    ///     AccessToken, FetchContext, TokenEndpoint, TokenError, TokenRequest, TokenSource,
    /// };
    ///
    /// struct RefreshTokenGrant {
    ///     endpoint: TokenEndpoint,
    ///     refresh_token: Mutex<String>,
    /// }
    ///
    /// impl TokenSource for RefreshTokenGrant {
    ///     async fn fetch(&self, _context: FetchContext) -> Result<AccessToken, TokenError> {
    ///         let refresh_token = self.refresh_token.lock().unwrap().clone();
    ///         let request = TokenRequest::new("refresh_token")
    ///             .secret_parameter("refresh_token", refresh_token);
    ///         let response = self.endpoint.send(request).await?;
    ///         if let Some(rotated) = response.refresh_token() {
    ///             *self.refresh_token.lock().unwrap() = rotated.to_owned();
    ///         }
    ///         Ok(response.into_access_token())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// A [`TokenError`] that names this endpoint. It shows no secret of the endpoint, and no
    /// [secret parameter](TokenRequest::secret_parameter). Its kind is
    /// [`Configuration`](crate::TokenErrorKind::Configuration), and nothing is sent, if `request`
    /// has a parameter of client authentication (`client_id`, `client_secret`, `client_assertion`,
    /// `client_assertion_type`) or a second `grant_type`. Its kind is
    /// [`Runtime`](crate::TokenErrorKind::Runtime) outside of a tokio runtime.
    ///
    /// # Panics
    ///
    /// Panics if the tokio runtime has no time driver: enable it with `enable_time` or `enable_all`
    /// of its builder. (A [`TokenCache`](crate::TokenCache) turns the panic into an error of kind
    /// [`Panicked`](crate::TokenErrorKind::Panicked).)
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time. If the request was sent already, the server may have
    /// issued a token that is lost.
    pub async fn send(&self, request: TokenRequest) -> Result<TokenResponse, TokenError> {
        if Handle::try_current().is_err() {
            let message = "a request must be sent, but there is no tokio runtime to send it on";
            return Err(TokenError::new(TokenErrorKind::Runtime, message));
        }
        request.check_parameters()?;
        let request = self.auth.authenticate(request).await?.register_secrets(self.secrets());
        // Metadata may contain secrets as well: its server has received them before.
        let redactor = request.redactor();
        let (method, round_trip) = (self.auth.method(), &self.round_trip);
        let url = self.location.token_url(method, round_trip, &redactor).await?;
        self.send_to(&url, request).await.map_err(|error| {
            self.location.forget_metadata();
            let place = match self.location {
                Location::TokenUrl(_) => url.to_string(),
                Location::Issuer(_) => redactor.clean_url(url.uri()),
            };
            error.at("token endpoint", &place)
        })
    }

    async fn send_to(
        &self,
        url: &TokenUrl,
        request: TokenRequest,
    ) -> Result<TokenResponse, TokenError> {
        let sent_at = Instant::now();
        let requested_scope = request.scope().map(str::to_owned);
        let facts = RequestFacts {
            url,
            is_discovered: self.location.is_issuer(),
            format: self.request_format,
            auth: &self.auth,
            is_encoded: request.has_encoded_credentials(),
        };
        let (request, redactor) = request
            .register_secrets(secrets_of_query(url))
            .into_http_request(url.uri(), self.request_format, &self.headers);
        let response = self.round_trip.send(request, &redactor).await.map_err(|error| {
            let advice = facts.advice(&error);
            error.with_advice(advice)
        })?;
        let parsed = parse_response(&response, &self.response_format, &redactor);
        let parsed = parsed.map_err(|error| {
            let advice = facts.advice_for_response(&error, &response, &redactor);
            error.with_advice(advice)
        })?;
        if parsed.access_token.expose_secret().len() > self.max_token_bytes {
            let message = format!("the access token is longer than {} bytes", self.max_token_bytes);
            return Err(TokenError::new(TokenErrorKind::InvalidResponse, message)
                .with_status(response.status)
                .with_advice(
                    "raise {TokenEndpoint::max_token_bytes|max_token_bytes} if the API accepts a \
                     token of this length",
                ));
        }
        if let Some(requested) = requested_scope {
            report_missing_scope(&requested, &parsed.access_token, &redactor);
        }
        let lifetime = parsed.lifetime.unwrap_or(self.default_lifetime);
        let access_token = parsed.access_token.expires_in_from(sent_at, lifetime);
        let access_token = access_token.usable_for_at_least(Self::MIN_LIFETIME);
        let access_token = access_token.with_refresh_timing(self.refresh_timing);
        self.recent_tokens.add(access_token.expose_secret());
        Ok(TokenResponse::new(access_token, parsed.members))
    }

    /// Returns the secrets of this endpoint: those that the user has named, the values of its
    /// headers, and its last tokens.
    fn secrets(&self) -> impl Iterator<Item = Zeroizing<String>> {
        let headers = self.headers.values().filter_map(|value| value.to_str().ok());
        let headers = headers.map(|value| Zeroizing::new(value.to_owned()));
        self.secrets.iter().cloned().chain(headers).chain(self.recent_tokens.to_vec())
    }
}

/// Returns the query of a URL and the values in it.
///
/// A value such as the `1` in `?v=1` is no secret. It occurs in most texts, which would all be
/// withheld.
fn secrets_of_query(url: &TokenUrl) -> impl Iterator<Item = Zeroizing<String>> {
    let query = url.uri().query().unwrap_or_default();
    let decoded = form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned());
    let raw = query.split('&').map(|pair| pair.split_once('=').unwrap_or(("", pair)).1);
    [format!("?{query}"), query.to_owned()]
        .into_iter()
        .chain(decoded)
        .chain(raw.map(str::to_owned))
        .filter(|secret| secret.len() >= MIN_REPLACED_BYTES)
        .map(Zeroizing::new)
}

/// Emits an event if the server granted less than the requested scope. A response without a scope
/// grants the requested one (RFC 6749 §5.1).
fn report_missing_scope(requested: &str, token: &AccessToken, redactor: &Redactor) {
    let Some(granted) = token.scope() else { return };
    let Some(missing) = missing_scope(requested, granted) else { return };
    let redactor = redactor.and(token.expose_secret());
    let (missing, granted) = (&redactor.clean(&missing), &redactor.clean(granted));
    emit_current(Event::ScopeNotGranted { missing, granted });
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("location", &self.location)
            .field("auth", &self.auth)
            .field("timeout", &self.round_trip.timeout)
            .field("user_agent", &self.round_trip.user_agent)
            .field("default_lifetime", &self.default_lifetime)
            .field("max_token_bytes", &self.max_token_bytes)
            .field("request_format", &self.request_format)
            .field("headers", &self.headers)
            .field("response_format", &self.response_format)
            .field("refresh_timing", &self.refresh_timing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        error::Error,
        fmt::Write,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use http::header::CONTENT_TYPE;
    use http_body_util::Full;
    use serde_json::json;
    use tokio_test::block_on;

    use super::*;

    const URL: &str = "https://as.test/token?key=K3Y";

    /// An endpoint behind a closure that receives the request with its body as text.
    fn endpoint<F>(auth: ClientAuth, respond: F) -> TokenEndpoint
    where
        F: Fn(Request<String>) -> Result<(u16, String), BoxError> + Clone + Send + 'static,
    {
        let transport = tower::service_fn(move |request: Request<Bytes>| {
            let request = request.map(|body| String::from_utf8(body.to_vec()).unwrap());
            let response = respond(request).map(|(status, body)| {
                Response::builder().status(status).body(Full::<Bytes>::from(body)).unwrap()
            });
            async { response }
        });
        TokenEndpoint::with_transport(URL, auth, transport).unwrap()
    }

    fn auth() -> ClientAuth {
        ClientAuth::client_secret_basic("id", "S3CRET")
    }

    fn refresh(token: &str) -> TokenRequest {
        TokenRequest::new("refresh_token")
            .secret_parameter("refresh_token", token)
            .parameter("resource", "urn:1")
            .parameter("resource", "urn:2")
    }

    /// Returns everything that an error shows, its causes included.
    fn shown(error: &TokenError) -> String {
        let mut shown = format!("{error} {error:?} {:?}", error.error_description());
        let mut source = error.source();
        while let Some(cause) = source {
            write!(shown, " {cause} {cause:?}").unwrap();
            source = cause.source();
        }
        shown
    }

    #[test]
    fn any_grant_is_sent_with_auth_and_headers_of_the_endpoint() {
        let endpoint = endpoint(auth(), |request| {
            assert_eq!(request.headers()[AUTHORIZATION], "Basic aWQ6UzNDUkVU");
            assert_eq!(request.headers()["x-api-key"], "gateway");
            let expected = "grant_type=refresh_token&refresh_token=r3fresh\
                            &resource=urn%3A1&resource=urn%3A2";
            assert_eq!(request.body(), expected);
            let body = json!({
                "access_token": "T0KEN", "refresh_token": "r0tated", "refresh_expires_in": 7200,
            });
            Ok((200, body.to_string()))
        });
        let endpoint = endpoint.header("x-api-key", "gateway").unwrap();
        let response = block_on(endpoint.send(refresh("r3fresh"))).unwrap();
        assert_eq!(response.access_token().expose_secret(), "T0KEN");
        assert_eq!(response.access_token().lifetime(), Some(TokenEndpoint::DEFAULT_LIFETIME));
        assert_eq!(response.refresh_token(), Some("r0tated"));
        assert_eq!(response.number_at("/refresh_expires_in"), Some(7200.0));
        assert_eq!(response.into_access_token().expose_secret(), "T0KEN");
    }

    #[test]
    fn user_agent_names_the_crate_unless_it_is_set() {
        for (set, sent) in [(None, DEFAULT_USER_AGENT), (Some("orders/2.1"), "orders/2.1")] {
            let mut endpoint = endpoint(auth(), move |request| {
                assert_eq!(request.headers().get_all(USER_AGENT).iter().count(), 1);
                assert_eq!(request.headers()[USER_AGENT], sent);
                Ok((400, json!({ "error": sent }).to_string()))
            });
            if let Some(set) = set {
                endpoint = endpoint.header("User-Agent", set).unwrap();
                assert!(endpoint.clone().header("user-agent", "other").is_err(), "set twice");
            }
            let error = block_on(endpoint.send(TokenRequest::new("x"))).unwrap_err();
            assert_eq!(error.error_code(), Some(sent), "a user agent is no secret");
        }
        assert!(DEFAULT_USER_AGENT.starts_with("tower-oauth/0."));
    }

    #[test]
    fn any_grant_uses_the_formats_of_the_endpoint() {
        let endpoint = endpoint(ClientAuth::client_secret_post("id", "S3CRET"), |request| {
            assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
            let body: serde_json::Value = serde_json::from_str(request.body()).unwrap();
            let expected = json!({
                "grant_type": "refresh_token", "refresh_token": "r3fresh",
                "resource": ["urn:1", "urn:2"], "client_id": "id", "client_secret": "S3CRET",
            });
            assert_eq!(body, expected);
            Ok((200, json!({ "data": { "token": "T0KEN", "refresh": "r0tated" } }).to_string()))
        });
        let format = ResponseFormat::default().access_token("/data/token").unwrap();
        let endpoint = endpoint.request_format(RequestFormat::Json).response_format(format);
        let response = block_on(endpoint.send(refresh("r3fresh"))).unwrap();
        assert_eq!(response.access_token().expose_secret(), "T0KEN");
        assert_eq!(response.text_at("/data/refresh"), Some("r0tated"));
        assert_eq!(response.refresh_token(), None);
    }

    #[test]
    fn token_above_the_length_limit_is_an_error() {
        let endpoint = |length| {
            endpoint(auth(), move |_| {
                Ok((200, json!({ "access_token": "t".repeat(length) }).to_string()))
            })
        };
        let send = |endpoint: TokenEndpoint| block_on(endpoint.send(TokenRequest::new("x")));
        let max = TokenEndpoint::DEFAULT_MAX_TOKEN_BYTES;
        assert!(send(endpoint(max)).is_ok());
        let error = send(endpoint(max + 1)).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("longer than 65536 bytes; raise TokenEndpoint::max"));
        assert!(error.to_string().len() < 300, "{error}");
        assert!(send(endpoint(max + 1).max_token_bytes(max + 1)).is_ok());
        assert!(send(endpoint(9).max_token_bytes(8)).is_err());
    }

    #[test]
    fn second_client_authentication_is_an_error_and_not_sent() {
        for auth in [auth(), ClientAuth::client_secret_post("id", "x"), ClientAuth::none("id")] {
            let endpoint = endpoint(auth, |_| panic!("a request was sent"));
            let names = [
                "client_id",
                "client_secret",
                "client_assertion",
                "client_assertion_type",
                "grant_type",
            ];
            for name in names {
                let request = TokenRequest::new("x").secret_parameter(name, "S3CRET");
                let error = block_on(endpoint.send(request)).unwrap_err();
                assert_eq!(error.kind(), TokenErrorKind::Configuration);
                assert!(error.to_string().contains(name), "{error}");
                assert!(!shown(&error).contains("S3CRET"), "{error}");
            }
        }
    }

    /// The secret has characters that a form, JSON and `Debug` encode in different ways.
    const SECRET: &str = "r3fr\"sh+ \\tZ0K%n";
    /// Parts of the secret that occur in each of its encodings.
    const SECRET_PARTS: [&str; 2] = ["r3fr", "Z0K"];

    #[test]
    fn secret_parameter_echoed_by_the_server_is_redacted() {
        let responses: [fn(&str) -> serde_json::Value; 4] = [
            |text| json!({ "error": "invalid_grant", "error_description": text }),
            |text| json!({ "error": text }),
            |text| json!({ "error": "invalid_grant", "error_uri": text }),
            |text| json!({ "access_token": text, "expires_in": text }),
        ];
        for format in [RequestFormat::Form, RequestFormat::Json] {
            for respond in responses {
                let endpoint = endpoint(auth(), move |request| {
                    let echo = format!("{}, {SECRET}, {SECRET:?}", request.body());
                    Ok((400, respond(&echo).to_string()))
                });
                let endpoint = endpoint.request_format(format);
                let error = block_on(endpoint.send(refresh(SECRET))).unwrap_err();
                let shown = shown(&error);
                for part in SECRET_PARTS.iter().chain(&["S3CRET", "K3Y"]) {
                    assert!(!shown.contains(part), "{shown}");
                }
            }
        }
    }

    #[test]
    fn secret_parameter_echoed_by_the_transport_is_redacted() {
        for format in [RequestFormat::Form, RequestFormat::Json] {
            let endpoint = endpoint(auth(), |request| {
                let uri = request.uri();
                let inner = std::io::Error::other(format!("proxy: {}", request.body()));
                Err(format!("{uri} {SECRET} {inner:?}").into())
            });
            let error = block_on(endpoint.request_format(format).send(refresh(SECRET)));
            let error = error.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Transport);
            assert!(error.to_string().contains("[redacted]"), "{error}");
            let shown = shown(&error);
            for part in SECRET_PARTS.iter().chain(&["S3CRET", "K3Y"]) {
                assert!(!shown.contains(part), "{shown}");
            }
        }
    }

    /// Returns the error of an endpoint that an issuer's metadata names, and that answers `body`.
    fn error_of_discovered_endpoint(token_endpoint: &str, body: String) -> TokenError {
        let metadata = json!({ "issuer": "https://as.test", "token_endpoint": token_endpoint });
        let transport = tower::service_fn(move |request: Request<Bytes>| {
            let is_metadata = request.method() == http::Method::GET;
            let (status, body) =
                if is_metadata { (200, metadata.to_string()) } else { (400, body.clone()) };
            let response = Response::builder().status(status).body(Full::<Bytes>::from(body));
            std::future::ready(Ok::<_, Infallible>(response.unwrap()))
        });
        let issuer: crate::Issuer = "https://as.test".parse().unwrap();
        let endpoint = TokenEndpoint::with_transport(issuer, auth(), transport).unwrap();
        block_on(endpoint.send(TokenRequest::new("x"))).unwrap_err()
    }

    #[test]
    fn hostile_token_url_makes_no_large_message() {
        let six_values = format!("https://as.test/t?{}", ["a=e"; 6].join("&"));
        let error = error_of_discovered_endpoint(&six_values, json!({ "error": "e" }).to_string());
        assert_eq!(error.error_code(), Some("e"));

        let values = (0..8_000).map(|n| format!("v{n:x}")).collect::<Vec<_>>();
        let many_values = format!("https://as.test/t?a={}", values.join("&a="));
        let large_value = format!("https://as.test/t?a={}", "e".repeat(60_000));
        for url in [&six_values, &many_values, &large_value, "https://as.test/t?v=e&w=d"] {
            for description in ["ed".repeat(500_000), "eeee ".repeat(200_000), values.join(" ")] {
                let body = json!({ "error": "invalid_client", "error_description": description });
                let error = error_of_discovered_endpoint(url, body.to_string());
                assert!(error.error_description().unwrap().chars().count() <= 201);
                assert!(shown(&error).len() < 2_000, "{error}");
            }
        }
    }

    #[test]
    fn hostile_token_url_is_cleaned_and_cut_in_the_error() {
        let path = format!("\u{85}\u{2028}\u{202e}\u{9b}31m{}", "x".repeat(60_000));
        let url = format!("https://as.test/{path}");
        let error = error_of_discovered_endpoint(&url, json!({ "error": "e" }).to_string());
        let place = error.endpoint().unwrap();
        assert!(place.starts_with("https://as.test/    31mxxx"), "{place}");
        assert_eq!(place.chars().count(), 201);
        assert!(!shown(&error).contains(['\u{85}', '\u{2028}', '\u{202e}', '\u{9b}']));
        // The endpoint has another scheme than its issuer.
        let error =
            error_of_discovered_endpoint(&format!("http://localhost/{path}"), String::new());
        assert!(shown(&error).contains("another scheme"), "{error}");
        assert!(shown(&error).len() < 2_000, "{error}");
        assert!(!shown(&error).contains(['\u{85}', '\u{2028}', '\u{202e}', '\u{9b}']));
    }

    #[test]
    fn value_of_a_query_is_hidden_unless_it_is_too_small() {
        for (url, text, expected) in [
            ("https://as.test/t?v=1", "os error 111", "os error 111"),
            (
                "https://as.test/t?v=1",
                "GET https://as.test/t?v=1: 1",
                "GET https://as.test/t[redacted]: 1",
            ),
            ("https://as.test/t?K3Yx", "the key K3Yx", "the key [redacted]"),
            ("https://as.test/t?a=b&K3Yx", "the key K3Yx", "the key [redacted]"),
            (
                "https://as.test/t?key=a%20bc",
                "'a bc', 'a%20bc', 'a+bc'",
                "'[redacted]', '[redacted]', '[redacted]'",
            ),
        ] {
            let transport = tower::service_fn(move |_: Request<Bytes>| {
                std::future::ready(Err::<Response<Full<Bytes>>, _>(std::io::Error::other(text)))
            });
            let endpoint = TokenEndpoint::with_transport(url, auth(), transport).unwrap();
            let error = block_on(endpoint.send(TokenRequest::new("x"))).unwrap_err();
            let expected = format!("the request failed: {expected}");
            assert_eq!(error.message(), expected, "{url}");
            assert_eq!(error.source().is_some(), !expected.contains("[redacted]"), "{url}");
        }
    }

    #[test]
    fn metadata_that_repeats_the_client_secret_is_redacted() {
        for (issuer, url) in [
            ("https://S3CRET", URL),
            ("https://as.test", "ftp://S3CRET"),
            ("https://as.test", "http://localhost/S3CRET"),
            ("https://as.test", "https://as.test/S3CRET"),
            ("https://as.test", "https://as.test/aWQ6UzNDUkVU"),
        ] {
            let metadata = json!({ "issuer": issuer, "token_endpoint": url }).to_string();
            let endpoint = endpoint(auth(), move |_| Ok((200, metadata.clone())));
            let issuer: crate::Issuer = "https://as.test".parse().unwrap();
            let endpoint = TokenEndpoint { location: issuer.into(), ..endpoint };
            let error = block_on(endpoint.send(TokenRequest::new("x"))).unwrap_err();
            assert!(error.to_string().contains("[redacted]"), "{error}");
            assert!(!shown(&error).contains("S3CRET"), "{error}");
            assert!(!shown(&error).contains("UzNDUkVU"), "{error}");
        }
    }

    #[test]
    fn secret_that_the_transport_adds_is_redacted_once_it_is_named() {
        let added = "tr4nsp\"ort";
        let metadata = |issuer: &str, url: &str| {
            let methods = [added];
            let metadata = json!({
                "issuer": issuer, "token_endpoint": url,
                "token_endpoint_auth_methods_supported": methods,
            });
            Ok((200, metadata.to_string()))
        };
        let error = json!({ "error": "x", "error_description": format!("bad {added}") });
        let responses: [Result<(u16, String), BoxError>; 6] = [
            Err(format!("the proxy rejects {added:?}").into()),
            Ok((400, error.to_string())),
            metadata(&format!("https://{added}"), URL),
            metadata("https://as.test", &format!("ftp://{added}")),
            metadata("https://as.test", "https://as.test/tr4nsp%22ort"),
            metadata("https://as.test", URL),
        ];
        for response in responses {
            let response = response.map_err(|error| error.to_string());
            let issuer: crate::Issuer = "https://as.test".parse().unwrap();
            for location in [Location::from(issuer), URL.try_into().unwrap()] {
                let response = response.clone();
                let transport = tower::service_fn(move |_: Request<Bytes>| {
                    let response = response.clone().map(|(status, body)| {
                        let body = Full::<Bytes>::from(body);
                        Response::builder().status(status).body(body).unwrap()
                    });
                    std::future::ready(response)
                });
                let endpoint = TokenEndpoint::with_transport(location, auth(), transport).unwrap();
                let endpoint = endpoint.secret("other").secret(added);
                let error = block_on(endpoint.send(TokenRequest::new("x"))).unwrap_err();
                let shown = shown(&error);
                assert!(!shown.contains("tr4nsp") && !shown.contains("ort\""), "{shown}");
            }
        }
    }

    #[test]
    fn earlier_tokens_are_redacted_and_not_in_clones() {
        use std::sync::{Arc, Mutex, PoisonError};

        let answer = Arc::new(Mutex::new((200, String::new())));
        let set = |status, body: serde_json::Value| {
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = (status, body.to_string());
        };
        let answers = Arc::clone(&answer);
        let endpoint = endpoint(auth(), move |_| Ok(answers.lock().unwrap().clone()));
        let tokens: Vec<_> = (0..=RecentTokens::MAX_TOKENS).map(|n| format!("T0KEN-{n}")).collect();
        // The last token is returned many times, which must not displace the others.
        for token in tokens.iter().chain([tokens.last().unwrap(); 9]) {
            set(200, json!({ "access_token": token }));
            block_on(endpoint.send(TokenRequest::new("x"))).unwrap();
        }
        set(400, json!({ "error": "x", "error_description": tokens.join(" ") }));
        let error = block_on(endpoint.send(TokenRequest::new("x"))).unwrap_err();
        let redacted = " [redacted]".repeat(RecentTokens::MAX_TOKENS);
        assert_eq!(error.error_description(), Some(&*format!("T0KEN-0{redacted}")));
        let error = block_on(endpoint.clone().send(TokenRequest::new("x"))).unwrap_err();
        assert_eq!(error.error_description(), Some(&*tokens.join(" ")));
    }

    /// A server may know the id, and a proxy decodes the header.
    #[test]
    fn client_secret_is_redacted_in_each_form_of_the_pair() {
        let (id, secret) = ("my id", "S3C\"R+ET");
        let form =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{id}:{secret}");
        let encoded_pair = "my%20id:S3C%22R%2BET";
        let base64 = |pair: &str| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pair);
        let echoes = [
            pair.clone(),
            format!("{pair:?}"),
            form(&pair),
            encoded_pair.to_owned(),
            base64(&pair),
            base64(encoded_pair),
            form(&base64(encoded_pair)),
        ];
        for auth in [
            ClientAuth::client_secret_basic(id, secret),
            ClientAuth::client_secret_basic_raw(id, secret),
            ClientAuth::client_secret_post(id, secret),
        ] {
            for echo in &echoes {
                let body = json!({ "error": "x", "error_description": format!("<{echo}>") });
                let endpoint = endpoint(auth.clone(), move |_| Ok((400, body.to_string())));
                let error = block_on(endpoint.send(TokenRequest::new("x"))).unwrap_err();
                let description = error.error_description().unwrap();
                assert!(description.contains("[redacted]"), "{echo}: {description}");
                assert!(description.len() < 24 && !description.contains("ET"), "{description}");
            }
        }
    }

    #[test]
    fn request_outside_of_a_runtime_is_an_error_with_advice() {
        let endpoint = endpoint(auth(), |_| panic!("a request was sent"));
        let sent = pin!(endpoint.send(TokenRequest::new("x")));
        let Poll::Ready(result) = sent.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the request waits for a runtime");
        };
        let error = result.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Runtime);
        assert!(error.to_string().contains("running tokio runtime"), "{error}");
    }

    #[test]
    fn transport_is_ready_before_it_is_called() {
        #[derive(Clone)]
        struct ReadyLater(bool);

        impl Service<Request<Bytes>> for ReadyLater {
            type Response = Response<Full<Bytes>>;
            type Error = Infallible;
            type Future = std::future::Ready<Result<Self::Response, Infallible>>;

            fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                if std::mem::replace(&mut self.0, true) {
                    return Poll::Ready(Ok(()));
                }
                context.waker().wake_by_ref();
                Poll::Pending
            }

            fn call(&mut self, _: Request<Bytes>) -> Self::Future {
                assert!(std::mem::take(&mut self.0), "called before it was ready");
                std::future::ready(Ok(Response::new(r#"{"access_token":"T0KEN"}"#.into())))
            }
        }

        let endpoint = TokenEndpoint::with_transport(URL, auth(), ReadyLater(false)).unwrap();
        for _ in 0..2 {
            block_on(endpoint.send(TokenRequest::new("x"))).unwrap();
        }
    }
}
