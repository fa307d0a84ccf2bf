//! Logs, `Debug` output and errors show no token and no secret.

use std::fmt::{Debug, Write as _};

use http::{Request, Response, StatusCode, header::LOCATION};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{
    AccessToken, ClientAuth, ClientCredentials, ConfigError, Issuer, Location, OAuthLayer, Origins,
    ResponseFormat, Secret, StaticToken, TokenCache, TokenEndpoint, TokenError, TokenErrorKind,
    TokenRequest, TokenUrl,
};

use crate::{
    loopback::{Authority, http1_client, http2_client, json, serve},
    support::CapturedLog,
};

/// Parts of the client secret (plain, and in a Basic credential), of the tokens, and of the query
/// of the token URL.
const SECRETS: &[&str] = &["s3cr", "czNjciV0", "bXklMjBjbGllbnQ6czNjciUyNXQ", "T0KEN", "K3Y"];

fn assert_shows_no_secret(shown: &str) {
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[tokio::test]
async fn logs_of_all_crates_show_no_secret() {
    let log = CapturedLog::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    for client in [http1_client(), http2_client()] {
        let authority = Authority::default();
        let api = authority.api().await;
        let client = authority.layer(api).await.layer(client);
        for _ in 0..2 {
            let request = Request::post(format!("http://{api}/"));
            let request = request.body(Full::from("body")).unwrap();
            let response = client.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            authority.revoke_all();
        }
    }
    let log = log.text();
    assert!(log.contains("h2::"), "the log of the transport is captured as well: {log}");
    assert_shows_no_secret(&log);
}

#[tokio::test]
async fn debug_output_shows_no_secret() {
    let mut shown = String::new();
    let mut show = |value: &dyn Debug| {
        assert!(!format!("{value:?}").is_empty());
        write!(shown, "{value:?} {value:#?}").unwrap();
    };

    let (id, secret) = Authority::CLIENT;
    let authority = Authority::default();
    let url = format!("http://{}/token?key=K3Y", authority.token_endpoint().await);
    show(&Secret::from(secret));
    let basic = ClientAuth::client_secret_basic(id, secret);
    show(&basic);
    show(&ClientAuth::client_secret_post(id, secret));
    let endpoint = TokenEndpoint::with_transport(url, basic, http1_client()).unwrap();
    show(&endpoint);
    let token_url: TokenUrl = "https://as.test/token?key=K3Y".parse().unwrap();
    show(&token_url);
    show(&endpoint.send(TokenRequest::new("client_credentials")).await.unwrap());
    let grant = ClientCredentials::new(endpoint).parameter("api_key", "K3Y").unwrap();
    show(&grant);
    let grant = ClientCredentials::new(
        TokenEndpoint::with_transport(
            format!("http://{}/token?key=K3Y", authority.token_endpoint().await),
            ClientAuth::client_secret_basic(id, secret),
            http1_client(),
        )
        .unwrap(),
    );
    show(&TokenCache::builder(grant.clone()));
    let cache = TokenCache::new(grant);
    let token = cache.token().await.unwrap();
    assert!(token.expose_secret().starts_with("T0KEN"));
    show(&token);
    show(&AccessToken::clone(&token));
    show(&token.header_value());
    show(&cache);
    show(&cache.subscribe());
    let api = authority.api().await;
    let layer = OAuthLayer::new(cache, Origins::new([format!("http://{api}")]).unwrap());
    show(&layer);
    let mut service = layer.layer(http1_client());
    show(&service);
    let request = Request::get(format!("http://{api}/")).body(Full::default()).unwrap();
    let response = service.call(request);
    show(&response);
    response.await.unwrap();
    assert_shows_no_secret(&shown);
}

#[tokio::test]
async fn errors_show_no_secret_that_the_server_returns() {
    let responses = [
        (400, r#"{"error":"invalid_client","error_description":"my client:s3cr%t:+ü is wrong"}"#),
        (400, r#"{"error":"s3cr%t:+ü","error_uri":"https://x/?s=s3cr%25t%3A%2B%C3%BC"}"#),
        (
            400,
            r#"{"error":"x","error_description":"bXklMjBjbGllbnQ6czNjciUyNXQlM0ElMkIlQzMlQkM="}"#,
        ),
        (200, r#"{"access_token":"T0KEN\u0000"}"#),
        (200, r#"{"access_token":"T0KEN","expires_in":"T0KEN","token_type":"T0KEN"}"#),
        (200, r#"{"access_token":"T0KEN"#),
        (500, r#"{"message":"no s3cr%t:+ü","other":"T0KEN"}"#),
    ];
    for (status, body) in responses {
        let response = json(status, body);
        let address = serve(move |_| std::future::ready(response.clone())).await;
        let (id, secret) = Authority::CLIENT;
        let auth = ClientAuth::client_secret_basic(id, secret);
        let url = format!("http://{address}/token?key=K3Y");
        let endpoint = TokenEndpoint::with_transport(url, auth, http1_client()).unwrap();
        let cache = TokenCache::new(ClientCredentials::new(endpoint));
        let error = cache.token().await.unwrap_err();
        let mut shown = format!("{error} {error:?} {error:#?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            write!(shown, "{cause} {cause:?}").unwrap();
            source = cause.source();
        }
        assert_shows_no_secret(&shown);
    }
}

/// Prints all messages, so that a person can read them:
/// `cargo test --all-features --test it every_ -- --nocapture`.
/// The URL is cut, and its query is left out. Neither may leave a part of a secret.
#[tokio::test]
async fn secret_in_a_url_of_the_server_is_not_shown() {
    for (secret, path) in
        [("s3cr/e@t?x#y".to_owned(), String::new()), ("s3cr".repeat(20), "p".repeat(170))]
    {
        let url = format!("as.test/{path}/{secret}");
        for (is_discovered, answer) in [
            (false, format!("https://{url}")),
            (true, format!(r#"{{"issuer":"https://{url}"}}"#)),
            (true, format!(r#"{{"issuer":"https://as.test","token_endpoint":"https://{url}"}}"#)),
            (true, format!(r#"{{"issuer":"https://as.test","token_endpoint":"http://{url}"}}"#)),
            (true, format!(r#"{{"issuer":"https://as.test","token_endpoint":"ftp://{url}"}}"#)),
        ] {
            let transport = tower::service_fn(move |request: Request<Full<bytes::Bytes>>| {
                let response = Response::builder();
                let response = match (is_discovered, request.method() == http::Method::GET) {
                    (true, true) => response.body(Full::<bytes::Bytes>::from(answer.clone())),
                    (true, false) => response.body(Full::from("{}")),
                    (false, _) => {
                        let response = response.status(StatusCode::FOUND);
                        response.header(LOCATION, &answer).body(Full::default())
                    }
                };
                async { response }
            });
            let location: Location = if is_discovered {
                "https://as.test".parse::<Issuer>().unwrap().into()
            } else {
                "https://as.test/token".parse::<TokenUrl>().unwrap().into()
            };
            let auth = ClientAuth::client_secret_post("id", secret.as_str());
            let endpoint = TokenEndpoint::with_transport(location, auth, transport).unwrap();
            let error = endpoint.send(TokenRequest::new("client_credentials")).await.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("as.test"), "{shown}");
            assert_shows_no_secret(&shown);
            assert!(!shown.contains("t?x") && !shown.contains("#y"), "{shown}");
        }
    }
}

#[test]
fn every_token_error_says_what_to_do() {
    let kinds = [
        TokenErrorKind::Configuration,
        TokenErrorKind::Transport,
        TokenErrorKind::Timeout,
        TokenErrorKind::Server,
        TokenErrorKind::Rejected,
        TokenErrorKind::InvalidResponse,
        TokenErrorKind::Panicked,
        TokenErrorKind::Runtime,
        TokenErrorKind::LimitReached,
        TokenErrorKind::Closed,
    ];
    for kind in kinds {
        let message = TokenError::new(kind, "this happened").to_string();
        println!("{kind:?}: {message}");
        let (what, next_step) = message.split_once("; ").unwrap();
        assert_eq!(what, "this happened");
        assert!(next_step.len() > 20, "{message}");
    }
}

/// Returns an error of each kind and for each reason, with a part of the message that it must have:
/// the invalid value, or the setting to change.
fn config_errors() -> Vec<(ConfigError, &'static str)> {
    let auth = || ClientAuth::client_secret_basic("id", "secret");
    let url = "https://as.test/token";
    let endpoint = |auth| TokenEndpoint::with_transport(url, auth, http1_client());
    let header = |name, value| {
        let endpoint = endpoint(auth()).unwrap().header("x-key", "1").unwrap();
        endpoint.header(name, value).unwrap_err()
    };
    let parameter = |name| {
        let grant = ClientCredentials::new(endpoint(auth()).unwrap());
        grant.parameter("tenant", "1").unwrap().parameter(name, "2").unwrap_err()
    };
    let pointer = |pointer| ResponseFormat::default().access_token(pointer).unwrap_err();

    let token_urls = [
        "as.test/token",
        "ftp://as.test",
        "https://me@as.test",
        "https://:1/as.test",
        "https://as.test#x",
    ];
    let token_urls = token_urls.map(|url| (TokenUrl::try_from(url).unwrap_err(), "as.test"));
    let issuers = ["as.test", "http://as.test", "https://me@as.test", "https://as.test?x"];
    let issuers = issuers.map(|issuer| (Issuer::try_from(issuer).unwrap_err(), "as.test"));
    let origins =
        ["a.test", "a.test/ b", "https://a.test:0", "https://*.a.test", "https://a.test/b"];
    let origins = origins.map(|origin| (Origins::new([origin]).unwrap_err(), "a.test"));
    let auths = [
        (ClientAuth::client_secret_post("id\n", "secret"), "client id"),
        (ClientAuth::client_secret_post("id", "secret\n"), "client secret"),
    ];
    let auths = auths.map(|(auth, part)| (endpoint(auth).unwrap_err(), part));
    let errors = vec![
        (TokenUrl::try_from("http://as.test/").unwrap_err(), "TokenUrl::danger_plain_http"),
        (Origins::new([""; 0]).unwrap_err(), "Origins::without_authority"),
        (parameter("grant_type"), "grant_type"),
        (parameter("scope"), "\"scope\" has a setting"),
        (parameter("client_secret"), "client authentication"),
        (parameter("tenant"), "tenant"),
        (header("a b", "1"), "a b"),
        (header("authorization", "1"), "authorization"),
        (header("x-other", "\n"), "x-other"),
        (header("x-key", "2"), "x-key"),
        (pointer("data/token"), "data/token"),
        (pointer("/data~token"), "/data~token"),
        (StaticToken::bearer("token\n").unwrap_err(), "access token"),
        (StaticToken::basic("a:b", "secret").unwrap_err(), "colon"),
        (StaticToken::basic("a\n", "secret").unwrap_err(), "user name"),
        (StaticToken::basic("a", "secret\n").unwrap_err(), "password"),
    ];
    #[cfg(feature = "default-transport")]
    let errors = {
        let pems = ["garbage", "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----"];
        let error = |pem| TokenEndpoint::new_trusting(url, auth(), pem).unwrap_err();
        errors.into_iter().chain(pems.map(|pem| (error(pem), "certificate"))).collect::<Vec<_>>()
    };
    #[cfg(feature = "config")]
    let errors = [errors, errors_of_configuration_files()].concat();
    errors.into_iter().chain(token_urls).chain(issuers).chain(origins).chain(auths).collect()
}

#[cfg(feature = "config")]
fn errors_of_configuration_files() -> Vec<(ConfigError, &'static str)> {
    let read = |settings: &str| -> tower_oauth::config::ProviderConfig {
        let toml = format!(
            "[source]\ntype = 'client_credentials'\nclient_auth = {{ method = \
             'client_secret_post', client_id = 'id', client_secret = 'secret' }}\n{settings}"
        );
        toml::from_str(&toml).unwrap()
    };
    let errors = [
        ("", "either `source.token_url` or `source.issuer`"),
        (
            "token_url = 'https://as.test'\nissuer = 'https://as.test'",
            "both `source.token_url` and `source.issuer`",
        ),
        ("token_url = 'http://as.test'", "set `source.danger_plain_http` to true"),
        ("token_url = 'https://as.test'\ndiscover_at = 'https://b.test'", "needs `source.issuer`"),
        (
            "issuer = 'https://as.test'\nrefresh_at_age = '1h'\nrefresh_before_expiry = '1h'",
            "both `source.refresh_at_age` and",
        ),
        ("issuer = 'https://as.test'\nca_file = '/absent'", "ca_file"),
        ("issuer = 'https://as.test'\nparameters = { scope = 'x' }", "scope"),
        ("issuer = 'https://as.test'\nheaders = { host = 'x' }", "host"),
        ("issuer = 'https://as.test'\nresponse_format = { error = 'x' }", "JSON Pointer"),
    ];
    let errors = errors.into_iter().map(|(settings, part)| {
        (read(settings).token_cache_with_transport(http1_client()).unwrap_err(), part)
    });
    #[cfg(feature = "default-transport")]
    let errors = {
        let absent = read("issuer = 'https://as.test'\nca_file = '/absent'");
        errors
            .chain([(absent.token_cache().unwrap_err(), "`source.ca_file` names the file /absent")])
    };
    errors.collect()
}

/// Prints all messages, so that a person can read them, as [`every_token_error_says_what_to_do`].
#[test]
fn every_config_error_names_what_to_change() {
    let errors = config_errors();
    for (error, part) in &errors {
        println!("{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let kinds: std::collections::HashSet<_> =
        errors.iter().map(|(error, _)| std::mem::discriminant(error)).collect();
    let mut expected = 10;
    // `Tls` depends on the machine.
    expected += usize::from(cfg!(feature = "default-transport"));
    expected += 2 * usize::from(cfg!(feature = "config"));
    assert_eq!(kinds.len(), expected, "{errors:?}");
}
