//! The core and its refreshes under the thread interleavings that [loom](https://docs.rs/loom)
//! explores:
//!
//! ```sh
//! RUSTFLAGS='--cfg tower_oauth_loom' cargo test --lib --target-dir target/loom loom_tests
//! ```
//!
//! The mutex is loom's. The lock-free pointer and the channel are replaced (see `sync`). The
//! `Notify` of tokio is the real one: loom sees each of its calls as one step.
//!
//! Models of three threads that all fetch are bounded: loom explores the interleavings in which
//! threads are preempted up to three times. The other models are explored exhaustively.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, SystemTime},
};

use loom::{
    sync::{Condvar, Mutex},
    thread,
};

use super::{
    core::{Core, InvalidationCause},
    single_flight::{Entry, RefreshGuard, RefreshHandle, join_or_start, start_if_stale},
    status::RefreshState,
    status_changes::StatusChanges,
    system_sleep::WallClock,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    sync::lock,
    telemetry::Telemetry,
    token::{AccessToken, Generation},
};

/// Runs a future on the thread of the caller. A missed wake-up blocks it forever, which loom
/// reports.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Signal(Mutex<bool>, Condvar);

    impl Wake for Signal {
        fn wake(self: Arc<Self>) {
            *lock(&self.0) = true;
            self.1.notify_one();
        }
    }

    let signal = Arc::new(Signal(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(Arc::clone(&signal));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut is_woken = lock(&signal.0);
        while !*is_woken {
            is_woken = signal.1.wait(is_woken).unwrap();
        }
        *is_woken = false;
    }
}

/// A core with a source that counts its fetches and checks that at most one runs at a time.
#[derive(Clone)]
struct CountingCore {
    core: Arc<Core>,
    started: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

impl CountingCore {
    /// A core with a wall clock that is `ahead` seconds ahead.
    fn with_wall_clock(ahead: Arc<AtomicU64>) -> Self {
        let wall_clock = WallClock::new(move || {
            SystemTime::now() + Duration::from_secs(ahead.load(Ordering::SeqCst))
        });
        let core = Core::new(None, wall_clock, Telemetry::new("model".into()));
        Self { core: Arc::new(core), started: Arc::default(), running: Arc::default() }
    }

    /// A core with a token of generation `generations`, if that is not zero. The tokens before it
    /// were rejected.
    fn with_generations(generations: u64) -> Self {
        let core = Self::with_wall_clock(Arc::default());
        for generation in 1..=generations {
            core.generation().map(|rejected| core.invalidate(rejected));
            core.fetch();
            assert_eq!(core.number(), Some(generation));
        }
        core.started.store(0, Ordering::SeqCst);
        core
    }

    fn spawn<T: 'static>(&self, run: impl FnOnce(&Self) -> T + 'static) -> thread::JoinHandle<T> {
        let core = self.clone();
        thread::spawn(move || run(&core))
    }

    fn generation(&self) -> Option<Generation> {
        self.core.slot.generation()
    }

    fn invalidate(&self, generation: Generation) -> bool {
        self.core.invalidate(generation, InvalidationCause::Call)
    }

    fn number(&self) -> Option<u64> {
        self.generation().map(Generation::get)
    }

    fn start(&self) -> (Box<RefreshGuard>, RefreshHandle) {
        match join_or_start(&self.core) {
            Entry::Started(guard, handle) => (guard, handle),
            Entry::Joined(_) | Entry::Cached(_) | Entry::Blocked(_) | Entry::Pausing(_) => {
                panic!("a refresh can start")
            }
        }
    }

    /// Does the work of the task that fetches.
    fn run_refresh(&self, mut guard: Box<RefreshGuard>) {
        guard.begin();
        assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "one refresh at a time");
        let number = self.started.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
        self.running.fetch_sub(1, Ordering::SeqCst);
        guard.finish(AccessToken::bearer(format!("token-{number}")));
    }

    fn fetch(&self) {
        let (guard, _) = self.start();
        self.run_refresh(guard);
    }

    /// Does the work of a caller that needs a token.
    fn token(&self) -> Result<u64, TokenErrorKind> {
        if let Some((token, _)) = self.core.current() {
            return Ok(token.generation().get());
        }
        let handle = match join_or_start(&self.core) {
            Entry::Cached(token) => return Ok(token.generation().get()),
            Entry::Blocked(error) => return Err(error.kind()),
            Entry::Pausing(_) => unreachable!("there is no runtime"),
            Entry::Joined(handle) => handle,
            Entry::Started(guard, handle) => {
                self.run_refresh(guard);
                handle
            }
        };
        match block_on(handle.finished()) {
            Ok(token) => Ok(token.generation().get()),
            Err(error) => Err(error.kind()),
        }
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }
}

