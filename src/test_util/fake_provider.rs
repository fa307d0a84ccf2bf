//! A fake authorization server and an API on the loopback interface.

use std::{fmt, io, time::Duration};

use tokio::sync::watch;

use super::{
    api_responder::ApiResponder,
    fake_endpoint::FakeEndpoint,
    issued_tokens::IssuedTokens,
    server::Server,
    token_responder::{self, Client, Settings, TokenResponder},
};

/// An authorization server with one client, and an API that accepts its tokens. Both are real
/// servers for HTTP/1 and HTTP/2 on the loopback interface, without TLS.
///
/// - The **token endpoint** issues tokens by the client credentials grant (RFC 6749 §4.4). It
///   checks the client's id and secret, which are sent with HTTP Basic or in the body (§2.3.1), and
///   grants the requested scope. Its requests are forms, its responses JSON.
/// - The **API** accepts bearer tokens (RFC 6750) that are neither expired nor revoked. It answers
///   an accepted request with 200 and the body of the request. It answers other requests with 401
///   and a challenge. As a gRPC server, it has the method `grpc.health.v1.Health/Check` and answers
///   `UNAUTHENTICATED` to a call without a valid token.
///
/// Each server counts its requests, and fails, delays or holds them if the test says so: see
/// [`token_endpoint`](Self::token_endpoint) and [`api`](Self::api).
///
/// The servers run on the runtime that started them, and stop when this value is dropped. They do
/// not work with tokio's paused clock, because it does not wait for sockets. `Debug` shows neither
/// tokens nor the secret.
///
/// ```
/// # #[cfg(feature = "default-transport")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use bytes::Bytes;
/// use http::{Request, StatusCode};
/// use http_body_util::Empty;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_oauth::test_util::FakeProvider;
/// use tower_oauth::{ClientAuth, ClientCredentials, OAuthLayer, Origins};
/// use tower_oauth::{TokenCache, TokenEndpoint};
///
/// let provider = FakeProvider::start().await?;
///
/// let (id, secret) = (FakeProvider::CLIENT_ID, FakeProvider::CLIENT_SECRET);
/// let auth = ClientAuth::client_secret_basic(id, secret);
/// let endpoint = TokenEndpoint::new(provider.token_url(), auth)?;
/// let tokens = TokenCache::new(ClientCredentials::new(endpoint));
/// let oauth = OAuthLayer::new(tokens, Origins::new([provider.api_origin()])?);
/// let http_client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
/// let client = ServiceBuilder::new().layer(oauth).service(http_client);
///
/// for _ in 0..2 {
///     let request = Request::get(format!("{}/orders", provider.api_origin())).body(Empty::new())?;
///     assert_eq!(client.clone().oneshot(request).await?.status(), StatusCode::OK);
///     provider.revoke_all();
/// }
/// assert_eq!(provider.token_endpoint().request_count(), 2);
/// assert_eq!(provider.api().request_count(), 3);
/// assert_eq!(provider.rejected_paths(), ["/orders"]);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "default-transport"))]
/// # fn main() {}
/// ```
pub struct FakeProvider {
    token_responder: TokenResponder,
    api_responder: ApiResponder,
    token_endpoint: FakeEndpoint,
    api: FakeEndpoint,
    token_server: Server,
    api_server: Server,
}

impl FakeProvider {
    /// The id of the client, unless [`FakeProviderBuilder::client`] sets another one.
    pub const CLIENT_ID: &str = "my-client";
    /// The secret of the client, unless [`FakeProviderBuilder::client`] sets another one. It has
    /// characters that must be encoded in an `Authorization` header.
    pub const CLIENT_SECRET: &str = "s3cr%t:+/";
    /// The lifetime of a token, unless [`set_lifetime`](Self::set_lifetime) sets another one: one
    /// hour.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

    /// Starts both servers on free ports.
    ///
    /// # Errors
    ///
    /// Fails if the system has no port left.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with its I/O driver.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Creates a builder, to change the client or the ports.
    pub fn builder() -> FakeProviderBuilder {
        FakeProviderBuilder {
            client: Client { id: Self::CLIENT_ID.into(), secret: Self::CLIENT_SECRET.into() },
            token_port: 0,
            api_port: 0,
        }
    }

