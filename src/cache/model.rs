//! The slot and the single flight under every interleaving of their threads, by [loom](https://docs.rs/loom):
//!
//! ```sh
//! RUSTFLAGS='--cfg tower_oauth_loom' cargo test --lib --target-dir target/loom model
//! ```
//!
//! The mutex and the atomic are loom's, the lock-free pointer and the channel are stood in for (see `sync`). The `Notify` of
//! tokio is as it is: loom sees each call of it as one step.
//!
//! With three threads that all fetch, all interleavings take many minutes: those models see the ones in which threads are
//! interrupted up to three times where they could have gone on. The others see all.

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
    single_flight::{Entry, Flight, SingleFlight, Ticket},
    slot::Generation,
    status::{RefreshState, StatusChanges},
    suspend::WallClock,
};
use crate::{
    error::{TokenError, TokenErrorKind},
    sync::lock,
    telemetry::Telemetry,
    token::AccessToken,
};

/// Runs a future on the thread of the caller. A wake-up that is missed blocks it for ever, which loom reports.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Bell(Mutex<bool>, Condvar);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            *lock(&self.0) = true;
            self.1.notify_one();
        }
    }

    let bell = Arc::new(Bell(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(Arc::clone(&bell));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut has_rung = lock(&bell.0);
        while !*has_rung {
            has_rung = bell.1.wait(has_rung).unwrap();
        }
        *has_rung = false;
    }
}

/// A single flight, and how many fetches were begun for it, at most one at a time.
#[derive(Clone)]
struct Tower {
    single_flight: Arc<SingleFlight>,
    begun: Arc<AtomicUsize>,
    in_the_air: Arc<AtomicUsize>,
}

impl Tower {
    /// On a machine that has slept for so many seconds.
    fn asleep_for(seconds: Arc<AtomicU64>) -> Self {
        let wall_clock =
            WallClock::new(move || SystemTime::now() + Duration::from_secs(seconds.load(Ordering::SeqCst)));
        let single_flight = SingleFlight::new(None, wall_clock, Telemetry::of("model".into()));
        Self { single_flight: Arc::new(single_flight), begun: Arc::default(), in_the_air: Arc::default() }
    }

    /// With a token of generation `tokens`, where that is not zero; those before it were refused.
    fn with(tokens: u64) -> Self {
        let tower = Self::asleep_for(Arc::default());
        for generation in 1..=tokens {
            tower.generation().map(|refused| tower.single_flight.invalidate(refused));
            tower.fetch();
            assert_eq!(tower.number(), Some(generation));
        }
        tower.begun.store(0, Ordering::SeqCst);
        tower
    }

