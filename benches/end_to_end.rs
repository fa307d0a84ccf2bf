//! Requests per second over loopback: the client of hyper-util and a hyper server, with and without
//! the layer.
//!
//! All cases send the same bytes. In the case `without`, each request is built with the header
//! before the clock starts. The cases differ by little, so their rounds of some milliseconds are
//! interleaved, and a ratio is the median of the ratios of the rounds.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // panics are fine in a bench
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{net::SocketAddr, time::Duration};

use criterion::Criterion;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{BoxError, replay::NoReplay};

use support::{
    Body, RUNTIME, figures,
    interleaved::{Case, measure_interleaved},
    oauth_for, peers,
    targets::{HTTP1, HTTP2, Loopback, print_rows},
};

/// The number of requests that are in flight at the same time.
const CONCURRENCY: usize = 64;
/// The number of requests that each task sends in a round, one after the other.
const REQUESTS_PER_TASK: usize = 10;

fn main() {
    let criterion = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    let server_runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = serve(&server_runtime);
    compare(&mut criterion, "http1", &HTTP1, server, &client(false));
    compare(&mut criterion, "http2", &HTTP2, server, &client(true));
    criterion.final_summary();
    print_rows("cargo bench --bench end_to_end");
}

fn compare(
    criterion: &mut Criterion,
    protocol: &str,
    names: &Loopback,
    server: SocketAddr,
    client: &HttpClient,
) {
    let origin = format!("http://{server}");
    let (uri, header) = (format!("{origin}/v1/orders"), support::bearer());
    let no_replay = oauth_for(&origin).with_replay(NoReplay).layer(client.clone());
    let replay = oauth_for(&origin).layer(client.clone());
    let tower_retry = peers::tower_retry(client.clone());
    let plain = || request(&uri, None);
    let with_header = || request(&uri, Some(&header));
    let cases = vec![
        Case::new(&format!("{protocol}/without"), || run_round(client, with_header)),
        Case::new(&format!("{protocol}/no_replay"), || run_round(&no_replay, plain)),
        Case::new(&format!("{protocol}/replay"), || run_round(&replay, plain)),
        Case::new(&format!("{protocol}/tower_retry"), || run_round(&tower_retry, plain)),
    ];
    let requests_per_round = (CONCURRENCY * REQUESTS_PER_TASK) as u64;
    let group = criterion.benchmark_group("end_to_end");
    let samples = measure_interleaved(group, "end_to_end", requests_per_round, cases);
    let case = |id: &str| format!("end_to_end/{protocol}/{id}");
    // A ratio of requests per second is the inverse of the ratio of times.
    let ratios = [
        (names.no_replay, samples.paired_ratio(&case("without"), &case("no_replay"))),
        (names.replay, samples.paired_ratio(&case("tower_retry"), &case("replay"))),
    ];
    let measured = ratios.into_iter().filter_map(|(name, ratio)| Some((name.to_owned(), ratio?)));
    figures::record("end_to_end_ratios", measured.collect());
}

/// Returns the nanoseconds per request.
fn run_round<S>(service: &S, request: impl Fn() -> Request<Body>) -> f64
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
{
    let for_task = |_| (0..REQUESTS_PER_TASK).map(|_| request()).collect();
    let requests: Vec<Vec<_>> = (0..CONCURRENCY).map(for_task).collect();
    RUNTIME.block_on(async {
        let started = Instant::now();
        let spawn = |requests| tokio::spawn(send_all(service.clone(), requests));
        let tasks: Vec<_> = requests.into_iter().map(spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
        started.elapsed().as_nanos() as f64 / (CONCURRENCY * REQUESTS_PER_TASK) as f64
    })
}

async fn send_all<S>(service: S, requests: Vec<Request<Body>>)
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error: Into<BoxError>> + Clone,
{
    for request in requests {
        let response = service.clone().oneshot(request).await.map_err(Into::into).unwrap();
        assert!(response.status().is_success());
        response.into_body().collect().await.unwrap();
    }
}

fn request(uri: &str, header: Option<&HeaderValue>) -> Request<Body> {
    let mut request = support::request();
    *request.uri_mut() = uri.parse().unwrap();
    if let Some(header) = header {
        request.headers_mut().insert(AUTHORIZATION, header.clone());
    }
    request
}

type HttpClient = Client<HttpConnector, Body>;

fn client(http2: bool) -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).http2_only(http2).build(connector)
}

/// Serves HTTP/1 and HTTP/2 with prior knowledge. A request without a token gets a 401.
fn serve(runtime: &Runtime) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http1().timer(TokioTimer::new());
                server.serve_connection(TokioIo::new(stream), service_fn(answer)).await
            });
        }
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let has_token = request.headers().contains_key(AUTHORIZATION);
    request.into_body().collect().await?;
    let status = if has_token { 200 } else { 401 };
    Ok(Response::builder().status(status).body(Body::from(r#"{"id":"42"}"#))?)
}
