//! From an issuer to its token endpoint.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::util::BoxCloneService;
use tower_oauth::{ClientAuth, ClientCredentials, Issuer, TokenCache, TokenEndpoint, TokenErrorKind};

use crate::support::{after_back_off, lock};

const ISSUER: &str = "https://as.test/tenant";
const OAUTH: &str = "https://as.test/.well-known/oauth-authorization-server/tenant";
const OPENID: &str = "https://as.test/tenant/.well-known/openid-configuration";
const TOKEN: &str = "https://as.test/tenant/token";

/// Answers by URL, 404 otherwise, and notes what was asked for.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    answers: Vec<(&'static str, StatusCode, String)>,
    asked: Vec<String>,
}

impl Server {
    fn answers(&self, url: &'static str, status: u16, body: &Value) {
        let mut inner = lock(&self.0);
        inner.answers.retain(|(known, ..)| *known != url);
        inner.answers.push((url, StatusCode::from_u16(status).unwrap(), body.to_string()));
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0).asked)
    }

    fn cache(&self) -> TokenCache {
        let server = self.clone();
        let transport = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let mut inner = lock(&server.0);
            let url = request.uri().to_string();
            let known = inner.answers.iter().find(|(known, ..)| *known == url);
            let (status, body) = known
                .map_or((StatusCode::NOT_FOUND, String::new()), |(_, status, body)| (*status, body.clone()));
            inner.asked.push(format!("{} {url}", request.method()));
            std::future::ready(Ok::<_, Infallible>(
                Response::builder().status(status).body(Full::<Bytes>::from(body)).unwrap(),
            ))
        });
        let auth = ClientAuth::client_secret_basic("id", "S3CRET");
        let issuer = Issuer::try_from(ISSUER).unwrap();
        let endpoint = TokenEndpoint::with_transport(issuer, auth, BoxCloneService::new(transport)).unwrap();
        TokenCache::new(ClientCredentials::new(endpoint))
    }
}

fn metadata() -> Value {
    json!({ "issuer": ISSUER, "token_endpoint": TOKEN })
}

fn token() -> Value {
    json!({ "access_token": "T0KEN" })
}

#[tokio::test(start_paused = true)]
async fn the_metadata_is_fetched_once_and_remembered() {
    let server = Server::default();
    server.answers(OAUTH, 200, &metadata());
    server.answers(TOKEN, 200, &token());
    let cache = server.cache();
    let first = cache.token().await.unwrap();
    cache.invalidate(first.generation());
    cache.token().await.unwrap();
    assert_eq!(server.asked(), [format!("GET {OAUTH}"), format!("POST {TOKEN}"), format!("POST {TOKEN}")]);
}

#[tokio::test(start_paused = true)]
async fn openid_metadata_will_do() {
    let server = Server::default();
    server.answers(OPENID, 200, &metadata());
    server.answers(TOKEN, 200, &token());
    server.cache().token().await.unwrap();
    assert_eq!(server.asked(), [format!("GET {OAUTH}"), format!("GET {OPENID}"), format!("POST {TOKEN}")]);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_of_the_token_endpoint_the_metadata_is_fetched_again() {
    let server = Server::default();
    server.answers(OAUTH, 200, &metadata());
    let cache = server.cache();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    after_back_off(&error).await;
    server.answers("https://as.test/moved", 200, &token());
    server.answers(OAUTH, 200, &json!({ "issuer": ISSUER, "token_endpoint": "https://as.test/moved" }));
    cache.token().await.unwrap();
    let (metadata, moved) = (format!("GET {OAUTH}"), "POST https://as.test/moved".to_owned());
    assert_eq!(server.asked(), [metadata.clone(), format!("POST {TOKEN}"), metadata, moved]);
}

#[tokio::test(start_paused = true)]
async fn a_method_that_the_server_does_not_support_is_an_early_error_and_no_secret_is_sent() {
    let server = Server::default();
    let mut document = metadata();
    document["token_endpoint_auth_methods_supported"] = json!(["private_key_jwt", "client_secret_post"]);
    server.answers(OAUTH, 200, &document);
    let error = server.cache().token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Configuration);
    assert_eq!(error.endpoint(), Some(ISSUER));
    assert!(
        error.to_string().contains("client_secret_basic, but: private_key_jwt, client_secret_post"),
        "{error}"
    );
    assert_eq!(server.asked(), [format!("GET {OAUTH}")]);
}

#[tokio::test(start_paused = true)]
async fn metadata_that_cannot_be_trusted_is_an_error_and_no_secret_is_sent() {
    for (document, said) in [
        (
            json!({ "issuer": "https://evil.test", "token_endpoint": TOKEN }),
            "another issuer, \"https://evil.test\"",
        ),
        (json!({ "issuer": "https://as.test/tenant/", "token_endpoint": TOKEN }), "another issuer"),
        (json!({ "token_endpoint": TOKEN }), "no issuer"),
        (json!({ "issuer": ISSUER }), "no token_endpoint"),
        (json!({ "issuer": ISSUER, "token_endpoint": "http://as.test/token" }), "unencrypted"),
        (json!({ "issuer": ISSUER, "token_endpoint": "http://127.0.0.1/token" }), "scheme"),
        (json!({ "issuer": ISSUER, "token_endpoint": 7 }), "no token_endpoint"),
        (json!("metadata"), "no issuer"),
    ] {
        let server = Server::default();
        server.answers(OAUTH, 200, &document);
        server.answers(TOKEN, 200, &token());
        let error = server.cache().token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(server.asked(), [format!("GET {OAUTH}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_without_metadata_is_an_error_that_says_so() {
    let error = Server::default().cache().token().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (TokenErrorKind::Server, Some(StatusCode::NOT_FOUND)));
    assert!(error.to_string().starts_with("issuer https://as.test/tenant: there is no metadata"), "{error}");
}
