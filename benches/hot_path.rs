//! What one request pays on its way through the layer, beside what a user would write by hand.
//!
//! `cargo bench` prints the medians above `bare` and their ratios at its end. Every case sends the same request: a POST with
//! six headers and a small body, and a token of 900 bytes; the inner service answers at once. Not measured: the network, the
//! making of the request, waiting for a token.
//!
//! # Method
//!
//! A turn of a case is a batch of requests, made before the clock starts, and then sent one after the other; with many
//! threads, some batches of each. Whichever case of a group criterion measures, all of the group take a turn then, one after
//! the other, so that a machine that is slow for a while is slow for all of them. Criterion shows the turns of the case that it
//! measures. The ratios are of medians over all turns of the group, from which that of `bare` is taken: what is left is small,
//! and would drown in what changes between two cases that are measured minutes apart.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{thread, time::Duration};

use criterion::Criterion;
use tower::{Layer, ServiceBuilder};
use tower_oauth::replay::Never;

use support::{
    Inner, RetryOnce, StaticHeaderAndClone, bearer, oauth,
    peers::{self, ClonePerRequest, MutexOverRefresh},
    ratios::print_ratios,
    requests::{BATCH, BATCHES, all_at_once, one_at_a_time, without_runtime},
    static_header,
    turns::{Case, by_turns},
};

fn main() {
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.measurement_time(Duration::from_secs(3)).configure_from_args();
    attach(&mut criterion);
    keep(&mut criterion);
    contended(&mut criterion);
    threads(&mut criterion);
    criterion.final_summary();
    print_ratios("hot_path");
}

/// The header alone.
fn attach(criterion: &mut Criterion) {
    let (_sender, watch) = peers::watch();
    let cases = vec![
        one_at_a_time("bare", Inner),
        one_at_a_time("static_header", static_header().layer(Inner)),
        one_at_a_time("oauth_never", oauth().replay(Never).layer(Inner)),
        without_runtime("oauth_by_the_clock", oauth().replay(Never).layer(Inner)),
        one_at_a_time("rw_lock", peers::rw_lock()),
        one_at_a_time("mutex_over_refresh", MutexOverRefresh::default()),
        one_at_a_time("watch", watch),
        one_at_a_time("format", peers::format()),
    ];
    by_turns(criterion.benchmark_group("attach"), "attach", BATCH, cases);
}

/// The header, and a copy for one more attempt.
fn keep(criterion: &mut Criterion) {
    let tower_retry = ServiceBuilder::new().retry(RetryOnce).layer(static_header()).service(Inner);
    let cases = vec![
        one_at_a_time("bare", Inner),
        one_at_a_time("static_header_and_clone", StaticHeaderAndClone { inner: Inner, value: bearer() }),
        one_at_a_time("tower_retry", tower_retry),
        one_at_a_time("oauth", oauth().layer(Inner)),
    ];
    by_turns(criterion.benchmark_group("keep"), "keep", BATCH, cases);
}

/// As many threads as cores. Each has a service of its own from one shared layer; `…_clone_per_request` has a clone of one
/// shared service, and clones it again for each request.
fn contended(criterion: &mut Criterion) {
    let threads = thread::available_parallelism().unwrap().get();
    let mut cases = shared(threads, str::to_owned);
    cases.push(all_at_once("bare_clone_per_request", threads, || ClonePerRequest(Inner)));
    by_turns(criterion.benchmark_group("contended"), "contended", BATCH * BATCHES, cases);
}

/// The same from one thread to eight.
fn threads(criterion: &mut Criterion) {
    for threads in [1, 2, 4, 8] {
        let cases = shared(threads, |id| format!("{id}/{threads}"));
        by_turns(criterion.benchmark_group("threads"), "threads", BATCH * BATCHES, cases);
    }
}

fn shared<'a>(threads: usize, id: impl Fn(&str) -> String) -> Vec<Case<'a>> {
    let (static_layer, layer) = (static_header(), oauth().replay(Never));
    let static_service = ClonePerRequest(static_layer.layer(Inner));
    let service = ClonePerRequest(layer.layer(Inner));
    let (rw_lock, mutex) = (peers::rw_lock(), MutexOverRefresh::default());
    let (sender, watch) = peers::watch();
    vec![
        all_at_once(&id("bare"), threads, || Inner),
        all_at_once(&id("static_header"), threads, move || static_layer.layer(Inner)),
        all_at_once(&id("oauth_never"), threads, move || layer.layer(Inner)),
        all_at_once(&id("static_header_clone_per_request"), threads, move || static_service.clone()),
        all_at_once(&id("oauth_clone_per_request"), threads, move || service.clone()),
        all_at_once(&id("rw_lock"), threads, move || rw_lock.clone()),
        all_at_once(&id("mutex_over_refresh"), threads, move || mutex.clone()),
        all_at_once(&id("watch"), threads, move || {
            let _open = &sender;
            watch.clone()
        }),
    ]
}
