//! When a refusal may cost a token: the breaker of the library, told in another way.

use std::time::Duration;

use tokio::time::Instant;

use super::{MINUTE, SECOND};

#[derive(Default)]
pub(super) struct Breaker {
    /// When the refreshes in a row began that are not known to have helped.
    unhelpful: Vec<Instant>,
    /// When those in a row helped of which none is known to have done so for long.
    helpful: Vec<Instant>,
    /// Whether a token was refused since the last one helped.
    was_refused: bool,
}

impl Breaker {
    const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);
    const LONG: Duration = MINUTE;
    /// So many that help briefly are believed.
    const BELIEVED: usize = 3;

    /// Whether a refresh may begin now. If so, it has.
    pub(super) fn permits(&mut self) -> bool {
        let now = Instant::now();
        if !self.was_refused && self.has_helped_for_long_at().is_some_and(|at| at <= now) {
            self.helpful.clear();
        }
        self.was_refused = true;
        if let Some(opens_at) = self.opens_at() {
            if now < opens_at {
                return false;
            }
            if now >= opens_at + Self::FORGOTTEN_AFTER {
                *self = Self::default();
            }
        }
        self.unhelpful.push(now);
        true
    }

    /// The request that caused the last refresh has succeeded.
    pub(super) fn helped(&mut self) {
        self.unhelpful.clear();
        self.helpful.push(Instant::now());
        self.was_refused = false;
    }

    pub(super) fn opens_at(&self) -> Option<Instant> {
        let delay = |count| (1..count).fold(SECOND, |delay, _| (2 * delay).min(5 * MINUTE));
        let in_doubt = self.helpful.len().saturating_sub(Self::BELIEVED);
        match (self.unhelpful.last(), self.helpful.last()) {
            (Some(&began), _) => Some(began + delay(self.unhelpful.len())),
            (None, Some(&helped)) if in_doubt > 0 => Some(helped + delay(in_doubt)),
            (None, _) => None,
        }
    }

    fn has_helped_for_long_at(&self) -> Option<Instant> {
        self.helpful.last().map(|&helped| helped + Self::LONG)
    }

    /// When it decides otherwise than before, without a word of anybody.
    pub(super) fn turning_points(&self) -> impl Iterator<Item = Instant> {
        let opens_at = self.opens_at();
        let forgets_at = opens_at.map(|at| at + Self::FORGOTTEN_AFTER);
        opens_at.into_iter().chain(forgets_at).chain(self.has_helped_for_long_at())
    }
}
