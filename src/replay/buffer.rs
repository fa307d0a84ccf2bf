use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, SizeHint};
use pin_project_lite::pin_project;
use tower::BoxError;

use super::{
    Replay,
    tee::{self, PolledFrame, Replayed, Sending, poll_bytes, tee},
};

/// Keeps what was sent of a body, of any type, up to a byte cap.
///
/// # The problem
///
/// A body that is a stream cannot be cloned, and what was sent of it is gone: an upload that meets a revoked token would have
/// to begin again, and only its caller can do that. To collect it first would cost its whole size, and its first byte would go
/// out after its last one came in.
///
/// This keeps the frames as they pass. When the token is refused, they are sent once more, and then the rest, live. So the
/// retry is always of the whole body, or there is none: see [the chapter on replay](crate::docs::replay).
///
/// # Example
///
/// ```
/// # #[cfg(feature = "default-transport")] {
/// use bytes::Bytes;
/// use http::Request;
/// use http_body::Frame;
/// use http_body_util::StreamBody;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::{BoxError, ServiceBuilder, ServiceExt};
/// use tower_oauth::{OAuthLayer, replay::BufferBody};
///
/// # fn example(oauth: OAuthLayer, chunks: tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>) -> Result<(), BoxError> {
/// let http_client = Client::builder(TokioExecutor::new()).build_http();
/// let client = ServiceBuilder::new().layer(oauth.replay(BufferBody::default())).service(http_client);
///
/// let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(chunks));
/// let response = client.oneshot(Request::put("http://localhost:8080/report").body(body)?);
/// # fn is_send<T: Send>(_: &T) {}
/// # is_send(&response);
/// # Ok(())
/// # }
/// # }
/// ```
///
/// # Caveats
///
/// - A body that was sent beyond the cap is not retried, nor is one that says beforehand that it is larger: the caller gets the
///   401. Its token is out of use, so that the next request has a new one.
/// - The inner service sees a [`Buffered`] body, whose data is [`Bytes`]. Data of another type is copied.
/// - Frames are shared, not copied: a frame that is a small part of a large buffer keeps all of that buffer, until the answer
///   comes.
/// - The retry of a body of which a part was sent is only as good as the server's word that it did not act on that part. Where
///   you cannot trust it, use [`Never`](super::Never).
#[derive(Clone, Copy, Debug)]
pub struct BufferBody {
    cap: usize,
}

impl BufferBody {
    /// How many bytes are kept of one body, unless [`with_cap`](Self::with_cap) says otherwise.
    pub const DEFAULT_CAP: usize = 64 * 1024;

    /// Keeps up to `cap` bytes of one body. Each frame but the first counts for some bytes more than it has.
    #[must_use]
    pub fn with_cap(cap: usize) -> Self {
        Self { cap }
    }
}

impl Default for BufferBody {
    fn default() -> Self {
        Self::with_cap(Self::DEFAULT_CAP)
    }
}

#[diagnostic::do_not_recommend]
impl<B> Replay<B> for BufferBody
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Body = Buffered<B>;
    type Kept = KeptBody<B>;

    fn pass(&self, body: B) -> Buffered<B> {
        Buffered { way: Way::AsItIs { body } }
    }

    fn keep(&self, body: B) -> (Buffered<B>, Option<KeptBody<B>>) {
        if body.is_end_stream() {
            return (self.pass(body), Some(KeptBody(None)));
        }
        if body.size_hint().lower() > self.cap as u64 {
            return (self.pass(body), None);
        }
        let (sending, kept) = tee(body, self.cap);
        (Buffered { way: Way::Sending { body: sending } }, Some(KeptBody(Some(kept))))
    }

    fn can_replay(&self, KeptBody(kept): &KeptBody<B>) -> bool {
        kept.as_ref().is_none_or(tee::Kept::can_replay)
    }

    fn replay(&self, KeptBody(kept): KeptBody<B>) -> Option<Buffered<B>> {
        let way = match kept {
            Some(kept) => Way::Replayed { body: kept.replay()? },
            None => Way::Empty,
        };
        Some(Buffered { way })
    }
}

