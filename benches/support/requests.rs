//! Sends requests through a service, from one thread or from many.

use std::{
    hint::black_box,
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use http::Request;
use tower::Service;

use super::{
    Body, RUNTIME,
    interleaved::{Case, median},
    request,
};

/// The number of requests that are built before the clock starts. They fit into the CPU cache, as
/// a request does that was just built.
pub(crate) const BATCH: u64 = 100;
/// The number of batches of each thread in a round: enough for the threads to run at the same time.
pub(crate) const BATCHES: u64 = 10;

/// Returns a case that sends one batch per round from one thread.
pub(crate) fn single_threaded<'a, S>(id: &str, mut service: S) -> Case<'a>
where
    S: Service<Request<Body>> + 'a,
{
    let waker = thread_waker();
    warm_up(&mut service, request);
    Case::new(id, move || time_batch(&mut service, batch(), &waker))
}

/// Returns a case in which many threads start at the same time, each with its own service.
///
/// A round takes the median of the batches: it does not count if a thread loses its core for a
/// while.
pub(crate) fn multi_threaded<'a, S>(
    id: &str,
    threads: usize,
    service: impl Fn() -> S + 'a,
) -> Case<'a>
where
    S: Service<Request<Body>> + Send,
{
    Case::new(id, move || {
        let start = Barrier::new(threads);
        let samples = on_threads(threads, || {
            let (mut service, start) = (service(), &start);
            move || {
                let waker = thread_waker();
                warm_up(&mut service, request);
                let batches: Vec<_> = (0..BATCHES).map(|_| batch()).collect();
                start.wait();
                let time = |batch| time_batch(&mut service, batch, &waker);
                batches.into_iter().map(time).collect::<Vec<_>>()
            }
        });
        median(samples.concat())
    })
}

/// Returns the result of each thread. The threads are in the context of the runtime, on which the
/// layer starts a refresh.
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

/// Sends some requests that do not count. The first load of an `ArcSwap` on a thread allocates, as
/// does the first clone of a header value.
pub(crate) fn warm_up<S: Service<Request<Body>>>(
    service: &mut S,
    request: impl Fn() -> Request<Body>,
) {
    let waker = thread_waker();
    for _ in 0..64 {
        send(service, request(), &waker);
    }
}

fn batch() -> Vec<Request<Body>> {
    (0..BATCH).map(|_| request()).collect()
}

/// Returns the nanoseconds per request, from the call to the drop of the response.
#[inline(never)]
fn time_batch<S: Service<Request<Body>>>(
    service: &mut S,
    requests: Vec<Request<Body>>,
    waker: &Waker,
) -> f64 {
    let started = Instant::now();
    for request in requests {
        send(service, request, waker);
    }
    started.elapsed().as_nanos() as f64 / BATCH as f64
}

/// Sends one request. Parks the thread while the service or its future is pending.
#[inline]
pub(crate) fn send<S: Service<Request<Body>>>(
    service: &mut S,
    request: Request<Body>,
    waker: &Waker,
) {
    let mut cx = Context::from_waker(waker);
    while service.poll_ready(&mut cx).is_pending() {
        thread::park();
    }
    let mut future = pin!(service.call(request));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(response) => return drop(black_box(response)),
            Poll::Pending => thread::park(),
        }
    }
}

/// Sends one request through a service that never waits.
pub(crate) fn send_without_waiting<S: Service<Request<Body>>>(
    service: &mut S,
    request: Request<Body>,
) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    match pin!(service.call(request)).poll(&mut cx) {
        Poll::Ready(Ok(response)) => drop(black_box(response)),
        Poll::Ready(Err(_)) | Poll::Pending => unreachable!("the inner service never waits"),
    }
}

/// Returns a waker that unparks the current thread.
pub(crate) fn thread_waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
