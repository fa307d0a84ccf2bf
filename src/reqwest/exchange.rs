//! One exchange through an [`OAuth`] service, with the requests and responses of reqwest.
//!
//! [`OAuth`] needs the messages of `http`. A message of reqwest has more than they have, such as a
//! timeout. It is therefore not converted: it travels as the *body* of a message of `http`, which
//! has its head. That message of `http` is called the carrier.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use reqwest::{Request, Response};
use tower_service::Service;

use super::request_error::RedirectedError;
use crate::{error::BoxError, replay::ReqwestBody, service::OAuth};

/// Sends a request through `service` and returns its response.
pub(super) async fn exchange<S>(
    mut service: OAuth<CarrierService<S>, ReqwestBody>,
    mut request: Request,
) -> Result<Response, BoxError>
where
    S: Service<Request, Response = Response> + Clone,
    S::Error: Into<BoxError>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    let url = request.url().clone();
    let Ok(uri) = url.as_str().parse::<http::Uri>() else {
        // The request is not sent: reqwest returns its error for such a URL.
        return service.into_inner().0.call(request).await.map_err(Into::into);
    };
    let mut carrier = http::Request::new(());
    *carrier.method_mut() = request.method().clone();
    *carrier.uri_mut() = uri;
    *carrier.headers_mut() = mem::take(request.headers_mut());
    let response = service.call(carrier.map(|()| request)).await?;
    let response = unpack_response(response);
    RedirectedError::check(&url, &response)?;
    Ok(response)
}

/// A service for carriers over a service for requests of reqwest.
#[derive(Clone, Debug)]
pub(super) struct CarrierService<S>(pub(super) S);

impl<S: Service<Request, Response = Response>> Service<http::Request<Request>>
    for CarrierService<S>
{
    type Response = http::Response<ResponseBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, carrier: http::Request<Request>) -> Self::Future {
        let (head, mut request) = carrier.into_parts();
        *request.headers_mut() = head.headers;
        ResponseFuture { response: self.0.call(request) }
    }
}

pin_project! {
    /// The response future of an [`CarrierService`].
    pub(super) struct ResponseFuture<F> {
        #[pin]
        response: F,
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for ResponseFuture<F> {
    type Output = Result<http::Response<ResponseBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(pack_response(ready!(self.project().response.poll(cx))?)))
    }
}

/// The body of the carrier of a response.
#[derive(Debug)]
pub(super) struct ResponseBody {
    /// `None` after a part of its body was read into `rest`. The layer reads only the bodies of
    /// rejected responses.
    response: Option<Response>,
    rest: reqwest::Body,
}

fn pack_response(mut response: Response) -> http::Response<ResponseBody> {
    let mut carrier = http::Response::new(());
    *carrier.status_mut() = response.status();
    *carrier.headers_mut() = mem::take(response.headers_mut());
    carrier.map(|()| ResponseBody { response: Some(response), rest: reqwest::Body::default() })
}

fn unpack_response(carrier: http::Response<ResponseBody>) -> Response {
    let (head, body) = carrier.into_parts();
    let Some(mut response) = body.response else {
        return http::Response::from_parts(head, body.rest).into();
    };
    *response.headers_mut() = head.headers;
    response.extensions_mut().extend(head.extensions);
    response
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        if let Some(response) = self.response.take() {
            self.rest = response.into();
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.response {
            Some(response) => response.content_length() == Some(0),
            None => self.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.response {
            Some(response) => {
                response.content_length().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            None => self.rest.size_hint(),
        }
    }
}
