//! What a history likes to do. Each has its own habits, so that what is rare in most is common in some.

use std::{iter::repeat_n, time::Duration};

use fastrand::Rng;

use super::{HOUR, MINUTE, ORIGINS, SECOND};

#[derive(Clone, Copy)]
pub(super) enum Step {
    Request,
    Token,
    Burst { at_once: bool },
    Patience,
    Poll,
    PollAll,
    Cancel,
    Pass { in_a_leap: bool },
    Sleep,
    Revoke,
    Invalidate,
    RefuseEverything,
    ChangeMood,
}

const STEPS: [(Step, usize); 15] = [
    (Step::Request, 24),
    (Step::Token, 8),
    (Step::Burst { at_once: false }, 2),
    (Step::Burst { at_once: true }, 1),
    (Step::Patience, 1),
    (Step::Poll, 8),
    (Step::PollAll, 24),
    (Step::Cancel, 4),
    (Step::Pass { in_a_leap: false }, 14),
    (Step::Pass { in_a_leap: true }, 4),
    (Step::Sleep, 2),
    (Step::Revoke, 4),
    (Step::Invalidate, 4),
    (Step::RefuseEverything, 2),
    (Step::ChangeMood, 2),
];

pub(super) struct Habits {
    pub(super) length: usize,
    steps: Vec<Step>,
    origins: usize,
    longest_times: [Duration; 2],
    /// So many token requests in so much time.
    pub(super) limit: Option<(u32, Duration)>,
}

impl Habits {
    pub(super) fn any(rng: &mut Rng) -> Self {
        let steps = STEPS
            .into_iter()
            .flat_map(|(step, weight)| repeat_n(step, weight * [0, 1, 1, 3][rng.usize(..4)]));
        let steps = steps.chain([Step::Request, Step::PollAll]).collect();
        let mut any_time = || [SECOND, 20 * SECOND, 10 * MINUTE, HOUR, 8 * HOUR][rng.usize(..5)];
        let longest_times = [any_time(), any_time()];
        let limit = (rng.u32(1..20), [MINUTE, 20 * MINUTE][rng.usize(..2)]);
        Self {
            limit: (rng.u8(..4) == 0).then_some(limit),
            length: [20, 50, 100][rng.usize(..3)],
            steps,
            origins: rng.usize(1..=ORIGINS.len()),
            longest_times,
        }
    }

    pub(super) fn origin(&self, rng: &mut Rng) -> usize {
        rng.usize(..self.origins)
    }

    pub(super) fn step(&self, rng: &mut Rng) -> Step {
        self.steps[rng.usize(..self.steps.len())]
    }

    pub(super) fn time(&self, rng: &mut Rng) -> Duration {
        self.longest_times[rng.usize(..2)].mul_f64(rng.f64())
    }
}
