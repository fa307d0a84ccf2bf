use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use reqwest::{Client, ClientBuilder, Request, RequestBuilder, Response, redirect::Policy};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    exchange::{CarrierService, exchange},
    request_error::RequestError,
};
use crate::{layer::OAuthLayer, replay::ReqwestBody, service::OAuth};

/// A `reqwest::Client` that puts the token of a layer on its requests and recovers from a
/// rejection.
///
/// The [module documentation](crate::reqwest) has an example and the caveats. Clones share the
/// token and the connections.
#[derive(Clone, Debug)]
pub struct OAuthClient {
    pub(super) service: OAuth<CarrierService<Client>, ReqwestBody>,
}

impl OAuthClient {
    /// Builds a client that does not follow redirects, whatever `builder` says: reqwest would
    /// follow them below the layer, where the origin is not checked.
    ///
    /// All bodies can be used. [`ReqwestBody`] says which are kept for a retry, depending on
    /// [`OAuthLayer::with_replay`]. By default, these are bodies in memory of any size, and streams
    /// of which no more than 64 KiB ([`BufferBody::DEFAULT_CAP`]) was sent.
    ///
    /// # Errors
    ///
    /// The error of [`ClientBuilder::build`].
    ///
    /// [`BufferBody::DEFAULT_CAP`]: crate::replay::BufferBody::DEFAULT_CAP
    pub fn new(
        builder: ClientBuilder,
        oauth: OAuthLayer<impl Into<ReqwestBody>>,
    ) -> Result<Self, reqwest::Error> {
        let client = builder.redirect(Policy::none()).build()?;
        Ok(Self::from_client_without_redirects(client, oauth))
    }

    /// Wraps a client that was built with
    /// [`redirect(Policy::none())`](reqwest::ClientBuilder::redirect).
    ///
    /// reqwest does not tell the redirect policy of a client, so this is not checked in advance. If
    /// the client follows a redirect to another origin, the response is replaced with a
    /// [`RequestError`], but the request has reached that origin by then. reqwest removes the token
    /// from such a request. Use [`new`](Self::new) where you can.
    pub fn from_client_without_redirects(
        client: Client,
        oauth: OAuthLayer<impl Into<ReqwestBody>>,
    ) -> Self {
        Self { service: oauth.convert_replay().layer(CarrierService(client)) }
    }

    /// Returns the inner client, to build requests with it. A request that the inner client sends
    /// itself ([`RequestBuilder::send`]) has no token.
    #[must_use]
    pub fn get_ref(&self) -> &Client {
        &self.service.get_ref().0
    }

    /// Sends a request that is still in its builder. The client of the builder is not used.
    ///
    /// # Errors
    ///
    /// As for [`execute`](Self::execute), and the error that the builder contains.
    ///
    /// # Cancel safety
    ///
    /// As for [`execute`](Self::execute).
    pub fn send(
        &self,
        request: RequestBuilder,
    ) -> impl Future<Output = Result<Response, RequestError>> + Send + use<> {
        let client = self.clone();
        async move { client.execute(request.build()?).await }
    }

    /// Sends a request.
    ///
    /// A timeout of the request or of the client limits each attempt with its response body. It
    /// does not include the wait for a token.
    ///
    /// # Errors
    ///
    /// A [`RequestError`] with the `TokenError` if there is no token, or with the `reqwest::Error`
    /// of the last attempt. If a refresh fails after a rejection, the response is that rejection
    /// with the `TokenError` in its extensions, as for [`OAuth`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the attempt under way. A running refresh goes on for other
    /// requests.
    pub fn execute(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, RequestError>> + Send + use<> {
        let service = self.service.clone();
        async move { Ok(exchange(service, request).await?) }
    }
}

impl Service<Request> for OAuthClient {
    type Response = Response;
    type Error = RequestError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, RequestError>> + Send>>;

    /// Returns ready: a `reqwest::Client` always is.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.execute(request))
    }
}
