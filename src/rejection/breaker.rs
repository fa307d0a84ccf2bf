//! A circuit breaker that decides whether a rejection may cause a refresh.
//!
//! Each refresh costs a token request. The breaker bounds their number for an API that answers 401
//! to everything, or now and then. It keeps a record for each origin:
//!
//! - A refresh is futile until it has helped: the request that caused it succeeds with the new
//!   token. If that request cannot be retried, any request that succeeds with the new token counts.
//! - A refresh helps briefly if its token is rejected within a minute. That may be a coincidence,
//!   as with replicas of which one does not know the token yet.
//!
//! After a futile refresh, or after three that helped briefly, a single rejection no longer proves
//! that the token is dead. The proof is then a run of rejections: no request with a dead token
//! succeeds, while a lagging replica or a random 401 leaves some requests with the same token that
//! succeed. So an acceptance ends a run. Acceptances are inspected only during a run, and after a
//! refresh for a request that cannot be retried.
//!
//! Some endpoints accept every token, because they do not check it, and their responses end each
//! run. Therefore a refresh is also tried if the rejections go on for long enough, with acceptances
//! between them. That time doubles with each such trial that does not help.
//!
//! In all cases, refreshes are paced, and consecutive futile ones back off.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    cache::RejectedToken,
    doubling_delay::doubling_delay,
    origins::OriginId,
    pace::Pace,
    sync::{Mutex, MutexGuard, lock},
    token::Generation,
};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(5 * 60);

/// The time without a rejection after which everything is forgotten. It is longer than any delay:
/// otherwise the delay would never grow for a client that sends few requests.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

/// A refresh has helped briefly if its token is rejected within this time.
const BRIEF: Duration = Duration::from_secs(60);

/// The number of refreshes in a row that may help briefly before a single rejection is no longer
/// enough: revocations can follow each other.
const MAX_FREE_BRIEF: u32 = 3;

/// The number of rejections in a row that prove a token dead, if no refresh was futile. One more is
/// needed for each futile refresh, up to [`LONGEST_RUN`].
const SHORTEST_RUN: u32 = 3;
const LONGEST_RUN: u32 = 12;

/// The time after which a run of any length proves a token dead, for clients that send few
/// requests.
const MAX_RUN_TIME: Duration = Duration::from_secs(60);

/// The time after which a refresh is tried even if acceptances come between the rejections. It
/// begins at [`MAX_RUN_TIME`] and doubles with each trial that does not help up to this limit.
const MAX_TRIAL_DELAY: Duration = Duration::from_secs(30 * 60);

/// The time after the first rejection of a run in which one acceptance does not end the run: the
/// server may have decided on it before it learned of the revocation.
const OVERLAP: Duration = Duration::from_millis(100);

/// The pace of the refreshes that one origin may cause. It does not delay those that
/// [`MAX_FREE_BRIEF`] permits.
const PACE: Pace = Pace::new(Duration::from_secs(5), MAX_FREE_BRIEF);

/// One record for each named origin, and one for requests without an authority.
#[derive(Debug)]
pub(crate) struct Breaker {
    origins: Box<[Mutex<OriginRecord>]>,
    /// The number of origins for which the next acceptance changes the record.
    watched: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
struct OriginRecord {
    /// The number of refreshes in a row that have not helped so far.
    futile: u32,
    /// The number of trials in a row that have not helped so far. They are not futile refreshes: one
    /// request that is always rejected must not make longer runs necessary for the others.
    trials: u32,
    /// The number of refreshes in a row that have helped briefly. The last one counts until it is
    /// known to have helped for longer.
    brief: u32,
    /// The instant at which the last refresh helped, if no token was rejected since.
    helped_at: Option<Instant>,
    /// The last refresh that a rejection was permitted to cause.
    permitted: Option<Permitted>,
    pace: Pace,
    run: Option<Run>,
    /// The instant of the first rejection since the last refresh was permitted or has helped.
    rejected_since: Option<Instant>,
    last_rejection: Option<Instant>,
    is_watched: bool,
}

#[derive(Clone, Copy, Debug)]
struct Permitted {
    /// The token that was rejected.
    generation: Generation,
    at: Instant,
    /// True if the success of any request shows that this refresh has helped.
    awaits_any_acceptance: bool,
    /// True if acceptances came between the rejections that caused this refresh.
    is_trial: bool,
}

/// Rejections in a row.
#[derive(Clone, Copy, Debug)]
struct Run {
    length: u32,
    began: Instant,
    /// The generation that was rejected last.
    generation: Generation,
    /// True if an acceptance within [`OVERLAP`] was ignored.
    has_overlap: bool,
}

/// The decision whether a rejection may take the token out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    Given,
    /// Given to another rejection of the same token, which is about to go out of use.
    GivenBefore,
    Denied,
}

