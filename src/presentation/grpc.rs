//! The end of a gRPC response: what began well can still end with `UNAUTHENTICATED`, in the trailers.

use std::{
    any::Any,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::verdict::is_unauthenticated;

/// Calls `at_refusal` if the trailers of the response refuse the token, when they pass. Only a body of tonic's own can be
/// looked into without another type for the response; any other stays as it is.
pub(super) fn watch<B: 'static>(response: &mut Response<B>, at_refusal: impl FnOnce() + Send + 'static) {
    let body: &mut dyn Any = response.body_mut();
    let Some(body) = body.downcast_mut::<Body>() else { return };
    if !body.is_end_stream() {
        let watched = Watched { body: mem::take(body), at_refusal: Some(at_refusal) };
        *body = Body::new(watched);
    }
}

/// The body as it is, with somebody who waits for its trailers.
struct Watched<F> {
    body: Body,
    at_refusal: Option<F>,
}

/// Nothing is pinned by way of `at_refusal`.
impl<F> Unpin for Watched<F> {}

impl<F: FnOnce()> http_body::Body for Watched<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let trailers = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.trailers_ref());
        if trailers.is_some_and(is_unauthenticated)
            && let Some(at_refusal) = self.at_refusal.take()
        {
            at_refusal();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use http::HeaderMap;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, Status>>;

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    fn trailers(status: &'static str) -> Frame<Bytes> {
        Frame::trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]))
    }

    fn response(frames: Frames) -> Response<Body> {
        Response::new(Body::new(StreamBody::new(tokio_stream::iter(frames))))
    }

    /// A response that is watched, and how often it was found to be a refusal.
    fn watched<B: 'static>(mut response: Response<B>) -> (B, Arc<AtomicUsize>) {
        let refusals = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&refusals);
        watch(&mut response, move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        (response.into_body(), refusals)
    }

    async fn all(mut body: Body) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            seen.push(format!("{frame:?}"));
        }
        seen
    }

    #[tokio::test]
    async fn trailers_that_say_unauthenticated_are_told_once_and_all_frames_pass() {
        for (frames, expected) in [
            (|| vec![Ok(data("one")), Ok(data("two")), Ok(trailers("16"))], 1),
            (|| vec![Ok(trailers("16"))], 1),
            (|| vec![Ok(data("one")), Ok(trailers("16")), Ok(trailers("16"))], 1),
            (|| vec![Ok(data("one")), Ok(trailers("0"))], 0),
            (|| vec![Ok(data("one")), Ok(trailers("7"))], 0),
            (|| vec![Ok(data("16")), Ok(trailers("160"))], 0),
            (|| vec![Ok(data("one"))], 0),
            (|| vec![Ok(data("one")), Err(Status::unauthenticated("of another kind"))], 0),
        ] as [(fn() -> Frames, usize); _]
        {
            let (body, refusals) = watched(response(frames()));
            assert_eq!(all(body).await, all(response(frames()).into_body()).await);
            assert_eq!(refusals.load(Ordering::SeqCst), expected);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_before_its_trailers_tells_nothing() {
        let (mut body, refusals) = watched(response(vec![Ok(data("one")), Ok(trailers("16"))]));
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(refusals.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn size_and_end_are_those_of_the_original() {
        let (mut body, _) = watched(Response::new(Body::new(Full::new(Bytes::from_static(b"12345")))));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        body.frame().await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
        let (empty, _) = watched(Response::new(Body::empty()));
        assert!(empty.is_end_stream());
    }

    #[test]
    fn a_body_of_another_type_stays_as_it_is() {
        let (body, refusals) = watched(Response::new("16"));
        assert_eq!((body, refusals.load(Ordering::SeqCst)), ("16", 0));
    }
}
