//! The changes of a cache's status.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::{
    runtime::{self, Handle},
    sync::futures::OwnedNotified,
    time::{Sleep, sleep_until},
};

use super::{core::Core, status::Status, status_snapshot::SnapshotKey, token_cache::TokenCache};

impl TokenCache {
    /// Follows the [`status`](Self::status).
    #[must_use]
    pub fn subscribe(&self) -> StatusChanges {
        StatusChanges::new(Arc::clone(self.core()))
    }
}

/// The changes of a cache's [`Status`], from
/// [`TokenCache::subscribe`](crate::TokenCache::subscribe).
///
/// The first item is the status as it is. Another one follows as soon as the status is another one,
/// also by the passing of time alone, as when a token becomes stale. A slow reader gets the newest
/// status, not each one that there was. The last item is [`RefreshState::Closed`]: the cache was
/// closed, or its last clone was dropped. A subscription does not keep the cache open.
///
/// It is a [`Stream`]. [`next`](Self::next) serves code that uses no stream library. Both need the
/// time driver of a tokio runtime.
///
/// [`RefreshState::Closed`]: crate::RefreshState::Closed
///
/// ```
/// use tower_oauth::{AccessToken, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = TokenCache::new(source_fn(|_| async { AccessToken::bearer("my-token") }));
/// let mut changes = cache.subscribe();
/// let logger = tokio::spawn(async move {
///     while let Some(status) = changes.next().await {
///         println!("{status}");
///     }
/// });
/// cache.token().await.unwrap();
/// drop(cache); // ends the subscription
/// logger.await.unwrap();
/// # }
/// ```
pub struct StatusChanges {
    core: Arc<Core>,
    seen: Option<SnapshotKey>,
    waiting: Option<Waiting>,
}

/// The wait for the next status.
struct Waiting {
    /// The runtime of the timer. A reader may continue on another one.
    runtime: Option<runtime::Id>,
    changed: Pin<Box<OwnedNotified>>,
    /// Completes when the status changes by the passing of time alone.
    timer: Option<Pin<Box<Sleep>>>,
}

impl StatusChanges {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, seen: None, waiting: None }
    }

    /// Returns the next status. `None` after the last one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next call returns the status that this one would have returned.
    pub async fn next(&mut self) -> Option<Status> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for StatusChanges {
    type Item = Status;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        if self.seen.as_ref().is_some_and(SnapshotKey::is_closed) {
            return Poll::Ready(None);
        }
        let runtime = Handle::try_current().ok().map(|handle| handle.id());
        self.waiting.take_if(|waiting| waiting.runtime != runtime);
        loop {
            if let Some(Waiting { changed, timer, .. }) = &mut self.waiting {
                let is_due = |timer: &mut Pin<Box<Sleep>>| timer.as_mut().poll(cx).is_ready();
                let is_timer_due = timer.as_mut().is_some_and(is_due);
                if changed.as_mut().poll(cx).is_pending() && !is_timer_due {
                    return Poll::Pending;
                }
            }
            // Registered before the snapshot, so that no change between the two is missed.
            let mut changed = Box::pin(self.core.changed());
            changed.as_mut().enable();
            let snapshot = self.core.snapshot();
            let (key, next_change) = (snapshot.key(), snapshot.next_change());
            if self.seen.as_ref() != Some(&key) {
                (self.seen, self.waiting) = (Some(key), None);
                return Poll::Ready(Some(snapshot.into_status()));
            }
            let timer = next_change.map(|at| Box::pin(sleep_until(at)));
            self.waiting = Some(Waiting { runtime, changed, timer });
        }
    }
}

impl fmt::Debug for StatusChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusChanges").finish_non_exhaustive()
    }
}
