//! The layer: the settings from which services are made.

use std::sync::Arc;

use http::StatusCode;
use tower_layer::Layer;

use crate::{
    cache::TokenCache,
    future::Shared,
    origins::Origins,
    rejection::{Breaker, RejectionCriteria, RejectionHandler},
    replay::CloneBody,
    service::OAuth,
};

/// A layer that puts the token of a [`TokenCache`] on every request to its [`Origins`] and recovers
/// from a rejection.
///
/// `R` is the way in which the body is kept for the retry, see [`replay`](crate::replay). The layer
/// is cheap to clone. All services that it makes share the cache.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, header::AUTHORIZATION};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_oauth::{AccessToken, BoxError, OAuthLayer, Origins, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let tokens = TokenCache::new(source_fn(|_| async { AccessToken::bearer("my-token") }));
/// let oauth = OAuthLayer::new(tokens, Origins::new(["https://api.example.com"])?);
///
/// let api = service_fn(|request: Request<Full<Bytes>>| async move {
///     assert_eq!(request.headers()[AUTHORIZATION], "Bearer my-token");
///     Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
/// });
/// let client = ServiceBuilder::new().layer(oauth).service(api);
/// client.oneshot(Request::get("https://api.example.com/orders").body(Full::default())?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OAuthLayer<R = CloneBody> {
    tokens: TokenCache,
    origins: Origins,
    criteria: RejectionCriteria,
    breaker: Arc<Breaker>,
    replay: R,
}

impl OAuthLayer {
    /// Creates a layer that sends the token of `tokens` to `origins`. It keeps a clone of each
    /// request for the retry ([`CloneBody`]).
    #[must_use]
    pub fn new(tokens: TokenCache, origins: Origins) -> Self {
        let breaker = Arc::new(Breaker::new(origins.count()));
        let criteria = RejectionCriteria::default();
        Self { tokens, origins, criteria, breaker, replay: CloneBody }
    }
}

impl<R> OAuthLayer<R> {
    /// Returns the cache that the layer reads, to warm it up, watch or close it.
    #[must_use]
    pub fn token_cache(&self) -> &TokenCache {
        &self.tokens
    }

    /// Changes the way in which bodies are kept for the retry, see [`replay`](crate::replay).
    #[must_use]
    pub fn with_replay<R2>(self, replay: R2) -> OAuthLayer<R2> {
        let Self { tokens, origins, criteria, breaker, .. } = self;
        OAuthLayer { tokens, origins, criteria, breaker, replay }
    }

    /// Converts the way in which bodies are kept for the retry.
    #[cfg(feature = "reqwest")]
    pub(crate) fn convert_replay<R2>(self) -> OAuthLayer<R2>
    where
        R: Into<R2>,
    {
        let Self { tokens, origins, criteria, breaker, replay } = self;
        OAuthLayer { tokens, origins, criteria, breaker, replay: replay.into() }
    }

    /// Sets the statuses that count as a rejection, besides 401. Default: none. Some APIs answer
    /// 403 or 419 to an expired token.
    ///
    /// A 401 is no rejection if its challenge says `insufficient_scope` or
    /// `insufficient_user_authentication`. A status that is named here always is one, 401 included.
    ///
    /// ```
    /// # fn example(oauth: tower_oauth::OAuthLayer) {
    /// let oauth = oauth.rejection_statuses([http::StatusCode::FORBIDDEN]);
    /// # }
    /// ```
    #[must_use]
    pub fn rejection_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.criteria.statuses = statuses.into_iter().collect();
        self
    }

    /// Changes the layer for tonic clients: it keeps their bodies, and a response with the gRPC
    /// status `UNAUTHENTICATED` is a rejection, too.
    ///
    /// ```
    /// # async fn example() -> Result<(), tower_oauth::BoxError> {
    /// use tonic_health::pb::health_client::HealthClient;
    /// use tower::ServiceBuilder;
    /// use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, source_fn};
    ///
    /// let tokens = TokenCache::new(source_fn(|_| async { AccessToken::bearer("my-token") }));
    /// let oauth = OAuthLayer::new(tokens, Origins::without_authority()).grpc();
    /// let server = tonic::transport::Endpoint::from_static("http://localhost:50051");
    /// let channel = server.connect_lazy();
    /// let client = HealthClient::new(ServiceBuilder::new().layer(oauth).service(channel));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Caveats
    ///
    /// - The layer keeps up to 64 KiB of a call
    ///   ([`TonicBody::DEFAULT_CAP`](crate::replay::TonicBody::DEFAULT_CAP)). A call of which more
    ///   was sent is not repeated, and its caller gets the rejection. To set another cap, or
    ///   [`NoReplay`](crate::replay::NoReplay), call [`with_replay`](Self::with_replay) after this
    ///   method.
    /// - A rejected call is sent again from its first message. If a server may act on messages of a
    ///   client stream before it rejects the call, use [`NoReplay`](crate::replay::NoReplay).
    /// - A stream that ends half-way with `UNAUTHENTICATED` is not retried, as its messages were
    ///   delivered already. Its caller gets the status, and the next call gets a new token. This
    ///   needs a response body of tonic's own type, as over a `Channel`, that is read to its end.
    /// - A call is not retried either if its server sends response headers first and
    ///   `UNAUTHENTICATED` after them, even without a message in between.
    /// - A deadline (`tonic::Request::set_timeout`) applies to each attempt and does not include
    ///   the wait for a token. For the whole, put a `tower::timeout` outside.
    /// - A call that cannot get a token fails with a `tonic::Status` of code `Unknown`. Its
    ///   `source()` is the [`TokenError`](crate::TokenError).
    /// - A client made with `with_origin` puts an authority on its requests: name that origin in
    ///   [`Origins`].
    #[cfg(feature = "tonic")]
    #[must_use]
    pub fn grpc(self) -> OAuthLayer<crate::replay::TonicBody> {
        let mut layer = self.with_replay(crate::replay::TonicBody::default());
        layer.criteria.grpc = true;
        layer
    }

    fn service<S: Clone>(&self, inner: S) -> OAuth<S, R>
    where
        R: Clone,
    {
        let (criteria, breaker) = (self.criteria.clone(), Arc::clone(&self.breaker));
        let rejections = Arc::new(RejectionHandler::new(&self.tokens, criteria, breaker));
        let (tokens, origins) = (self.tokens.clone(), self.origins.clone());
        let shared = Shared::new(tokens, origins, rejections, inner.clone());
        OAuth::from_parts(inner, shared, self.replay.clone())
    }
}

impl<S: Clone, R: Clone> Layer<S> for OAuthLayer<R> {
    type Service = OAuth<S, R>;

    fn layer(&self, inner: S) -> OAuth<S, R> {
        self.service(inner)
    }
}

impl<S: Clone> OAuth<S> {
    /// Wraps one inner service, with all settings at their defaults. For others, use
    /// [`OAuth::layer`](OAuth::layer).
    pub fn new(inner: S, tokens: TokenCache, origins: Origins) -> Self {
        OAuthLayer::new(tokens, origins).service(inner)
    }
}

impl OAuth<()> {
    /// Does the same as [`OAuthLayer::new`].
    #[must_use]
    pub fn layer(tokens: TokenCache, origins: Origins) -> OAuthLayer {
        OAuthLayer::new(tokens, origins)
    }
}