impl Breaker {
    pub(crate) fn new(origins: usize) -> Self {
        let origins = (0..origins).map(|_| Mutex::new(OriginRecord::NEW)).collect();
        Self { origins, watched: AtomicUsize::new(0) }
    }

    /// Returns true if an acceptance may change a decision. One relaxed load: each accepted
    /// response asks for this.
    #[inline]
    pub(super) fn watches_acceptances(&self) -> bool {
        self.watched.load(Ordering::Relaxed) > 0
    }

    /// Records the rejection of the current token. Decides whether it may take the token out of use
    /// now. If so, the refresh counts as futile until it has helped.
    ///
    /// `can_retry` is true if the rejected request will be sent again with the new token.
    pub(super) fn request_refresh(
        &self,
        origin: OriginId,
        rejected: RejectedToken,
        can_retry: bool,
    ) -> Permission {
        self.update(origin, |record| record.request_refresh(rejected, can_retry, Instant::now()))
    }

    /// Records that the request which caused a refresh has succeeded with the new token.
    pub(super) fn refresh_helped(&self, origin: OriginId) {
        self.update(origin, |record| record.refresh_helped(Instant::now()));
    }

    /// Records that a retry was rejected.
    pub(super) fn retry_rejected(&self, origin: OriginId, generation: Generation) {
        self.update(origin, |record| record.retry_rejected(generation, Instant::now()));
    }

    /// Records that a server has accepted a token. Returns true if that shows that the last refresh
    /// has helped.
    pub(super) fn accepted(&self, origin: OriginId, generation: Generation) -> bool {
        self.watches_acceptances()
            && self.update(origin, |record| record.accepted(generation, Instant::now()))
    }

