use std::convert::Infallible;

use super::replay_trait::Replay;

/// A [`Replay`] that keeps nothing, so that no request is retried.
///
/// The caller receives the rejection. The rejected token is invalidated nevertheless, and the next
/// request is sent with a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReplay;

impl<B> Replay<B> for NoReplay {
    type Body = B;
    type Kept = Infallible;

    fn pass(&self, body: B) -> B {
        body
    }

    fn keep(&self, body: B) -> (B, Option<Infallible>) {
        (body, None)
    }

    fn replay(&self, kept: Infallible) -> Option<B> {
        match kept {}
    }
}
