//! Counts events with `metrics`.

use std::{sync::Arc, time::Duration};

use metrics::{
    Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::event::{Event, SkipReason, SuppressReason};
use crate::error::TokenErrorKind;

const ATTACHED: &str = "tower_oauth_attached_total";
const SKIPPED: &str = "tower_oauth_skipped_total";
const WAITED: &str = "tower_oauth_waited_total";
const REFRESHED: &str = "tower_oauth_refreshed_total";
const REFRESH_FAILED: &str = "tower_oauth_refresh_failed_total";
const CONNECT_RETRIED: &str = "tower_oauth_connect_retried_total";
const LIMIT_REACHED: &str = "tower_oauth_limit_reached_total";
const REJECTED: &str = "tower_oauth_rejected_total";
const REFRESH_SUPPRESSED: &str = "tower_oauth_refresh_suppressed_total";
const RETRY_ACCEPTED: &str = "tower_oauth_retry_accepted_total";
const RETRY_REJECTED: &str = "tower_oauth_retry_rejected_total";
const REFRESH_DURATION: &str = "tower_oauth_refresh_duration_seconds";
const REMAINING: &str = "tower_oauth_token_remaining_seconds";

/// The counters that have no label besides `cache`, and their descriptions.
const UNLABELED: [(&str, &str); 8] = [
    (ATTACHED, "requests sent with a token, retries included"),
    (WAITED, "times that a caller had to wait for a token"),
    (REFRESHED, "tokens obtained"),
    (CONNECT_RETRIED, "attempts to connect for a token request, without the first"),
    (LIMIT_REACHED, "times that the limit on token requests was reached"),
    (REJECTED, "responses that rejected the token"),
    (RETRY_ACCEPTED, "requests whose retry with a new token was accepted"),
    (RETRY_REJECTED, "requests whose retry with a new token was rejected"),
];

/// The counters of requests sent without a token, in the order of [`SkipReason::ALL`]. They are
/// incremented for each such request, so their lookup by name happens once for each token.
pub(super) type SkipCounters = [Counter; SkipReason::ALL.len()];

/// Describes all metrics to the current recorder and creates the counters of a cache at 0, so that
/// the first increment of each is seen as an increase.
pub(super) fn register(cache: &Arc<str>) -> SkipCounters {
    for (name, description) in UNLABELED {
        describe_counter!(name, Unit::Count, description);
        drop(counter!(name, "cache" => Arc::clone(cache)));
    }
    describe_counter!(REFRESH_FAILED, Unit::Count, "token refreshes that failed, by kind of error");
    for kind in TokenErrorKind::ALL.map(TokenErrorKind::as_str) {
        drop(counter!(REFRESH_FAILED, "cache" => Arc::clone(cache), "kind" => kind));
    }
    let description = "rejections and 401s that caused no refresh, by reason";
    describe_counter!(REFRESH_SUPPRESSED, Unit::Count, description);
    for reason in SuppressReason::ALL.map(SuppressReason::as_str) {
        drop(counter!(REFRESH_SUPPRESSED, "cache" => Arc::clone(cache), "reason" => reason));
    }
    describe_histogram!(REFRESH_DURATION, Unit::Seconds, "duration of the refreshes");
    describe_gauge!(REMAINING, Unit::Seconds, "remaining lifetime of the token when last measured");
    describe_counter!(SKIPPED, Unit::Count, "requests sent without a token, by reason");
    SkipReason::ALL.map(|reason| {
        let reason = reason.as_str();
        counter!(SKIPPED, "cache" => Arc::clone(cache), "reason" => reason)
    })
}

/// Returns the counter of requests with a token attached.
pub(super) fn request_counter(cache: &Arc<str>) -> Counter {
    counter!(ATTACHED, "cache" => Arc::clone(cache))
}

pub(super) fn count(cache: &Arc<str>, event: Event<'_>) {
    let count = |name: &'static str| counter!(name, "cache" => Arc::clone(cache)).increment(1);
    let remaining =
        |time: Duration| gauge!(REMAINING, "cache" => Arc::clone(cache)).set(time.as_secs_f64());
    let took = |time: Duration| {
        histogram!(REFRESH_DURATION, "cache" => Arc::clone(cache)).record(time.as_secs_f64());
    };
    match event {
        Event::Waiting => count(WAITED),
        Event::Refreshed { lifetime, duration, .. } => {
            took(duration);
            lifetime.into_iter().for_each(remaining);
            count(REFRESHED);
        }
        Event::RefreshFailed { kind, duration, .. } => {
            took(duration);
            counter!(REFRESH_FAILED, "cache" => Arc::clone(cache), "kind" => kind).increment(1);
        }
        Event::ConnectFailed { .. } => count(CONNECT_RETRIED),
        Event::LimitReached { .. } => count(LIMIT_REACHED),
        Event::Rejected { .. } => count(REJECTED),
        Event::RefreshSuppressed { reason, .. } => {
            let reason = reason.as_str();
            counter!(REFRESH_SUPPRESSED, "cache" => Arc::clone(cache), "reason" => reason)
                .increment(1);
        }
        Event::RetryAccepted { .. } => count(RETRY_ACCEPTED),
        Event::RetryRejected { .. } => count(RETRY_REJECTED),
        Event::Remaining(time) => remaining(time),
        // Counted by the counters of `register`.
        Event::SentWithoutToken { .. }
        | Event::ScopeNotGranted { .. }
        | Event::LifetimeUnreadable { .. }
        | Event::ClockJumped(_)
        | Event::Closed => {}
    }
}
