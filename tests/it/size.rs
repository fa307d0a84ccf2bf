//! The number of bytes that the layer adds to the future of a request.

use std::{convert::Infallible, future::Ready, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Service, util::ServiceFn};
use tower_oauth::{OAuth, replay::NoReplay};

type Body = Full<Bytes>;

#[test]
fn future_without_replay_grows_by_at_most_64_bytes() {
    for added in [
        added::<Ready<Result<Response<Body>, Infallible>>>(),
        added::<Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>>(),
    ] {
        assert!(added <= 64, "the layer adds {added} bytes");
    }
}

/// Returns the number of bytes that the layer adds to the future of a service that returns an `F`.
fn added<F>() -> usize
where
    OAuth<Returns<F>, NoReplay>: Service<Request<Body>>,
{
    size_of::<<OAuth<Returns<F>, NoReplay> as Service<Request<Body>>>::Future>() - size_of::<F>()
}

type Returns<F> = ServiceFn<fn(Request<Body>) -> F>;
