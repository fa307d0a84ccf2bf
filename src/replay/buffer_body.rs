use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    recorded_body::{RecordedBody, ReplayedBody, SavedBody, poll_bytes, record},
    replay_trait::Replay,
};
use crate::error::BoxError;

/// A [`Replay`] that records the frames of a body while they are sent, up to a cap.
///
/// # The problem
///
/// A body that is a stream cannot be cloned, and its frames are gone once they are sent. If the
/// token of an upload is rejected, only the caller can start the upload again. Collecting the body
/// first would need memory for all of it and would delay its first byte.
///
/// A `BufferBody` records the frames that are sent. If the request is rejected, the retry sends the
/// recorded frames and then the rest of the stream, live. A retry always sends the complete body.
/// See [the chapter on replay](crate::docs::replay).
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
/// use tokio::sync::mpsc::Receiver;
/// use tokio_stream::wrappers::ReceiverStream;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_oauth::{BoxError, OAuthLayer, replay::BufferBody};
///
/// # fn example(
/// #     oauth: OAuthLayer,
/// #     chunks: Receiver<Result<Frame<Bytes>, std::io::Error>>,
/// # ) -> Result<(), BoxError> {
/// let http_client = Client::builder(TokioExecutor::new()).build_http();
/// let oauth = oauth.with_replay(BufferBody::default());
/// let client = ServiceBuilder::new().layer(oauth).service(http_client);
///
/// let body = StreamBody::new(ReceiverStream::new(chunks));
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
/// - The caller receives the rejection if more than the cap of the body was sent, or if the initial
///   size hint of the body exceeds the cap. The rejected token is invalidated nevertheless, and the
///   next request is sent with a new one.
/// - The inner service receives a [`Buffered`] body with data of type [`Bytes`]. Data of any other
///   type is copied.
/// - Recorded frames share their memory with the frames that are sent. A frame that is a small part
///   of a large buffer keeps the whole buffer allocated until the response arrives.
/// - A retry after a part of the body was sent is safe only if the server did not act on that part.
///   Use [`NoReplay`](crate::replay::NoReplay) for a server that may act before it checks the
///   token.
#[derive(Clone, Copy, Debug)]
pub struct BufferBody {
    cap: usize,
}

impl BufferBody {
    /// The default cap of one body, in bytes: 64 KiB.
    pub const DEFAULT_CAP: usize = 64 * 1024;

    /// Creates a `BufferBody` that records up to `cap` bytes of each body.
    ///
    /// Data and trailers count towards the cap. The memory of each frame except the first is added
    /// (32 bytes on a 64-bit system), and 128 bytes for each trailer.
    #[must_use]
    pub fn with_cap(cap: usize) -> Self {
        Self { cap }
    }
}

/// Uses [`BufferBody::DEFAULT_CAP`].
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
    #[doc(hidden)]
    type Kept = SavedBody<B>;

    fn pass(&self, body: B) -> Buffered<B> {
        Buffered { source: FrameSource::Original { body } }
    }

    fn keep(&self, body: B) -> (Buffered<B>, Option<Self::Kept>) {
        if body.is_end_stream() {
            return (self.pass(body), Some(SavedBody::empty()));
        }
        if body.size_hint().lower() > self.cap as u64 {
            return (self.pass(body), None);
        }
        let (body, saved) = record(body, self.cap);
        (Buffered { source: FrameSource::Recorded { body } }, Some(saved))
    }

    fn can_replay(&self, saved: &Self::Kept) -> bool {
        saved.can_replay()
    }

    fn replay(&self, saved: Self::Kept) -> Option<Buffered<B>> {
        saved.replay().map(|body| Buffered { source: FrameSource::Replayed { body } })
    }
}

pin_project! {
    /// The body that the inner service receives from a [`BufferBody`].
    ///
    /// It has the frames, trailers, size hint and errors of the original body of type `B`. Errors
    /// are boxed. It is `Send`, `Sync` and `Unpin` if `B` is.
    pub struct Buffered<B> {
        #[pin]
        source: FrameSource<B>,
    }
}

