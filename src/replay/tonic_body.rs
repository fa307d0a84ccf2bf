use tonic::body::Body;

use super::{buffer_body::BufferBody, recorded_body::SavedBody, replay_trait::Replay};

/// A [`Replay`] for tonic clients that records the messages of a call up to a cap.
///
/// It works like [`BufferBody`] and has the same caveats, but the type of the body stays
/// [`tonic::body::Body`]. It accepts unary calls and streams. If the server rejects a call while
/// messages are being sent, the retry sends the recorded messages and then the rest of the stream.
/// A call is not retried if more than the cap of its messages was sent.
///
/// [`OAuthLayer::grpc`](crate::OAuthLayer::grpc) uses it with the [default cap](Self::DEFAULT_CAP).
#[derive(Clone, Copy, Debug, Default)]
pub struct TonicBody {
    buffer: BufferBody,
}

impl TonicBody {
    /// The default cap of one call, in bytes: 64 KiB, as for a [`BufferBody`].
    pub const DEFAULT_CAP: usize = BufferBody::DEFAULT_CAP;

    /// Creates a `TonicBody` that records up to `cap` bytes of each call.
    ///
    /// Set it after [`OAuthLayer::grpc`](crate::OAuthLayer::grpc):
    /// `oauth.grpc().with_replay(TonicBody::with_cap(cap))` is still a layer for gRPC.
    /// [`BufferBody::with_cap`] describes what counts towards the cap.
    #[must_use]
    pub fn with_cap(cap: usize) -> Self {
        Self { buffer: BufferBody::with_cap(cap) }
    }
}

impl Replay<Body> for TonicBody {
    type Body = Body;
    #[doc(hidden)]
    type Kept = SavedBody<Body>;

    fn pass(&self, body: Body) -> Body {
        body
    }

    fn keep(&self, body: Body) -> (Body, Option<Self::Kept>) {
        let (body, saved) = self.buffer.keep(body);
        (Body::new(body), saved)
    }

    fn can_replay(&self, saved: &Self::Kept) -> bool {
        self.buffer.can_replay(saved)
    }

    fn replay(&self, saved: Self::Kept) -> Option<Body> {
        self.buffer.replay(saved).map(Body::new)
    }

    fn keep_again(&self, body: Body) -> (Body, Option<Self::Kept>) {
        self.keep(body)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio_test::{assert_ready, task};
    use tonic::Status;

    use super::*;

    fn call() -> Body {
        let message = Frame::data(Bytes::from_static(b"12345"));
        Body::new(StreamBody::new(tokio_stream::once(Ok::<_, Status>(message))))
    }

    fn content(body: Body) -> Bytes {
        assert_ready!(task::spawn(body.collect()).poll()).unwrap().to_bytes()
    }

    #[test]
    fn call_is_sent_completely_and_replayed_up_to_the_cap() {
        for (cap, can_replay) in [(5, true), (4, false)] {
            let replay = TonicBody::with_cap(cap);
            let (sent, saved) = replay.keep(call());
            assert_eq!(content(sent), "12345");
            let saved = saved.unwrap();
            assert_eq!(replay.can_replay(&saved), can_replay);
            assert_eq!(replay.replay(saved).map(content), can_replay.then(|| "12345".into()));
        }
        assert_eq!(content(TonicBody::default().pass(call())), "12345");
    }
}