    /// On a thread of its own.
    fn spawn<T: 'static>(&self, act: impl FnOnce(&Self) -> T + 'static) -> thread::JoinHandle<T> {
        let tower = self.clone();
        thread::spawn(move || act(&tower))
    }

    fn generation(&self) -> Option<Generation> {
        self.single_flight.slot.generation()
    }

    fn number(&self) -> Option<u64> {
        self.generation().map(Generation::get)
    }

    fn open(&self) -> (Ticket, Flight) {
        match self.single_flight.enter() {
            Entry::Opened(ticket, flight) => (ticket, flight),
            Entry::Joined(_) | Entry::Cached(_) | Entry::Blocked(_) => panic!("nothing is in the way"),
        }
    }

    /// The task that fetches.
    fn fly(&self, mut ticket: Ticket) {
        ticket.depart();
        assert_eq!(self.in_the_air.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
        let number = self.begun.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
        self.in_the_air.fetch_sub(1, Ordering::SeqCst);
        ticket.finish(AccessToken::bearer(format!("token-{number}")));
    }

    fn fetch(&self) {
        let (ticket, _) = self.open();
        self.fly(ticket);
    }

    /// Somebody who needs a token, and flies where nobody else does.
    fn token(&self) -> Result<u64, TokenErrorKind> {
        if let Some((token, _)) = self.single_flight.current() {
            return Ok(token.generation().get());
        }
        let flight = match self.single_flight.enter() {
            Entry::Cached(token) => return Ok(token.generation().get()),
            Entry::Blocked(error) => return Err(error.kind()),
            Entry::Joined(flight) => flight,
            Entry::Opened(ticket, flight) => {
                self.fly(ticket);
                flight
            }
        };
        match block_on(flight.landed()) {
            Ok(token) => Ok(token.generation().get()),
            Err(error) => Err(error.kind()),
        }
    }

    /// By the clock.
    fn read(&self) -> Option<u64> {
        self.single_flight.read(&mut |seen| seen.generation.get()).map(|(seen, _)| seen)
    }

    fn read_leased(&self) -> Option<u64> {
        self.single_flight.read_leased(&mut |seen| seen.generation.get())
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

/// For models of which all interleavings take many minutes.
fn model_with_few_interruptions(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn two_refusals_of_different_generations_and_a_reader_cost_one_fetch() {
    model_with_few_interruptions(|| {
        let tower = Tower::with(2);
        let newest = tower.generation().unwrap();
        let oldest = Generation::FIRST;

        let late = tower.spawn(move |tower| {
            assert!(!tower.single_flight.invalidate(oldest), "a newer one is there, or on its way");
            tower.token()
        });
        let refused = tower.spawn(move |tower| {
            assert!(tower.single_flight.invalidate(newest));
            tower.token()
        });
        // The reader: the generation never goes back.
        let seen: Vec<_> =
            (0..2).filter_map(|_| tower.single_flight.read(&mut |seen| seen.generation)).collect();
        assert!(seen.is_sorted_by_key(|(generation, _)| *generation), "{seen:?}");

        let late = late.join().unwrap().unwrap();
        assert_eq!(refused.join().unwrap(), Ok(3));
        assert!([2, 3].contains(&late));
        assert_eq!((tower.begun(), tower.number()), (1, Some(3)));
    });
}

#[test]
fn a_token_that_is_refused_while_its_renewal_lands_takes_nothing_with_it() {
    loom::model(|| {
        let tower = Tower::with(0);
        let (ticket, _) = tower.open();
        let stale = AccessToken::bearer("stale").unwrap().expires_in(Duration::from_secs(3600));
        ticket.finish(Ok(stale.older_by(Duration::from_secs(3000))));
        let refused = tower.generation().unwrap();

        let renewal = tower.single_flight.renew().expect("it is stale");
        let task = tower.spawn(move |tower| tower.fly(renewal));
        assert!(tower.single_flight.renew().is_none(), "at most one, and none for a fresh token");
        tower.single_flight.invalidate(refused);
        task.join().unwrap();
        assert_eq!((tower.begun(), tower.number()), (1, Some(2)));
    });
}

#[test]
fn a_token_that_is_refused_while_a_sleep_is_noticed_does_not_come_back() {
    loom::model(|| {
        let asleep = Arc::new(AtomicU64::new(0));
        let tower = Tower::asleep_for(Arc::clone(&asleep));
        let (mut ticket, _) = tower.open();
        ticket.depart();
        let token = AccessToken::bearer("token").unwrap().expires_in(Duration::from_secs(3600));
        ticket.finish(Ok(token));
        let refused = tower.generation().unwrap();

        asleep.store(600, Ordering::SeqCst);
        let noticing = tower.spawn(|tower| tower.single_flight.compare_clocks());
        assert!(tower.single_flight.invalidate(refused));
        noticing.join().unwrap();
        assert_eq!(tower.number(), None);
    });
}

#[test]
fn those_who_need_a_token_at_once_get_one_fetch_and_the_same_token() {
    model_with_few_interruptions(|| {
        let tower = Tower::with(0);
        let others = [0; 2].map(|_| tower.spawn(Tower::token));
        assert_eq!(tower.token(), Ok(1));
        for other in others {
            assert_eq!(other.join().unwrap(), Ok(1));
        }
        assert_eq!(tower.begun(), 1);
    });
}

#[test]
fn a_leader_that_is_cancelled_harms_neither_its_flight_nor_those_who_joined() {
    loom::model(|| {
        let tower = Tower::with(0);
        let (ticket, flight) = tower.open();
        let task = tower.spawn(move |tower| tower.fly(ticket));
        let waiter = tower.spawn(Tower::token);
        drop(flight); // the leader stops waiting
        assert_eq!(waiter.join().unwrap(), Ok(1));
        task.join().unwrap();
        assert_eq!(tower.begun(), 1);
    });
}

#[test]
fn a_flight_that_loses_its_ticket_is_told_to_all_and_makes_way_for_the_next() {
    loom::model(|| {
        let tower = Tower::with(0);
        let (ticket, flight) = tower.open();
        let shut_down = thread::spawn(move || drop(ticket));
        let waiter = tower.spawn(Tower::token);
        let error = block_on(flight.landed()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Runtime);
        let late = waiter.join().unwrap();
        assert!([Ok(1), Err(TokenErrorKind::Runtime)].contains(&late), "{late:?}");
        shut_down.join().unwrap();
        assert_eq!(tower.token(), Ok(1));
        assert_eq!(tower.begun(), 1);
    });
}

#[test]
fn closing_meets_a_landing_and_leaves_nobody_waiting() {
    loom::model(|| {
        let tower = Tower::with(0);
        let (ticket, flight) = tower.open();
        let task = tower.spawn(move |tower| tower.fly(ticket));
        let closing = tower.spawn(move |tower| tower.single_flight.close());
        let outcome = block_on(flight.landed()).map(|token| token.generation().get());
        assert!(matches!(
            outcome.map_err(|error: TokenError| error.kind()),
            Ok(1) | Err(TokenErrorKind::Closed)
        ));
        task.join().unwrap();
        closing.join().unwrap();
        assert_eq!((tower.token(), tower.number()), (Err(TokenErrorKind::Closed), None));
    });
}

#[test]
fn who_follows_the_status_misses_neither_the_token_nor_the_end() {
    loom::model(|| {
        let tower = Tower::with(0);
        let (ticket, _) = tower.open();
        let mut changes = StatusChanges::of(Arc::clone(&tower.single_flight));
        let task = tower.spawn(move |tower| {
            tower.fly(ticket);
            tower.single_flight.close();
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

/// A keeper that looks twice, while `act` changes the token. No thread reads what is out of use, and what is leased at the end
/// is what is there.
fn model_of_a_keeper(act: impl Fn(&Tower) + Copy + Send + Sync + 'static) {
    loom::model(move || {
        let tower = Tower::with(1);
        let post = tower.single_flight.take_post().expect("it is free");
        // This thread's copy: missed twice.
        post.extend_lease().expect("a fresh token");
        assert_eq!([tower.read(), tower.read(), tower.read_leased()], [Some(1); 3]);
        let acting = tower.spawn(move |tower| {
            act(tower);
            assert_ne!(tower.read_leased(), Some(1), "it is out of use");
        });
        let keeping = thread::spawn(move || {
            post.extend_lease();
            post
        });
        acting.join().unwrap();
        assert_ne!(tower.read_leased(), Some(1), "it is out of use");
        let post = keeping.join().unwrap();
        assert_ne!(tower.read_leased(), Some(1), "it is out of use");
        let (leased, published) = tower.single_flight.editions();
        assert!(leased.is_none() || leased == published, "{leased:?} of {published:?}");
        drop(post);
        assert_eq!(tower.single_flight.editions().0, None);
    });
}

#[test]
fn a_keeper_leases_no_token_that_is_refused_meanwhile() {
    model_of_a_keeper(|tower| {
        assert!(tower.single_flight.invalidate(Generation::FIRST));
        assert_eq!(tower.read_leased(), None);
    });
}

#[test]
fn a_keeper_leases_no_token_that_is_replaced_meanwhile() {
    model_of_a_keeper(|tower| {
        assert!(tower.single_flight.invalidate(Generation::FIRST));
        tower.fetch();
        assert_eq!(tower.read(), Some(2));
    });
}

#[test]
fn a_keeper_leases_no_token_of_a_cache_that_is_closed_meanwhile() {
    model_of_a_keeper(|tower| tower.single_flight.close());
}

#[test]
fn a_keeper_leases_no_token_that_has_got_older_meanwhile() {
    loom::model(|| {
        let asleep = Arc::new(AtomicU64::new(0));
        let tower = Tower::asleep_for(Arc::clone(&asleep));
        tower.fetch();
        let post = tower.single_flight.take_post().expect("it is free");
        post.extend_lease().expect("a fresh token");
        let (_, young) = tower.single_flight.editions();
        let noticing = tower.spawn(move |tower| {
            asleep.store(1000, Ordering::SeqCst);
            tower.single_flight.compare_clocks();
            assert_ne!(tower.single_flight.editions().0, young, "it is out of use");
        });
        post.extend_lease();
        noticing.join().unwrap();
        let (leased, published) = tower.single_flight.editions();
        assert_ne!(published, young);
        assert!(leased.is_none() || leased == published, "{leased:?} of {published:?}");
    });
}

#[test]
fn a_keeper_that_leaves_its_post_takes_no_lease_of_its_successor() {
    loom::model(|| {
        let tower = Tower::with(1);
        let post = tower.single_flight.take_post().expect("it is free");
        post.extend_lease().expect("a fresh token");
        let leaving = thread::spawn(move || drop(post));
        let successor = tower.single_flight.take_post();
        let extended = successor.as_ref().is_some_and(|post| post.extend_lease().is_some());
        leaving.join().unwrap();
        assert_eq!(tower.single_flight.is_leased(), extended);
    });
}

/// So the models are not in vain: which thread comes first does matter, and loom sees both orders.
#[test]
fn more_than_one_interleaving_is_seen() {
    let seen = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    loom::model(move || {
        let tower = Tower::with(1);
        let refused = tower.generation().unwrap();
        let refusing = tower.spawn(move |tower| tower.single_flight.invalidate(refused));
        let token = tower.token();
        refusing.join().unwrap();
        into.lock().unwrap().insert(token.unwrap());
    });
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([1, 2]));
}
