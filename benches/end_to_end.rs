//! Requests per second over loopback, with the layer as it comes and without it: a hyper server, and the client of hyper-util.
//!
//! Both send the same bytes through the same connections: without the layer, the request brings the header, put on before the
//! clock started, and which HPACK is to leave out of its table like any token. `static_header` is what putting it on costs at the least. As they differ by little, they take turns of some
//! milliseconds, and the ratio is the median of those of neighbouring turns.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a bench has no callers to be kind to
#![allow(clippy::cast_precision_loss)] // of nanoseconds

mod support;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

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
use tower::{BoxError, Layer, Service, ServiceExt};

use support::{
    Body, RUNTIME, figures, oauth_for,
    ratios::print_ratios,
    turns::{Case, by_turns},
};

const IN_FLIGHT: usize = 64;
/// One after the other, in each turn.
const OF_EACH: usize = 10;

fn main() {
    let criterion = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.configure_from_args();
    let of_server =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = serve(&of_server);
    compare(&mut criterion, "http1", server, &client(false));
    compare(&mut criterion, "http2", server, &client(true));
    criterion.final_summary();
    print_ratios("end_to_end");
}

fn compare(criterion: &mut Criterion, protocol: &str, server: SocketAddr, client: &HttpClient) {
    let origin = format!("http://{server}");
    let (uri, header) = (format!("{origin}/v1/orders"), support::bearer());
    let with_layer = oauth_for(&origin).layer(client.clone());
    let static_header = support::static_header().layer(client.clone());
    let of_layer = || request(&uri, None);
    let by_hand = || request(&uri, Some(&header));
    let cases = vec![
        Case::new(&format!("{protocol}/without"), || turn(client, by_hand)),
        Case::new(&format!("{protocol}/with_layer"), || turn(&with_layer, of_layer)),
        Case::new(&format!("{protocol}/static_header"), || turn(&static_header, of_layer)),
    ];
    let per_turn = (IN_FLIGHT * OF_EACH) as u64;
    let turns = by_turns(criterion.benchmark_group("end_to_end"), "end_to_end", per_turn, cases);
    let case = |id: &str| format!("end_to_end/{protocol}/{id}");
    if let Some(ratio) = turns.paired(&case("without"), &case("with_layer")) {
        let figure = format!("end_to_end/{protocol}, requests per second with the layer ÷ without");
        figures::keep("end_to_end_ratio", BTreeMap::from([(figure, ratio)]));
    }
}

/// Nanoseconds for each request, of many that are under way at once.
fn turn<S>(service: &S, request: impl Fn() -> Request<Body>) -> f64
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
{
    let requests: Vec<Vec<_>> = (0..IN_FLIGHT).map(|_| (0..OF_EACH).map(|_| request()).collect()).collect();
    RUNTIME.block_on(async {
        let started = Instant::now();
        let tasks: Vec<_> =
            requests.into_iter().map(|own| tokio::spawn(send(service.clone(), own))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        started.elapsed().as_nanos() as f64 / (IN_FLIGHT * OF_EACH) as f64
    })
}

async fn send<S>(service: S, requests: Vec<Request<Body>>)
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

/// Takes HTTP/1 and HTTP/2 with prior knowledge, and answers 401 to what has no token.
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
