//! What a cache has and does, to look at and to follow.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use futures_util::future::select;
use tokio::time::{Instant, sleep_until};

use super::{
    freshness::Freshness,
    single_flight::SingleFlight,
    slot::{CachedToken, Generation},
};
use crate::error::TokenError;

/// What a [`TokenCache`](crate::TokenCache) has and does at one moment, from [`status`](crate::TokenCache::status). For
/// health checks and dashboards; `Debug` and `Display` show no secret.
///
/// Requests fail for want of a token as long as [`can_serve`](Self::can_serve) is false.
///
/// ```
/// use tower_oauth::{AccessToken, RefreshState, TokenCache, TokenState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::TokenError> {
/// let cache = TokenCache::new(|| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") });
/// assert!(matches!(cache.status().token, TokenState::Empty));
/// cache.warm_up().await?;
/// let status = cache.status();
/// assert!(matches!(status.token, TokenState::Fresh(_)) && matches!(status.refresh, RefreshState::Idle));
/// assert_eq!(status.to_string(), "token 1 is fresh; no refresh under way");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The token that requests get.
    pub token: TokenState,
    /// What is done for the next one.
    pub refresh: RefreshState,
    /// Why the last attempt to get a token failed. `None` where it did not, or where there was none.
    pub last_error: Option<TokenError>,
}

/// The token that requests get, a part of [`Status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenState {
    /// None: not fetched yet, refused, or expired. The next request fetches one, where it may.
    Empty,
    /// This one.
    Fresh(CachedToken),
    /// This one, which is due for renewal: it is served, and the next request has it renewed behind.
    Stale(CachedToken),
}

/// What is done for the next token, a part of [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshState {
    /// Nothing, and nothing keeps the next request from starting it.
    Idle,
    /// It is being fetched.
    Refreshing,
    /// The last attempt failed; the next one is not made before this time has passed, counted from the look at the status.
    BackingOff {
        /// The time that is left.
        next_attempt_in: Duration,
    },
    /// The [limit on token requests](crate::TokenCacheBuilder::token_request_limit) is used up for this time, counted from
    /// the look at the status.
    LimitReached {
        /// The time that is left.
        next_attempt_in: Duration,
    },
    /// The cache was [closed](crate::TokenCache::close): nothing will ever be done again.
    Closed,
}

impl Status {
    /// Whether a request that comes now gets a token, or may at least ask for one: what a health check wants to know. An idle
    /// client whose token has expired is well; one without a token in a back-off, with its limit reached, or closed, is not.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        self.current().is_some() || matches!(self.refresh, RefreshState::Idle | RefreshState::Refreshing)
    }

    /// The token that requests get, fresh or stale.
    #[must_use]
    pub fn current(&self) -> Option<&CachedToken> {
        match &self.token {
            TokenState::Empty => None,
            TokenState::Fresh(token) | TokenState::Stale(token) => Some(token),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            TokenState::Empty => f.write_str("no token")?,
            TokenState::Fresh(token) => write!(f, "token {} is fresh", token.generation())?,
            TokenState::Stale(token) => write!(f, "token {} is due for renewal", token.generation())?,
        }
        if let Some(left) = self.current().and_then(|token| token.remaining()) {
            write!(f, " and expires in {} s", left.as_secs())?;
        }
        match self.refresh {
            RefreshState::Idle => f.write_str("; no refresh under way"),
            RefreshState::Refreshing => f.write_str("; a refresh is under way"),
            RefreshState::BackingOff { next_attempt_in } => {
                write!(f, "; no further attempt for {} s", next_attempt_in.as_secs().saturating_add(1))
            }
            RefreshState::LimitReached { next_attempt_in } => {
                let left = next_attempt_in.as_secs().saturating_add(1);
                write!(f, "; the limit on token requests is reached for {left} s")
            }
            RefreshState::Closed => f.write_str("; closed"),
        }
    }
}

/// A look at everything in one moment.
pub(super) struct Survey {
    pub(super) now: Instant,
    pub(super) token: Option<CachedToken>,
    pub(super) activity: Activity,
    pub(super) last_error: Option<TokenError>,
    /// How many refreshes have ended so far.
    pub(super) landed: u64,
}

