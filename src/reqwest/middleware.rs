use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::future::BoxFuture;
use http::Extensions;
use reqwest::{Client, Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use tower_service::Service;

use super::{
    client::OAuthClient,
    exchange::{CarrierService, exchange},
    request_error::RequestError,
};
use crate::{
    replay::ReqwestBody,
    service::OAuth,
    sync::{Mutex, lock},
};

/// A [`Middleware`] that puts the token of a layer on each request and recovers from a rejection.
///
/// It is made by [`OAuthClient::into_middleware`]. Middleware inside of this one (added later) sees
/// both attempts of a request. Middleware outside of it sees one request.
#[derive(Clone, Debug)]
pub struct OAuthMiddleware {
    service: OAuth<CarrierService<Client>, ReqwestBody>,
}

impl OAuthClient {
    /// Returns the inner client, which follows no redirects, and a middleware for it. The
    /// application then uses the methods of [`ClientWithMiddleware`].
    ///
    /// Use the middleware with this client only. Over a client that follows a redirect to another
    /// origin, the response is replaced with a [`RequestError`], but the request has reached that
    /// origin by then.
    ///
    /// # Example
    ///
    /// ```
    /// use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
    /// use tower_oauth::{OAuthLayer, reqwest::OAuthClient};
    ///
    /// fn client(oauth: OAuthLayer) -> reqwest::Result<ClientWithMiddleware> {
    ///     let client = OAuthClient::new(reqwest::Client::builder(), oauth)?;
    ///     let (reqwest, oauth) = client.into_middleware();
    ///     Ok(ClientBuilder::new(reqwest).with(oauth).build())
    /// }
    ///
    /// async fn create(client: ClientWithMiddleware) -> reqwest_middleware::Result<()> {
    ///     let response = client.post("https://api.example.com/orders").body("a").send().await?;
    ///     println!("{}", response.status());
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors of the middleware
    ///
    /// [`reqwest_middleware::Error::Middleware`] with a [`RequestError`] if there is no token. The
    /// errors of the client and of other middleware are passed on unchanged.
    ///
    /// [`ClientWithMiddleware`]: reqwest_middleware::ClientWithMiddleware
    #[must_use]
    pub fn into_middleware(self) -> (Client, OAuthMiddleware) {
        (self.get_ref().clone(), OAuthMiddleware { service: self.service })
    }
}

#[async_trait::async_trait]
impl Middleware for OAuthMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        // Copied and not taken: the caller may drop this future and continue to use its extensions.
        let copy = Arc::new(Mutex::new(extensions.clone()));
        let next = NextService { next, extensions: Arc::clone(&copy) };
        let result = exchange(self.service.over(CarrierService(next)), request).await;
        *extensions = mem::take(&mut *lock(&copy));
        result.map_err(|error| match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::middleware(RequestError::from(error)),
        })
    }
}

/// The rest of the chain. Each attempt gets the extensions that the previous one left.
#[derive(Clone)]
struct NextService<'a> {
    next: Next<'a>,
    extensions: Arc<Mutex<Extensions>>,
}

impl<'a> Service<Request> for NextService<'a> {
    type Response = Response;
    type Error = Error;
    type Future = BoxFuture<'a, Result<Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { next, extensions } = self.clone();
        Box::pin(async move {
            let mut current = mem::take(&mut *lock(&extensions));
            let result = next.run(request, &mut current).await;
            *lock(&extensions) = current;
            result
        })
    }
}
