//! Discovery of the token endpoint from the metadata of an issuer (RFC 8414, `OpenID` Connect).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{RETRY_AFTER, USER_AGENT},
};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::util::BoxCloneService;
use tower_oauth::{
    ClientAuth, ClientCredentials, Issuer, TokenCache, TokenEndpoint, TokenErrorKind, TokenRequest,
};

use crate::support::{lock, wait_for_backoff};

const ISSUER: &str = "https://as.test/tenant";
const OAUTH: &str = "https://as.test/.well-known/oauth-authorization-server/tenant";
const OPENID: &str = "https://as.test/tenant/.well-known/openid-configuration";
const OPENID_INSERTED: &str = "https://as.test/.well-known/openid-configuration/tenant";
const TOKEN: &str = "https://as.test/tenant/token";

/// An authorization server with one fixed response per URL. All other URLs get a 404.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<ServerState>>);

#[derive(Default)]
struct ServerState {
    responses: Vec<(&'static str, StatusCode, String)>,
    /// The `Retry-After` of each response.
    retry_after: Option<&'static str>,
    requests: Vec<String>,
    user_agents: Vec<HeaderValue>,
}

impl Server {
    /// Sets the response for a URL.
    fn respond(&self, url: &'static str, status: u16, body: &Value) {
        let mut state = lock(&self.0);
        state.responses.retain(|(known, ..)| *known != url);
        state.responses.push((url, StatusCode::from_u16(status).unwrap(), body.to_string()));
    }

    /// Returns the requests since the last call, each as its method and its URL.
    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0).requests)
    }

    fn cache(&self) -> TokenCache {
        TokenCache::new(ClientCredentials::new(self.endpoint(ISSUER.parse().unwrap())))
    }

    fn endpoint(&self, issuer: Issuer) -> TokenEndpoint {
        self.endpoint_with(issuer, ClientAuth::client_secret_basic("id", "S3CRET"))
    }

    fn endpoint_with(&self, issuer: Issuer, auth: ClientAuth) -> TokenEndpoint {
        let server = self.clone();
        let transport = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let mut state = lock(&server.0);
            let url = request.uri().to_string();
            let known = state.responses.iter().find(|(known, ..)| *known == url);
            let (status, body) = known.map_or_else(
                || (StatusCode::NOT_FOUND, String::new()),
                |(_, status, body)| (*status, body.clone()),
            );
            state.requests.push(format!("{} {url}", request.method()));
            state.user_agents.extend(request.headers().get(USER_AGENT).cloned());
            let mut response = Response::builder().status(status);
            if let Some(retry_after) = state.retry_after {
                response = response.header(RETRY_AFTER, retry_after);
            }
            let response = response.body(Full::<Bytes>::from(body)).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let transport = BoxCloneService::new(transport);
        TokenEndpoint::with_transport(issuer, auth, transport).unwrap()
    }
}

fn metadata() -> Value {
    json!({ "issuer": ISSUER, "token_endpoint": TOKEN })
}

fn token() -> Value {
    json!({ "access_token": "T0KEN" })
}

#[tokio::test(start_paused = true)]
async fn metadata_is_fetched_once_for_many_tokens() {
    let server = Server::default();
    server.respond(OAUTH, 200, &metadata());
    server.respond(TOKEN, 200, &token());
    let cache = server.cache();
    let first = cache.token().await.unwrap();
    cache.invalidate(first.generation());
    cache.token().await.unwrap();
    assert_eq!(
        server.take_requests(),
        [format!("GET {OAUTH}"), format!("POST {TOKEN}"), format!("POST {TOKEN}")]
    );
}

#[tokio::test(start_paused = true)]
async fn openid_metadata_is_used_without_oauth_metadata() {
    let server = Server::default();
    server.respond(OPENID, 200, &metadata());
    server.respond(TOKEN, 200, &token());
    server.cache().token().await.unwrap();
    assert_eq!(
        server.take_requests(),
        [format!("GET {OAUTH}"), format!("GET {OPENID}"), format!("POST {TOKEN}")]
    );
}

