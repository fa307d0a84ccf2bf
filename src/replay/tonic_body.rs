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
