//! Everything about a cache at one instant.

use tokio::time::Instant;

use super::{
    cached_token::CachedToken,
    freshness::Freshness,
    state::Activity,
    status::{RefreshState, Status, TokenState},
};
use crate::{error::TokenError, token::Generation};

pub(super) struct Snapshot {
    pub(super) now: Instant,
    pub(super) token: Option<CachedToken>,
    pub(super) activity: Activity,
    pub(super) last_error: Option<TokenError>,
    pub(super) finished_refreshes: u64,
}

/// The part of a snapshot that makes it another status. The remaining times are not part of it.
#[derive(PartialEq, Eq)]
pub(super) struct SnapshotKey {
    token: Option<(Generation, Freshness)>,
    activity: Activity,
    finished_refreshes: u64,
}

impl SnapshotKey {
    pub(super) fn is_closed(&self) -> bool {
        self.activity == Activity::Closed
    }
}

impl Snapshot {
    pub(super) fn into_status(self) -> Status {
        let left = |until: Instant| until.saturating_duration_since(self.now);
        Status {
            token: match self.token {
                None => TokenState::Empty,
                Some(token) if token.freshness(self.now) == Freshness::Stale => {
                    TokenState::Stale(token)
                }
                Some(token) => TokenState::Fresh(token),
            },
            refresh: match self.activity {
                Activity::Idle => RefreshState::Idle,
                Activity::Refreshing => RefreshState::Refreshing,
                Activity::BackingOff(until) => {
                    RefreshState::BackingOff { next_attempt_in: left(until) }
                }
                Activity::Pausing(until) => RefreshState::Pausing { next_attempt_in: left(until) },
                Activity::LimitReached(until) => {
                    RefreshState::LimitReached { next_attempt_in: left(until) }
                }
                Activity::Closed => RefreshState::Closed,
            },
            last_error: self.last_error,
        }
    }

    pub(super) fn key(&self) -> SnapshotKey {
        let token = self.token.as_ref();
        SnapshotKey {
            token: token.map(|token| (token.generation(), token.freshness(self.now))),
            activity: self.activity,
            finished_refreshes: self.finished_refreshes,
        }
    }

    /// Returns the instant at which the status changes by the passing of time alone.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let token = self.token.as_ref().and_then(|token| token.next_change(self.now));
        let activity = match self.activity {
            Activity::BackingOff(until)
            | Activity::Pausing(until)
            | Activity::LimitReached(until) => Some(until),
            Activity::Idle | Activity::Refreshing | Activity::Closed => None,
        };
        [token, activity].into_iter().flatten().min()
    }
}