    fn update<T>(&self, origin: OriginId, change: impl FnOnce(&mut OriginRecord) -> T) -> T {
        let mut record: MutexGuard<'_, OriginRecord> = lock(&self.origins[origin.index()]);
        let result = change(&mut record);
        let is_watched = record.run.is_some()
            || record.permitted.is_some_and(|refresh| refresh.awaits_any_acceptance);
        match (record.is_watched, is_watched) {
            (false, true) => drop(self.watched.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.watched.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        record.is_watched = is_watched;
        result
    }
}

impl OriginRecord {
    const NEW: Self = Self {
        futile: 0,
        trials: 0,
        brief: 0,
        helped_at: None,
        permitted: None,
        pace: PACE,
        run: None,
        rejected_since: None,
        last_rejection: None,
        is_watched: false,
    };

    fn request_refresh(
        &mut self,
        rejected: RejectedToken,
        can_retry: bool,
        now: Instant,
    ) -> Permission {
        let RejectedToken { generation, requested_at } = rejected;
        match &mut self.permitted {
            Some(refresh) if refresh.generation == generation => return Permission::GivenBefore,
            // The fetch of this token was running already when the refresh was permitted, so the
            // permission led to no token request. It is used for this rejection.
            Some(refresh) if requested_at < refresh.at => {
                refresh.generation = generation;
                refresh.awaits_any_acceptance = !can_retry;
                return Permission::Given;
            }
            _ => {}
        }
        let run = self.count_rejection(generation, now);
        if self.helped_at.take().is_some_and(|at| now >= at + BRIEF) {
            (self.futile, self.trials, self.brief) = (0, 0, 0);
        }
        let is_proven = !self.is_in_doubt()
            || run.length >= (SHORTEST_RUN + self.futile).min(LONGEST_RUN)
            || now >= run.began + MAX_RUN_TIME;
        let is_trial = !is_proven
            && self.rejected_since.is_some_and(|since| now >= since + self.trial_delay());
        let is_backing_off = self.permitted.is_some_and(|refresh| now < refresh.at + self.delay());
        if !(is_proven || is_trial) || is_backing_off || !self.pace.allows(now) {
            return Permission::Denied;
        }
        self.pace.count_use(now);
        let count = if is_trial { &mut self.trials } else { &mut self.futile };
        *count = count.saturating_add(1);
        (self.run, self.rejected_since) = (None, None);
        let awaits_any_acceptance = !can_retry;
        self.permitted = Some(Permitted { generation, at: now, awaits_any_acceptance, is_trial });
        Permission::Given
    }

    /// Returns true if a single rejection does not prove that the token is dead.
    fn is_in_doubt(&self) -> bool {
        self.futile > 0 || self.brief >= MAX_FREE_BRIEF
    }

    /// Returns the time from the last refresh to the next one. The first futile refresh may be
    /// followed at once: its token may have been revoked as well.
    fn delay(&self) -> Duration {
        match self.futile {
            0 | 1 => Duration::ZERO,
            futile => doubling_delay(FIRST_DELAY, futile - 2, MAX_DELAY),
        }
    }

    /// Returns the time from the first rejection after a refresh to a trial.
    fn trial_delay(&self) -> Duration {
        doubling_delay(MAX_RUN_TIME, self.trials, MAX_TRIAL_DELAY)
    }

    /// Counts a rejection. Forgets everything before it if that was long ago.
    fn count_rejection(&mut self, generation: Generation, now: Instant) -> Run {
        if self.last_rejection.is_some_and(|at| now >= at + FORGET_AFTER) {
            *self = Self { is_watched: self.is_watched, ..Self::NEW };
        }
        self.last_rejection = Some(now);
        self.rejected_since.get_or_insert(now);
        let mut run =
            self.run.unwrap_or(Run { length: 0, began: now, generation, has_overlap: false });
        run.length = run.length.saturating_add(1);
        run.generation = run.generation.max(generation);
        self.run = Some(run);
        run
    }

    fn retry_rejected(&mut self, generation: Generation, now: Instant) {
        // A late rejection says nothing about the current token.
        if self.permitted.is_none_or(|refresh| generation > refresh.generation) {
            self.count_rejection(generation, now);
        }
    }

    fn refresh_helped(&mut self, now: Instant) {
        // After a futile refresh before this one, the doubt remains until a token lasts.
        self.brief = match self.futile {
            0 | 1 => self.brief.saturating_add(1),
            _ => self.brief.max(MAX_FREE_BRIEF),
        };
        // This refresh was counted as futile. It also outweighs an earlier futile one.
        self.futile = self.futile.saturating_sub(2);
        self.helped_at = Some(now);
        (self.run, self.rejected_since) = (None, None);
        if let Some(refresh) = &mut self.permitted {
            refresh.awaits_any_acceptance = false;
            if refresh.is_trial {
                self.trials = 0;
            }
        }
    }

    fn accepted(&mut self, generation: Generation, now: Instant) -> bool {
        if let Some(run) = self.run.as_mut().filter(|run| generation >= run.generation) {
            if now < run.began + OVERLAP && !run.has_overlap {
                run.has_overlap = true;
            } else {
                self.run = None;
            }
        }
        let has_helped = self.permitted.is_some_and(|refresh| {
            refresh.awaits_any_acceptance && generation > refresh.generation
        });
        if has_helped {
            self.refresh_helped(now);
        }
        has_helped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with a clock and the current token.
    #[derive(Clone)]
    struct Fixture {
        record: OriginRecord,
        now: Instant,
        current: Generation,
        requested_at: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let now = Instant::now();
            Self { record: OriginRecord::NEW, now, current: Generation::FIRST, requested_at: now }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }

        /// Rejects the current token. If that is permitted, it is replaced.
        fn reject(&mut self) -> bool {
            let rejected =
                RejectedToken { generation: self.current, requested_at: self.requested_at };
            let is_permitted =
                self.record.request_refresh(rejected, true, self.now) == Permission::Given;
            if is_permitted {
                (self.current, self.requested_at) = (self.current.next(), self.now);
            }
            is_permitted
        }

        fn accept(&mut self) {
            self.record.accepted(self.current, self.now);
        }

        /// Rejects the token once, and accepts the retry if a new one is permitted.
        fn recover(&mut self) -> bool {
            let is_permitted = self.reject();
            if is_permitted {
                self.record.refresh_helped(self.now);
            }
            is_permitted
        }

        /// Returns the number of rejections until a refresh is permitted.
        fn rejections_to_refresh(&mut self) -> u32 {
            (1..100).find(|_| self.reject()).unwrap()
        }
    }

    #[test]
    fn futile_refreshes_back_off_up_to_5_min() {
        let mut fixture = Fixture::new();
        let mut delays = Vec::new();
        let mut last = fixture.now;
        for _ in 0..14 {
            while !fixture.reject() {
                fixture.pass(Duration::from_millis(250));
            }
            delays.push((fixture.now - last).as_secs());
            last = fixture.now;
        }
        assert_eq!(delays, [0, 0, 1, 3, 5, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn three_brief_refreshes_are_free_and_then_a_run_is_needed() {
        let mut fixture = Fixture::new();
        for _ in 0..3 {
            assert!(fixture.recover());
            fixture.pass(10 * FIRST_DELAY);
        }
        assert_eq!(fixture.rejections_to_refresh(), 3);
    }

    #[test]
    fn acceptance_ends_a_run() {
        let mut fixture = Fixture::new();
        for _ in 0..3 {
            assert!(fixture.recover());
            fixture.pass(10 * FIRST_DELAY);
        }
        for _ in 0..40 {
            assert!(!fixture.reject() && !fixture.reject());
            fixture.pass(OVERLAP);
            fixture.accept();
            assert!(fixture.record.run.is_none());
            fixture.pass(FIRST_DELAY);
        }
        assert!(!fixture.reject());
        fixture.accept();
        assert!(!fixture.reject(), "one acceptance may have been decided before");
        assert!(fixture.reject());
    }

    #[test]
    fn run_that_lasts_a_minute_is_enough() {
        let mut fixture = Fixture::new();
        assert!(fixture.reject());
        assert!(!fixture.reject());
        fixture.pass(MAX_RUN_TIME.checked_sub(Duration::from_nanos(1)).unwrap());
        assert!(!fixture.clone().reject());
        fixture.pass(Duration::from_nanos(1));
        assert!(fixture.reject());
    }

    #[test]
    fn rejections_among_acceptances_are_enough_in_the_end() {
        let mut fixture = Fixture::new();
        assert!(fixture.reject());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let start = fixture.now;
            while !fixture.reject() {
                fixture.accept();
                fixture.accept();
                fixture.pass(FIRST_DELAY);
            }
            waits.push((fixture.now - start).as_secs());
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1800, 1800, 1800]);
        assert_eq!(fixture.record.futile, 1, "trials do not make longer runs necessary");
    }

    #[test]
    fn token_that_lasts_a_minute_ends_the_doubt() {
        let mut fixture = Fixture::new();
        for _ in 0..3 {
            assert!(fixture.recover());
            fixture.pass(BRIEF.checked_sub(Duration::from_nanos(1)).unwrap());
        }
        assert!(!fixture.clone().reject(), "it has helped for less than a minute");
        fixture.pass(Duration::from_nanos(1));
        assert!(fixture.reject());
    }

    #[test]
    fn everything_is_forgotten_without_rejections() {
        let mut fixture = Fixture::new();
        for _ in 0..8 {
            while !fixture.reject() {
                fixture.pass(FIRST_DELAY);
            }
        }
        let mut rare = fixture.clone();
        while !rare.reject() {
            rare.pass(2 * MAX_DELAY);
        }
        assert_eq!(rare.record.futile, 9, "requests may be rare");
        fixture.pass(FORGET_AFTER);
        assert!(fixture.reject());
        assert_eq!(fixture.record.futile, 1);
    }

    #[test]
    fn everything_is_forgotten_when_a_long_stream_is_rejected() {
        let mut fixture = Fixture::new();
        assert!(fixture.reject());
        fixture.pass(FORGET_AFTER);
        // The refresh has not helped so far: its retry was this stream.
        fixture.record.retry_rejected(fixture.current, fixture.now);
        assert!(fixture.reject());
    }

    #[test]
    fn token_requested_before_the_permission_is_replaced_at_once() {
        let mut fixture = Fixture::new();
        let requested_at = fixture.now;
        fixture.pass(FIRST_DELAY);
        assert!(fixture.reject());
        // A refresh that was running already has ended.
        fixture.requested_at = requested_at;
        assert!(fixture.reject());
        assert_eq!(fixture.record.futile, 1, "both belong to one refresh");
        assert!(!fixture.record.accepted(fixture.current, fixture.now), "the retry decides");
        fixture.requested_at = fixture.now;
        assert!(!fixture.reject());
    }

    #[test]
    fn without_a_retry_any_acceptance_shows_that_it_helped() {
        let mut fixture = Fixture::new();
        let rejected = RejectedToken { generation: fixture.current, requested_at: fixture.now };
        assert_eq!(fixture.record.request_refresh(rejected, false, fixture.now), Permission::Given);
        assert!(!fixture.record.accepted(fixture.current, fixture.now), "of the old token");
        assert!(fixture.record.accepted(fixture.current.next(), fixture.now));
        assert_eq!((fixture.record.futile, fixture.record.brief), (0, 1));
    }

    #[test]
    fn rejected_retry_counts_unless_it_is_late() {
        let mut fixture = Fixture::new();
        assert!(fixture.reject());
        fixture.record.retry_rejected(Generation::FIRST, fixture.now);
        assert!(fixture.record.run.is_none(), "a rejection of the old token is late");
        fixture.record.retry_rejected(fixture.current, fixture.now);
        assert_eq!(fixture.rejections_to_refresh(), SHORTEST_RUN, "with the retry one more");
    }

    #[tokio::test(start_paused = true)]
    async fn origins_are_independent_and_watched_only_while_needed() {
        let breaker = Breaker::new(2);
        let (first, second) = (OriginId::for_test(0), OriginId::for_test(1));
        let token =
            |generation| RejectedToken { generation, requested_at: Instant::now() + FIRST_DELAY };
        let generation = Generation::FIRST;
        assert_eq!(breaker.request_refresh(first, token(generation), true), Permission::Given);
        assert_eq!(
            breaker.request_refresh(first, token(generation), true),
            Permission::GivenBefore
        );
        assert!(!breaker.watches_acceptances());
        let generation = generation.next();
        breaker.retry_rejected(first, generation);
        assert!(breaker.watches_acceptances());
        assert_eq!(breaker.request_refresh(first, token(generation), true), Permission::Denied);
        assert_eq!(breaker.request_refresh(second, token(generation), true), Permission::Given);
        breaker.refresh_helped(first);
        assert!(!breaker.watches_acceptances());
        assert_eq!(breaker.request_refresh(first, token(generation), true), Permission::Given);
        let generation = generation.next();
        assert_eq!(breaker.request_refresh(second, token(generation), true), Permission::Denied);
        assert!(breaker.watches_acceptances());
        tokio::time::advance(FORGET_AFTER).await;
        assert_eq!(breaker.request_refresh(second, token(generation), true), Permission::Given);
        assert!(!breaker.watches_acceptances());
    }
}
