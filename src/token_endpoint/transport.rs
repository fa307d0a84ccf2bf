use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Limited, combinators::UnsyncBoxBody};
use tower::{BoxError, Service, ServiceExt, util::BoxCloneService};

pub(super) const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// A body whose type nobody else needs to know, with a limit on its size.
pub(super) type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

type AnyService = BoxCloneService<Request<Bytes>, Response<AnyBody>, BoxError>;

/// The user's tower service, whatever its types. Each request takes a clone, so that the lock is held for that only.
#[derive(Clone)]
pub(super) struct Transport(Arc<Mutex<AnyService>>);

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
        let service = service
            .map_request(|request: Request<Bytes>| request.map(ReqBody::from))
            .map_response(|response: Response<ResBody>| response.map(limited))
            .map_err(Into::into);
        Self(Arc::new(Mutex::new(BoxCloneService::new(service))))
    }

    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<AnyBody>, BoxError> {
        let service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        service.oneshot(request).await
    }
}

fn limited<B>(body: B) -> AnyBody
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    Limited::new(body, MAX_RESPONSE_BYTES)
        .map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
        .boxed_unsync()
}