    /// Returns the URL of the token endpoint, such as `http://127.0.0.1:40123/token`.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("http://{}{}", self.token_server.address, token_responder::PATH)
    }

    /// Returns the origin of the API, such as `http://127.0.0.1:40124`. Every path is valid.
    #[must_use]
    pub fn api_origin(&self) -> String {
        format!("http://{}", self.api_server.address)
    }

    /// Returns the token endpoint, to count its requests and to cause faults.
    #[must_use]
    pub fn token_endpoint(&self) -> &FakeEndpoint {
        &self.token_endpoint
    }

    /// Returns the API, to count its requests and to cause faults.
    #[must_use]
    pub fn api(&self) -> &FakeEndpoint {
        &self.api
    }

    /// Sets the lifetime of the tokens that are issued from now on. The token response has it in
    /// whole seconds. Default: [`DEFAULT_LIFETIME`](Self::DEFAULT_LIFETIME).
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.token_responder.settings.send_modify(|settings| settings.lifetime = lifetime);
    }

    /// Sets the scope that is granted from now on, whatever is requested. Default: the requested
    /// scope.
    pub fn set_scope(&self, scope: impl Into<String>) {
        let scope = Some(scope.into());
        self.token_responder.settings.send_modify(|settings| settings.scope = scope);
    }

    /// Issues a token without a token request, such as for a token response of your own.
    #[must_use]
    pub fn issue(&self, lifetime: Duration) -> String {
        self.api_responder.tokens.issue(lifetime)
    }

    /// Revokes a token: the API answers 401 to it from now on.
    pub fn revoke(&self, token: &str) {
        self.api_responder.tokens.revoke(token);
    }

    /// Revokes all tokens that were issued so far.
    pub fn revoke_all(&self) {
        self.api_responder.tokens.revoke_all();
    }

    /// Ends the lifetime of all tokens that were issued so far. The client does not know of it, as
    /// if the clocks differed.
    pub fn expire_all(&self) {
        self.api_responder.tokens.expire_all();
    }

    /// Returns the paths of the API requests that were rejected because of their token, in order. A
    /// response of [`FakeEndpoint::respond_next`] does not count.
    #[must_use]
    pub fn rejected_paths(&self) -> Vec<String> {
        self.api_responder.rejected_paths.borrow().clone()
    }
}

impl fmt::Debug for FakeProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeProvider")
            .field("token_url", &self.token_url())
            .field("api_origin", &self.api_origin())
            .field("token_endpoint", &self.token_endpoint)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

/// The settings of a [`FakeProvider`], from [`FakeProvider::builder`].
///
/// `Debug` does not show the secret.
#[must_use]
pub struct FakeProviderBuilder {
    client: Client,
    token_port: u16,
    api_port: u16,
}

impl FakeProviderBuilder {
    /// Sets the id and the secret of the client. Default: [`FakeProvider::CLIENT_ID`] and
    /// [`FakeProvider::CLIENT_SECRET`].
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.client = Client { id: id.into(), secret: secret.into() };
        self
    }

    /// Sets the port of the token endpoint. Default: 0, a free port.
    pub fn token_port(mut self, port: u16) -> Self {
        self.token_port = port;
        self
    }

    /// Sets the port of the API. Default: 0, a free port.
    pub fn api_port(mut self, port: u16) -> Self {
        self.api_port = port;
        self
    }

    /// Starts both servers.
    ///
    /// # Errors
    ///
    /// Fails if a port is in use.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with its I/O driver.
    pub async fn start(self) -> io::Result<FakeProvider> {
        let (token_endpoint, api) = (FakeEndpoint::default(), FakeEndpoint::default());
        let tokens = IssuedTokens::default();
        let settings = Settings { lifetime: FakeProvider::DEFAULT_LIFETIME, scope: None };
        let token_responder = TokenResponder {
            client: self.client,
            tokens: tokens.clone(),
            settings: watch::Sender::new(settings),
        };
        let api_responder = ApiResponder { tokens, rejected_paths: watch::Sender::default() };
        let token_server =
            Server::start(self.token_port, token_endpoint.clone(), token_responder.clone()).await?;
        let api_server = Server::start(self.api_port, api.clone(), api_responder.clone()).await?;
        Ok(FakeProvider {
            token_responder,
            api_responder,
            token_endpoint,
            api,
            token_server,
            api_server,
        })
    }
}

impl fmt::Debug for FakeProviderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeProviderBuilder")
            .field("client_id", &self.client.id)
            .field("token_port", &self.token_port)
            .field("api_port", &self.api_port)
            .finish_non_exhaustive()
    }
}
