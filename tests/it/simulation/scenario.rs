//! The random parameters of a run. Each run draws its own weights, so that steps which are rare in
//! most runs are frequent in some.

use std::{iter::repeat_n, time::Duration};

use fastrand::Rng;

use super::{HOUR, MINUTE, ORIGINS, SECOND};

#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Sends one request.
    Request,
    /// Calls `TokenCache::token`.
    Token,
    /// Sends several requests.
    Burst { at_once: bool },
    /// Sends several requests, each at the moment when the breaker unblocks.
    RequestsAfterBreaker,
    /// Polls one client.
    Poll,
    /// Polls all clients.
    PollAll,
    /// Drops the future of one client.
    Cancel,
    /// Lets time pass, timer by timer or in one jump.
    PassTime { in_one_jump: bool },
    /// Moves the wall clock alone, as on a machine that slept.
    SystemSleep,
    /// Revokes all tokens.
    Revoke,
    /// Calls `TokenCache::invalidate`.
    Invalidate,
    /// Makes one origin reject every token, or ends that.
    ToggleRejectAll,
    /// Changes the behavior of the servers.
    ChangeBehavior,
}

const STEPS: [(Step, usize); 15] = [
    (Step::Request, 24),
    (Step::Token, 8),
    (Step::Burst { at_once: false }, 2),
    (Step::Burst { at_once: true }, 1),
    (Step::RequestsAfterBreaker, 1),
    (Step::Poll, 8),
    (Step::PollAll, 24),
    (Step::Cancel, 4),
    (Step::PassTime { in_one_jump: false }, 14),
    (Step::PassTime { in_one_jump: true }, 4),
    (Step::SystemSleep, 2),
    (Step::Revoke, 4),
    (Step::Invalidate, 4),
    (Step::ToggleRejectAll, 2),
    (Step::ChangeBehavior, 2),
];

pub(super) struct Scenario {
    pub(super) length: usize,
    steps: Vec<Step>,
    origins: usize,
    longest_times: [Duration; 2],
    /// The limit on token requests: a number of requests and a period.
    pub(super) token_request_limit: Option<(u32, Duration)>,
}

impl Scenario {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let steps = STEPS
            .into_iter()
            .flat_map(|(step, weight)| repeat_n(step, weight * [0, 1, 1, 3][rng.usize(..4)]));
        let steps = steps.chain([Step::Request, Step::PollAll]).collect();
        let mut random_time = || [SECOND, 20 * SECOND, 10 * MINUTE, HOUR, 8 * HOUR][rng.usize(..5)];
        let longest_times = [random_time(), random_time()];
        let limit = (rng.u32(1..20), [MINUTE, 20 * MINUTE][rng.usize(..2)]);
        Self {
            token_request_limit: (rng.u8(..4) == 0).then_some(limit),
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
