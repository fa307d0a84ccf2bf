//! The events of `tracing` and the metrics of the `metrics` facade, compared with the names in the
//! chapter of the documentation.
//!
//! These tests need a binary of their own and run one after another. `tracing` caches for the whole
//! process which callsites have a subscriber, so parallel tests could miss each other's events.

// The history moves the wall clock, and has a connect error of hyper-util.
#![cfg(all(feature = "test-util", feature = "default-transport"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a panic is how a test fails

#[path = "../it/support.rs"]
#[allow(dead_code)] // the fixtures that only other tests use
mod support;

use std::{
    io,
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::TcpStream,
    sync::{Mutex, MutexGuard},
};
use tower::BoxError;
use tower_oauth::{
    ClientAuth, ClientCredentials, TokenCache, TokenEndpoint, test_util::FakeWallClock,
};

use crate::support::{Reply, TestSetup};

#[cfg(feature = "metrics")]
const DASHBOARD: &str = include_str!("../../examples/grafana_dashboard.json");
const CHAPTER: &str = include_str!("../../src/docs/telemetry.md");

/// Returns a guard that each test holds while it runs.
async fn run_alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::const_new(());
    LOCK.lock().await
}

/// Runs a history that emits every event and updates every metric at least once.
async fn run_history() {
    let clock = FakeWallClock::new();
    let setup = TestSetup::with_settings(|cache| {
        let limit = NonZeroU32::new(6).unwrap();
        let cache = cache.name("orders");
        cache.token_request_limit(limit, Duration::from_secs(86_400)).wall_clock(clock.reader())
    });
    setup.source.script([Reply::Fail]);
    setup.get().await.unwrap_err(); // waited, refresh failed
    tokio::time::sleep(Duration::from_secs(2)).await;
    setup.get().await.unwrap(); // waited, refreshed, attached
    setup.api.revoke(1);
    // Both are rejected, one of them late. Both wait, and both retries are accepted.
    let (one, other) = tokio::join!(setup.get(), setup.get());
    assert!(one.unwrap().is_success() && other.unwrap().is_success());
    for number in 2..5 {
        setup.api.revoke(number);
    }
    setup.source.script([Reply::IssueRevoked]);
    setup.get().await.unwrap(); // rejected, waited, retry rejected
    setup.get().await.unwrap(); // rejected, refresh suppressed by the breaker
    tokio::time::advance(Duration::from_secs(2520)).await;
    setup.get().await.unwrap(); // stale, refreshed in the background
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_secs(30)).await;
    setup.get().await.unwrap(); // remaining lifetime updated
    clock.advance(Duration::from_secs(600));
    tokio::time::advance(Duration::from_secs(30)).await;
    setup.get().await.unwrap(); // wall clock jumped
    setup.cache.invalidate(setup.cache.current().unwrap().generation());
    setup.get().await.unwrap(); // last token request that the limit allows
    let other_origin = Request::get("https://me:pw@elsewhere.test/path?query");
    let other_origin = other_origin.body(support::Body::default()).unwrap();
    tower::ServiceExt::oneshot(setup.client.clone(), other_origin).await.unwrap(); // no token
    let mut other_host = support::get("/");
    other_host.headers_mut().insert("host", "elsewhere.test".parse().unwrap());
    tower::ServiceExt::oneshot(setup.client.clone(), other_host).await.unwrap(); // no token
    let mut own_header = support::get("/");
    own_header.headers_mut().insert("authorization", "Basic Og==".parse().unwrap());
    tower::ServiceExt::oneshot(setup.client.clone(), own_header).await.unwrap(); // no token
    setup.cache.close();
    let cache = TokenCache::builder(ClientCredentials::new(endpoint()).scope("read write"));
    cache.name("orders").build().token().await.unwrap();
    token_with_an_unreadable_lifetime().await; // waited, refreshed
}

