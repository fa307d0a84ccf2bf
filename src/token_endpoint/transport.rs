//! The tower service that sends the requests, with its types erased.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Limited, combinators::UnsyncBoxBody};
use tower_service::Service;

use crate::{
    error::BoxError,
    sync::{Mutex, lock},
};

pub(super) const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// A response body of at most [`MAX_RESPONSE_BYTES`].
pub(super) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

type BoxSend = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, BoxError>> + Send>>;

/// A tower service for HTTP requests, whatever its types. Each request uses a clone of the service.
#[derive(Clone)]
pub(super) struct Transport(Arc<dyn Fn(Request<Bytes>) -> BoxSend + Send + Sync>);

impl Transport {
    pub(super) fn new<S, ReqBody, ResBody>(service: S) -> Self
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        ReqBody: From<Bytes> + 'static,
        ResBody: Body + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        // The mutex makes the service `Sync`. It is locked only while the service is cloned.
        let service = Mutex::new(service);
        Self(Arc::new(move |request| {
            let mut service = lock(&service).clone();
            Box::pin(async move {
                poll_fn(|context| service.poll_ready(context)).await.map_err(Into::into)?;
                let response = service.call(request.map(ReqBody::from));
                Ok(response.await.map_err(Into::into)?.map(limit))
            })
        }))
    }

    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<ResponseBody>, BoxError> {
        (self.0)(request).await
    }
}

fn limit<B>(body: B) -> ResponseBody
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    Limited::new(body, MAX_RESPONSE_BYTES)
        .map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
        .boxed_unsync()
}
