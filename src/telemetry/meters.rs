//! Happenings as counters and a gauge of the `metrics` facade.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};

use super::Happening;

const ATTACHED: &str = "tower_oauth_attached_total";
const WAITED: &str = "tower_oauth_waited_total";
const FETCHED: &str = "tower_oauth_fetched_total";
const FETCH_FAILED: &str = "tower_oauth_fetch_failed_total";
const LIMIT_REACHED: &str = "tower_oauth_limit_reached_total";
const REFUSED: &str = "tower_oauth_refused_total";
const SUPPRESSED: &str = "tower_oauth_suppressed_total";
const RECOVERED: &str = "tower_oauth_recovered_total";
const FUTILE: &str = "tower_oauth_futile_total";
const REMAINING: &str = "tower_oauth_token_remaining_seconds";

/// With each new token: a recorder that is installed late is found, and told what is what.
pub(super) fn attached(cache: &Arc<str>) -> Counter {
    describe();
    counter!(ATTACHED, "cache" => Arc::clone(cache))
}

fn describe() {
    for (name, what) in [
        (ATTACHED, "requests sent with a token, retries included"),
        (WAITED, "times that somebody had to wait for a token"),
        (FETCHED, "tokens obtained"),
        (FETCH_FAILED, "attempts to obtain a token that failed, by the kind of error"),
        (LIMIT_REACHED, "times that the limit on token requests was used up"),
        (REFUSED, "responses that refused the token"),
        (SUPPRESSED, "refusals that cost no refresh, by reason"),
        (RECOVERED, "refused requests whose repetition was accepted"),
        (FUTILE, "refused requests whose repetition was refused, too"),
    ] {
        describe_counter!(name, Unit::Count, what);
    }
    describe_gauge!(REMAINING, Unit::Seconds, "what was left of the token when last looked at");
}

pub(super) fn count(cache: &Arc<str>, happening: Happening<'_>) {
    let count = |name: &'static str| counter!(name, "cache" => Arc::clone(cache)).increment(1);
    let remaining = |time: Duration| gauge!(REMAINING, "cache" => Arc::clone(cache)).set(time.as_secs_f64());
    match happening {
        Happening::Waited => count(WAITED),
        Happening::Fetched { lifetime, .. } => {
            lifetime.into_iter().for_each(remaining);
            count(FETCHED);
        }
        Happening::FetchFailed { kind, .. } => {
            counter!(FETCH_FAILED, "cache" => Arc::clone(cache), "kind" => kind).increment(1);
        }
        Happening::LimitReached { .. } => count(LIMIT_REACHED),
        Happening::Refused { .. } => count(REFUSED),
        Happening::Suppressed { reason, .. } => {
            counter!(SUPPRESSED, "cache" => Arc::clone(cache), "reason" => reason.as_str()).increment(1);
        }
        Happening::Recovered { .. } => count(RECOVERED),
        Happening::Futile { .. } => count(FUTILE),
        Happening::Remaining(time) => remaining(time),
        Happening::Without { .. } | Happening::Slept(_) | Happening::Closed => {}
    }
}
