//! The trailers of a gRPC response: a call that began successfully can still end with
//! `UNAUTHENTICATED`.

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

use super::criteria::is_unauthenticated;

/// Calls `on_trailers` when trailers pass, with true if they reject the token. Returns false if the
/// body has no trailers, or cannot be wrapped: only tonic's own body type can be wrapped without
/// changing the type of the response.
pub(super) fn watch<B: 'static>(
    response: &mut Response<B>,
    on_trailers: impl FnOnce(bool) + Send + 'static,
) -> bool {
    let body: &mut dyn Any = response.body_mut();
    let Some(body) = body.downcast_mut::<Body>().filter(|body| !body.is_end_stream()) else {
        return false;
    };
    let on_trailers = Some(on_trailers);
    *body = Body::new(WatchedBody { body: mem::take(body), on_trailers });
    true
}

/// A body that inspects its trailers when they pass.
struct WatchedBody<F> {
    body: Body,
    on_trailers: Option<F>,
}

/// `on_trailers` is never pinned.
impl<F> Unpin for WatchedBody<F> {}

impl<F: FnOnce(bool)> http_body::Body for WatchedBody<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let trailers = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.trailers_ref());
        if let Some(trailers) = trailers {
            let is_rejection = is_unauthenticated(trailers);
            if let Some(on_trailers) = self.on_trailers.take() {
                on_trailers(is_rejection);
            }
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
        Frame::trailers(HeaderMap::from_iter([(
            "grpc-status".parse().unwrap(),
            status.parse().unwrap(),
        )]))
    }

    fn response(frames: Frames) -> Response<Body> {
        Response::new(Body::new(StreamBody::new(tokio_stream::iter(frames))))
    }

    /// Returns the watched body of a response and the number of its rejections.
    fn watched<B: 'static>(mut response: Response<B>) -> (B, Arc<AtomicUsize>) {
        let rejections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&rejections);
        watch(&mut response, move |is_rejection| {
            count.fetch_add(is_rejection.into(), Ordering::SeqCst);
        });
        (response.into_body(), rejections)
    }

    async fn all(mut body: Body) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            seen.push(format!("{frame:?}"));
        }
        seen
    }

    #[tokio::test]
    async fn unauthenticated_trailers_are_reported_once_and_frames_pass() {
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
            let (body, rejections) = watched(response(frames()));
            assert_eq!(all(body).await, all(response(frames()).into_body()).await);
            assert_eq!(rejections.load(Ordering::SeqCst), expected);
        }
    }

    #[tokio::test]
    async fn body_dropped_before_its_trailers_reports_nothing() {
        let (mut body, rejections) = watched(response(vec![Ok(data("one")), Ok(trailers("16"))]));
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(rejections.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn size_and_end_are_those_of_the_original_body() {
        let (mut body, _) =
            watched(Response::new(Body::new(Full::new(Bytes::from_static(b"12345")))));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        body.frame().await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
        let (empty, _) = watched(Response::new(Body::empty()));
        assert!(empty.is_end_stream());
    }

    #[test]
    fn body_of_another_type_is_left_alone() {
        let (body, rejections) = watched(Response::new("16"));
        assert_eq!((body, rejections.load(Ordering::SeqCst)), ("16", 0));
    }
}
