//! The spans as `tracing-opentelemetry` exports them.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Full, StreamBody};
use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tower::BoxError;
use tower_oauth::{ClientAuth, ClientCredentials, TokenCache, TokenEndpoint};
use tracing::{Instrument, info_span};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt};

use super::{endpoint, run_alone};

/// Returns the spans that are exported while a cache with this endpoint fetches a token once.
async fn spans_of_one_fetch(endpoint: TokenEndpoint) -> Vec<SpanData> {
    let _alone = run_alone().await;
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let filter: Targets = "info,tower_oauth=debug".parse().unwrap();
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
    let guard = tracing::subscriber::set_default(subscriber);
    let cache = TokenCache::builder(ClientCredentials::new(endpoint)).name("orders").build();
    let _ = cache.token().instrument(info_span!("caller")).await;
    cache.close();
    tokio::task::yield_now().await;
    drop(guard);
    exporter.get_finished_spans().unwrap()
}

/// Returns an endpoint with this transport, with a secret in its URL and in its form.
fn endpoint_with<F>(respond: impl Fn() -> F + Clone + Send + Sync + 'static) -> TokenEndpoint
where
    F: Future<Output = Result<Response<Full<Bytes>>, BoxError>> + Send + 'static,
{
    let transport = tower::service_fn(move |_: Request<Full<Bytes>>| respond());
    let url = "https://as.test:8443/token?key=S3CRET";
    let auth = ClientAuth::client_secret_post("id", "S3CRET");
    TokenEndpoint::with_transport(url, auth, transport).unwrap()
}

fn fields(span: &SpanData) -> BTreeMap<&str, String> {
    let is_convention = |name: &str| {
        ["http.", "url.", "server.", "error.", "cache"].iter().any(|start| name.starts_with(start))
    };
    let fields = span.attributes.iter().map(|field| (field.key.as_str(), field.value.to_string()));
    fields.filter(|(name, _)| is_convention(name)).collect()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_a_client_span_of_the_refresh() {
    let spans = spans_of_one_fetch(endpoint()).await;
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (requests, refresh, caller) = (named("POST"), named("token_refresh"), named("caller"));
    let expected = [
        ("cache", "orders"),
        ("http.request.method", "POST"),
        ("server.address", "as.test"),
        ("server.port", "443"),
        ("url.full", "https://as.test/token"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let with = |more: &[(&'static str, &str)]| {
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        expected.iter().cloned().chain(more).collect::<BTreeMap<_, _>>()
    };
    let [failed, second] = requests[..] else { panic!("{} requests", requests.len()) };
    assert_eq!(fields(failed), with(&[("error.type", "transport")]));
    assert!(matches!(failed.status, Status::Error { .. }), "{:?}", failed.status);
    let retried = [("http.request.resend_count", "1"), ("http.response.status_code", "200")];
    assert_eq!(fields(second), with(&retried));
    assert_eq!(second.status, Status::Unset);

    for request in requests {
        assert_eq!(request.span_kind, SpanKind::Client);
        assert_eq!(request.parent_span_id, refresh[0].span_context.span_id());
    }
    assert_eq!(refresh[0].span_kind, SpanKind::Internal);
    let links: Vec<_> = refresh[0].links.iter().map(|link| &link.span_context).collect();
    assert_eq!(links, [&caller[0].span_context]);
}

#[tokio::test(start_paused = true)]
async fn failed_request_has_its_reason_and_no_secret() {
    let status = |status: u16| {
        endpoint_with(move || {
            let response = Response::builder().status(status).body(Full::default());
            std::future::ready(response.map_err(Into::into))
        })
    };
    let broken = {
        let transport = tower::service_fn(|_: Request<Full<Bytes>>| async {
            let error = std::io::Error::other("broken");
            let frames = tokio_stream::iter([Err::<http_body::Frame<Bytes>, _>(error)]);
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
        });
        TokenEndpoint::with_transport("https://as.test/", ClientAuth::none("id"), transport)
    };
    let hangs = endpoint_with(std::future::pending).timeout(Duration::from_secs(3));
    for (endpoint, status, error) in [
        (status(503), Some("503"), "503"),
        (status(401), Some("401"), "401"),
        (broken.unwrap(), Some("200"), "transport"),
        (hangs, None, "cancelled"),
    ] {
        let spans = spans_of_one_fetch(endpoint).await;
        let request = spans.iter().find(|span| span.span_kind == SpanKind::Client).unwrap();
        let fields = fields(request);
        assert_eq!(fields.get("http.response.status_code").map(String::as_str), status);
        assert_eq!(fields["error.type"], error);
        assert!(matches!(request.status, Status::Error { .. }), "{:?}", request.status);
        assert!(!format!("{spans:?}").contains("S3CRET"), "{spans:?}");
    }
}
