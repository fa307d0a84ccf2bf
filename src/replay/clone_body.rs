use super::replay_trait::Replay;

/// A [`Replay`] that keeps a clone of the body. This is the default.
///
/// It accepts bodies that are `Clone`: `Full<Bytes>`, `Empty<_>`, `Bytes`, `String`, `()`. The body
/// is cloned for each request, so a clone should be cheap. A clone must be independent of the
/// original: if the clones of a body share one stream, use
/// [`BufferBody`](crate::replay::BufferBody).
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

#[diagnostic::do_not_recommend]
impl<B: Clone> Replay<B> for CloneBody {
    type Body = B;
    type Kept = B;

    fn pass(&self, body: B) -> B {
        body
    }

    fn keep(&self, body: B) -> (B, Option<B>) {
        let kept = body.clone();
        (body, Some(kept))
    }

    fn replay(&self, kept: B) -> Option<B> {
        Some(kept)
    }

    fn keep_again(&self, body: B) -> (B, Option<B>) {
        self.keep(body)
    }
}