/// Returns an endpoint that cannot be reached by the first attempt to connect, and that grants less
/// than the requested scope.
fn endpoint() -> TokenEndpoint {
    let is_up = std::sync::Arc::new(AtomicBool::new(false));
    let transport = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let is_up = is_up.swap(true, Ordering::SeqCst);
        async move {
            if is_up {
                let body =
                    r#"{"access_token":"T0KEN","expires_in":3600,"scope":"read S3CRET\nT0KEN"}"#;
                return Ok(Response::new(Full::<Bytes>::from(body)));
            }
            let connector = tower::service_fn(|_: Uri| {
                let error = io::Error::other("S3CRET: connection refused");
                std::future::ready(Err::<TokioIo<TcpStream>, _>(error))
            });
            let client = Client::builder(TokioExecutor::new()).build(connector);
            let request = Request::get("https://as.test/").body(Full::<Bytes>::default());
            Err::<_, BoxError>(client.request(request?).await.unwrap_err().into())
        }
    });
    let auth = ClientAuth::client_secret_post("id", "S3CRET");
    TokenEndpoint::with_transport("https://as.test/token", auth, transport).unwrap()
}

/// Fetches a token with an `expires_in` that is not a number.
async fn token_with_an_unreadable_lifetime() {
    let transport = tower::service_fn(|_: Request<support::Body>| async {
        let body = r#"{"access_token":"t","expires_in":"soon"}"#;
        Ok::<_, std::convert::Infallible>(Response::new(support::Body::from(body)))
    });
    let auth = ClientAuth::none("id");
    let endpoint = TokenEndpoint::with_transport("https://as.test/token", auth, transport).unwrap();
    let cache = TokenCache::builder(ClientCredentials::new(endpoint)).name("orders").build();
    cache.token().await.unwrap();
    cache.close();
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::{collections::BTreeSet, time::Duration};

    use metrics::{SharedString, Unit};
    use metrics_util::{
        CompositeKey,
        debugging::{DebugValue, DebuggingRecorder, Snapshot},
    };
    use tower_oauth::test_util::FakeWallClock;

    use super::{CHAPTER, DASHBOARD, run_alone, run_history};
    use crate::support::TestSetup;

    /// Returns the metrics that the history records.
    async fn metrics_of_history() -> Snapshot {
        let _alone = run_alone().await;
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let guard = metrics::set_default_local_recorder(&recorder);
        run_history().await;
        drop(guard);
        snapshotter.snapshot()
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_is_counted_once() {
        let metrics = metrics_of_history().await.into_vec();
        let mut lines: Vec<String> = metrics
            .into_iter()
            .filter(|(_, _, _, value)| *value != DebugValue::Counter(0))
            .map(|(key, _, _, value)| {
                let key = key.key();
                let labels = key.labels().map(|label| (label.key(), label.value()));
                let (cache, others): (Vec<_>, Vec<_>) =
                    labels.partition(|(name, _)| *name == "cache");
                assert!(cache.contains(&("cache", "orders")));
                let labels: Vec<_> =
                    others.iter().map(|(name, value)| format!(" {name}={value}")).collect();
                let value = match value {
                    DebugValue::Counter(count) => count.to_string(),
                    DebugValue::Gauge(value) => format!("{value:.0}"),
                    DebugValue::Histogram(values) => format!("of {}", values.len()),
                };
                let name = key.name().trim_start_matches("tower_oauth_");
                format!("{name}{} {value}", labels.concat())
            })
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "attached_total 13",
                "connect_retried_total 1",
                "limit_reached_total 1",
                "refresh_duration_seconds of 8",
                "refresh_failed_total kind=transport 1",
                "refresh_suppressed_total reason=breaker_open 1",
                "refresh_suppressed_total reason=late 2",
                "refreshed_total 7",
                "rejected_total 6",
                "retry_accepted_total 3",
                "retry_rejected_total 1",
                "skipped_total reason=authorization_header 1",
                "skipped_total reason=host_header 1",
                "skipped_total reason=origin 1",
                "token_remaining_seconds 3600",
                "waited_total 8",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn counters_exist_at_zero_from_the_start_of_a_cache() {
        let key = |metric: &(CompositeKey, Option<Unit>, Option<SharedString>, DebugValue)| {
            matches!(metric.3, DebugValue::Counter(_)).then(|| metric.0.clone())
        };
        let history = metrics_of_history().await.into_vec();
        let recorder = DebuggingRecorder::new();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let _setup = TestSetup::with_settings(|cache| cache.name("orders"));
        let metrics = recorder.snapshotter().snapshot().into_vec();
        let new: Vec<_> = metrics.iter().filter_map(key).collect();
        assert!(history.iter().filter_map(key).all(|counter| new.contains(&counter)));
        assert!(metrics.iter().all(|(.., value)| *value == DebugValue::Counter(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn remaining_lifetime_is_updated_every_30_s_of_use() {
        let _alone = run_alone().await;
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        // A snapshot resets the gauge, so zero means that it was not set after the last snapshot.
        let remaining = || {
            let metrics = snapshotter.snapshot().into_vec();
            let gauge = metrics.into_iter().find_map(|(_, _, _, value)| match value {
                DebugValue::Gauge(value) => Some(value.into_inner()),
                _ => None,
            });
            gauge.map(f64::round).map(|value| format!("{value}"))
        };
        let clock = FakeWallClock::new();
        let setup = TestSetup::with_settings(|cache| cache.wall_clock(clock.reader()));
        let mut values = Vec::new();
        for (awake, slept) in [(0, 0), (29, 0), (1, 0), (30, 600)] {
            clock.advance(Duration::from_secs(slept));
            tokio::time::advance(Duration::from_secs(awake)).await;
            setup.get().await.unwrap();
            values.push(remaining());
        }
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        assert_eq!(values, [Some("3600"), Some("0"), Some("3570"), Some("2940")]);
    }

    #[tokio::test(start_paused = true)]
    async fn chapter_lists_exactly_the_metrics() {
        let metrics = metrics_of_history().await.into_vec();
        let names: BTreeSet<&str> = metrics.iter().map(|(key, ..)| key.key().name()).collect();
        let listed = CHAPTER.split('`').filter(|word| word.starts_with("tower_oauth_")).collect();
        assert_eq!(names, listed);
        for (key, unit, description, _) in &metrics {
            let is_described = unit.is_some() && description.is_some();
            assert!(is_described, "{key:?} has no unit or no description");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dashboard_shows_exactly_the_metrics() {
        let metrics = metrics_of_history().await.into_vec();
        let names: BTreeSet<&str> = metrics.iter().map(|(key, ..)| key.key().name()).collect();
        let labels = metrics.iter().flat_map(|(key, ..)| key.key().labels());
        let labels: BTreeSet<&str> = labels.map(metrics::Label::key).collect();
        let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
        let panels = dashboard["panels"].as_array().unwrap().iter();
        let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
        let mut shown = BTreeSet::new();
        for expression in targets.map(|target| target["expr"].as_str().unwrap()) {
            let is_in_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
            let words = expression.split(|char| !is_in_name(char));
            let words = words.filter(|word| word.starts_with("tower_oauth_"));
            // An exporter for Prometheus adds these endings to the name of a histogram.
            shown.extend(words.map(|word| {
                word.strip_suffix("_sum").or(word.strip_suffix("_count")).unwrap_or(word)
            }));
            let grouped = expression.split("by (").skip(1).map(|rest| rest.split_once(')'));
            let grouped = grouped.flat_map(|rest| rest.unwrap().0.split(", "));
            assert!(grouped.clone().count() > 0, "{expression}");
            grouped.for_each(|label| assert!(labels.contains(label), "{expression}"));
        }
        assert_eq!(shown, names);
    }
}

#[cfg(feature = "tracing")]
mod opentelemetry;

#[cfg(feature = "tracing")]
mod tracing {
    use std::{
        collections::BTreeSet,
        convert::Infallible,
        fmt::Write,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use http_body_util::Full;
    use tracing::{
        Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };

    use super::{CHAPTER, run_alone, run_history};
    use tower_oauth::{
        ClientAuth, ClientCredentials, OAuth, Origins, TokenCache, TokenEndpoint, TokenErrorKind,
        source_fn,
    };

    use crate::support::{API, Body, CapturedLog, TestSetup, get, lock};

    /// A subscriber that records the metadata and the fields of each span and event.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<(&'static Metadata<'static>, String)>>>);

    struct Fields(String);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            match field.name() {
                "message" => write!(self.0, "{value:?};"),
                // Durations differ from run to run.
                name if name.ends_with("_s") => write!(self.0, " {name}"),
                name => write!(self.0, " {name}={value:?}"),
            }
            .unwrap();
        }
    }

    impl Subscriber for Recorder {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "tower_oauth"
        }

        fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
            assert_eq!(span.is_root(), span.metadata().name() == "token_refresh");
            let mut fields = Fields(format!("{};", span.metadata().name()));
            span.record(&mut fields);
            lock(&self.0).push((span.metadata(), fields.0));
            span::Id::from_u64(1)
        }

        fn event(&self, event: &tracing::Event<'_>) {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            lock(&self.0).push((event.metadata(), fields.0));
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    /// Returns the spans and events of the history.
    async fn events_of_history() -> Vec<(&'static Metadata<'static>, String)> {
        let _alone = run_alone().await;
        let recorder = Recorder::default();
        let guard = tracing::subscriber::set_default(recorder.clone());
        run_history().await;
        drop(guard);
        lock(&recorder.0).clone()
    }

    #[tokio::test(start_paused = true)]
    async fn events_have_generations_reasons_and_durations() {
        let events = events_of_history().await;
        let lines: Vec<String> = events
            .into_iter()
            .map(|(metadata, fields)| {
                let line = format!("{} {fields}", metadata.level());
                let line = line.replace(" cache=\"orders\"", "");
                // The length of the back-off is random.
                line.split(" no further attempt for").next().unwrap().to_owned()
            })
            .collect();
        assert_eq!(
            lines,
            [
                r#"DEBUG token_refresh; reason="first""#,
                "DEBUG waiting for a token;",
                concat!(
                    r#"WARN token refresh failed; kind="transport" reason="first" "#,
                    "error=the issuer is down; check the server that the token source uses, ",
                    "and the connection to it;",
                ),
                r#"DEBUG token_refresh; reason="first""#,
                "DEBUG waiting for a token;",
                r#"INFO token refreshed; generation=1 reason="first" lifetime_s took_s"#,
                "DEBUG token rejected; generation=1 status=401",
                r#"DEBUG token_refresh; reason="rejected" replaces=1"#,
                "DEBUG waiting for a token;",
                "DEBUG token rejected; generation=1 status=401",
                r#"DEBUG refresh suppressed; generation=1 reason="late""#,
                "DEBUG waiting for a token;",
                r#"INFO token refreshed; generation=2 reason="rejected" lifetime_s took_s"#,
                "DEBUG request retried successfully; generation=2",
                "DEBUG request retried successfully; generation=2",
                "DEBUG token rejected; generation=2 status=401",
                r#"DEBUG token_refresh; reason="rejected" replaces=2"#,
                "DEBUG waiting for a token;",
                r#"INFO token refreshed; generation=3 reason="rejected" lifetime_s took_s"#,
                "DEBUG token rejected; generation=3 status=401",
                "WARN retried request rejected; generation=3",
                "DEBUG token rejected; generation=3 status=401",
                r#"DEBUG refresh suppressed; generation=3 reason="breaker_open""#,
                r#"DEBUG token_refresh; reason="stale" replaces=3"#,
                r#"INFO token refreshed; generation=4 reason="stale" lifetime_s took_s"#,
                "DEBUG token rejected; generation=3 status=401",
                r#"DEBUG refresh suppressed; generation=3 reason="late""#,
                "DEBUG request retried successfully; generation=4",
                "INFO wall clock jumped; slept_s",
                r#"DEBUG token_refresh; reason="rejected" replaces=4"#,
                "WARN token request limit reached; next_request_s",
                "DEBUG waiting for a token;",
                r#"INFO token refreshed; generation=5 reason="rejected" lifetime_s took_s"#,
                concat!(
                    r#"WARN request sent without a token; reason="origin" "#,
                    "origin=https://elsewhere.test",
                ),
                concat!(
                    r#"WARN request sent without a token; reason="host_header" "#,
                    "origin=https://api.test",
                ),
                concat!(
                    r#"DEBUG request sent without a token; reason="authorization_header" "#,
                    "origin=https://api.test",
                ),
                "DEBUG token cache closed;",
                r#"DEBUG token_refresh; reason="first""#,
                "DEBUG waiting for a token;",
                concat!(
                    r#"DEBUG http_request; otel.name="POST" otel.kind="client" "#,
                    r#"http.request.method="POST" url.full="https://as.test/token" "#,
                    r#"server.address="as.test" server.port=443"#,
                ),
                concat!(
                    "DEBUG connection attempt failed; attempt=1 ",
                    "error=[redacted]: connection refused retry_s",
                ),
                concat!(
                    r#"DEBUG http_request; otel.name="POST" otel.kind="client" "#,
                    r#"http.request.method="POST" http.request.resend_count=1 "#,
                    r#"url.full="https://as.test/token" server.address="as.test" server.port=443"#,
                ),
                concat!(
                    r#"INFO requested scope not granted; missing="write" "#,
                    r#"granted="read [redacted] [redacted]""#,
                ),
                r#"INFO token refreshed; generation=1 reason="first" lifetime_s took_s"#,
                "DEBUG token cache closed;",
                r#"DEBUG token_refresh; reason="first""#,
                "DEBUG waiting for a token;",
                concat!(
                    r#"DEBUG http_request; otel.name="POST" otel.kind="client" "#,
                    r#"http.request.method="POST" url.full="https://as.test/token" "#,
                    r#"server.address="as.test" server.port=443"#,
                ),
                concat!(
                    r#"WARN token lifetime unreadable; member="/expires_in" "#,
                    r#"used="TokenEndpoint::default_lifetime" "#,
                    r#"setting="ResponseFormat::expires_in""#,
                ),
                r#"INFO token refreshed; generation=1 reason="first" lifetime_s took_s"#,
                "DEBUG token cache closed;",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn refresh_result_is_logged_in_the_refresh_span() {
        let _alone = run_alone().await;
        let log = CapturedLog::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let setup = TestSetup::with_settings(|cache| cache.name("orders"));
        let caller = tracing::info_span!("caller");
        tracing::Instrument::instrument(setup.get(), caller).await.unwrap();
        drop(guard);
        let log = log.text();
        let line =
            |message: &str| log.lines().find(|line| line.contains(message)).unwrap().to_owned();
        assert!(line("waiting for a token").contains("caller: tower_oauth:"), "{log}");
        let refreshed = line("token refreshed");
        let span = "INFO token_refresh{cache=\"orders\" reason=\"first\"}: tower_oauth:";
        assert!(refreshed.contains(span), "{refreshed}");
    }

    /// The future of a source may log when it is dropped.
    #[tokio::test(start_paused = true)]
    async fn cancelled_fetch_is_dropped_in_the_refresh_span() {
        struct LogsItsDrop;

        impl Drop for LogsItsDrop {
            fn drop(&mut self) {
                tracing::info!("dropped");
            }
        }

        let _alone = run_alone().await;
        let log = CapturedLog::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let cache = TokenCache::new(source_fn(|_| async {
            let _logs = LogsItsDrop;
            std::future::pending().await
        }));
        let mut token = tokio_test::task::spawn(cache.token());
        assert!(token.poll().is_pending());
        tokio::task::yield_now().await;
        cache.close();
        tokio::task::yield_now().await;
        drop(guard);
        let log = log.text();
        let line = log.lines().find(|line| line.ends_with("dropped")).unwrap();
        assert!(line.contains("token_refresh{"), "{line}");
    }

    /// A subscriber that panics once more while a panic unwinds would abort the process.
    #[tokio::test(start_paused = true)]
    async fn panic_of_the_subscriber_is_an_error_of_the_fetch() {
        struct PanicsAtRecords;

        impl Subscriber for PanicsAtRecords {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }
            fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
                span::Id::from_u64(1)
            }
            fn record(&self, _: &span::Id, _: &span::Record<'_>) {
                panic!("a bug in the subscriber");
            }
            fn event(&self, _: &tracing::Event<'_>) {}
            fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
            fn enter(&self, _: &span::Id) {}
            fn exit(&self, _: &span::Id) {}
        }

        let _alone = run_alone().await;
        let guard = tracing::subscriber::set_default(PanicsAtRecords);
        let transport = tower::service_fn(|_: http::Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::default()))
        });
        let auth = ClientAuth::none("id");
        let endpoint = TokenEndpoint::with_transport("https://as.test/", auth, transport).unwrap();
        let error = TokenCache::new(ClientCredentials::new(endpoint)).token().await.unwrap_err();
        drop(guard);
        assert_eq!(error.kind(), TokenErrorKind::Panicked);
    }

    #[tokio::test(start_paused = true)]
    async fn missing_scope_and_step_up_are_reported() {
        let _alone = run_alone().await;
        let recorder = Recorder::default();
        let guard = tracing::subscriber::set_default(recorder.clone());
        for error in ["insufficient_scope", "insufficient_user_authentication"] {
            let setup = TestSetup::with_token().await;
            let api = tower::service_fn(move |_: http::Request<Body>| async move {
                let response = http::Response::builder().status(401);
                let response =
                    response.header("www-authenticate", format!("Bearer error=\"{error}\""));
                response.body(Body::default())
            });
            let origins = Origins::new([API]).unwrap();
            let client = OAuth::new(api, setup.cache.clone(), origins);
            tower::ServiceExt::oneshot(client, get("/")).await.unwrap();
        }
        drop(guard);
        let events = lock(&recorder.0).clone();
        let is_suppressed = |(_, fields): &&(_, String)| fields.starts_with("refresh suppressed");
        let fields: Vec<_> = events
            .iter()
            .filter(is_suppressed)
            .map(|(_, fields)| fields.rsplit("generation=1 ").next().unwrap())
            .collect();
        let expected =
            [r#"reason="insufficient_scope""#, r#"reason="insufficient_user_authentication""#];
        assert_eq!(fields, expected);
    }

    #[cfg(feature = "config")]
    #[tokio::test(start_paused = true)]
    async fn unreadable_lifetime_names_keys_and_members() {
        let _alone = run_alone().await;
        let config = "[source]\ntype = 'client_credentials'\ntoken_url = 'https://as.test/token'\n\
                      client_auth = { method = 'none', client_id = 'me' }\n\
                      response_format = { expires_at = '/at' }";
        let config: tower_oauth::config::ProviderConfig = toml::from_str(config).unwrap();
        let recorder = Recorder::default();
        let guard = tracing::subscriber::set_default(recorder.clone());
        for members in [r#""at":"T0KEN""#, r#""at":"T0KEN","expires_in":60"#] {
            let body = format!(r#"{{"access_token":"T0KEN",{members}}}"#);
            let transport = tower::service_fn(move |_: http::Request<Body>| {
                let response = http::Response::new(Body::from(body.clone()));
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let transport = tower::util::BoxCloneService::new(transport);
            config.token_cache_with_transport(transport).unwrap().token().await.unwrap();
        }
        drop(guard);
        let events = lock(&recorder.0).clone();
        assert!(!format!("{events:?}").contains("T0KEN"));
        let fields = events.iter().filter_map(|(_, fields)| {
            fields.strip_prefix("token lifetime unreadable; cache=\"default\" ")
        });
        assert_eq!(
            fields.collect::<Vec<_>>(),
            [
                r#"member="/at" used="default_lifetime" setting="response_format.expires_at""#,
                r#"member="/at" used="/expires_in" setting="response_format.expires_at""#,
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn chapter_lists_exactly_the_events() {
        let row = |(metadata, fields): (&'static Metadata<'static>, String)| {
            let message = fields.split(';').next().unwrap().to_owned();
            let fields: Vec<_> = (metadata.fields().iter())
                .map(|field| field.name())
                .filter(|name| !matches!(*name, "message" | "cache"))
                .collect();
            (message, metadata.level().to_string(), fields.join(", "))
        };
        let emitted: BTreeSet<_> = events_of_history().await.into_iter().map(row).collect();
        let is_row = |line: &&str| line.starts_with("| \"") || line.starts_with("| span");
        let listed: BTreeSet<_> = (CHAPTER.lines().filter(is_row))
            .map(|line| {
                let cells: Vec<_> = line.split('|').map(str::trim).collect();
                let message = cells[1].trim_start_matches("span ").replace(['"', '`'], "");
                (message, cells[2].to_uppercase(), cells[3].replace('`', ""))
            })
            .collect();
        assert_eq!(emitted, listed);
    }
}
