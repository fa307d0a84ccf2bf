use std::fmt;

use http_body::Body as _;
use tonic::body::Body;

use super::{
    Replay,
    tee::{self, tee},
};

/// Keeps a [`tonic::body::Body`], type unchanged: the messages sent so far, up to a byte cap.
///
/// Unary calls and streams alike: where the server refuses while a stream is still being sent, the retry sends what was
/// sent already and goes on with the stream. A call of whose messages more than the cap was sent is not retried.
///
/// Messages are shared, not copied: what is a small part of a large buffer keeps all of that buffer, until the answer comes.
#[derive(Clone, Copy, Debug)]
pub struct TonicBody {
    cap: usize,
}

impl TonicBody {
    /// How many bytes are kept of one call, unless [`with_cap`](Self::with_cap) says otherwise.
    pub const DEFAULT_CAP: usize = 64 * 1024;

    /// Keeps up to `cap` bytes of one call: `oauth.grpc().replay(TonicBody::with_cap(…))`, which stays a layer for gRPC.
    #[must_use]
    pub fn with_cap(cap: usize) -> Self {
        Self { cap }
    }
}

impl Default for TonicBody {
    fn default() -> Self {
        Self::with_cap(Self::DEFAULT_CAP)
    }
}

impl Replay<Body> for TonicBody {
    type Body = Body;
    type Kept = KeptCall;

    fn pass(&self, body: Body) -> Body {
        body
    }

    fn keep(&self, body: Body) -> (Body, Option<KeptCall>) {
        if body.is_end_stream() {
            return (body, Some(KeptCall(None)));
        }
        if body.size_hint().lower() > self.cap as u64 {
            return (body, None);
        }
        let (sending, kept) = tee(body, self.cap);
        (Body::new(sending), Some(KeptCall(Some(kept))))
    }

    fn can_replay(&self, KeptCall(kept): &KeptCall) -> bool {
        kept.as_ref().is_none_or(tee::Kept::can_replay)
    }

    fn replay(&self, KeptCall(kept): KeptCall) -> Option<Body> {
        match kept {
            Some(kept) => kept.replay().map(Body::new),
            None => Some(Body::empty()),
        }
    }
}

/// What [`TonicBody`] keeps of one call.
pub struct KeptCall(Option<tee::Kept<Body>>);

impl fmt::Debug for KeptCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptCall").field("can_replay", &TonicBody::default().can_replay(self)).finish()
    }
}
