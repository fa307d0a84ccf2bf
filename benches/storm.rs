//! Ten thousand tasks wait for the first token: what it costs to wake each of them, beside a `tokio::sync::watch`.
//!
//! The clock starts when the source may give its token, and stops when the last task has what it waited for. Before it starts,
//! all tasks have been seen waiting. Both run on the same runtime, by turns.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::Criterion;
use tokio::sync::{oneshot, watch};
use tower_oauth::{AccessToken, TokenCache};

use support::{
    RUNTIME, figures,
    ratios::print_ratios,
    token,
    turns::{Case, by_turns},
};

fn main() {
    let criterion = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    let waiters = if figures::is_smoke_test() { 100 } else { 10_000 };
    let cases = vec![
        Case::new("oauth", || RUNTIME.block_on(oauth(waiters))),
        Case::new("watch", || RUNTIME.block_on(watched(waiters))),
    ];
    let turns = by_turns(criterion.benchmark_group("storm"), "storm", waiters as u64, cases);
    criterion.final_summary();
    if let Some(ratio) = turns.paired("storm/oauth", "storm/watch") {
        let figure = "storm/oauth ÷ storm/watch, for each waiter".to_owned();
        figures::keep("storm_ratio", BTreeMap::from([(figure, ratio)]));
    }
    print_ratios("storm");
}

async fn oauth(waiters: usize) -> f64 {
    let (release, released) = oneshot::channel();
    let released = Mutex::new(Some(released));
    let cache = TokenCache::new(move || {
        let released = released.lock().unwrap().take().expect("one fetch");
        async {
            released.await.unwrap();
            AccessToken::bearer(token())
        }
    });
    let storm = Storm::new(waiters);
    for _ in 0..waiters {
        let cache = cache.clone();
        storm.wait_for(async move { cache.token().await.unwrap() });
    }
    storm.broken_by(|| release.send(()).unwrap()).await
}

async fn watched(waiters: usize) -> f64 {
    let (sender, receiver) = watch::channel(None);
    let storm = Storm::new(waiters);
    for _ in 0..waiters {
        let mut receiver = receiver.clone();
        storm.wait_for(async move { receiver.wait_for(Option::is_some).await.unwrap().clone() });
    }
    storm.broken_by(|| drop(sender.send(Some(support::bearer())))).await
}

/// Tasks that wait for the same.
struct Storm {
    waiters: usize,
    counts: Arc<Counts>,
    over: oneshot::Receiver<Instant>,
}

struct Counts {
    to_wait: AtomicUsize,
    to_end: AtomicUsize,
    over: Mutex<Option<oneshot::Sender<Instant>>>,
}

impl Storm {
    fn new(waiters: usize) -> Self {
        let (sender, over) = oneshot::channel();
        let counts = Counts {
            to_wait: AtomicUsize::new(waiters),
            to_end: AtomicUsize::new(waiters),
            over: Mutex::new(Some(sender)),
        };
        Self { waiters, counts: Arc::new(counts), over }
    }

    fn wait_for<T>(&self, what: impl Future<Output = T> + Send + 'static) {
        let counts = Arc::clone(&self.counts);
        tokio::spawn(async move {
            drop(std::hint::black_box(counts.waiting(what).await));
            counts.ended();
        });
    }

    /// Nanoseconds for each that waited.
    async fn broken_by(self, release: impl FnOnce()) -> f64 {
        while self.counts.to_wait.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let started = Instant::now();
        release();
        let over = self.over.await.unwrap();
        (over - started).as_nanos() as f64 / self.waiters as f64
    }
}

impl Counts {
    async fn waiting<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        let mut seen = false;
        poll_fn(|context| {
            let polled = what.as_mut().poll(context);
            if polled.is_pending() && !seen {
                seen = true;
                self.to_wait.fetch_sub(1, Ordering::SeqCst);
            }
            polled
        })
        .await
    }

    fn ended(&self) {
        if self.to_end.fetch_sub(1, Ordering::SeqCst) == 1 {
            let over = self.over.lock().unwrap().take().unwrap();
            over.send(Instant::now()).unwrap();
        }
    }
}
