//! The pause between a failed token request and the next one: a pure function of the failures and
//! of time.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::{
    doubling_delay::doubling_delay,
    error::{TokenError, TokenErrorKind},
};

/// The pauses after failures of one class.
struct Delays {
    first: Duration,
    max: Duration,
}

/// For failures that may pass without a change by anyone.
const TRANSIENT: Delays = Delays { first: Duration::from_secs(1), max: Duration::from_secs(120) };

/// For a server that answers 429 and does not say when to come back.
const RATE_LIMITED: Delays =
    Delays { first: Duration::from_secs(10), max: Duration::from_secs(120) };

/// For failures that need a change: of the secret, the scope, the registration.
const FINAL: Delays = Delays { first: Duration::from_secs(60), max: Duration::from_secs(3600) };

/// The longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The random part of a pause in either direction, so that a fleet does not retry in step.
const JITTER: f64 = 0.2;

#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
    is_final: bool,
    blocked: Option<(Instant, TokenError)>,
}

impl Backoff {
    /// Returns the end of the pause and the error that callers get until then.
    pub(super) fn blocked(&self, now: Instant) -> Option<&(Instant, TokenError)> {
        self.blocked.as_ref().filter(|(until, _)| now < *until)
    }

    /// Returns true during the pause after a final failure, such as a wrong secret.
    pub(super) fn is_final(&self, now: Instant) -> bool {
        self.is_final && self.blocked(now).is_some()
    }

    /// Returns the error of the last failure, also after the pause.
    pub(super) fn error(&self) -> Option<&TokenError> {
        self.blocked.as_ref().map(|(_, error)| error)
    }

    /// Forgets all failures.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Counts a failure and returns its error with the instant of the next attempt. `jitter` is in
    /// 0..1.
    pub(super) fn count_failure(
        &mut self,
        error: TokenError,
        now: Instant,
        jitter: f64,
    ) -> TokenError {
        // The runtime has gone, which says nothing about the server: another one may go on at once.
        if error.kind() == TokenErrorKind::Runtime {
            return error;
        }
        let is_final = error.is_final();
        self.failures = if is_final == self.is_final { self.failures.saturating_add(1) } else { 1 };
        self.is_final = is_final;
        let is_rate_limited = error.status() == Some(StatusCode::TOO_MANY_REQUESTS);
        let delays = match error.retry_after() {
            _ if is_final => FINAL,
            None if is_rate_limited => RATE_LIMITED,
            _ => TRANSIENT,
        };
        let delay = delay(delays, self.failures, jitter);
        let retry_after = error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER);
        let until = now + delay.max(retry_after);
        let error = error.with_next_attempt(until);
        self.blocked = Some((until, error.clone()));
        error
    }
}

fn delay(Delays { first, max }: Delays, failures: u32, jitter: f64) -> Duration {
    let delay = doubling_delay(first, failures.saturating_sub(1), max);
    delay.mul_f64(1.0 + JITTER * (2.0 * jitter - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the pauses after failures in a row, each at the end of the pause before it.
    fn delays(errors: impl IntoIterator<Item = TokenError>, jitter: f64) -> Vec<f64> {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        let delay = |error: TokenError| {
            assert!(backoff.blocked(now).is_none());
            backoff.count_failure(error, now, jitter);
            let (until, _) = backoff.blocked.clone().unwrap();
            assert!(backoff.blocked(until - Duration::from_nanos(1)).is_some());
            let delay = until - now;
            now = until;
            delay.as_secs_f64()
        };
        errors.into_iter().map(delay).collect()
    }

    fn transient() -> TokenError {
        TokenError::new(TokenErrorKind::Server, "down")
    }

    fn rejected() -> TokenError {
        TokenError::new(TokenErrorKind::Rejected, "no")
    }

    #[test]
    fn transient_failures_double_from_1_s_to_2_min() {
        let delays = delays(std::iter::repeat_with(transient).take(40), 0.5);
        assert_eq!(delays[..9], [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0, 120.0]);
        assert_eq!(delays[39].to_bits(), 120_f64.to_bits());
    }

    #[test]
    fn final_failures_double_from_1_min_to_1_h() {
        let delays = delays(std::iter::repeat_with(rejected).take(8), 0.5);
        assert_eq!(delays, [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]);
    }

    #[test]
    fn jitter_moves_a_delay_by_a_fifth_in_either_direction() {
        assert_eq!(delays([transient()], 0.0), [0.8]);
        assert_eq!(delays([transient()], 1.0), [1.2]);
    }

    #[test]
    fn failure_of_the_other_class_starts_over() {
        let errors = [transient(), transient(), rejected(), transient()];
        assert_eq!(delays(errors, 0.5), [1.0, 2.0, 60.0, 1.0]);
    }

    #[test]
    fn server_may_ask_for_more_time_up_to_1_h_and_not_for_less() {
        let asking = |seconds| transient().with_retry_after(Duration::from_secs(seconds));
        assert_eq!(delays([asking(30)], 0.5), [30.0]);
        assert_eq!(delays([asking(0)], 0.5), [1.0]);
        assert_eq!(delays([asking(u64::MAX)], 0.5), [3600.0]);
    }

    #[test]
    fn rate_limit_without_a_delay_backs_off_from_10_s() {
        let limited = || transient().with_status(StatusCode::TOO_MANY_REQUESTS);
        let asking = limited().with_retry_after(Duration::from_secs(3));
        assert_eq!(
            delays(std::iter::repeat_with(limited).take(5), 0.5),
            [10.0, 20.0, 40.0, 80.0, 120.0]
        );
        assert_eq!(delays([asking], 0.5), [3.0], "the server knows best");
        let rejected = rejected().with_status(StatusCode::BAD_REQUEST);
        assert_eq!(
            delays([limited(), transient(), limited(), rejected], 0.5),
            [10.0, 2.0, 40.0, 60.0]
        );
    }

    #[test]
    fn final_status_backs_off_from_1_min() {
        let error =
            TokenError::new(TokenErrorKind::Server, "no").with_status(StatusCode::FORBIDDEN);
        assert_eq!(delays([error], 0.5), [60.0]);
    }

    #[test]
    fn success_forgets_all_failures() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.count_failure(transient(), now, 0.5);
        backoff.reset();
        assert!(backoff.blocked(now).is_none());
        let error = backoff.count_failure(transient(), now, 0.5);
        assert!(error.next_attempt_in().unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn lost_runtime_does_not_start_a_pause() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.count_failure(TokenError::new(TokenErrorKind::Runtime, "gone"), now, 0.5);
        assert!(backoff.blocked(now).is_none());
    }
}
