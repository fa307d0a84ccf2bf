use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError};
use tokio::time::Instant;
use tower::{BoxError, Service};

#[cfg(feature = "default-transport")]
use super::default_transport;
use super::{
    response::{self, Answer},
    token_url::TokenUrl,
    transport::{AnyBody, MAX_RESPONSE_BYTES, Transport},
};
use crate::{
    client_auth::ClientAuth,
    error::{ConfigError, TokenError, TokenErrorKind},
    token::AccessToken,
    token_request::{Redactor, TokenRequest},
};

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
/// - The answer is a JSON object (RFC 6749 §5.1) of at most [`MAX_RESPONSE_BYTES`](Self::MAX_RESPONSE_BYTES).
#[derive(Clone)]
pub struct TokenEndpoint {
    url: TokenUrl,
    auth: ClientAuth,
    transport: Transport,
    timeout: Duration,
    default_lifetime: Duration,
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

    /// An endpoint with the ready-made transport.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TokenUrl`] and [`ConfigError::InsecureTokenUrl`] for a URL that cannot be used, [`ConfigError::Tls`]
    /// where TLS cannot be set up.
    #[cfg(feature = "default-transport")]
    pub fn new<U>(url: U, auth: ClientAuth) -> Result<Self, ConfigError>
    where
        U: TryInto<TokenUrl>,
        ConfigError: From<U::Error>,
    {
        let url = url.try_into()?;
        let transport = default_transport::default_transport(&url)?;
        Ok(Self::build(url, auth, transport))
    }

    /// An endpoint behind a tower service of yours. Its request body is anything that can be made from [`Bytes`], such as
    /// `Full<Bytes>`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TokenUrl`] and [`ConfigError::InsecureTokenUrl`] for a URL that cannot be used.
    pub fn with_transport<U, S, ReqBody, ResBody>(
        url: U,
        auth: ClientAuth,
        transport: S,
    ) -> Result<Self, ConfigError>
    where
        U: TryInto<TokenUrl>,
        ConfigError: From<U::Error>,
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        ReqBody: From<Bytes> + 'static,
        ResBody: Body + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        Ok(Self::build(url.try_into()?, auth, Transport::new(transport)))
    }

    fn build(url: TokenUrl, auth: ClientAuth, transport: Transport) -> Self {
        Self {
            url,
            auth,
            transport,
            timeout: Self::DEFAULT_TIMEOUT,
            default_lifetime: Self::DEFAULT_LIFETIME,
        }
    }

    /// How long a round trip may take, body included; by default [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT). The refresh
    /// timeout of the [`TokenCache`](crate::TokenCache) bounds it as well.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a token lasts whose answer has no `expires_in`; by default [`DEFAULT_LIFETIME`](Self::DEFAULT_LIFETIME).
    #[must_use]
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.default_lifetime = lifetime;
        self
    }

    /// Adds the client authentication to what a grant has written, and makes the round trip.
    pub(crate) async fn fetch(&self, mut request: TokenRequest) -> Result<AccessToken, TokenError> {
        let asked_at = Instant::now();
        self.auth.authenticate(&mut request);
        if let Some(query) = self.url.uri().query() {
            request.keep_secret(query);
        }
        let (request, redactor) = request.into_parts(self.url.uri());
        let answer = self.round_trip(request, &redactor).await;
        let token = answer.and_then(|answer| response::read(&answer, &redactor));
        token
            .map(|token| token.into_access_token(asked_at, self.default_lifetime))
            .map_err(|error| error.at(&self.url.to_string()))
    }

    async fn round_trip(&self, request: Request<Bytes>, redactor: &Redactor) -> Result<Answer, TokenError> {
        let exchange = async {
            let response =
                self.transport.send(request).await.map_err(|error| unreachable(error, redactor))?;
            read_body(response, redactor).await
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(TokenError::new(
                TokenErrorKind::Timeout,
                format!("no complete answer within {:?}", self.timeout),
            )),
        }
    }
}

async fn read_body(response: Response<AnyBody>, redactor: &Redactor) -> Result<Answer, TokenError> {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Ok(Answer { status: head.status, body: body.to_bytes() }),
        Err(error) if error.is::<LengthLimitError>() => Err(TokenError::new(
            TokenErrorKind::InvalidResponse,
            format!("the answer is larger than {MAX_RESPONSE_BYTES} bytes"),
        )
        .with_status(head.status)),
        Err(error) => {
            let what = format!("the answer broke off: {}", root_cause(&*error, redactor));
            Err(TokenError::new(TokenErrorKind::Transport, what).with_status(head.status).with_source(error))
        }
    }
}

fn unreachable(error: BoxError, redactor: &Redactor) -> TokenError {
    let what = format!("it cannot be reached: {}", root_cause(&*error, redactor));
    TokenError::new(TokenErrorKind::Transport, what).with_source(error)
}

/// HTTP clients say "client error (Connect)" and keep what helps at the end of the chain.
fn root_cause(mut error: &(dyn Error + 'static), redactor: &Redactor) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    redactor.clean(&error.to_string())
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("url", &self.url)
            .field("auth", &self.auth)
            .field("timeout", &self.timeout)
            .field("default_lifetime", &self.default_lifetime)
            .finish_non_exhaustive()
    }
}
