//! The task that watches the clocks for all who read a token. See [`lease`](super::lease).

use std::{pin::pin, sync::Arc};

use futures_util::future::{Either, select};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::sleep_until,
};

use super::single_flight::{Post, SingleFlight};

/// Has a keeper begin, if there is a runtime that it can rely on, and no other keeper. That a runtime has a timer cannot be
/// asked of it, but the last fetch has used one.
#[cold]
pub(super) fn begin(single_flight: &Arc<SingleFlight>) {
    let Ok(runtime) = Handle::try_current() else { return };
    if runtime.runtime_flavor() == RuntimeFlavor::MultiThread
        && single_flight.has_timer(runtime.id())
        && let Some(post) = single_flight.take_post()
    {
        runtime.spawn(keep(post));
    }
}

/// Ends with the need for it. Where its runtime ends before, so does the lease.
async fn keep(post: Post) {
    loop {
        // Registered before the look, so that no change between the two is missed.
        let mut changed = pin!(post.changed());
        changed.as_mut().enable();
        let Some(until) = post.extend_lease() else { return };
        match select(changed, pin!(sleep_until(until))).await {
            Either::Left(_) => {}
            Either::Right(_) if post.was_used() => {}
            Either::Right(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Mutex,
        time::{Duration, SystemTime},
    };

    use tokio::{
        runtime::Builder,
        task::{JoinHandle, yield_now},
        time::{Instant, sleep},
    };

    use super::*;
    use crate::{
        cache::{single_flight::Entry, suspend::WallClock},
        telemetry::Telemetry,
        token::{AccessToken, Renewal},
    };

    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const TERM: Duration = Duration::from_secs(30);
    /// When [`token`] becomes stale.
    const STALE_AT: Duration = Duration::from_secs(3010);

    /// Valid for an hour, and to be renewed before its end. Not at the end of a term.
    fn token() -> AccessToken {
        bearer(HOUR, HOUR.saturating_sub(STALE_AT))
    }

    fn bearer(lifetime: Duration, window: Duration) -> AccessToken {
        let token = AccessToken::bearer("t").unwrap().renewed(Renewal::BeforeExpiry(window));
        token.expires_in(lifetime)
    }

    fn with(token: AccessToken) -> Arc<SingleFlight> {
        by(WallClock::default(), token)
    }

    fn by(wall_clock: WallClock, token: AccessToken) -> Arc<SingleFlight> {
        let single_flight = Arc::new(SingleFlight::new(None, wall_clock, Telemetry::of("test".into())));
        land(&single_flight, token);
        single_flight
    }

    fn land(single_flight: &Arc<SingleFlight>, token: AccessToken) {
        let Entry::Opened(mut ticket, _) = single_flight.enter() else { panic!("there is a token already") };
        ticket.depart();
        ticket.finish(Ok(token));
    }

    fn refuse(single_flight: &SingleFlight) {
        assert!(single_flight.invalidate(single_flight.slot.generation().unwrap()));
    }

    /// A keeper that has begun.
    async fn keeper(single_flight: &Arc<SingleFlight>) -> JoinHandle<()> {
        let keeper = tokio::spawn(keep(single_flight.take_post().expect("the post is free")));
        settle().await;
        keeper
    }

    /// Until all tasks wait for the clock.
    async fn settle() {
        for _ in 0..8 {
            yield_now().await;
        }
    }

    /// As a request does.
    fn read(single_flight: &SingleFlight) -> Option<u64> {
        single_flight
            .read_leased(&mut |seen| seen.generation.get())
            .or_else(|| single_flight.read(&mut |seen| seen.generation.get()).map(|(seen, _)| seen))
    }

    /// Lets so much time pass, in which the token is used all along.
    async fn use_for(single_flight: &SingleFlight, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            read(single_flight);
            sleep((10 * SECOND).min(end - Instant::now())).await;
        }
        settle().await;
    }

    #[track_caller]
    fn assert_off_duty(single_flight: &Arc<SingleFlight>, keeper: &JoinHandle<()>) {
        assert_eq!(single_flight.editions().0, None);
        assert!(keeper.is_finished());
        assert!(single_flight.take_post().is_some(), "the post is free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_token_is_leased_until_the_very_moment_it_is_stale() {
        let single_flight = with(token());
        let keeper = keeper(&single_flight).await;
        assert!(single_flight.is_leased());
        use_for(&single_flight, STALE_AT.saturating_sub(MILLISECOND)).await;
        assert!(single_flight.is_leased());
        assert!(!keeper.is_finished());
        // A timer is late by up to a millisecond.
        use_for(&single_flight, 2 * MILLISECOND).await;
        assert_off_duty(&single_flight, &keeper);
        assert_eq!(read(&single_flight), Some(1), "it is used all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_looked_at_term_after_term_and_not_given_for_longer() {
        let single_flight = with(token());
        let post = single_flight.take_post().unwrap();
        let start = Instant::now();
        assert_eq!(post.extend_lease(), Some(start + TERM));
        sleep(STALE_AT.saturating_sub(TERM / 2)).await;
        assert_eq!(post.extend_lease(), Some(start + STALE_AT));
        sleep(TERM / 2).await;
        assert_eq!(post.extend_lease(), None);
        assert_eq!(single_flight.editions().0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_stale_or_would_be_so_for_less_than_the_leeway_is_not_leased() {
        for (token, is_leased) in [
            (token().older_by(STALE_AT.saturating_sub(SECOND)), true),
            (token().older_by(STALE_AT), false),
            // A tenth of the lifetime is the margin at its end.
            (bearer(150 * SECOND, HOUR), true),
            (bearer(149 * SECOND, HOUR), false),
        ] {
            let single_flight = with(token.clone());
            let keeper = keeper(&single_flight).await;
            assert_eq!(single_flight.is_leased(), is_leased, "{token:?}");
            assert_eq!(keeper.is_finished(), !is_leased, "{token:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_no_known_expiry_is_leased_as_long_as_it_is_used() {
        let single_flight = with(AccessToken::bearer("t").unwrap());
        let keeper = keeper(&single_flight).await;
        use_for(&single_flight, 24 * HOUR).await;
        assert!(single_flight.is_leased());
        sleep(2 * TERM).await;
        settle().await;
        assert_off_duty(&single_flight, &keeper);
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_without_a_use_is_the_last_one() {
        let single_flight = with(token());
        let keeper = keeper(&single_flight).await;
        use_for(&single_flight, TERM + SECOND).await;
        // By the first readers who look at the clock, and by those who have a copy.
        for _ in 0..3 {
            read(&single_flight);
        }
        sleep(TERM).await;
        assert!(single_flight.is_leased(), "it was used in this term");
        sleep(TERM.saturating_sub(2 * SECOND)).await;
        assert!(single_flight.is_leased(), "the next one is not over");
        sleep(2 * SECOND).await;
        settle().await;
        assert_off_duty(&single_flight, &keeper);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_read_by_the_clock_only_is_used_too() {
        let single_flight = with(token());
        let keeper = keeper(&single_flight).await;
        for _ in 0..10 {
            single_flight.read(&mut |_| ()).unwrap();
            sleep(TERM).await;
        }
        assert!(single_flight.is_leased());
        assert!(!keeper.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_much_used_again_gets_a_keeper_again() {
        let single_flight = with(token());
        let wants_keeper = || {
            let wishes: Vec<_> = (0..20).filter(|_| single_flight.wants_keeper()).collect();
            assert!(wishes == [7] || wishes.is_empty(), "{wishes:?}");
            !wishes.is_empty()
        };
        assert!(wants_keeper());
        let keeper = keeper(&single_flight).await;
        assert!(!wants_keeper(), "there is one");
        sleep(TERM + MILLISECOND).await;
        settle().await;
        assert_off_duty(&single_flight, &keeper);
        assert!(wants_keeper(), "counted anew");
        assert!(!wants_keeper(), "once is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_and_the_end_of_the_cache_end_the_lease_before_the_keeper_hears_of_it() {
        for act in [refuse, SingleFlight::close] {
            let single_flight = with(token());
            let keeper = keeper(&single_flight).await;
            assert!(single_flight.is_leased());
            act(&single_flight);
            assert_eq!(single_flight.editions(), (None, None));
            assert!(!keeper.is_finished());
            assert_eq!(read(&single_flight), None);
            settle().await;
            assert_eq!(single_flight.editions(), (None, None));
            assert!(keeper.is_finished());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_token_ends_the_lease_of_one_that_a_late_keeper_has_let_become_stale() {
        let single_flight = with(token());
        let post = single_flight.take_post().unwrap();
        post.extend_lease().unwrap();
        sleep(STALE_AT).await;
        read(&single_flight);
        assert!(single_flight.is_leased(), "nobody has looked");
        let mut renewal = single_flight.renew().expect("it is stale");
        renewal.depart();
        renewal.finish(Ok(AccessToken::bearer("newer").unwrap()));
        assert_eq!(single_flight.editions().0, None);
        assert_eq!(read(&single_flight), Some(2));
        post.extend_lease().unwrap();
        assert!(single_flight.is_leased());
    }

    #[tokio::test(start_paused = true)]
    async fn a_keeper_goes_on_with_the_newer_token() {
        let single_flight = with(token());
        let keeper = keeper(&single_flight).await;
        refuse(&single_flight);
        land(&single_flight, token());
        assert_eq!(single_flight.editions().0, None);
        settle().await;
        assert!(single_flight.is_leased());
        assert_eq!(read(&single_flight), Some(2));
        use_for(&single_flight, 2 * TERM).await;
        assert!(single_flight.is_leased());
        assert!(!keeper.is_finished());
    }

    /// A machine that has slept for so long.
    #[derive(Clone, Default)]
    struct Asleep(Arc<Mutex<Duration>>);

    impl Asleep {
        fn wall_clock(&self) -> WallClock {
            let (asleep, start) = (Arc::clone(&self.0), (Instant::now(), SystemTime::now()));
            WallClock::new(move || start.1 + start.0.elapsed() + *asleep.lock().unwrap())
        }

        fn for_another(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_of_the_machine_is_noticed_within_a_term() {
        let asleep = Asleep::default();
        let single_flight = by(asleep.wall_clock(), token());
        let keeper = keeper(&single_flight).await;
        let (_, awake) = single_flight.editions();
        use_for(&single_flight, TERM + SECOND).await;
        assert_eq!(single_flight.editions(), (awake, awake));

        asleep.for_another(1000 * SECOND);
        use_for(&single_flight, TERM).await;
        let (leased, older) = single_flight.editions();
        assert_ne!(older, awake, "it is older than it was");
        assert_eq!(leased, older, "and fresh still");

        asleep.for_another(STALE_AT.saturating_sub(1000 * SECOND));
        use_for(&single_flight, TERM).await;
        assert_off_duty(&single_flight, &keeper);
        assert_eq!(read(&single_flight), Some(1), "it is stale");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_expired_while_the_machine_slept_is_not_read_after_a_term() {
        let asleep = Asleep::default();
        let single_flight = by(asleep.wall_clock(), token());
        let keeper = keeper(&single_flight).await;
        use_for(&single_flight, SECOND).await;
        asleep.for_another(HOUR);
        assert_eq!(read(&single_flight), Some(1), "nobody has looked");
        use_for(&single_flight, TERM).await;
        assert_off_duty(&single_flight, &keeper);
        assert_eq!(read(&single_flight), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_keeper_that_is_aborted_ends_the_lease_and_frees_the_post() {
        let single_flight = with(token());
        let keeper = keeper(&single_flight).await;
        assert!(single_flight.is_leased());
        keeper.abort();
        settle().await;
        assert_off_duty(&single_flight, &keeper);
    }

    #[test]
    fn a_runtime_that_is_shut_down_ends_the_lease_and_frees_the_post() {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let single_flight = runtime.block_on(async { with(token()) });
        runtime.block_on(keeper(&single_flight));
        assert!(single_flight.is_leased());
        drop(runtime);
        assert_eq!(single_flight.editions().0, None);
        assert!(single_flight.take_post().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_keeper_at_most_and_none_for_a_closed_cache() {
        let single_flight = with(token());
        let post = single_flight.take_post().expect("it is free");
        assert!(single_flight.take_post().is_none());
        drop(post);
        drop(single_flight.take_post().expect("it is free again"));
        single_flight.close();
        assert!(single_flight.take_post().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_without_threads_of_its_own_has_no_keeper() {
        let single_flight = with(token());
        begin(&single_flight);
        settle().await;
        assert_eq!(single_flight.editions().0, None);
        assert!(single_flight.take_post().is_some());
    }
}