/// What is done for the next token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Idle,
    Refreshing,
    BackingOff(Instant),
    LimitReached(Instant),
    Closed,
}

/// What makes one status differ from another, but for the time that is left.
#[derive(PartialEq, Eq)]
struct Mark {
    token: Option<(Generation, bool)>,
    activity: Activity,
    landed: u64,
}

impl Survey {
    pub(super) fn status(self) -> Status {
        let left = |until: Instant| until.saturating_duration_since(self.now);
        let is_stale = self.is_stale();
        Status {
            token: match self.token {
                None => TokenState::Empty,
                Some(token) if is_stale => TokenState::Stale(token),
                Some(token) => TokenState::Fresh(token),
            },
            refresh: match self.activity {
                Activity::Idle => RefreshState::Idle,
                Activity::Refreshing => RefreshState::Refreshing,
                Activity::BackingOff(until) => RefreshState::BackingOff { next_attempt_in: left(until) },
                Activity::LimitReached(until) => RefreshState::LimitReached { next_attempt_in: left(until) },
                Activity::Closed => RefreshState::Closed,
            },
            last_error: self.last_error,
        }
    }

    fn mark(&self) -> Mark {
        let token = self.token.as_ref().map(|token| (token.generation(), self.is_stale()));
        Mark { token, activity: self.activity, landed: self.landed }
    }

    fn is_stale(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.freshness(self.now) == Freshness::Stale)
    }

    /// When the status changes by the mere passing of time.
    fn next_turn(&self) -> Option<Instant> {
        let token = self.token.as_ref().and_then(|token| token.next_turn(self.now));
        let activity = match self.activity {
            Activity::BackingOff(until) | Activity::LimitReached(until) => Some(until),
            Activity::Idle | Activity::Refreshing | Activity::Closed => None,
        };
        [token, activity].into_iter().flatten().min()
    }
}

/// The changes of a cache's [`Status`], from [`TokenCache::subscribe`](crate::TokenCache::subscribe).
///
/// It does not keep the cache alive. Whoever is slow gets the newest status and not each that there was.
///
/// ```
/// use tower_oauth::{AccessToken, TokenCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = TokenCache::new(|| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") });
/// let mut changes = cache.subscribe();
/// let watch = tokio::spawn(async move {
///     while let Some(status) = changes.next().await {
///         println!("{status}");
///     }
/// });
/// cache.token().await.unwrap();
/// drop(cache); // which ends the changes
/// watch.await.unwrap();
/// # }
/// ```
///
/// As a `Stream`: `futures::stream::unfold(changes, |mut changes| async { Some((changes.next().await?, changes)) })`.
pub struct StatusChanges {
    of: Arc<SingleFlight>,
    seen: Option<Mark>,
}

impl StatusChanges {
    pub(super) fn of(single_flight: Arc<SingleFlight>) -> Self {
        Self { of: single_flight, seen: None }
    }

    /// The status: the first time as it is, then as soon as it is another one, also by the mere passing of time, as when a
    /// token becomes stale. `None` after the status [`RefreshState::Closed`], which is there when the cache was closed or the
    /// last clone of it dropped.
    ///
    /// Needs the time driver of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next call gives what this one would have given.
    pub async fn next(&mut self) -> Option<Status> {
        if self.seen.as_ref().is_some_and(|seen| seen.activity == Activity::Closed) {
            return None;
        }
        loop {
            // Registered before the look, so that no change between the two is missed.
            let mut changed = pin!(self.of.changed());
            changed.as_mut().enable();
            let survey = self.of.survey();
            let mark = survey.mark();
            if self.seen.as_ref() != Some(&mark) {
                self.seen = Some(mark);
                return Some(survey.status());
            }
            match survey.next_turn() {
                Some(turn) => {
                    select(changed, pin!(sleep_until(turn))).await;
                }
                None => changed.await,
            }
        }
    }
}

impl fmt::Debug for StatusChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusChanges").finish_non_exhaustive()
    }
}
