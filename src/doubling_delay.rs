//! Delays that double with each repetition.

use std::time::Duration;

/// Returns `first`, doubled `times` times, at most `max`.
pub(crate) fn doubling_delay(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(max)
}
