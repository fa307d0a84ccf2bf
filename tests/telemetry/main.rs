//! What is told to `tracing` and counted with `metrics`, name by name as in the chapter of the documentation.
//!
//! A binary of its own, one test after the other: what `tracing` knows of its callsites is shared by all threads, and a test
//! that listens would miss what another one comes across for the first time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // that is how a test fails

#[path = "../it/support.rs"]
#[allow(dead_code)] // of what the other tests need
mod support;

use std::{num::NonZeroU32, time::Duration};

use tokio::sync::{Mutex, MutexGuard};

use crate::support::{Asleep, Plan, World};

const CHAPTER: &str = include_str!("../../src/docs/telemetry.md");

/// Held by each test.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// A history in which everything happens that is counted.
async fn an_eventful_history() {
    let asleep = Asleep::default();
    let world = World::with(|cache| {
        let most = NonZeroU32::new(6).unwrap();
        asleep.wall_clock(cache.name("orders").token_request_limit(most, Duration::from_secs(86_400)))
    });
    world.issuer.plan([Plan::Fail]);
    world.get().await.unwrap_err(); // waited, failed
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.get().await.unwrap(); // waited, fetched, attached
    world.api.revoke(1);
    let (one, other) = tokio::join!(world.get(), world.get()); // two refused, one late; waited, recovered
    assert!(one.unwrap().is_success() && other.unwrap().is_success());
    for number in 2..5 {
        world.api.revoke(number);
    }
    world.issuer.plan([Plan::IssueRevoked]);
    world.get().await.unwrap(); // refused, waited, futile
    world.get().await.unwrap(); // refused, no help
    tokio::time::advance(Duration::from_secs(2520)).await;
    world.get().await.unwrap(); // renewed behind
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_secs(30)).await;
    world.get().await.unwrap(); // looked at
    asleep.for_another(Duration::from_secs(600));
    tokio::time::advance(Duration::from_secs(30)).await;
    world.get().await.unwrap(); // older than it seemed
    world.cache.invalidate(world.cache.current().unwrap().generation());
    world.get().await.unwrap(); // the last that is allowed
    let elsewhere = http::Request::get("https://elsewhere.test/").body(support::Body::default()).unwrap();
    tower::ServiceExt::oneshot(world.client.clone(), elsewhere).await.unwrap(); // no token
    let mut own = support::get("/");
    own.headers_mut().insert("authorization", "Basic Og==".parse().unwrap());
    tower::ServiceExt::oneshot(world.client.clone(), own).await.unwrap(); // none, either
    world.cache.close();
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::{collections::BTreeSet, time::Duration};

    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshot};

    use super::{CHAPTER, alone, an_eventful_history};
    use crate::support::{Asleep, World};

    /// What a history leaves behind in a recorder.
    async fn counted() -> Snapshot {
        let _alone = alone().await;
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let guard = metrics::set_default_local_recorder(&recorder);
        an_eventful_history().await;
        drop(guard);
        snapshotter.snapshot()
    }

    #[tokio::test(start_paused = true)]
    async fn each_happening_is_counted_once() {
        let mut counted: Vec<String> = (counted().await.into_vec().into_iter())
            .map(|(key, _, _, value)| {
                let labels = key.key().labels().filter(|label| label.key() != "cache");
                let labels: Vec<_> =
                    labels.map(|label| format!(" {}={}", label.key(), label.value())).collect();
                assert!(key.key().labels().any(|label| (label.key(), label.value()) == ("cache", "orders")));
                let value = match value {
                    DebugValue::Counter(count) => count.to_string(),
                    DebugValue::Gauge(value) => format!("{value:.0}"),
                    DebugValue::Histogram(_) => unreachable!("there is none"),
                };
                format!("{}{} {value}", key.key().name().trim_start_matches("tower_oauth_"), labels.concat())
            })
            .collect();
        counted.sort();
        assert_eq!(
            counted,
            [
                "attached_total 13",
                "fetch_failed_total kind=transport 1",
                "fetched_total 5",
                "futile_total 1",
                "limit_reached_total 1",
                "recovered_total 3",
                "refused_total 6",
                "suppressed_total reason=late 2",
                "suppressed_total reason=no_help 1",
                "token_remaining_seconds 3600",
                "waited_total 6",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_token_is_looked_at_every_half_a_minute_of_use() {
        let _alone = alone().await;
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        // Zero where it was not set since it was last asked for.
        let remaining = || {
            let metrics = snapshotter.snapshot().into_vec();
            let gauge = metrics.into_iter().find_map(|(_, _, _, value)| match value {
                DebugValue::Gauge(value) => Some(value.into_inner()),
                _ => None,
            });
            gauge.map(f64::round).map(|value| format!("{value}"))
        };
        let asleep = Asleep::default();
        let world = World::with(|cache| asleep.wall_clock(cache));
        let mut seen = Vec::new();
        for (awake, slept) in [(0, 0), (29, 0), (1, 0), (30, 600)] {
            asleep.for_another(Duration::from_secs(slept));
            tokio::time::advance(Duration::from_secs(awake)).await;
            world.get().await.unwrap();
            seen.push(remaining());
        }
        let seen: Vec<_> = seen.iter().map(Option::as_deref).collect();
        assert_eq!(seen, [Some("3600"), Some("0"), Some("3570"), Some("2940")]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_chapter_has_all_names_and_no_others() {
        let counted = counted().await.into_vec();
        let names: BTreeSet<&str> = counted.iter().map(|(key, ..)| key.key().name()).collect();
        let described = CHAPTER.split('`').filter(|word| word.starts_with("tower_oauth_")).collect();
        assert_eq!(names, described);
        for (key, unit, what, _) in &counted {
            assert!(unit.is_some() && what.is_some(), "{key:?} is described to the recorder");
        }
    }
}

#[cfg(feature = "tracing")]
mod tracing {
    use std::{
        collections::BTreeSet,
        fmt::Write,
        sync::{Arc, Mutex},
    };

    use tracing::{
        Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };

    use super::{CHAPTER, alone, an_eventful_history};
    use crate::support::{Log, World, lock};

    /// What is told to a subscriber: each span and event with its fields.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<(&'static Metadata<'static>, String)>>>);

    struct Fields(String);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            match field.name() {
                "message" => write!(self.0, "{value:?};"),
                name if name.ends_with("_s") => write!(self.0, " {name}"),
                name => write!(self.0, " {name}={value:?}"),
            }
            .unwrap();
        }
    }

    impl Subscriber for Told {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "tower_oauth"
        }

        fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
            assert!(span.is_root());
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

    async fn told() -> Vec<(&'static Metadata<'static>, String)> {
        let _alone = alone().await;
        let told = Told::default();
        let guard = tracing::subscriber::set_default(told.clone());
        an_eventful_history().await;
        drop(guard);
        lock(&told.0).clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_is_told_with_generations_reasons_and_durations() {
        let told: Vec<String> = (told().await.into_iter())
            .map(|(metadata, fields)| {
                format!("{} {fields}", metadata.level()).replace(" cache=\"orders\"", "")
            })
            .map(|line| line.split(" no further attempt for").next().unwrap().to_owned()) // a matter of chance
            .collect();
        assert_eq!(
            told,
            [
                r#"DEBUG token_refresh; reason="first""#,
                "DEBUG somebody waits for a token;",
                r#"WARN no new token; kind="transport" reason="first" error=the issuer is down; check the URL, the network and the TLS trust;"#,
                r#"DEBUG token_refresh; reason="first""#,
                "DEBUG somebody waits for a token;",
                r#"INFO a new token; generation=1 reason="first" lifetime_s took_s"#,
                "DEBUG the token was refused; generation=1 status=401",
                r#"DEBUG token_refresh; reason="refused" replaces=1"#,
                "DEBUG somebody waits for a token;",
                "DEBUG the token was refused; generation=1 status=401",
                r#"DEBUG the refusal costs no refresh; generation=1 reason="late""#,
                "DEBUG somebody waits for a token;",
                r#"INFO a new token; generation=2 reason="refused" lifetime_s took_s"#,
                "DEBUG the repeated request was accepted; generation=2",
                "DEBUG the repeated request was accepted; generation=2",
                "DEBUG the token was refused; generation=2 status=401",
                r#"DEBUG token_refresh; reason="refused" replaces=2"#,
                "DEBUG somebody waits for a token;",
                r#"INFO a new token; generation=3 reason="refused" lifetime_s took_s"#,
                "DEBUG the token was refused; generation=3 status=401",
                "WARN the repeated request was refused, too; generation=3",
                "DEBUG the token was refused; generation=3 status=401",
                r#"DEBUG the refusal costs no refresh; generation=3 reason="no_help""#,
                r#"DEBUG token_refresh; reason="stale" replaces=3"#,
                r#"INFO a new token; generation=4 reason="stale" lifetime_s took_s"#,
                "DEBUG the token was refused; generation=3 status=401",
                r#"DEBUG the refusal costs no refresh; generation=3 reason="late""#,
                "DEBUG the repeated request was accepted; generation=4",
                "INFO the machine slept, and the token is so much older; slept_s",
                r#"DEBUG token_refresh; reason="refused" replaces=4"#,
                "WARN this was the last token request that the limit of the cache allows for now; next_request_s",
                "DEBUG somebody waits for a token;",
                r#"INFO a new token; generation=5 reason="refused" lifetime_s took_s"#,
                r#"DEBUG a request goes out without a token; reason="origin""#,
                r#"DEBUG a request goes out without a token; reason="header""#,
                "DEBUG the cache is closed;",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_follows_from_the_span_of_whoever_came_first_and_is_told_within_its_own() {
        let _alone = alone().await;
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let world = World::with(|cache| cache.name("orders"));
        let caller = tracing::info_span!("caller");
        tracing::Instrument::instrument(world.get(), caller).await.unwrap();
        drop(guard);
        let log = log.text();
        let line = |message: &str| log.lines().find(|line| line.contains(message)).unwrap().to_owned();
        assert!(line("somebody waits").contains("caller: tower_oauth:"), "{log}");
        let told = line("a new token");
        assert!(
            told.contains("INFO token_refresh{cache=\"orders\" reason=\"first\"}: tower_oauth:"),
            "{told}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_chapter_has_all_messages_with_their_levels_and_fields_and_no_others() {
        let row = |(metadata, fields): (&'static Metadata<'static>, String)| {
            let message = fields.split(';').next().unwrap().to_owned();
            let fields: Vec<_> = (metadata.fields().iter())
                .map(|field| field.name())
                .filter(|name| !matches!(*name, "message" | "cache"))
                .collect();
            (message, metadata.level().to_string(), fields.join(", "))
        };
        let told: BTreeSet<_> = told().await.into_iter().map(row).collect();
        let rows = CHAPTER.lines().filter(|line| line.starts_with("| \"") || line.starts_with("| span"));
        let described: BTreeSet<_> = rows
            .map(|line| {
                let cells: Vec<_> = line.split('|').map(str::trim).collect();
                let message = cells[1].trim_start_matches("span ").replace(['"', '`'], "");
                (message, cells[2].to_uppercase(), cells[3].replace('`', ""))
            })
            .collect();
        assert_eq!(told, described);
    }
}
