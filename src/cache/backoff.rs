//! When the next token request may be made after one that failed: a pure function of the failures and of time.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{TokenError, TokenErrorKind};

/// How long failures of one class keep the next attempt away.
struct Delays {
    first: Duration,
    longest: Duration,
}

/// What may be over in a moment.
const PASSING: Delays = Delays { first: Duration::from_secs(1), longest: Duration::from_secs(120) };

/// What somebody has to mend: the secret, the scope, the registration.
const FINAL: Delays = Delays { first: Duration::from_secs(60), longest: Duration::from_secs(3600) };

/// The most that a `Retry-After` of the server is heeded.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Either way, so that a fleet does not come back at the same moment.
const JITTER: f64 = 0.2;

#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
    is_final: bool,
    blocked: Option<(Instant, TokenError)>,
}

impl Backoff {
    /// The error to answer with at once, while no attempt is to be made, and until when.
    pub(super) fn blocked(&self, now: Instant) -> Option<&(Instant, TokenError)> {
        self.blocked.as_ref().filter(|(until, _)| now < *until)
    }

    /// The last error, for as long as it counts.
    pub(super) fn error(&self) -> Option<&TokenError> {
        self.blocked.as_ref().map(|(_, error)| error)
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Counts the failure, and tells the error when the next attempt is made. `chance` is in 0..1.
    pub(super) fn failed(&mut self, error: TokenError, now: Instant, chance: f64) -> TokenError {
        // Another runtime can go on at once: nothing is known of the server.
        if error.kind() == TokenErrorKind::Runtime {
            return error;
        }
        let is_final = error.kind() == TokenErrorKind::Refused;
        self.failures = if is_final == self.is_final { self.failures.saturating_add(1) } else { 1 };
        self.is_final = is_final;
        let delay = delay(if is_final { FINAL } else { PASSING }, self.failures, chance);
        let asked = error.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER);
        let until = now + delay.max(asked);
        let error = error.with_next_attempt(until);
        self.blocked = Some((until, error.clone()));
        error
    }
}

fn delay(Delays { first, longest }: Delays, failures: u32, chance: f64) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(longest).mul_f64(1.0 + JITTER * (2.0 * chance - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The delays of failures in a row, each as soon as it is allowed.
    fn delays(errors: impl IntoIterator<Item = TokenError>, chance: f64) -> Vec<f64> {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        let delay = |error: TokenError| {
            assert!(backoff.blocked(now).is_none());
            backoff.failed(error, now, chance);
            let (until, _) = backoff.blocked.clone().unwrap();
            assert!(backoff.blocked(until - Duration::from_nanos(1)).is_some());
            let delay = until - now;
            now = until;
            delay.as_secs_f64()
        };
        errors.into_iter().map(delay).collect()
    }

    fn passing() -> TokenError {
        TokenError::new(TokenErrorKind::Transport, "down")
    }

    fn refused() -> TokenError {
        TokenError::new(TokenErrorKind::Refused, "no")
    }

    #[test]
    fn passing_failures_double_from_one_second_to_two_minutes() {
        let delays = delays(std::iter::repeat_with(passing).take(40), 0.5);
        assert_eq!(delays[..9], [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0, 120.0]);
        assert_eq!(delays[39].to_bits(), 120_f64.to_bits());
    }

    #[test]
    fn final_failures_double_from_one_minute_to_one_hour() {
        let delays = delays(std::iter::repeat_with(refused).take(8), 0.5);
        assert_eq!(delays, [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]);
    }

    #[test]
    fn chance_moves_a_delay_by_a_fifth_either_way() {
        assert_eq!(delays([passing()], 0.0), [0.8]);
        assert_eq!(delays([passing()], 1.0), [1.2]);
    }

    #[test]
    fn a_failure_of_the_other_class_starts_anew() {
        assert_eq!(delays([passing(), passing(), refused(), passing()], 0.5), [1.0, 2.0, 60.0, 1.0]);
    }

    #[test]
    fn the_server_may_ask_for_more_time_up_to_an_hour_but_not_for_less() {
        let asking = |seconds| passing().with_retry_after(Some(Duration::from_secs(seconds)));
        assert_eq!(delays([asking(30)], 0.5), [30.0]);
        assert_eq!(delays([asking(0)], 0.5), [1.0]);
        assert_eq!(delays([asking(u64::MAX)], 0.5), [3600.0]);
    }

    #[test]
    fn a_success_forgets_all_failures() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(passing(), now, 0.5);
        backoff.succeeded();
        assert!(backoff.blocked(now).is_none());
        let error = backoff.failed(passing(), now, 0.5);
        assert!(error.next_attempt_in().unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn a_runtime_that_is_gone_says_nothing_of_the_server() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(TokenError::new(TokenErrorKind::Runtime, "gone"), now, 0.5);
        assert!(backoff.blocked(now).is_none());
    }
}
