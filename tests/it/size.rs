//! How large the layer makes the future of a request.

use std::{convert::Infallible, future::Ready, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Service, util::ServiceFn};
use tower_oauth::{OAuth, replay::Never};

type Body = Full<Bytes>;

#[test]
fn without_a_retry_the_future_grows_by_64_bytes_at_most() {
    for added in [
        added::<Ready<Result<Response<Body>, Infallible>>>(),
        added::<Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>>(),
    ] {
        assert!(added <= 64, "{added} bytes");
    }
}

/// What the layer adds to the future of a service that returns an `F`.
fn added<F>() -> usize
where
    OAuth<Returns<F>, Never>: Service<Request<Body>>,
{
    size_of::<<OAuth<Returns<F>, Never> as Service<Request<Body>>>::Future>() - size_of::<F>()
}

type Returns<F> = ServiceFn<fn(Request<Body>) -> F>;
