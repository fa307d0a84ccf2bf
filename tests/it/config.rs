//! Providers that are configured in a TOML file.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
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
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let expected = serde_json::json!({
        "grant_type": "client_credentials", "scope": "a b", "audience": "https://api.test",
        "resource": ["urn:1", "urn:2"], "tenant": "blue",
    });
    assert_eq!(body, expected);
}

#[tokio::test(start_paused = true)]
async fn token_request_limit_and_name_take_effect() {
    let limited = format!(
        "name = 'orders'\ntoken_request_limit = {{ most = 1, period = '1d' }}\n{}",
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
    let error = read(&limited.replace("most = 1", "most = 0")).unwrap_err().to_string();
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
fn unknown_key_is_named_in_the_error() {
    for (config, key) in [
        (grant("scpoe = 'x'"), "scpoe"),
        (grant("response_format = { acces_token = '/x' }"), "acces_token"),
        (grant("[orgins]"), "orgins"),
        (grant("").replace("client_id", "clientid"), "clientid"),
        ("source = { type = 'static_bearer', token = 't', user = 'u' }".into(), "user"),
        ("source = { type = 'token_file', path = 't', reread = '1s' }".into(), "reread"),
        (
            "source = { type = 'static_basic', user = 'u', password = { fiel = 'x' } }".into(),
            "file",
        ),
        ("source = { type = 'password' }".into(), "password"),
        (grant("request_format = 'xml'"), "xml"),
    ] {
        let error = read(&config).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
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

#[test]
fn duration_without_a_unit_is_an_error() {
    for duration in ["30", "'30'", "'-30s'", "'soon'", "''", "{ file = 'x' }", "'1 month'"] {
        let error = read(&grant(&format!("timeout = {duration}"))).unwrap_err().to_string();
        assert!(error.contains("30s") || error.contains("needed"), "{error}");
    }
    for duration in ["30s", "1h 30m", "24h", "500ms", "PT20S", "2 days"] {
        assert!(read(&grant(&format!("timeout = '{duration}'"))).is_ok(), "{duration}");
    }
}

#[test]
fn invalid_values_are_errors_when_the_cache_is_built() {
    for (config, said) in [
        (grant("issuer = 'https://as.test'"), "either token_url or issuer"),
        (
            grant("").replace("token_url = \"https://as.test/token\"", ""),
            "either token_url or issuer",
        ),
        (grant("").replace("https://as.test", "http://as.test"), "unencrypted"),
        (grant("response_format = { access_token = 'x' }"), "JSON Pointer"),
        (grant("refresh_at_age = '1h'\nrefresh_before_expiry = '1h'"), "both"),
        (grant("parameters = { client_secret = 'x' }"), "client_secret"),
        (grant("headers = { authorization = 'x' }"), "authorization"),
        (grant("ca_file = '/x'"), "ca_file"),
        (grant("discover_at = 'https://as.test'"), "discover_at, which needs an issuer"),
        (
            grant("issuer = 'https://as.test'\ndiscover_at = 'http://a.test'")
                .replace("token_url = \"https://as.test/token\"", ""),
            "does not begin with https://",
        ),
        (
            "source = { type = 'static_bearer', token = 'S3CRET\\n' }".replace('\'', "\""),
            "printable",
        ),
        ("source = { type = 'static_basic', user = 'a:b', password = 'S3CRET' }".into(), "colon"),
        (
            "source = { type = 'static_basic', user = 'a', password = 'S3CRET\\n' }"
                .replace('\'', "\""),
            "control character",
        ),
        (grant("").replace("S3CRET", "S3CRET\\n"), "control character in the client secret"),
        (grant("").replace("\"me\"", "\"me\\t\""), "control character in the client id"),
    ] {
        let (transport, _) = answering("");
        let config = read(&config).unwrap();
        let error = config.token_cache_with_transport(transport).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(!format!("{error} {error:?} {config:?}").contains("S3CRET"), "{error}");
    }
    let error = read(&grant("")).unwrap().origins().unwrap_err();
    assert_eq!(error, tower_oauth::ConfigError::NoOrigin);
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
    assert_eq!(error.kind(), TokenErrorKind::Configuration);
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
    for invalid in [&b""[..], b"\n", b"\xff\xfe", b"\xef\xbb\xbf\n", b"a\nb", b"\ta", b"a\0\n"] {
        std::fs::write(&file, invalid).unwrap();
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Configuration);
        wait_for_backoff(&error).await;
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
