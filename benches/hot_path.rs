//! The cost of a request with a fresh token, compared with code that a user would write by hand.
//!
//! `cargo bench` prints the ratios with their targets at the end. Every case sends the same
//! request: a POST with six headers and a small body. The token has 900 bytes. The inner service is
//! ready with its response at once. The network, building the request and waiting for a token are
//! not measured.
//!
//! # Method
//!
//! The requests of a batch are built before the clock starts, and are then sent one after the
//! other. A case with many threads sends some batches from each. The cases of a group are
//! interleaved: whenever criterion measures one case, all cases of the group run for one batch
//! each, so a slow phase of the machine slows all of them. Criterion reports the samples of the
//! case that it measures. The ratios are made of the medians over all rounds, less the median of
//! `bare`, which is the inner service alone. The costs are small: they would be lost in the drift
//! between two cases that are measured minutes apart.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // panics are fine in a bench
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{thread, time::Duration};

use criterion::Criterion;
use tower::Layer;
use tower_oauth::replay::NoReplay;

use support::{
    Inner,
    hand_written::hand_written,
    interleaved::{Case, measure_interleaved},
    oauth,
    peers::{self, ClonePerRequest, MutexOverRefresh},
    requests::{BATCH, BATCHES, multi_threaded, single_threaded},
    static_header,
    targets::print_rows,
};

fn main() {
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1));
    let criterion = criterion.measurement_time(Duration::from_secs(3));
    let mut criterion = criterion.configure_from_args();
    attach(&mut criterion);
    keep(&mut criterion);
    contended(&mut criterion);
    threads(&mut criterion);
    criterion.final_summary();
    print_rows("cargo bench --bench hot_path");
}

/// Attaches a token, and keeps nothing for a retry.
fn attach(criterion: &mut Criterion) {
    let (_sender, watch) = peers::watch();
    let cases = vec![
        single_threaded("bare", Inner),
        single_threaded("static_header", static_header().layer(Inner)),
        single_threaded("hand_written", hand_written()),
        single_threaded("oauth_no_replay", oauth().with_replay(NoReplay).layer(Inner)),
        single_threaded("rw_lock", peers::rw_lock()),
        single_threaded("mutex_over_refresh", MutexOverRefresh::default()),
        single_threaded("watch", watch),
        single_threaded("format", peers::format()),
    ];
    measure_interleaved(criterion.benchmark_group("attach"), "attach", BATCH, cases);
}

/// Attaches a token, and keeps a copy of the request for a retry.
fn keep(criterion: &mut Criterion) {
    let cases = vec![
        single_threaded("bare", Inner),
        single_threaded("static_header_and_clone", peers::static_header_and_clone()),
        single_threaded("tower_retry", peers::tower_retry(Inner)),
        single_threaded("oauth", oauth().layer(Inner)),
    ];
    measure_interleaved(criterion.benchmark_group("keep"), "keep", BATCH, cases);
}

/// As many threads as cores. Each has its own service over one shared token. In the cases
/// `…_clone_per_request`, each thread also clones its service for every request.
fn contended(criterion: &mut Criterion) {
    let threads = thread::available_parallelism().unwrap().get();
    let mut cases = shared_token(threads, str::to_owned);
    cases.push(multi_threaded("bare_clone_per_request", threads, || ClonePerRequest(Inner)));
    let group = criterion.benchmark_group("contended");
    measure_interleaved(group, "contended", BATCH * BATCHES, cases);
}

/// The same cases with one to eight threads.
fn threads(criterion: &mut Criterion) {
    for threads in [1, 2, 4, 8] {
        let cases = shared_token(threads, |id| format!("{id}/{threads}"));
        let group = criterion.benchmark_group("threads");
        measure_interleaved(group, "threads", BATCH * BATCHES, cases);
    }
}

fn shared_token<'a>(threads: usize, id: impl Fn(&str) -> String) -> Vec<Case<'a>> {
    let case = |name: &str| id(name);
    let (static_layer, layer) = (static_header(), oauth().with_replay(NoReplay));
    let static_cloned = ClonePerRequest(static_layer.layer(Inner));
    let oauth_cloned = ClonePerRequest(layer.layer(Inner));
    let hand_written = hand_written();
    let hand_written_cloned = ClonePerRequest(hand_written.clone());
    let (rw_lock, mutex) = (peers::rw_lock(), MutexOverRefresh::default());
    let (sender, watch) = peers::watch();
    vec![
        multi_threaded(&case("bare"), threads, || Inner),
        multi_threaded(&case("static_header"), threads, move || static_layer.layer(Inner)),
        multi_threaded(&case("hand_written"), threads, move || hand_written.clone()),
        multi_threaded(&case("oauth_no_replay"), threads, move || layer.layer(Inner)),
        multi_threaded(&case("static_header_clone_per_request"), threads, move || {
            static_cloned.clone()
        }),
        multi_threaded(&case("hand_written_clone_per_request"), threads, move || {
            hand_written_cloned.clone()
        }),
        multi_threaded(&case("oauth_no_replay_clone_per_request"), threads, move || {
            oauth_cloned.clone()
        }),
        multi_threaded(&case("rw_lock"), threads, move || rw_lock.clone()),
        multi_threaded(&case("mutex_over_refresh"), threads, move || mutex.clone()),
        multi_threaded(&case("watch"), threads, move || {
            let _open = &sender; // a watch without its sender is closed
            watch.clone()
        }),
    ]
}
