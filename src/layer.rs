use std::sync::Arc;

use tower::Layer;

use crate::{
    cache::TokenCache,
    presentation::{Answers, Breaker, Origins, Policy, Verdict},
    replay::CloneBody,
    service::OAuth,
};

/// Puts the token of a [`TokenCache`] on every request to the [`Origins`] that may see it, and recovers from a refusal.
///
/// `R` says how the body is kept for the retry, see [`replay`](crate::replay). The layer is cheap to clone; all services
/// that it makes share the cache.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, header::AUTHORIZATION};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let tokens = TokenCache::new(|| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") });
/// let oauth = OAuthLayer::new(tokens, Origins::new(["https://api.example.com"])?);
///
/// let api = service_fn(|request: Request<Full<Bytes>>| async move {
///     assert_eq!(request.headers()[AUTHORIZATION], "Bearer 2YotnFZFEjr1zCsicMWpAA");
///     Ok::<_, tower::BoxError>(Response::new(Full::<Bytes>::default()))
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
    verdict: Verdict,
    breaker: Arc<Breaker>,
    replay: R,
}

impl OAuthLayer {
    /// Shows the token of `tokens` to `origins`, and keeps a copy of each request for the retry.
    #[must_use]
    pub fn new(tokens: TokenCache, origins: Origins) -> Self {
        let breaker = Arc::new(Breaker::new(origins.count()));
        Self { tokens, origins, verdict: Verdict::default(), breaker, replay: CloneBody }
    }
}

impl<R> OAuthLayer<R> {
    /// Keeps bodies in another way, see [`replay`](crate::replay).
    #[must_use]
    pub fn replay<R2>(self, replay: R2) -> OAuthLayer<R2> {
        let Self { tokens, origins, verdict, breaker, .. } = self;
        OAuthLayer { tokens, origins, verdict, breaker, replay }
    }

    /// Takes one more status for a refusal of the token, besides 401: some APIs answer 403 or 419 to an expired one.
    #[must_use]
    pub fn refused_status(mut self, status: http::StatusCode) -> Self {
        self.verdict.statuses.push(status);
        self
    }

    /// For tonic clients: keeps their bodies, and takes the head of a response that says `UNAUTHENTICATED` for a refusal,
    /// too.
    ///
    /// ```
    /// # async fn example() -> Result<(), tower::BoxError> {
    /// use tonic_health::pb::health_client::HealthClient;
    /// use tower::ServiceBuilder;
    /// use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache};
    ///
    /// let tokens = TokenCache::new(|| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") });
    /// let oauth = OAuthLayer::new(tokens, Origins::of_inner_service()).grpc();
    /// let channel = tonic::transport::Endpoint::from_static("http://localhost:50051").connect_lazy();
    /// let client = HealthClient::new(ServiceBuilder::new().layer(oauth).service(channel));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Caveats
    ///
    /// - Of a call, 64 KiB are kept ([`TonicBody::DEFAULT_CAP`](crate::replay::TonicBody::DEFAULT_CAP)): a larger message that was
    ///   sent is not sent again, and its caller sees the refusal. Set another cap, or [`Never`](crate::replay::Never), after
    ///   this.
    /// - A call that was refused is sent again from its first message. Where a server may have acted on the messages of a client
    ///   stream before it refused, use [`Never`](crate::replay::Never).
    /// - A stream that dies half-way with `UNAUTHENTICATED` is not retried, as its messages were seen already. Its caller gets
    ///   the status, and the next call a new token. That takes a response body of tonic's own, as over a `Channel`, which is
    ///   read to its end.
    /// - A call whose server sends response headers first and `UNAUTHENTICATED` after them is not retried either, even where
    ///   there was no message in between.
    /// - A deadline (`tonic::Request::set_timeout`) is that of each attempt, and the wait for a token is not in it. Put a
    ///   `tower::timeout` outside for the whole.
    /// - A call that cannot have a token fails with a `tonic::Status` of code `Unknown`, whose `source()` is the
    ///   [`TokenError`](crate::TokenError).
    /// - A client that was made `with_origin` puts an authority on its requests: name that origin in [`Origins`].
    #[cfg(feature = "tonic")]
    #[must_use]
    pub fn grpc(self) -> OAuthLayer<crate::replay::TonicBody> {
        let mut layer = self.replay(crate::replay::TonicBody::default());
        layer.verdict.grpc = true;
        layer
    }
}

impl<S: Clone, R: Clone> Layer<S> for OAuthLayer<R> {
    type Service = OAuth<S, R>;

    fn layer(&self, inner: S) -> OAuth<S, R> {
        let policy = Policy {
            tokens: self.tokens.clone(),
            origins: self.origins.clone(),
            answers: Arc::new(Answers::new(
                self.tokens.in_use(),
                self.verdict.clone(),
                Arc::clone(&self.breaker),
            )),
        };
        OAuth::new(inner, policy, self.replay.clone())
    }
}

#[cfg(test)]
mod tests;