pin_project! {
    /// What the inner service sees of a body of type `B` that [`BufferBody`] keeps.
    ///
    /// Frames, trailers, end, size and errors are those of the original; errors are boxed. It is `Send`, `Sync` and `Unpin` where
    /// `B` is `Send`, `Sync` and `Unpin`.
    pub struct Buffered<B> {
        #[pin]
        way: Way<B>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<B> {
        // Nothing of it is kept, or there is nothing to keep.
        AsItIs {
            #[pin]
            body: B,
        },
        Sending { body: Sending<B> },
        Replayed { body: Replayed<B> },
        Empty,
    }
}

/// An empty body.
impl<B> Default for Buffered<B> {
    fn default() -> Self {
        Self { way: Way::Empty }
    }
}

impl<B> Body for Buffered<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        match self.project().way.project() {
            WayProj::AsItIs { body } => poll_bytes(body, cx),
            WayProj::Sending { body } => Pin::new(body).poll_frame(cx),
            WayProj::Replayed { body } => Pin::new(body).poll_frame(cx),
            WayProj::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.way {
            Way::AsItIs { body } => body.is_end_stream(),
            Way::Sending { body } => body.is_end_stream(),
            Way::Replayed { body } => body.is_end_stream(),
            Way::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.way {
            Way::AsItIs { body } => body.size_hint(),
            Way::Sending { body } => body.size_hint(),
            Way::Replayed { body } => body.size_hint(),
            Way::Empty => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for Buffered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered").finish_non_exhaustive()
    }
}

/// What [`BufferBody`] keeps of one body: nothing of an empty one.
pub struct KeptBody<B>(Option<tee::Kept<B>>);

impl<B> fmt::Debug for KeptBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let can_replay = self.0.as_ref().is_none_or(tee::Kept::can_replay);
        f.debug_struct("KeptBody").field("can_replay", &can_replay).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::{BodyExt, Collected, Empty, Full, StreamBody};
    use tokio_test::{assert_ready, task};

    use super::*;

    fn collect<B>(body: B) -> Collected<Bytes>
    where
        B: Body<Data = Bytes, Error = BoxError>,
    {
        assert_ready!(task::spawn(body.collect()).poll()).unwrap()
    }

    #[test]
    fn an_empty_body_is_sent_again_and_costs_nothing() {
        let (sent, kept) = BufferBody::default().keep(Empty::<Bytes>::new());
        assert!(matches!(sent.way, Way::AsItIs { .. }));
        assert!(sent.is_end_stream());
        let kept = kept.unwrap();
        assert!(kept.0.is_none());
        assert!(BufferBody::default().can_replay(&kept));
        let again = BufferBody::default().replay(kept).unwrap();
        assert_eq!((again.is_end_stream(), again.size_hint().exact()), (true, Some(0)));
        assert!(collect(again).to_bytes().is_empty());
    }

    #[test]
    fn a_body_that_says_that_it_is_larger_than_the_cap_goes_out_as_it_is() {
        let (sent, kept) = BufferBody::with_cap(4).keep(Full::<Bytes>::from("12345"));
        assert!(matches!(sent.way, Way::AsItIs { .. }));
        assert_eq!(sent.size_hint().exact(), Some(5));
        assert!(kept.is_none());
        assert_eq!(collect(sent).to_bytes(), "12345");
    }

    #[test]
    fn a_body_in_several_pieces_and_with_trailers_comes_again() {
        let pieces = Bytes::from("two ").chain(Bytes::from("pieces"));
        let trailers = HeaderMap::from_iter([("x".parse().unwrap(), "y".parse().unwrap())]);
        let with_trailers = Full::new(pieces).with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
        let (sent, kept) = BufferBody::default().keep(with_trailers);
        let again = || collect(BufferBody::default().replay(kept.unwrap()).unwrap());
        for collected in [collect(sent), again()] {
            assert_eq!(collected.trailers(), Some(&trailers));
            assert_eq!(collected.to_bytes(), "two pieces");
        }
    }

    #[test]
    fn the_error_of_a_body_is_the_one_it_had() {
        let failing = || StreamBody::new(tokio_stream::once(Err::<Frame<Bytes>, _>(fmt::Error)));
        let (sent, kept) = BufferBody::default().keep(failing());
        for mut body in [sent, BufferBody::default().pass(failing())] {
            let error = assert_ready!(task::spawn(body.frame()).poll()).unwrap().unwrap_err();
            assert!(error.is::<fmt::Error>());
        }
        assert!(!BufferBody::default().can_replay(&kept.unwrap()));
    }

    #[test]
    fn it_is_send_sync_and_unpin_where_the_body_is() {
        fn check<T: Send + Sync + Unpin>() {}
        check::<Buffered<Full<Bytes>>>();
        check::<KeptBody<Full<Bytes>>>();
    }
}
