//! The advice of each error: it fits the cause, and names no thing that is not involved.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{ServiceExt, util::BoxCloneService};
use tower_oauth::{
    AccessToken, ClientAuth, ClientCredentials, FetchContext, Issuer, RequestFormat,
    ResponseFormat, Secret, StaticToken, TokenCache, TokenEndpoint, TokenError, TokenErrorKind,
    TokenFile, TokenRequest, source_fn,
};

use crate::support::{Body, TempFile};

const URL: &str = "https://as.test/token";
const ISSUER: &str = "https://as.test";

type Transport = BoxCloneService<Request<Body>, Response<Body>, std::io::Error>;
type Headers = &'static [(&'static str, &'static str)];

/// A response of the token endpoint, and the parts of the expected advice.
struct Case {
    status: u16,
    headers: Headers,
    body: &'static str,
    /// The advice for an endpoint with a URL, with methods as names of settings.
    by_method: &'static str,
    /// The same, with keys of a configuration file.
    #[cfg_attr(not(feature = "config"), allow(dead_code))]
    by_key: &'static str,
}

const fn case(
    status: u16,
    body: &'static str,
    by_method: &'static str,
    by_key: &'static str,
) -> Case {
    Case { status, headers: &[], body, by_method, by_key }
}

const REGISTRATION: &str =
    "check the client's registration: id, secret, authentication method, scope and audience";
const CREDENTIALS: &str = "check the client's id, secret and authentication method: ClientAuth";
const GATEWAY: &str =
    "check the health of the authorization server, and any proxy or gateway in front of it";

