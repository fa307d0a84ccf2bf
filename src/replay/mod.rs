//! How the body of a request is kept for one more attempt.
//!
//! A request that is answered 401 goes out again with a new token, and a body that was sent once is gone. The layer
//! therefore asks a [`Replay`] before it sends: what goes out now, and what is kept? The choice is part of the layer's type:
//!
//! | replay | for bodies | retried | costs |
//! | --- | --- | --- | --- |
//! | [`CloneBody`], the default | that are `Clone`: `Full<Bytes>`, `Empty<_>`, `Bytes`, `String`, `()` | always | a copy of the header fields, a clone of the rest |
//! | [`BufferBody`] | of any type, streams included | up to a byte cap | a copy of the header fields; the frames are shared, not copied |
//! | [`Never`] | of any type | never | nothing |
#![cfg_attr(
    feature = "tonic",
    doc = "| [`TonicBody`], of [`OAuthLayer::grpc`](crate::OAuthLayer::grpc) | of tonic | up to a byte cap | a copy of the header fields; the frames are shared, not copied |"
)]
//!
//! # Example
//!
//! An upload that cannot be repeated, on a layer that is the same otherwise:
//!
//! ```
//! use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, replay::Never};
//!
//! let tokens = TokenCache::new(|| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") });
//! let oauth = OAuthLayer::new(tokens, Origins::new(["https://api.example.com"])?);
//! let uploads = oauth.clone().replay(Never);
//! # Ok::<_, tower_oauth::ConfigError>(())
//! ```
//!
//! # Caveats
//!
//! - A retry is safe to make for every method: the server refused the first attempt before it acted. Where you cannot trust
//!   your API in this, use [`Never`].
//! - A request that is not retried still takes its refused token out of use, for the next one; unless the last new token did
//!   not help either.
//! - "`oneshot` exists for `OAuth<…>`, but its trait bounds were not satisfied" has one of three causes: a body that is not
//!   `Clone` (use [`BufferBody`]), an inner service that is no HTTP service (such as a bare `reqwest::Client`), or one whose
//!   response has a body that is no [`http_body::Body`]. A service that is not `Clone` is refused when it is wrapped.
//! - `Clone` is not always a copy: a body that shares one stream among its clones is for [`BufferBody`].

mod buffer;
mod kept;
mod tee;
#[cfg(feature = "tonic")]
mod tonic;

pub use self::buffer::{BufferBody, Buffered, KeptBody};
pub(crate) use self::kept::KeptRequest;
#[cfg(feature = "tonic")]
pub use self::tonic::{KeptCall, TonicBody};

use std::convert::Infallible;

/// Keeps a body of type `B` for one more attempt. See the [module](self).
///
/// The layer takes one that is `Clone`, and clones it with each request that could be repeated: share what is large.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot keep a body of type `{B}` for a retry",
    note = "`CloneBody`, the default, takes bodies that are `Clone`, such as `http_body_util::Full<Bytes>`",
    note = "for other bodies: `OAuthLayer::replay(tower_oauth::replay::BufferBody::default())`",
    note = "for tonic clients: `OAuthLayer::grpc()`"
)]
pub trait Replay<B> {
    /// The body that the inner service gets to see.
    type Body;
    /// What is kept meanwhile.
    type Kept;

    /// Lets a body through of which nothing needs to be kept.
    fn pass(&self, body: B) -> Self::Body;

    /// Splits a body into what is sent now and what is kept. `None`: this body is not retried.
    fn keep(&self, body: B) -> (Self::Body, Option<Self::Kept>);

    /// Whether [`replay`](Self::replay) would give a body, as far as can be told now.
    fn can_replay(&self, kept: &Self::Kept) -> bool {
        let _ = kept;
        true
    }

    /// The same body once more, all of it. `None`: it cannot be had.
    fn replay(&self, kept: Self::Kept) -> Option<Self::Body>;
}

/// Keeps a clone of the body.
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
}

/// Keeps nothing: a refused request is answered with the refusal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

impl<B> Replay<B> for Never {
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
