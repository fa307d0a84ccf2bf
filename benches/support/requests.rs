//! Requests sent through a service, by one thread or by many.

use std::{
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use http::Request;
use tower::Service;

use super::{
    Body, RUNTIME, request, settle,
    turns::{Case, median},
};

/// Made before the clock starts. No more than stay near the core, as a request does that was just made.
pub(crate) const BATCH: u64 = 100;
/// Enough for threads to meet.
pub(crate) const BATCHES: u64 = 10;

/// One thread: a turn is one batch.
pub(crate) fn one_at_a_time<'a, S>(id: &str, mut service: S) -> Case<'a>
where
    S: Service<Request<Body>> + 'a,
{
    let waker = waker();
    warm_up(&mut service, request);
    Case::new(id, move || timed(&mut service, batch(), &waker))
}

/// The same on a thread that no runtime can be found on: nobody watches the clock for it.
pub(crate) fn without_runtime<'a, S>(id: &str, mut service: S) -> Case<'a>
where
    S: Service<Request<Body>> + 'a,
{
    let waker = waker();
    Case::new(id, move || timed(&mut service, batch(), &waker))
}

/// Many threads that start together, each with a service of its own: a turn is some batches of each, and counts as their
/// median, so that a thread that had to leave the core for a while does not count.
pub(crate) fn all_at_once<'a, S>(id: &str, threads: usize, service: impl Fn() -> S + 'a) -> Case<'a>
where
    S: Service<Request<Body>> + Send,
{
    Case::new(id, move || {
        let start = Barrier::new(threads);
        let batches = on_threads(threads, || {
            let (mut service, start) = (service(), &start);
            move || {
                let waker = waker();
                warm_up(&mut service, request);
                let batches: Vec<_> = (0..BATCHES).map(|_| batch()).collect();
                start.wait();
                batches.into_iter().map(|batch| timed(&mut service, batch, &waker)).collect::<Vec<_>>()
            }
        });
        median(batches.concat())
    })
}

/// What each thread gives. Who looks for the runtime there finds it.
pub(crate) fn on_threads<T, F>(threads: usize, work: impl Fn() -> F) -> Vec<T>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    thread::scope(|scope| {
        let spawn = |_| {
            let work = work();
            scope.spawn(move || {
                let _runtime = RUNTIME.enter();
                work()
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// As after the first moments of a program: the token is under lease, and this thread has its copy.
pub(crate) fn warm_up<S: Service<Request<Body>>>(service: &mut S, request: impl Fn() -> Request<Body>) {
    let _in_runtime = RUNTIME.enter();
    let waker = waker();
    for _ in 0..2 {
        settle();
        for _ in 0..32 {
            send(service, request(), &waker);
        }
    }
    settle();
}

fn batch() -> Vec<Request<Body>> {
    (0..BATCH).map(|_| request()).collect()
}

/// Nanoseconds for each request of a batch: the call, the answer, and what is dropped on the way.
#[inline(never)]
fn timed<S: Service<Request<Body>>>(service: &mut S, requests: Vec<Request<Body>>, waker: &Waker) -> f64 {
    let started = Instant::now();
    for request in requests {
        send(service, request, waker);
    }
    started.elapsed().as_nanos() as f64 / BATCH as f64
}

/// Who has to wait parks its thread, like a runtime that has nothing else to do.
#[inline]
pub(crate) fn send<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>, waker: &Waker) {
    let mut context = Context::from_waker(waker);
    while service.poll_ready(&mut context).is_pending() {
        thread::park();
    }
    let mut future = pin!(service.call(request));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return drop(std::hint::black_box(answer)),
            Poll::Pending => thread::park(),
        }
    }
}

/// Of the thread that asks for it.
pub(crate) fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
