//! Ten thousand tasks wait for the first token: what it costs to wake each, compared with a
//! `tokio::sync::watch`.
//!
//! The clock starts when the source is allowed to return its token, and stops when the last task
//! has the token. All tasks are pending before it starts. Both cases run on the same runtime, and
//! are interleaved.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // panics are fine in a bench
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    hint::black_box,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::Criterion;
use tokio::sync::{oneshot, watch};
use tower_oauth::{AccessToken, TokenCache, source_fn};

use support::{
    RUNTIME, figures,
    interleaved::{Case, measure_interleaved},
    targets::{STORM, print_rows},
    token,
};

fn main() {
    let criterion = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    let waiters = if figures::is_smoke_test() { 100 } else { 10_000 };
    let cases = vec![
        Case::new("oauth", || RUNTIME.block_on(wait_for_token_cache(waiters))),
        Case::new("watch", || RUNTIME.block_on(wait_for_watch(waiters))),
    ];
    let group = criterion.benchmark_group("storm");
    let samples = measure_interleaved(group, "storm", waiters as u64, cases);
    criterion.final_summary();
    if let Some(ratio) = samples.paired_ratio("storm/oauth", "storm/watch") {
        figures::record("storm_ratio", BTreeMap::from([(STORM.to_owned(), ratio)]));
    }
    print_rows("cargo bench --bench storm");
}

async fn wait_for_token_cache(waiters: usize) -> f64 {
    let (release, released) = oneshot::channel();
    let released = Mutex::new(Some(released));
    let cache = TokenCache::new(source_fn(move |_| {
        let released = released.lock().unwrap().take().expect("the token is fetched once");
        async {
            released.await.unwrap();
            AccessToken::bearer(token())
        }
    }));
    let storm = Storm::new(waiters);
    for _ in 0..waiters {
        let cache = cache.clone();
        storm.spawn(async move { cache.token().await.unwrap() });
    }
    storm.time_after(|| release.send(()).unwrap()).await
}

async fn wait_for_watch(waiters: usize) -> f64 {
    let (sender, receiver) = watch::channel(None);
    let storm = Storm::new(waiters);
    for _ in 0..waiters {
        let mut receiver = receiver.clone();
        storm.spawn(async move { receiver.wait_for(Option::is_some).await.unwrap().clone() });
    }
    storm.time_after(|| drop(sender.send(Some(support::bearer())))).await
}

/// Tasks that wait for the same event.
struct Storm {
    waiters: usize,
    counters: Arc<Counters>,
    finished: oneshot::Receiver<Instant>,
}

struct Counters {
    not_yet_pending: AtomicUsize,
    not_yet_finished: AtomicUsize,
    finished: Mutex<Option<oneshot::Sender<Instant>>>,
}

impl Storm {
    fn new(waiters: usize) -> Self {
        let (sender, finished) = oneshot::channel();
        let counters = Counters {
            not_yet_pending: AtomicUsize::new(waiters),
            not_yet_finished: AtomicUsize::new(waiters),
            finished: Mutex::new(Some(sender)),
        };
        Self { waiters, counters: Arc::new(counters), finished }
    }

    fn spawn<T>(&self, event: impl Future<Output = T> + Send + 'static) {
        let counters = Arc::clone(&self.counters);
        tokio::spawn(async move {
            drop(black_box(counters.wait_for(event).await));
            counters.on_finished();
        });
    }

    /// Waits until all tasks are pending, calls `release`, and returns the nanoseconds per task
    /// until the last one has finished.
    async fn time_after(self, release: impl FnOnce()) -> f64 {
        while self.counters.not_yet_pending.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let started = Instant::now();
        release();
        let finished = self.finished.await.unwrap();
        (finished - started).as_nanos() as f64 / self.waiters as f64
    }
}

impl Counters {
    async fn wait_for<T>(&self, event: impl Future<Output = T>) -> T {
        let mut event = pin!(event);
        let mut is_counted = false;
        poll_fn(|cx| {
            let polled = event.as_mut().poll(cx);
            if polled.is_pending() && !is_counted {
                is_counted = true;
                self.not_yet_pending.fetch_sub(1, Ordering::SeqCst);
            }
            polled
        })
        .await
    }

    fn on_finished(&self) {
        if self.not_yet_finished.fetch_sub(1, Ordering::SeqCst) == 1 {
            let finished = self.finished.lock().unwrap().take().unwrap();
            finished.send(Instant::now()).unwrap();
        }
    }
}