const CASES: &[Case] = &[
    case(404, "", "check the token URL", "check token_url"),
    case(405, "", "check the token URL", "check token_url"),
    case(409, "", "check that the token URL is", "check that token_url is"),
    case(407, "", "check the proxy that", "check the proxy that"),
    case(401, "", CREDENTIALS, "authentication method: client_auth.method"),
    case(403, r#"{"message":"no"}"#, REGISTRATION, REGISTRATION),
    case(401, r#"{"error":"invalid_client"}"#, CREDENTIALS, "method: client_auth.method"),
    case(409, r#"{"error":{"message":"no"}}"#, REGISTRATION, REGISTRATION),
    case(400, r#"{"error":{"message":"no"}}"#, "check the parameters of the request; if", "json"),
    case(400, r#"{"error":"unknown_code"}"#, REGISTRATION, REGISTRATION),
    case(
        400,
        "<html>",
        "if the server expects JSON, set TokenEndpoint::request_format to RequestFormat::Json",
        "if the server expects JSON, set request_format to json",
    ),
    case(
        415,
        "",
        "if the server expects JSON, set TokenEndpoint::request_format to RequestFormat::Json",
        "if the server expects JSON, set request_format to json",
    ),
    case(
        400,
        r#"{"error":"invalid_request"}"#,
        "check the parameters that the provider requires, such as audience or resource",
        "check the parameters that the provider requires, such as audience or resource",
    ),
    case(400, r#"{"error":"invalid_scope"}"#, "check the requested scope", "requested scope"),
    case(400, r#"{"error":"invalid_target"}"#, "check the requested resource", "audience"),
    case(400, r#"{"error":"unauthorized_client"}"#, "permit the grant", "permit the grant"),
    case(400, r#"{"error":"unsupported_grant_type"}"#, "use a grant that", "use a grant that"),
    case(400, r#"{"error":"invalid_grant"}"#, "check the credential of the grant", "credential"),
    case(
        503,
        r#"{"error":"temporarily_unavailable"}"#,
        "check the health of the authorization server",
        "check the health of the authorization server",
    ),
    case(
        400,
        r#"{"error":"server_error"}"#,
        "check the health of the authorization server",
        "check the health of the authorization server",
    ),
    case(502, "<html>", GATEWAY, GATEWAY),
    case(429, "", "send fewer token requests", "let all clients share one TokenCache"),
    case(301, "", "check the token URL", "check token_url"),
    Case {
        status: 308,
        headers: &[("location", "/token/?key=K3Y")],
        body: "",
        by_method: "if https://as.test/token/ is the token endpoint, use it as the token URL",
        by_key: "if https://as.test/token/ is the token endpoint, use it as token_url",
    },
    case(200, "", "check that the token URL is that of an OAuth", "check that token_url is that"),
    case(200, "<html>", "check that the token URL is", "check that token_url is that"),
    case(200, "[]", "check that the token URL is", "check that token_url is that"),
    Case {
        status: 200,
        headers: &[("content-encoding", "gzip")],
        body: "zipped",
        by_method: "DecompressionLayer of tower-http: TokenEndpoint::with_transport",
        by_key: "DecompressionLayer of tower-http: ProviderConfig::token_cache_with_transport",
    },
    Case {
        status: 200,
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: "access_token=T0KEN",
        by_method: "read the response as a form: ResponseFormat::form",
        by_key: "read the response as a form: response_format.encoding",
    },
    case(
        200,
        r#"{"token":"T0KEN"}"#,
        "set ResponseFormat::access_token; if the response is an error, set ResponseFormat::error",
        "set response_format.access_token; if the response is an error, set response_format.error",
    ),
    case(
        200,
        r#"{"access_token":"T0KEN","token_type":"BearerToken"}"#,
        "set ResponseFormat::token_type to a position without a member, such as /none",
        "set response_format.token_type to a position without a member, such as /none",
    ),
    case(
        200,
        r#"{"access_token":"T0KEN","token_type":"DPoP"}"#,
        "configure the client at the authorization server for tokens of the type Bearer",
        "configure the client at the authorization server for tokens of the type Bearer",
    ),
    case(
        200,
        r#"{"access_token":"T0KEN\n"}"#,
        "check that ResponseFormat::access_token is the position",
        "check that response_format.access_token is the position",
    ),
];

fn answering(status: u16, headers: Headers, body: &'static str) -> Transport {
    BoxCloneService::new(tower::service_fn(move |_: Request<Body>| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        std::future::ready(Ok(response.body(Full::<Bytes>::from(body)).unwrap()))
    }))
}

fn failing() -> Transport {
    BoxCloneService::new(tower::service_fn(|_: Request<Body>| {
        std::future::ready(Err(std::io::Error::other("connection refused")))
    }))
}

fn hanging() -> Transport {
    BoxCloneService::new(tower::service_fn(|_: Request<Body>| std::future::pending()))
}

fn basic() -> ClientAuth {
    ClientAuth::client_secret_basic("id", "S3CRET")
}

fn endpoint(url: &str, auth: ClientAuth, transport: Transport) -> TokenEndpoint {
    TokenEndpoint::with_transport(url, auth, transport).unwrap()
}

async fn failure(cache: TokenCache) -> TokenError {
    cache.token().await.unwrap_err()
}

async fn endpoint_failure(endpoint: TokenEndpoint) -> TokenError {
    failure(TokenCache::new(ClientCredentials::new(endpoint))).await
}

/// Returns the error of an endpoint that is found through an issuer.
async fn issuer_failure(transport: Transport) -> TokenError {
    let issuer: Issuer = ISSUER.parse().unwrap();
    let endpoint = TokenEndpoint::with_transport(issuer, basic(), transport).unwrap();
    endpoint_failure(endpoint).await
}

/// Returns a transport with metadata of the issuer, and this one for the token endpoint.
fn discovered(issuer: &str, token_endpoint: Transport) -> Transport {
    let metadata = format!(r#"{{"issuer":"{issuer}","token_endpoint":"{issuer}/token"}}"#);
    let metadata = answering(200, &[], metadata.leak());
    BoxCloneService::new(tower::service_fn(move |request: Request<Body>| {
        let is_metadata = request.method() == "GET";
        let service = if is_metadata { &metadata } else { &token_endpoint };
        service.clone().oneshot(request)
    }))
}

/// Words that no message of an error without this thing may contain.
const URL_WORDS: &[&str] =
    &["URL", "token_url", "endpoint", "TLS", "network", "issuer", "metadata"];

/// Checks the advice, and prints the message.
fn check(cause: &str, error: &TokenError, advice: &str, absent: &[&str]) {
    let message = error.to_string();
    println!("{cause}\n    {message}");
    let (_, shown) = message.split_once("; ").expect("an advice");
    assert!(shown.contains(advice), "{cause}: {message}");
    for word in absent {
        assert!(!message.contains(word), "{cause}: {word} in {message}");
    }
    for secret in ["S3CRET", "T0KEN", "K3Y"] {
        assert!(!message.contains(secret), "{cause}: {message}");
    }
    assert!(!message.contains(['{', '}', '|']), "{cause}: {message}");
}

/// Prints all messages, so that a person can read them:
/// `cargo test --all-features --test it every_advice -- --nocapture`.
#[tokio::test(start_paused = true)]
async fn every_advice_about_a_response_fits_its_cause() {
    for Case { status, headers, body, by_method, .. } in CASES {
        let transport = answering(*status, headers, body);
        let error = endpoint_failure(endpoint(URL, basic(), transport.clone())).await;
        check(&format!("{status} {body}"), &error, by_method, &["token_url", "issuer", "metadata"]);

        let error = issuer_failure(discovered(ISSUER, transport)).await;
        let cause = format!("{status} {body}, from an issuer");
        check(&cause, &error, "", &["token_url", "the token URL"]);
    }
}

#[cfg(feature = "config")]
#[tokio::test(start_paused = true)]
async fn every_advice_names_the_keys_of_a_configuration_file() {
    for Case { status, headers, body, by_key, .. } in CASES {
        let config = "[source]\ntype = 'client_credentials'\ntoken_url = 'https://as.test/token'\n\
            client_auth = { method = 'client_secret_basic', client_id = 'me', client_secret = 'S3CRET' }";
        let config: tower_oauth::config::ProviderConfig = toml::from_str(config).unwrap();
        let transport = answering(*status, headers, body);
        let error = failure(config.token_cache_with_transport(transport).unwrap()).await;
        let methods = ["TokenEndpoint", "ResponseFormat", "RequestFormat", "ClientAuth"];
        check(&format!("{status} {body}, by key"), &error, by_key, &methods);
    }
}

#[tokio::test(start_paused = true)]
async fn every_advice_about_a_setting_of_the_request_fits() {
    let raw = "use ClientAuth::client_secret_basic_raw";
    let form = "if the server does not accept JSON, set TokenEndpoint::request_format to \
                RequestFormat::Form";
    let invalid_client = || answering(401, &[], r#"{"error":"invalid_client"}"#);
    let special = || ClientAuth::client_secret_basic("id", "S3CRET+/=");
    let post = || ClientAuth::client_secret_post("id", "S3CRET");
    for (auth, format, transport, advice, absent) in [
        (special(), RequestFormat::Form, invalid_client(), raw, "JSON"),
        (basic(), RequestFormat::Form, invalid_client(), CREDENTIALS, "raw"),
        (post(), RequestFormat::Form, invalid_client(), CREDENTIALS, "JSON"),
        (post(), RequestFormat::Json, invalid_client(), form, "raw"),
        (
            basic(),
            RequestFormat::Json,
            answering(400, &[], r#"{"error":"invalid_request"}"#),
            form,
            "raw",
        ),
        (
            basic(),
            RequestFormat::Json,
            answering(400, &[], r#"{"error":"unsupported_grant_type"}"#),
            form,
            "raw",
        ),
        (basic(), RequestFormat::Json, answering(415, &[], ""), form, "raw"),
        (
            ClientAuth::none("id"),
            RequestFormat::Form,
            invalid_client(),
            "check the client's id, and whether its registration requires another ClientAuth",
            "secret",
        ),
    ] {
        let name = format!("{} {format:?}", auth.method());
        let endpoint = endpoint(URL, auth, transport).request_format(format);
        check(&name, &endpoint_failure(endpoint).await, advice, &[absent, "token_url"]);
    }
    let format = ResponseFormat::default().success("/sucess").unwrap();
    let body = r#"{"success":true,"access_token":"T0KEN"}"#;
    let endpoint = endpoint(URL, basic(), answering(200, &[], body)).response_format(format);
    let error = endpoint_failure(endpoint).await;
    let absent = ["registration", "URL", "rejected"];
    check("wrong success pointer", &error, "flag: ResponseFormat::success", &absent);
}

#[tokio::test(start_paused = true)]
async fn every_advice_without_a_response_fits_its_cause() {
    let https = endpoint_failure(endpoint(URL, basic(), failing())).await;
    check("unreachable", &https, "check the token URL, the network and the TLS trust", &["issuer"]);
    let http = endpoint_failure(endpoint("http://localhost/token", basic(), failing())).await;
    check("unreachable, http", &http, "check the token URL and the network", &["TLS", "issuer"]);
    let error = endpoint_failure(endpoint(URL, basic(), hanging())).await;
    check("time-out", &error, "or raise TokenEndpoint::timeout", &["URL", "TLS"]);

    let error = issuer_failure(discovered(ISSUER, failing())).await;
    let advice = "check the network, the TLS trust and the token_endpoint in the issuer's metadata";
    check("unreachable, from an issuer", &error, advice, &["URL"]);
    let local = "http://localhost";
    let transport = discovered(local, failing());
    let issuer: Issuer = local.parse().unwrap();
    let local_endpoint = TokenEndpoint::with_transport(issuer, basic(), transport).unwrap();
    let error = endpoint_failure(local_endpoint).await;
    let advice = "check the network and the token_endpoint in the issuer's metadata";
    check("unreachable, from an issuer, http", &error, advice, &["URL", "TLS"]);
    let error = issuer_failure(failing()).await;
    check(
        "unreachable issuer",
        &error,
        "check the issuer, the network and the TLS trust",
        &["URL"],
    );
    let error = issuer_failure(hanging()).await;
    check("time-out of the issuer", &error, "or raise TokenEndpoint::timeout", &["URL"]);
    let error = issuer_failure(answering(404, &[], "")).await;
    let advice = "check the issuer; if the server publishes no metadata, use a token URL instead";
    check("no metadata", &error, advice, &["check the token URL", "token_url"]);
    let error = issuer_failure(answering(503, &[], "")).await;
    check("metadata unavailable", &error, GATEWAY, &["URL;", "check the token URL"]);
    let other = r#"{"issuer":"https://other.test","token_endpoint":"https://as.test/token"}"#;
    let error = issuer_failure(answering(200, &[], other)).await;
    let advice = "if the server is yours, use the issuer in its metadata";
    check("another issuer", &error, advice, &["URL"]);
    let error = issuer_failure(answering(200, &[], "<html>")).await;
    check(
        "metadata is HTML",
        &error,
        "check the issuer and the metadata",
        &["check the token URL"],
    );
    let methods = r#"{"issuer":"https://as.test","token_endpoint":"https://as.test/token",
                      "token_endpoint_auth_methods_supported":["private_key_jwt"]}"#;
    let error = issuer_failure(answering(200, &[], methods)).await;
    check("unsupported method", &error, "use one of these methods: ClientAuth", &["URL"]);

    let request = TokenRequest::new("x").parameter("client_id", "me");
    let error = endpoint(URL, basic(), failing()).send(request).await.unwrap_err();
    check("wrong parameter", &error, "remove the parameter from the TokenRequest", URL_WORDS);
    let limited = endpoint(URL, basic(), answering(200, &[], r#"{"access_token":"12345"}"#));
    let error = endpoint_failure(limited.max_token_bytes(4)).await;
    check("long token", &error, "raise TokenEndpoint::max_token_bytes", &["URL", "issuer"]);
}

#[tokio::test(start_paused = true)]
async fn every_advice_about_a_source_without_a_server_fits() {
    let own = |result: fn() -> Result<AccessToken, TokenError>| {
        TokenCache::new(source_fn(move |_: FetchContext| std::future::ready(result())))
    };
    let error = failure(own(|| AccessToken::bearer("T0KEN\n"))).await;
    check("own token, line break", &error, "remove the white space around the token", URL_WORDS);
    let error = failure(own(|| AccessToken::bearer("T0KEN\0"))).await;
    check("own token, NUL", &error, "check the token that the token source returns", URL_WORDS);
    let error = failure(own(|| Ok(AccessToken::bearer("t")?.expires_in(Duration::ZERO)))).await;
    check("own token, expired", &error, "return a token with a longer lifetime", URL_WORDS);
    let error = failure(own(|| AccessToken::basic("a:b", "c"))).await;
    check("user with a colon", &error, "use one without a colon", URL_WORDS);
    for kind in [
        TokenErrorKind::Configuration,
        TokenErrorKind::Transport,
        TokenErrorKind::Timeout,
        TokenErrorKind::Server,
        TokenErrorKind::Rejected,
        TokenErrorKind::InvalidResponse,
    ] {
        let cache = TokenCache::new(source_fn(move |_: FetchContext| {
            std::future::ready(Err(TokenError::new(kind, "this happened")))
        }));
        check(&format!("own {kind:?}"), &failure(cache).await, "the token source", URL_WORDS);
    }
    let pending = TokenCache::new(source_fn(|_: FetchContext| std::future::pending()));
    let error = failure(pending).await;
    check("own source, slow", &error, "or raise TokenCacheBuilder::refresh_timeout", URL_WORDS);
    let error = failure(own(|| panic!("a bug"))).await;
    check("own source, panic", &error, "fix the token source", URL_WORDS);

    let file = TempFile::new("advice");
    let missing = || failure(TokenCache::new(TokenFile::new(&file.0)));
    let advice = "write the file, or correct its path";
    check("missing token file", &missing().await, advice, URL_WORDS);
    file.write("T0KEN ");
    check("token file, space", &missing().await, "correct the token in the file", URL_WORDS);
    file.write("");
    check("token file, empty", &missing().await, advice, URL_WORDS);
    let secret = Secret::from_file(&file.0);
    let error = failure(TokenCache::new(StaticToken::basic("id", secret).unwrap())).await;
    check("secret file, empty", &error, advice, URL_WORDS);
    file.write("a\0b");
    check("token file, NUL", &missing().await, "or the content of the file", URL_WORDS);

    let limit = std::num::NonZeroU32::MIN;
    let source = source_fn(|_: FetchContext| async { AccessToken::bearer("t") });
    let cache = TokenCache::builder(source).token_request_limit(limit, Duration::from_secs(60));
    let cache = cache.build();
    cache.invalidate(cache.token().await.unwrap().generation());
    let error = failure(cache.clone()).await;
    check("limit", &error, "raise TokenCacheBuilder::token_request_limit", URL_WORDS);
    cache.close();
    check("closed", &failure(cache).await, "build a new TokenCache", URL_WORDS);
}

#[test]
fn advice_outside_of_a_runtime_fits() {
    let cache = TokenCache::new(StaticToken::bearer("t").unwrap());
    let token = futures_util::FutureExt::now_or_never(cache.token());
    let error = token.expect("an error at once").unwrap_err();
    check("no runtime", &error, "call from within a running tokio runtime", URL_WORDS);
    let error = AccessToken::bearer("").unwrap_err();
    check("own token, empty", &error, "check the token that the token source returns", URL_WORDS);
}
