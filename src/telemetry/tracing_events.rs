//! Emits events with `tracing`.

use std::time::Duration;

use http::Uri;
use tracing::{debug, field, info, warn};

use super::event::{Event, SkipReason, UriOrigin};

/// The target of all events and spans.
pub(super) const TARGET: &str = "tower_oauth";

pub(super) fn emit(cache: &str, event: Event<'_>) {
    let seconds = |time: Duration| time.as_secs_f64();
    match event {
        Event::Waiting => debug!(target: TARGET, cache, "waiting for a token"),
        Event::Refreshed { generation, reason, lifetime, duration } => info!(
            target: TARGET, cache, generation, reason, lifetime_s = lifetime.map(seconds),
            took_s = seconds(duration), "token refreshed"
        ),
        Event::LifetimeUnreadable { member, used, setting } => warn!(
            target: TARGET, cache, member, used, setting, "token lifetime unreadable"
        ),
        Event::RefreshFailed { kind, reason, error, duration } => warn!(
            target: TARGET, cache, kind, reason, error = %error, took_s = seconds(duration),
            "token refresh failed"
        ),
        Event::ConnectFailed { attempt, error, retry_in } => debug!(
            target: TARGET, cache, attempt, error = %error, retry_s = seconds(retry_in),
            "connection attempt failed"
        ),
        Event::ScopeNotGranted { missing, granted } => {
            info!(target: TARGET, cache, missing, granted, "requested scope not granted");
        }
        Event::LimitReached { next_request_in } => warn!(
            target: TARGET, cache, next_request_s = seconds(next_request_in),
            "token request limit reached"
        ),
        Event::SentWithoutToken { reason, uri } => debug!(
            target: TARGET, cache, reason = reason.as_str(),
            origin = UriOrigin::new(uri).map(field::display), "request sent without a token"
        ),
        Event::Rejected { generation, status } => {
            debug!(target: TARGET, cache, generation, status, "token rejected");
        }
        Event::RefreshSuppressed { generation, reason } => debug!(
            target: TARGET, cache, generation, reason = reason.as_str(), "refresh suppressed"
        ),
        Event::RetryAccepted { generation } => {
            debug!(target: TARGET, cache, generation, "request retried successfully");
        }
        Event::RetryRejected { generation } => {
            warn!(target: TARGET, cache, generation, "retried request rejected");
        }
        Event::Remaining(_) => {}
        Event::ClockJumped(time) => {
            info!(target: TARGET, cache, slept_s = seconds(time), "wall clock jumped");
        }
        Event::Closed => debug!(target: TARGET, cache, "token cache closed"),
    }
}

/// Emits a warning about the first request to an origin that gets no token.
pub(super) fn warn_of_origin(cache: &str, reason: SkipReason, uri: &Uri) {
    warn!(
        target: TARGET, cache, reason = reason.as_str(),
        origin = UriOrigin::new(uri).map(field::display), "request sent without a token"
    );
}
