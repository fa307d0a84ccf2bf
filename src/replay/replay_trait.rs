/// A way to keep a body of type `B` for a retry.
///
/// The [module documentation](crate::replay) compares the implementations of this crate.
///
/// The layer clones its `Replay` for each request that may be retried, so a `Replay` must be
/// `Clone`. Put large state behind an [`Arc`](std::sync::Arc).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot keep a body of type `{B}` for a retry",
    note = "`CloneBody`, the default, accepts `Clone` bodies such as `http_body_util::Full<Bytes>`",
    note = "for other bodies: `.with_replay(tower_oauth::replay::BufferBody::default())`",
    note = "for tonic clients: `OAuthLayer::grpc()`"
)]
pub trait Replay<B> {
    /// The type of the body that the inner service receives.
    type Body;
    /// The type of the copy that is kept for the retry until the response arrives.
    type Kept;

    /// Converts a body that does not have to be kept, because its request is not retried.
    fn pass(&self, body: B) -> Self::Body;

    /// Splits a body into the body to send and the copy for the retry.
    ///
    /// The copy is `None` if this body cannot be sent again. Its request is then not retried.
    fn keep(&self, body: B) -> (Self::Body, Option<Self::Kept>);

    /// Returns true if [`replay`](Self::replay) is expected to return a body.
    ///
    /// The layer calls this when a request is rejected. It waits for a new token only if this
    /// returns true, as the default implementation does.
    fn can_replay(&self, kept: &Self::Kept) -> bool {
        let _ = kept;
        true
    }

    /// Returns the complete body once more.
    ///
    /// Returns `None` if that is not possible. The caller of the request then receives the
    /// rejection.
    fn replay(&self, kept: Self::Kept) -> Option<Self::Body>;

    /// Splits the body of a retry into the body to send and the copy for another retry, like
    /// [`keep`](Self::keep).
    ///
    /// The layer calls this for a retry that may be rejected through no fault of its own: its token
    /// was already being fetched when the first attempt was rejected, so both tokens may have been
    /// revoked at the same time. The default implementation keeps nothing, and such a request is
    /// retried once like any other.
    fn keep_again(&self, body: Self::Body) -> (Self::Body, Option<Self::Kept>) {
        (body, None)
    }
}