/// Other servers behind the same host may answer at a well-known URL: with a page for each unknown
/// path, with metadata of another issuer, or without a token endpoint.
#[tokio::test(start_paused = true)]
async fn metadata_is_used_from_the_first_url_that_has_it() {
    for other in [
        json!("<!doctype html>"),
        json!({ "issuer": "https://as.test", "token_endpoint": "https://as.test/token" }),
        json!({ "issuer": ISSUER }),
        json!({}),
    ] {
        for status in [200, 301, 401, 404, 406, 500] {
            let server = Server::default();
            server.respond(OAUTH, status, &other);
            server.respond(OPENID, status, &other);
            server.respond(OPENID_INSERTED, 200, &metadata());
            server.respond(TOKEN, 200, &token());
            server.cache().token().await.unwrap_or_else(|error| panic!("{status} {other} {error}"));
            let expected = [
                format!("GET {OAUTH}"),
                format!("GET {OPENID}"),
                format!("GET {OPENID_INSERTED}"),
                format!("POST {TOKEN}"),
            ];
            assert_eq!(server.take_requests(), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn issuer_without_a_path_has_two_metadata_urls() {
    let server = Server::default();
    let endpoint = server.endpoint("https://as.test/".parse().unwrap());
    endpoint.send(TokenRequest::new("x")).await.unwrap_err();
    let expected = ["oauth-authorization-server", "openid-configuration"];
    let expected = expected.map(|name| format!("GET https://as.test/.well-known/{name}"));
    assert_eq!(server.take_requests(), expected);
}

/// A client with a certificate sends no secret. The metadata lists its method by the name
/// `tls_client_auth` (RFC 8705 §2.1.1).
#[tokio::test(start_paused = true)]
async fn client_without_a_secret_is_not_checked_against_the_methods() {
    for methods in [json!(["tls_client_auth"]), json!(["client_secret_basic"]), json!([])] {
        let server = Server::default();
        let mut document = metadata();
        document["token_endpoint_auth_methods_supported"] = methods;
        server.respond(OAUTH, 200, &document);
        server.respond(TOKEN, 200, &token());
        let endpoint = server.endpoint_with(ISSUER.parse().unwrap(), ClientAuth::none("id"));
        endpoint.send(TokenRequest::new("x")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn redirect_of_metadata_is_an_error_with_advice() {
    for status in [301, 302, 303, 307, 308] {
        let server = Server::default();
        for url in [OAUTH, OPENID, OPENID_INSERTED] {
            server.respond(url, status, &json!({}));
        }
        let error = server.cache().token().await.unwrap_err();
        assert_eq!(error.status().unwrap(), status);
        assert!(error.to_string().contains("Issuer::discover_at"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_is_fetched_again_after_a_token_endpoint_failure() {
    let server = Server::default();
    server.respond(OAUTH, 200, &metadata());
    let cache = server.cache();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    wait_for_backoff(&error).await;
    let moved = "https://as.test/moved";
    server.respond(moved, 200, &token());
    server.respond(OAUTH, 200, &json!({ "issuer": ISSUER, "token_endpoint": moved }));
    cache.token().await.unwrap();
    let (metadata, moved) = (format!("GET {OAUTH}"), "POST https://as.test/moved".to_owned());
    let expected = [metadata.clone(), format!("POST {TOKEN}"), metadata, moved];
    assert_eq!(server.take_requests(), expected);
}

#[tokio::test(start_paused = true)]
async fn unsupported_auth_method_is_an_error_before_a_secret_is_sent() {
    let server = Server::default();
    let mut document = metadata();
    let methods = json!(["private_key_jwt", "client_secret_post"]);
    document["token_endpoint_auth_methods_supported"] = methods;
    server.respond(OAUTH, 200, &document);
    let error = server.cache().token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Configuration);
    assert_eq!(error.endpoint(), Some(ISSUER));
    assert!(
        error.to_string().contains("client_secret_basic, but: private_key_jwt, client_secret_post"),
        "{error}"
    );
    assert_eq!(server.take_requests(), [format!("GET {OAUTH}")]);
}

#[tokio::test(start_paused = true)]
async fn invalid_metadata_is_an_error_before_a_secret_is_sent() {
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
        server.respond(OAUTH, 200, &document);
        server.respond(TOKEN, 200, &token());
        let error = server.cache().token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains(said), "{error}");
        let requests = server.take_requests();
        assert!(requests.iter().all(|request| request.starts_with("GET ")), "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn issuer_without_metadata_is_an_error_that_names_it() {
    let error = Server::default().cache().token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Server);
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    let message = error.to_string();
    let expected = "issuer https://as.test/tenant: there is no metadata";
    assert!(message.starts_with(expected), "{message}");
}

#[tokio::test(start_paused = true)]
async fn metadata_request_has_the_user_agent_of_the_endpoint() {
    for set in [None, Some("orders/2.1")] {
        let server = Server::default();
        server.respond(OAUTH, 200, &metadata());
        server.respond(TOKEN, 200, &token());
        let mut endpoint = server.endpoint(ISSUER.parse().unwrap());
        if let Some(set) = set {
            endpoint = endpoint.header("user-agent", set).unwrap();
        }
        endpoint.send(TokenRequest::new("x")).await.unwrap();
        let sent = set.unwrap_or(TokenEndpoint::DEFAULT_USER_AGENT);
        assert_eq!(lock(&server.0).user_agents, [sent, sent]);
    }
}

const BACK_CHANNEL: &str = "https://internal.test:8443/as";
const BACK_CHANNEL_OAUTH: &str =
    "https://internal.test:8443/.well-known/oauth-authorization-server/as";

fn back_channel() -> Issuer {
    ISSUER.parse::<Issuer>().unwrap().discover_at(BACK_CHANNEL).unwrap()
}

#[tokio::test(start_paused = true)]
async fn issuer_is_discovered_through_a_back_channel() {
    let server = Server::default();
    let token_url = "https://internal.test:8443/as/token";
    server.respond(
        BACK_CHANNEL_OAUTH,
        200,
        &json!({ "issuer": ISSUER, "token_endpoint": token_url }),
    );
    server.respond(token_url, 200, &token());
    server.endpoint(back_channel()).send(TokenRequest::new("x")).await.unwrap();
    let expected = [format!("GET {BACK_CHANNEL_OAUTH}"), format!("POST {token_url}")];
    assert_eq!(server.take_requests(), expected);
}

#[tokio::test(start_paused = true)]
async fn back_channel_must_name_exactly_the_expected_issuer() {
    for named in [BACK_CHANNEL, "https://as.test/tenant/", "https://as.test", "https://evil.test"] {
        let server = Server::default();
        let document = json!({ "issuer": named, "token_endpoint": TOKEN });
        server.respond(BACK_CHANNEL_OAUTH, 200, &document);
        server.respond(TOKEN, 200, &token());
        let endpoint = server.endpoint(back_channel());
        let error = endpoint.send(TokenRequest::new("x")).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        let message = error.to_string();
        let place = format!("issuer {ISSUER} (discovered at {BACK_CHANNEL}): ");
        assert!(message.starts_with(&place), "{message}");
        assert!(message.contains(&format!("another issuer, {named:?}")), "{message}");
        let requests = server.take_requests();
        assert!(requests.iter().all(|request| request.starts_with("GET ")), "{requests:?}");
    }
}

/// The metadata of one clone must not be used by the other one, which expects it elsewhere.
#[tokio::test(start_paused = true)]
async fn back_channel_does_not_share_the_metadata_of_its_clone() {
    let server = Server::default();
    server.respond(OAUTH, 200, &metadata());
    server.respond(TOKEN, 200, &token());
    let issuer: Issuer = ISSUER.parse().unwrap();
    server.endpoint(issuer.clone()).send(TokenRequest::new("x")).await.unwrap();
    server.take_requests();
    let issuer = issuer.discover_at(BACK_CHANNEL).unwrap();
    server.endpoint(issuer).send(TokenRequest::new("x")).await.unwrap_err();
    assert_eq!(server.take_requests()[0], format!("GET {BACK_CHANNEL_OAUTH}"));
}

#[test]
fn unusable_back_channel_is_a_configuration_error() {
    for (url, said) in [
        ("", "not a URL"),
        ("http://internal.test", "https://"),
        ("https://internal.test?x", "query"),
        ("https://u:hunter2@internal.test", "user information"),
    ] {
        let error = ISSUER.parse::<Issuer>().unwrap().discover_at(url).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_metadata_is_honoured() {
    for status in [429, 503] {
        let server = Server::default();
        server.respond(OAUTH, status, &json!({}));
        lock(&server.0).retry_after = Some("120");
        let cache = server.cache();
        let error = cache.token().await.unwrap_err();
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!((error.kind(), error.status()), (TokenErrorKind::Server, Some(status)));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
        assert_eq!(error.next_attempt_in(), Some(Duration::from_secs(120)));
        assert_eq!(server.take_requests(), [format!("GET {OAUTH}")], "no second request");
    }
}

/// A document with status 200 has no issuer here.
#[tokio::test(start_paused = true)]
async fn error_is_about_the_metadata_url_that_says_most() {
    for (statuses, expected) in [
        ([404, 404, 404], 404),
        ([503, 404, 404], 503),
        ([404, 503, 404], 503),
        ([404, 404, 503], 503),
        ([503, 500, 404], 503),
        ([403, 404, 404], 403),
        ([200, 404, 404], 200),
        ([404, 200, 404], 200),
        ([200, 404, 503], 503),
    ] {
        let server = Server::default();
        for (url, status) in [OAUTH, OPENID, OPENID_INSERTED].into_iter().zip(statuses) {
            server.respond(url, status, &json!({}));
        }
        let error = server.cache().token().await.unwrap_err();
        assert_eq!(error.status().unwrap(), expected, "{statuses:?}");
        let expected = [OAUTH, OPENID, OPENID_INSERTED].map(|url| format!("GET {url}"));
        assert_eq!(server.take_requests(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn unavailable_metadata_is_transient_at_either_url() {
    for (url, status, is_final) in
        [(OAUTH, 503, false), (OPENID, 503, false), (OAUTH, 429, false), (OAUTH, 403, true)]
    {
        let server = Server::default();
        server.respond(url, status, &json!({}));
        let error = server.cache().token().await.unwrap_err();
        assert_eq!(error.is_final(), is_final, "{url} {status}: {error}");
    }
}