pin_project! {
    #[project = FrameSourceProj]
    enum FrameSource<B> {
        // The original body, without recording.
        Original {
            #[pin]
            body: B,
        },
        Recorded { body: RecordedBody<B> },
        Replayed { body: ReplayedBody<B> },
    }
}

/// Creates an empty body.
impl<B> Default for Buffered<B> {
    fn default() -> Self {
        Self { source: FrameSource::Replayed { body: ReplayedBody::empty() } }
    }
}

impl<B> Body for Buffered<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().source.project() {
            FrameSourceProj::Original { body } => poll_bytes(body, cx),
            FrameSourceProj::Recorded { body } => Pin::new(body).poll_frame(cx),
            FrameSourceProj::Replayed { body } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            FrameSource::Original { body } => body.is_end_stream(),
            FrameSource::Recorded { body } => body.is_end_stream(),
            FrameSource::Replayed { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            FrameSource::Original { body } => body.size_hint(),
            FrameSource::Recorded { body } => body.size_hint(),
            FrameSource::Replayed { body } => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for Buffered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use http::HeaderMap;
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
    fn empty_body_is_replayed_without_recording() {
        let (sent, saved) = BufferBody::default().keep(Empty::<Bytes>::new());
        assert!(matches!(sent.source, FrameSource::Original { .. }));
        assert!(sent.is_end_stream());
        let saved = saved.unwrap();
        assert!(saved.is_empty());
        assert!(BufferBody::default().can_replay(&saved));
        let replayed = BufferBody::default().replay(saved).unwrap();
        assert_eq!((replayed.is_end_stream(), replayed.size_hint().exact()), (true, Some(0)));
        assert!(collect(replayed).to_bytes().is_empty());
    }

    #[test]
    fn debug_output_contains_no_content() {
        let (sent, saved) = BufferBody::default().keep(Full::<Bytes>::from("S3CRET"));
        let shown = format!("{sent:?} {:?}", saved.unwrap());
        assert_eq!(shown, "Buffered { .. } SavedBody { can_replay: true }");
    }

    #[test]
    fn body_with_size_hint_over_the_cap_is_not_recorded() {
        let (sent, saved) = BufferBody::with_cap(4).keep(Full::<Bytes>::from("12345"));
        assert!(matches!(sent.source, FrameSource::Original { .. }));
        assert_eq!(sent.size_hint().exact(), Some(5));
        assert!(saved.is_none());
        assert_eq!(collect(sent).to_bytes(), "12345");
        for (size, is_recorded) in [(65_536, true), (65_537, false)] {
            let (_, saved) = BufferBody::default().keep(Full::<Bytes>::from(vec![b'x'; size]));
            assert_eq!(saved.is_some(), is_recorded, "{size}");
        }
    }

    #[test]
    fn fragmented_data_and_trailers_are_replayed() {
        let fragments = Bytes::from("two ").chain(Bytes::from("pieces"));
        let trailers = HeaderMap::from_iter([("x".parse().unwrap(), "y".parse().unwrap())]);
        let trailers_future = std::future::ready(Some(Ok(trailers.clone())));
        let (sent, saved) =
            BufferBody::default().keep(Full::new(fragments).with_trailers(trailers_future));
        let replayed = || collect(BufferBody::default().replay(saved.unwrap()).unwrap());
        for collected in [collect(sent), replayed()] {
            assert_eq!(collected.trailers(), Some(&trailers));
            assert_eq!(collected.to_bytes(), "two pieces");
        }
    }

    #[test]
    fn body_error_keeps_its_type() {
        let failing = || StreamBody::new(tokio_stream::once(Err::<Frame<Bytes>, _>(fmt::Error)));
        let (sent, saved) = BufferBody::default().keep(failing());
        for mut body in [sent, BufferBody::default().pass(failing())] {
            let error = assert_ready!(task::spawn(body.frame()).poll()).unwrap().unwrap_err();
            assert!(error.is::<fmt::Error>());
        }
        assert!(!BufferBody::default().can_replay(&saved.unwrap()));
    }

    #[test]
    fn buffered_body_is_send_sync_and_unpin_if_the_original_is() {
        fn check<T: Send + Sync + Unpin>() {}
        check::<Buffered<Full<Bytes>>>();
        check::<SavedBody<Full<Bytes>>>();
    }
}