/// Checks a model with at most three preemptions. Without the bound it takes many minutes.
fn bounded_model(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn rejections_of_two_generations_and_a_reader_cost_one_fetch() {
    bounded_model(|| {
        let core = CountingCore::with_generations(2);
        let newest = core.generation().unwrap();
        let oldest = Generation::FIRST;

        let late = core.spawn(move |core| {
            assert!(!core.invalidate(oldest), "a newer token is there or on its way");
            core.token()
        });
        let rejected = core.spawn(move |core| {
            assert!(core.invalidate(newest));
            core.token()
        });
        let seen: Vec<_> =
            (0..2).filter_map(|_| core.core.slot.read_fresh(|record| record.generation)).collect();
        assert!(seen.is_sorted(), "the generation never decreases: {seen:?}");

        let late = late.join().unwrap().unwrap();
        assert_eq!(rejected.join().unwrap(), Ok(3));
        assert!([2, 3].contains(&late));
        assert_eq!((core.started(), core.number()), (1, Some(3)));
    });
}

#[test]
fn rejection_during_a_background_refresh_spares_the_new_token() {
    loom::model(|| {
        let core = CountingCore::with_generations(0);
        let (mut guard, _) = core.start();
        let stale = AccessToken::bearer("stale").unwrap().expires_in(Duration::from_secs(3600));
        guard.finish(Ok(stale.aged_by(Duration::from_secs(3000))));
        let rejected = core.generation().unwrap();

        let guard = start_if_stale(&core.core).expect("the token is stale");
        let task = core.spawn(move |core| core.run_refresh(guard));
        assert!(start_if_stale(&core.core).is_none(), "one refresh, and none for a fresh token");
        core.invalidate(rejected);
        task.join().unwrap();
        assert_eq!((core.started(), core.number()), (1, Some(2)));
    });
}

#[test]
fn token_rejected_while_a_sleep_is_detected_does_not_return() {
    loom::model(|| {
        let ahead = Arc::new(AtomicU64::new(0));
        let core = CountingCore::with_wall_clock(Arc::clone(&ahead));
        let (mut guard, _) = core.start();
        guard.begin();
        let token = AccessToken::bearer("token").unwrap().expires_in(Duration::from_secs(3600));
        guard.finish(Ok(token));
        let token = core.core.slot.load().unwrap();

        ahead.store(600, Ordering::SeqCst);
        let rejected = token.generation();
        let comparing = core.spawn(move |core| {
            core.core.compare_clocks(&token);
        });
        assert!(core.invalidate(rejected));
        comparing.join().unwrap();
        assert_eq!(core.number(), None);
    });
}

#[test]
fn concurrent_callers_share_one_fetch_and_its_token() {
    bounded_model(|| {
        let core = CountingCore::with_generations(0);
        let others = [0; 2].map(|_| core.spawn(CountingCore::token));
        assert_eq!(core.token(), Ok(1));
        for other in others {
            assert_eq!(other.join().unwrap(), Ok(1));
        }
        assert_eq!(core.started(), 1);
    });
}

#[test]
fn cancelled_first_caller_harms_neither_refresh_nor_waiters() {
    loom::model(|| {
        let core = CountingCore::with_generations(0);
        let (guard, handle) = core.start();
        let task = core.spawn(move |core| core.run_refresh(guard));
        let waiter = core.spawn(CountingCore::token);
        drop(handle); // the first caller stops waiting
        assert_eq!(waiter.join().unwrap(), Ok(1));
        task.join().unwrap();
        assert_eq!(core.started(), 1);
    });
}

#[test]
fn lost_guard_informs_all_waiters_and_allows_the_next_refresh() {
    loom::model(|| {
        let core = CountingCore::with_generations(0);
        let (guard, handle) = core.start();
        let shut_down = thread::spawn(move || drop(guard));
        let waiter = core.spawn(CountingCore::token);
        let error = block_on(handle.finished()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Runtime);
        let late = waiter.join().unwrap();
        assert!([Ok(1), Err(TokenErrorKind::Runtime)].contains(&late), "{late:?}");
        shut_down.join().unwrap();
        assert_eq!(core.token(), Ok(1));
        assert_eq!(core.started(), 1);
    });
}

#[test]
fn close_during_the_end_of_a_refresh_leaves_no_caller_waiting() {
    loom::model(|| {
        let core = CountingCore::with_generations(0);
        let (guard, handle) = core.start();
        let task = core.spawn(move |core| core.run_refresh(guard));
        let closing = core.spawn(move |core| core.core.close());
        let outcome = block_on(handle.finished()).map(|token| token.generation().get());
        assert!(matches!(
            outcome.map_err(|error: TokenError| error.kind()),
            Ok(1) | Err(TokenErrorKind::Closed)
        ));
        task.join().unwrap();
        closing.join().unwrap();
        assert_eq!((core.token(), core.number()), (Err(TokenErrorKind::Closed), None));
    });
}

#[test]
fn subscriber_misses_neither_the_token_nor_the_close() {
    loom::model(|| {
        let core = CountingCore::with_generations(0);
        let (guard, _) = core.start();
        let mut changes = StatusChanges::new(Arc::clone(&core.core));
        let task = core.spawn(move |core| {
            core.run_refresh(guard);
            core.core.close();
        });
        let last = block_on(async {
            let mut last = None;
            while let Some(status) = changes.next().await {
                last = Some(status.refresh);
            }
            last
        });
        assert_eq!(last, Some(RefreshState::Closed));
        task.join().unwrap();
    });
}

/// Positive control: the order of the threads matters, and loom explores both orders.
#[test]
fn loom_explores_more_than_one_interleaving() {
    let seen = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    loom::model(move || {
        let core = CountingCore::with_generations(1);
        let rejected = core.generation().unwrap();
        let rejecting = core.spawn(move |core| core.invalidate(rejected));
        let token = core.token();
        rejecting.join().unwrap();
        into.lock().unwrap().insert(token.unwrap());
    });
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([1, 2]));
}
