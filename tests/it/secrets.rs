//! No token and no secret is in anything that is shown.

use std::fmt::{Debug, Write as _};

use http::{Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{
    AccessToken, ClientAuth, ClientCredentials, ClientSecret, ConfigError, OAuthLayer, Origins, TokenCache,
    TokenEndpoint, TokenError, TokenErrorKind,
};

use crate::{
    loopback::{Authority, http1_client, http2_client, json, serve},
    support::Log,
};

/// The client's secret, form-encoded, and in the header; the tokens; the query of the token URL.
const SECRETS: &[&str] = &["s3cr", "czNjciV0", "bXklMjBjbGllbnQ6czNjciUyNXQ", "T0KEN", "K3Y"];

fn assert_shows_no_secret(shown: &str) {
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[tokio::test]
async fn nothing_that_is_logged_on_the_way_has_a_token_or_a_secret() {
    let log = Log::default();
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
            let request = Request::post(format!("http://{api}/")).body(Full::from("body")).unwrap();
            assert_eq!(client.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
            authority.revoke_all();
        }
    }
    let log = log.text();
    assert!(log.contains("h2::"), "the log has been listened to: {log}");
    assert_shows_no_secret(&log);
}

#[tokio::test]
async fn no_debug_output_has_a_token_or_a_secret() {
    let mut shown = String::new();
    let mut show = |value: &dyn Debug| write!(shown, "{value:?} {value:#?}").unwrap();

    let (id, secret) = Authority::CLIENT;
    let authority = Authority::default();
    let url = format!("http://{}/token?key=K3Y", authority.token_endpoint().await);
    show(&ClientSecret::from(secret));
    let auths = [ClientAuth::client_secret_basic(id, secret), ClientAuth::client_secret_post(id, secret)];
    show(&auths);
    let [basic, _] = auths;
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
async fn no_error_has_a_token_or_a_secret_even_when_the_server_says_them_back() {
    let echoes = [
        json(400, r#"{"error":"invalid_client","error_description":"my client:s3cr%t:+ü is wrong"}"#),
        json(400, r#"{"error":"s3cr%t:+ü","error_uri":"https://x/?s=s3cr%25t%3A%2B%C3%BC"}"#),
        json(400, r#"{"error":"x","error_description":"bXklMjBjbGllbnQ6czNjciUyNXQlM0ElMkIlQzMlQkM="}"#),
        json(200, r#"{"access_token":"T0KEN\u0000"}"#),
        json(200, r#"{"access_token":"T0KEN","expires_in":"T0KEN"}"#),
        json(200, r#"{"access_token":"T0KEN"#),
        json(500, r#"{"message":"T0KEN s3cr%t:+ü"}"#),
    ];
    for echo in echoes {
        let address = serve(move |_| std::future::ready(echo.clone())).await;
        let (id, secret) = Authority::CLIENT;
        let auth = ClientAuth::client_secret_basic(id, secret);
        let url = format!("http://{address}/token?key=K3Y");
        let endpoint = TokenEndpoint::with_transport(url, auth, http1_client()).unwrap();
        let error = TokenCache::new(ClientCredentials::new(endpoint)).token().await.unwrap_err();
        let mut shown = format!("{error} {error:?} {error:#?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            write!(shown, "{cause} {cause:?}").unwrap();
            source = cause.source();
        }
        assert_shows_no_secret(&shown);
    }
}

/// For a person to read: `cargo test --all-features --test it every_message -- --nocapture`.
#[test]
fn every_message_of_a_token_error_says_what_to_do() {
    let kinds = [
        TokenErrorKind::Configuration,
        TokenErrorKind::Transport,
        TokenErrorKind::Timeout,
        TokenErrorKind::Server,
        TokenErrorKind::Refused,
        TokenErrorKind::InvalidResponse,
        TokenErrorKind::Panicked,
        TokenErrorKind::Runtime,
    ];
    for kind in kinds {
        let message = TokenError::new(kind, "this happened").to_string();
        println!("{kind:?}: {message}");
        let (what, next_step) = message.split_once("; ").unwrap();
        assert_eq!(what, "this happened");
        assert!(next_step.len() > 20, "{message}");
    }
}

/// For a person to read, too.
#[test]
fn every_message_of_a_config_error_names_what_was_given() {
    let given = || "what-was-given".to_owned();
    let reason = "is wrong";
    let errors = [
        ConfigError::TokenUrl { url: given(), reason },
        ConfigError::InsecureTokenUrl { url: given() },
        ConfigError::Origin { origin: given(), reason },
        ConfigError::Parameter { name: given(), reason },
        ConfigError::Header { name: given(), reason },
        ConfigError::JsonPointer { pointer: given(), reason },
        ConfigError::Issuer { issuer: given(), reason },
        ConfigError::StaticToken { reason: given() },
        ConfigError::Provider { reason: "has what-was-given" },
        ConfigError::Certificates { reason: given() },
        ConfigError::Tls { reason: given() },
    ];
    for error in errors {
        println!("{error}");
        assert!(error.to_string().contains("what-was-given"), "{error}");
    }
    println!("{}", ConfigError::NoOrigin);
}
