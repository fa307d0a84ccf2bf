//! Logs, `Debug` output and errors show no token and no secret.

use std::fmt::{Debug, Write as _};

use http::{Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{
    AccessToken, ClientAuth, ClientCredentials, ConfigError, Issuer, OAuthLayer, Origins,
    ResponseFormat, Secret, StaticToken, TokenCache, TokenEndpoint, TokenError, TokenErrorKind,
    TokenUrl,
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
    let mut show = |value: &dyn Debug| write!(shown, "{value:?} {value:#?}").unwrap();

    let (id, secret) = Authority::CLIENT;
    let authority = Authority::default();
    let url = format!("http://{}/token?key=K3Y", authority.token_endpoint().await);
    show(&Secret::from(secret));
    let basic = ClientAuth::client_secret_basic(id, secret);
    show(&basic);
    show(&ClientAuth::client_secret_post(id, secret));
    let endpoint = TokenEndpoint::with_transport(url, basic, http1_client()).unwrap();
    show(&endpoint);
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
        (200, r#"{"access_token":"T0KEN","expires_in":"T0KEN"}"#),
        (200, r#"{"access_token":"T0KEN"#),
        (500, r#"{"message":"T0KEN s3cr%t:+ü"}"#),
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

/// Prints all messages, so that a person can read them, as [`every_token_error_says_what_to_do`].
#[test]
fn every_config_error_names_the_invalid_value() {
    let auth = || ClientAuth::client_secret_basic("id", "secret");
    let url = "https://as.test/token";
    let endpoint = || TokenEndpoint::with_transport(url, auth(), http1_client()).unwrap();
    let grant = || ClientCredentials::new(endpoint());
    let repeated = grant().parameter("the-value", "1").unwrap().parameter("the-value", "2");
    let errors = [
        TokenUrl::try_from("ftp://the-value.test/").unwrap_err(),
        TokenUrl::try_from("http://the-value.test/").unwrap_err(),
        Origins::new(["the-value"]).unwrap_err(),
        repeated.unwrap_err(),
        endpoint().header("the-value:", "1").unwrap_err(),
        ResponseFormat::default().access_token("the-value").unwrap_err(),
        Issuer::try_from("http://the-value.test").unwrap_err(),
    ];
    let kinds = errors.each_ref().map(std::mem::discriminant);
    assert!((1..kinds.len()).all(|end| !kinds[..end].contains(&kinds[end])), "{errors:?}");
    for error in errors {
        println!("{error}");
        assert!(error.to_string().contains("the-value"), "{error}");
    }

    let user_with_colon = StaticToken::basic("a:b", "secret").unwrap_err();
    println!("{user_with_colon}");
    assert!(matches!(user_with_colon, ConfigError::StaticToken { .. }), "{user_with_colon:?}");
    assert!(user_with_colon.to_string().contains("colon"), "{user_with_colon}");

    #[cfg(feature = "default-transport")]
    {
        let garbage = TokenEndpoint::new_trusting(url, auth(), "garbage").unwrap_err();
        println!("{garbage}");
        assert!(matches!(garbage, ConfigError::Certificates { .. }), "{garbage:?}");
        assert!(garbage.to_string().contains("no certificate"), "{garbage}");
    }

    #[cfg(feature = "config")]
    {
        let toml = "[source]\ntype = 'client_credentials'\n\
                    client_auth = { method = 'client_secret_post', client_id = 'id', \
                    client_secret = 'secret' }";
        let provider: tower_oauth::config::ProviderConfig = toml::from_str(toml).unwrap();
        let no_url = provider.token_cache_with_transport(http1_client()).unwrap_err();
        println!("{no_url}");
        assert!(matches!(no_url, ConfigError::Provider { .. }), "{no_url:?}");
        assert!(no_url.to_string().contains("either token_url or issuer"), "{no_url}");
    }

    println!("{}", ConfigError::NoOrigin);
}
