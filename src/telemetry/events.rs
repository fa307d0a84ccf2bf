//! Happenings as events of `tracing`.

use tracing::{Span, debug, debug_span, info, warn};

use super::Happening;

const TARGET: &str = "tower_oauth";

/// A root: the refresh belongs to all who wait for it, and only follows from whoever came first.
pub(super) fn span(cache: &str, reason: &'static str, replaces: Option<u64>) -> Span {
    let span = debug_span!(target: TARGET, parent: None, "token_refresh", cache, reason, replaces);
    span.follows_from(Span::current());
    span
}

#[allow(clippy::cast_possible_truncation)] // u64 milliseconds are enough
pub(super) fn tell(cache: &str, happening: Happening<'_>) {
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    match happening {
        Happening::Waited => debug!(target: TARGET, cache, "somebody waits for a token"),
        Happening::Fetched { generation, reason, lifetime, took } => info!(
            target: TARGET, cache, generation, reason, lifetime_s = lifetime.map(seconds), took_s = seconds(took),
            "a new token"
        ),
        Happening::FetchFailed { kind, reason, error, took } => {
            warn!(target: TARGET, cache, kind, reason, error = %error, took_s = seconds(took), "no new token");
        }
        Happening::LimitReached { next_request } => warn!(
            target: TARGET, cache, next_request_s = seconds(next_request),
            "this was the last token request that the limit of the cache allows for now"
        ),
        Happening::Without { reason } => {
            debug!(target: TARGET, cache, reason = reason.as_str(), "a request goes out without a token");
        }
        Happening::Refused { generation, status } => {
            debug!(target: TARGET, cache, generation, status, "the token was refused");
        }
        Happening::Suppressed { generation, reason } => debug!(
            target: TARGET, cache, generation, reason = reason.as_str(), "the refusal costs no refresh"
        ),
        Happening::Recovered { generation } => {
            debug!(target: TARGET, cache, generation, "the repeated request was accepted");
        }
        Happening::Futile { generation } => {
            warn!(target: TARGET, cache, generation, "the repeated request was refused, too");
        }
        Happening::Remaining(_) => {}
        Happening::Slept(time) => info!(
            target: TARGET, cache, slept_s = seconds(time),
            "the machine slept, and the token is so much older"
        ),
        Happening::Closed => debug!(target: TARGET, cache, "the cache is closed"),
    }
}
