//! Providers that are configured in a TOML file.

mod environment;
mod errors;
#[cfg(feature = "json-schema")]
mod schema;
mod setters;

use std::{collections::HashMap, convert::Infallible, fmt::Write, iter, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tower::util::BoxCloneService;
use tower_oauth::{TokenErrorKind, config::ProviderConfig};

use crate::support::wait_for_backoff;

fn read(toml: &str) -> Result<ProviderConfig, toml::de::Error> {
    toml::from_str(toml)
}

/// Returns a valid configuration with `extra` added to the source of the provider.
fn grant(extra: &str) -> String {
    format!(
        r#"
    [source]
    type = "client_credentials"
    token_url = "https://as.test/token"
    client_auth = {{ method = "client_secret_post", client_id = "me", client_secret = "S3CRET" }}
    {extra}
    "#
    )
}

type Transport = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

/// Returns a transport that gives the same answer to all requests, and a channel of the requests.
fn answering(answer: &'static str) -> (Transport, UnboundedReceiver<Request<Full<Bytes>>>) {
    let (sender, requests) = unbounded_channel();
    let transport = tower::service_fn(move |request| {
        sender.send(request).ok();
        std::future::ready(Ok(Response::new(Full::from(answer))))
    });
    (BoxCloneService::new(transport), requests)
}

#[tokio::test(start_paused = true)]
async fn every_key_of_a_grant_takes_effect() {
    let config = r#"
        origins = ["https://api.test"]
        refresh_timeout = "1m"

        [source]
        type = "client_credentials"
        token_url = "https://as.test/token"
        client_auth = { method = "client_secret_basic", client_id = "me", client_secret = "S3CRET" }
        scope = "a b"
        audience = "https://api.test"
        resource = ["urn:1", "urn:2"]
        parameters = { tenant = "blue" }
        request_format = "json"
        headers = { x-api-key = "K3Y", user-agent = "orders/2.1" }
        timeout = "10s"
        default_lifetime = "1h 30m"
        refresh_at_age = "1d"

        [source.response_format]
        access_token = "/data/token"
        expires_in = "/data/seconds"
        success = "/ok"
    "#;
    let answer = r#"{"ok":true,"data":{"token":"T0KEN","seconds":90000}}"#;
    let (transport, mut requests) = answering(answer);
    let config = read(config).unwrap();
    let cache = config.token_cache_with_transport(transport).unwrap();
    let token = cache.token().await.unwrap();
    assert_eq!(token.lifetime().unwrap().as_secs(), 90_000);
    let first = requests.recv().await.unwrap();
    tokio::time::advance(Duration::from_secs(86_399)).await;
    cache.token().await.unwrap();
    assert!(requests.try_recv().is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    cache.token().await.unwrap();
    assert!(requests.recv().await.is_some(), "the token is refreshed at the configured age");

    let (head, body) = first.into_parts();
    assert_eq!(head.headers["authorization"], "Basic bWU6UzNDUkVU");
    assert_eq!(head.headers["x-api-key"], "K3Y");
    assert!(head.headers["x-api-key"].is_sensitive());
    assert_eq!(head.headers["user-agent"], "orders/2.1");
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let expected = json!({
        "grant_type": "client_credentials", "scope": "a b", "audience": "https://api.test",
        "resource": ["urn:1", "urn:2"], "tenant": "blue",
    });
    assert_eq!(body, expected);
}

#[tokio::test(start_paused = true)]
async fn token_request_limit_and_name_take_effect() {
    let limited = format!(
        "name = 'orders'\ntoken_request_limit = {{ max = 1, period = '1d' }}\n{}",
        grant("")
    );
    let (transport, mut requests) = answering(r#"{"access_token":"T0KEN","expires_in":3600}"#);
    let cache = read(&limited).unwrap().token_cache_with_transport(transport).unwrap();
    assert!(format!("{cache:?}").contains("orders"), "{cache:?}");
    let token = cache.token().await.unwrap();
    cache.invalidate(token.generation());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.next_attempt_in(), Some(Duration::from_secs(86_400)), "{error}");
    assert!(requests.recv().await.is_some() && requests.try_recv().is_err());
    let error = read(&limited.replace("max = 1", "max = 0")).unwrap_err().to_string();
    assert!(error.contains("nonzero"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn issuer_with_a_back_channel_can_be_configured() {
    let config = grant("issuer = 'https://as.test'\ndiscover_at = 'https://internal.test'")
        .replace("token_url = \"https://as.test/token\"", "");
    let metadata = r#"{"issuer":"https://other.test"}"#;
    let (transport, mut requests) = answering(metadata);
    let cache = read(&config).unwrap().token_cache_with_transport(transport).unwrap();
    let error = cache.token().await.unwrap_err().to_string();
    assert!(
        error.contains("issuer https://as.test (discovered at https://internal.test"),
        "{error}"
    );
    let uri = requests.recv().await.unwrap().uri().to_string();
    assert_eq!(uri, "https://internal.test/.well-known/oauth-authorization-server");
}

#[test]
fn invalid_secret_is_not_quoted_in_the_error() {
    for secret in
        ["12345678", "12345678.5", "true", "['S3CRET']", "{ value = 'S3CRET' }", "{ file = 1 }"]
    {
        let config = grant("").replace("\"S3CRET\"", secret);
        let config = toml::from_str::<toml::Value>(&config).unwrap();
        let config = serde_json::to_value(config).unwrap();
        let error = serde_json::from_value::<ProviderConfig>(config).unwrap_err().to_string();
        assert!(!error.contains("12345678") && !error.contains("S3CRET"), "{error}");
        assert!(!error.is_empty());
    }
}

/// Returns a configuration of each type of source, with the text `S3CRET` in each value that may
/// hold a secret.
fn complete_configurations() -> Vec<Value> {
    let provider = |source: Value| {
        json!({
            "origins": ["https://api.test"], "without_authority": true, "name": "x",
            "rejection_statuses": [403, 419], "replay_cap": 1000, "refresh_timeout": "1m",
            "token_request_limit": { "max": 1, "period": "1d" }, "source": source,
        })
    };
    let pointers = ["access_token", "token_type", "expires_in", "expires_at"].into_iter();
    let pointers = pointers.chain(["scope", "success", "error", "error_description"]);
    let response_format: Value = pointers.map(|key| (key.to_owned(), json!("/x"))).collect();
    let grant = |client_auth: Value| {
        provider(json!({
            "type": "client_credentials", "token_url": "https://as.test/t?key=S3CRET",
            "client_auth": client_auth, "scope": "a", "audience": "b", "resource": ["urn:1"],
            "parameters": { "key": "S3CRET" }, "request_format": "json",
            "headers": { "x-key": "S3CRET" }, "response_format": response_format, "timeout": "1s",
            "default_lifetime": "1h", "refresh_at_age": "1d", "danger_plain_http": false,
            "max_token_bytes": 1000, "secrets": ["S3CRET"],
        }))
    };
    let with_secret =
        |method| grant(json!({ "method": method, "client_id": "me", "client_secret": "S3CRET" }));
    let with_secret_in = |place| grant(json!({ "client_id": "me", "client_secret": place }));
    let mut discovered = with_secret("client_secret_basic");
    let source = discovered["source"].as_object_mut().unwrap();
    source.remove("token_url");
    source.insert("issuer".into(), json!("https://as.test"));
    source.insert("discover_at".into(), json!("https://internal.test"));
    vec![
        discovered,
        with_secret("client_secret_basic"),
        with_secret("client_secret_basic_raw"),
        with_secret("client_secret_post"),
        with_secret_in(json!({ "file": "/x" })),
        with_secret_in(json!({ "env": "CARGO_PKG_NAME" })),
        grant(json!({ "client_id": "me", "client_secret": "S3CRET" })),
        grant(json!({ "method": "none", "client_id": "me" })),
        provider(json!({ "type": "static_bearer", "token": "S3CRET" })),
        provider(json!({ "type": "static_basic", "user": "u", "password": "S3CRET" })),
        provider(json!({ "type": "static_basic", "user": "u", "password": { "file": "/x" } })),
        provider(json!({ "type": "token_file", "path": "/x", "reread_after": "1m" })),
    ]
}

/// Returns the JSON Pointers of all values.
fn pointers(value: &Value, pointer: &str) -> Vec<String> {
    let members = value.as_object().into_iter().flatten();
    let members = members.map(|(key, value)| (format!("{pointer}/{key}"), value));
    let inner = members.flat_map(|(pointer, value)| pointers(value, &pointer));
    iter::once(pointer.to_owned()).chain(inner).collect()
}

/// Returns what is shown if the configuration is read, and if a cache is built from it.
fn shown(config: &Value) -> (String, String) {
    let mut read_errors = String::new();
    if let Err(error) = serde_json::from_value::<ProviderConfig>(config.clone()) {
        write!(read_errors, "{error} {error:?}").unwrap();
    }
    if let Err(error) = serde_json::from_str::<ProviderConfig>(&config.to_string()) {
        write!(read_errors, "{error} {error:?}").unwrap();
    }
    let mut build_errors = String::new();
    if let Ok(text) = toml::to_string(config) {
        match read(&text) {
            Err(error) => write!(read_errors, "{}", error.message()).unwrap(),
            Ok(config) => {
                write!(build_errors, "{config:?} {config:#?}").unwrap();
                let (transport, _) = answering("");
                let built = config.token_cache_with_transport(transport);
                let error = built.map(|_| ()).and(config.origins().map(|_| ()));
                write!(build_errors, "{error:?}").unwrap();
                if let Err(error) = error {
                    write!(build_errors, "{error}").unwrap();
                }
            }
        }
    }
    (read_errors, build_errors)
}

/// Returns values that no key can have, or that must not be shown.
fn wrong_values() -> Vec<Value> {
    vec![
        json!("S3CRET"),
        json!("S3CRET\n"),
        json!("https://S3CRET@a.test/?S3CRET"),
        json!("http://a.test/?S3CRET"),
        json!(7_357_073),
        json!(7357.073),
        json!(true),
        json!(null),
        json!(["S3CRET"]),
        json!([7_357_073, ["S3CRET"]]),
        json!({ "file": 7_357_073 }),
        json!({ "env": 7_357_073 }),
        json!({ "file": "x", "other": "S3CRET" }),
        json!({ "value": "S3CRET" }),
        json!({ "client_id": "S3CRET", "authorization": "S3CRET" }),
        json!({ "a b": "S3CRET", "c": "S3CRET\n" }),
    ]
}

#[test]
fn error_quotes_no_value_that_may_be_a_secret() {
    /// The keys with an enumeration.
    const QUOTED: [&str; 3] = ["/type", "/method", "/request_format"];
    /// The keys of which even a value of the right type is not shown.
    const SECRET: [&str; 6] =
        ["client_secret", "token", "password", "headers", "parameters", "secrets"];

    let wrong = wrong_values();
    let mut errors = 0;
    let mut check = |config: &Value, pointer: &str| {
        let (read, built) = shown(config);
        errors += usize::from(!read.is_empty());
        let contains_secret = |shown: &str| ["S3CRET", "7357"].iter().any(|it| shown.contains(it));
        let is_quoted = QUOTED.iter().any(|key| pointer.ends_with(key));
        assert!(is_quoted || !contains_secret(&read), "{pointer}: {read}\n{config}");
        // The path of a secret file is no secret, and neither is the name of a variable.
        let is_place = pointer.ends_with("/file") || pointer.ends_with("/env");
        let is_secret = !is_place && pointer.split('/').any(|key| SECRET.contains(&key));
        assert!(!is_secret || !contains_secret(&built), "{pointer}: {built}\n{config}");
    };
    for complete in complete_configurations() {
        assert_eq!(shown(&complete).0, "", "{complete}");
        assert!(!shown(&complete).1.contains("S3CRET"), "{}", shown(&complete).1);
        for pointer in pointers(&complete, "") {
            for wrong in &wrong {
                let mut config = complete.clone();
                *config.pointer_mut(&pointer).unwrap() = wrong.clone();
                check(&config, &pointer);
            }
            let mut config = complete.clone();
            if let Some(table) = config.pointer_mut(&pointer).unwrap().as_object_mut() {
                for unknown in [json!("S3CRET"), json!(7_357_073), json!({ "x": "S3CRET" })] {
                    table.insert("unknown".into(), unknown);
                }
                check(&config, &pointer);
            }
            if let Some((table, key)) = pointer.rsplit_once('/') {
                let mut config = complete.clone();
                config.pointer_mut(table).unwrap().as_object_mut().unwrap().remove(key);
                check(&config, table);
            }
        }
    }
    assert!(errors > 500, "only {errors} errors");
}

#[test]
fn message_about_invalid_toml_quotes_no_value() {
    for wrong in [
        "S3CRET",
        "\"S3CRET",
        "'S3CRET",
        "\"S3CRET\\q\"",
        "\"S3CRET\u{1}\"",
        "\"x\", client_secret = \"S3CRET\"",
        "\"\" S3CRET",
        "{ S3CRET }",
        "[S3CRET]",
        "7357073x",
    ] {
        let error = read(&grant("").replace("\"S3CRET\"", wrong)).unwrap_err();
        let message = error.message();
        assert!(!message.contains("S3CRET") && !message.contains("7357"), "{wrong}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn secret_file_is_read_for_each_token_request() {
    let folder = std::env::temp_dir().join(format!("tower-oauth-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("secret");
    let file_key = format!("{{ file = {:?} }}", file.to_str().unwrap());
    let config = grant("").replace("\"S3CRET\"", &file_key);
    let (transport, mut requests) = answering(r#"{"access_token":"T0KEN"}"#);
    let cache = read(&config).unwrap().token_cache_with_transport(transport).unwrap();

    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Transport, "the file may still be written");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    wait_for_backoff(&error).await;
    for (content, sent) in [
        ("one\n", "client_secret=one"),
        ("two\r\n", "client_secret=two"),
        ("\u{feff}three\r\n\n", "client_secret=three"),
    ] {
        std::fs::write(&file, content).unwrap();
        let token = cache.token().await.unwrap();
        cache.invalidate(token.generation());
        let request = requests.recv().await.unwrap();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).ends_with(sent), "{body:?}");
    }
    for (kind, contents) in [
        (TokenErrorKind::Transport, &[&b""[..], b"\n", b"\xef\xbb\xbf\n"][..]),
        (TokenErrorKind::Configuration, &[b"\xff\xfe", b"a\nb", b"\ta", b"a\0\n"]),
    ] {
        for invalid in contents {
            std::fs::write(&file, invalid).unwrap();
            let error = cache.token().await.unwrap_err();
            assert_eq!(error.kind(), kind, "{invalid:?}");
            wait_for_backoff(&error).await;
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn static_tokens_and_token_files_can_be_configured() {
    let file = std::env::temp_dir().join(format!("tower-oauth-token-{}", std::process::id()));
    std::fs::write(&file, "from-a-file\n").unwrap();
    let config = format!(
        r#"
    bearer = {{ source = {{ type = "static_bearer", token = "fixed" }} }}
    basic = {{ source = {{ type = "static_basic", user = "Aladdin", password = "open sesame" }} }}
    file = {{ source = {{ type = "token_file", path = {:?}, reread_after = "5m" }} }}
    "#,
        file.to_str().unwrap()
    );
    let providers: HashMap<String, ProviderConfig> = toml::from_str(&config).unwrap();
    for (name, header) in [
        ("bearer", "Bearer fixed"),
        ("basic", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("file", "Bearer from-a-file"),
    ] {
        let (transport, _) = answering("");
        let cache = providers[name].token_cache_with_transport(transport).unwrap();
        assert_eq!(cache.token().await.unwrap().header_value(), header);
    }
    std::fs::remove_file(file).unwrap();
}

#[tokio::test(start_paused = true)]
async fn maximum_length_of_a_token_is_configurable() {
    let answer = r#"{"access_token":"T0KEN"}"#;
    for (max, is_accepted) in [(5, true), (4, false)] {
        let config = read(&grant(&format!("max_token_bytes = {max}"))).unwrap();
        let cache = config.token_cache_with_transport(answering(answer).0).unwrap();
        match cache.token().await {
            Ok(token) => assert!(is_accepted && token.expose_secret() == "T0KEN"),
            Err(error) => assert!(!is_accepted && error.to_string().contains("; raise max_token_")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn encoding_of_the_response_is_configurable() {
    for (format, answer) in [
        ("{ encoding = 'form', expires_in = '/expires' }", "access_token=T0KEN&expires=60"),
        ("{ encoding = 'text' }", "T0KEN\n"),
        ("{ encoding = 'json' }", r#"{"access_token":"T0KEN"}"#),
    ] {
        let config = read(&grant(&format!("response_format = {format}"))).unwrap();
        let cache = config.token_cache_with_transport(answering(answer).0).unwrap();
        assert_eq!(cache.token().await.unwrap().expose_secret(), "T0KEN", "{format}");
    }
    let unknown = read(&grant("response_format = { encoding = 'xml' }")).unwrap_err();
    assert!(unknown.to_string().contains("xml"), "{unknown}");
}
