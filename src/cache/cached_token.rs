//! A token with its generation and the instants that matter for it.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;

use super::{
    freshness::{Freshness, Schedule},
    system_sleep::{CLOCK_CHECK_INTERVAL, Timestamps},
};
use crate::{
    telemetry::RequestCounter,
    token::{AccessToken, Generation, Scheme},
};

/// A token of a [`TokenCache`](crate::TokenCache) with its [`Generation`]. Cheap to clone. `Debug`
/// does not show the token.
#[derive(Clone)]
pub struct CachedToken(Arc<TokenRecord>);

/// The data of a [`CachedToken`], shared by all that read it.
#[derive(Clone)]
pub(crate) struct TokenRecord {
    token: AccessToken,
    /// The value for the `Authorization` header.
    pub(crate) header_value: HeaderValue,
    pub(crate) scheme: Scheme,
    pub(crate) generation: Generation,
    /// Counts the requests that carry the token. Without the feature `metrics` it does nothing.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    pub(crate) request_counter: RequestCounter,
    /// The instant at which the fetch of the token began.
    pub(super) requested_at: Instant,
    schedule: Schedule,
    /// The random part of the schedule, drawn once per token.
    jitter: f64,
    /// The instant from which a sleep of the system is measured.
    reference: Timestamps,
    /// The instant at which the clocks are to be compared.
    clock_check_at: Instant,
    /// Until this instant the token is fresh and no clock check is due: one comparison for both.
    pub(super) use_unchecked_until: Instant,
}

/// A token that a server has rejected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RejectedToken {
    pub(crate) generation: Generation,
    /// The instant at which the fetch of the token began.
    pub(crate) requested_at: Instant,
}

impl TokenRecord {
    fn set_clock_check(&mut self, at: Instant) {
        self.clock_check_at = at;
        self.use_unchecked_until = self.schedule.stale_at.map_or(at, |stale_at| stale_at.min(at));
    }
}

impl CachedToken {
    /// `requested_at` must not be later than the instant from which the token's age is measured.
    pub(super) fn new(
        token: AccessToken,
        generation: Generation,
        jitter: f64,
        requested_at: Timestamps,
        request_counter: RequestCounter,
    ) -> Self {
        let clock_check_at = requested_at.monotonic + CLOCK_CHECK_INTERVAL;
        let mut record = TokenRecord {
            schedule: Schedule::new(&token, jitter),
            header_value: token.header_value().clone(),
            scheme: token.scheme(),
            token,
            generation,
            request_counter,
            requested_at: requested_at.monotonic,
            jitter,
            reference: requested_at,
            clock_check_at,
            use_unchecked_until: clock_check_at,
        };
        record.set_clock_check(clock_check_at);
        Self(Arc::new(record))
    }

    /// Returns the same token with the next comparison of the clocks after
    /// [`CLOCK_CHECK_INTERVAL`].
    pub(super) fn with_next_clock_check(&self, now: Instant) -> Self {
        let mut record = TokenRecord::clone(&self.0);
        record.set_clock_check(now + CLOCK_CHECK_INTERVAL);
        Self(Arc::new(record))
    }

    /// Returns the time for which the system slept since the token was requested, or since it was
    /// last aged.
    pub(super) fn slept_until(&self, now: Timestamps) -> Option<Duration> {
        self.0.reference.slept_until(now)
    }

    /// Returns the same token, older by the time for which the system slept until `now`.
    pub(super) fn aged_by(&self, slept: Duration, now: Timestamps) -> Self {
        let mut record = TokenRecord::clone(&self.0);
        record.token = record.token.aged_by(slept);
        record.schedule = Schedule::new(&record.token, record.jitter);
        record.reference = now;
        record.set_clock_check(now.monotonic + CLOCK_CHECK_INTERVAL);
        Self(Arc::new(record))
    }

    pub(super) fn from_record(record: Arc<TokenRecord>) -> Self {
        Self(record)
    }

    pub(super) fn record(&self) -> &Arc<TokenRecord> {
        &self.0
    }

    /// Returns the generation, to pass to [`TokenCache::invalidate`](crate::TokenCache::invalidate)
    /// if this token is rejected.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// Returns true if the token is past its expiry less the margin (see
    /// [`AccessToken::MAX_EXPIRY_MARGIN`]). It is no longer sent.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.freshness(Instant::now()) == Freshness::Expired
    }

    /// Returns true if the token is usable and due for a refresh, which the next request starts in
    /// the background.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.freshness(Instant::now()) == Freshness::Stale
    }

    pub(super) fn freshness(&self, now: Instant) -> Freshness {
        self.0.schedule.freshness(now)
    }

    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        self.0.schedule.next_change(now)
    }

    /// Returns true if the clocks have not been compared for [`CLOCK_CHECK_INTERVAL`].
    pub(super) fn is_clock_check_due(&self, now: Instant) -> bool {
        self.0.clock_check_at <= now
    }
}

impl Deref for CachedToken {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.0.token
    }
}

impl fmt::Debug for CachedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedToken")
            .field("generation", &self.generation())
            .field("token", &self.0.token)
            .finish_non_exhaustive()
    }
}
