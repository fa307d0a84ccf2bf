//! When a refusal may cost a token: the breaker of the library, told in another way.

use std::time::Duration;

use tokio::time::Instant;

use super::{MINUTE, SECOND};

/// When the refreshes in a row began that are not known to have helped.
#[derive(Default)]
pub(super) struct Breaker(Vec<Instant>);

impl Breaker {
    const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

    /// Whether a refresh may begin now. If so, it has.
    pub(super) fn permits(&mut self) -> bool {
        let now = Instant::now();
        if let Some(opens_at) = self.opens_at() {
            if now < opens_at {
                return false;
            }
            if now >= opens_at + Self::FORGOTTEN_AFTER {
                self.0.clear();
            }
        }
        self.0.push(now);
        true
    }

    /// The request that caused the last refresh has succeeded.
    pub(super) fn helped(&mut self) {
        self.0.clear();
    }

    fn opens_at(&self) -> Option<Instant> {
        let delay = (1..self.0.len()).fold(SECOND, |delay, _| (2 * delay).min(5 * MINUTE));
        self.0.last().map(|&began| began + delay)
    }

    /// When it decides otherwise than before, without a word of anybody.
    pub(super) fn turning_points(&self) -> impl Iterator<Item = Instant> {
        let opens_at = self.opens_at();
        opens_at.into_iter().chain(opens_at.map(|at| at + Self::FORGOTTEN_AFTER))
    }
}
