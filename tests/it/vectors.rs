//! The examples of the RFCs, to the letter.

use std::{
    convert::Infallible,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_oauth::{
    AccessToken, CachedToken, ClientAuth, ClientCredentials, ConfigError, Issuer, Location, OAuthLayer,
    Origins, ResponseFormat, TokenCache, TokenEndpoint, TokenError, TokenErrorKind,
};

use crate::support::{Body, lock};

const TOKEN_URL: &str = "https://server.example.com/token";

/// Answers with the RFC's own text, and keeps the requests as an RFC would print them.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<Vec<(&'static str, String)>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers `path` with this; other paths with 404.
    fn answer(self, path: &'static str, answer: impl Into<String>) -> Self {
        lock(&self.answers).push((path, answer.into()));
        self
    }

    fn answering(answer: &str) -> Self {
        Self::default().answer("/token", answer)
    }

    fn endpoint<L>(&self, location: L, auth: ClientAuth) -> TokenEndpoint
    where
        L: TryInto<Location>,
        ConfigError: From<L::Error>,
    {
        let server = self.clone();
        let transport = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.serve(request).await) }
        });
        TokenEndpoint::with_transport(location, auth, transport).unwrap()
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let request = printed(request).await;
        lock(&self.requests).push(request);
        let answers = lock(&self.answers);
        let answer = answers.iter().find(|(known, _)| *known == path);
        response(answer.map_or("HTTP/1.1 404 Not Found\n\n", |(_, answer)| answer))
    }

    fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}

async fn printed(request: Request<Body>) -> String {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {} HTTP/1.1\n", head.method, head.uri.path());
    writeln!(text, "Host: {}", head.uri.authority().unwrap()).unwrap();
    for (name, printed) in [("authorization", "Authorization"), ("content-type", "Content-Type")] {
        if let Some(value) = head.headers.get(name) {
            writeln!(text, "{printed}: {}", value.to_str().unwrap()).unwrap();
        }
    }
    let body = body.collect().await.unwrap().to_bytes();
    if !body.is_empty() {
        writeln!(text, "\n{}", str::from_utf8(&body).unwrap()).unwrap();
    }
    text
}

fn response(text: &str) -> Response<Body> {
    let (head, body) = text.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut response = Response::builder().status(status);
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        response = response.header(name, value);
    }
    response.body(Full::<Bytes>::from(body.to_owned())).unwrap()
}

async fn fetch(endpoint: TokenEndpoint) -> Result<CachedToken, TokenError> {
    TokenCache::new(ClientCredentials::new(endpoint)).token().await
}

async fn answered(answer: &str) -> Result<CachedToken, TokenError> {
    let auth = ClientAuth::client_secret_basic("s6BhdRkqt3", "gX1fBat3bV");
    fetch(Server::answering(answer).endpoint(TOKEN_URL, auth)).await
}

/// The request of a client that authenticates like this.
async fn asked(auth: ClientAuth) -> String {
    let server = Server::answering(&bearer(RFC_6749_SECTION_4_4_3));
    fetch(server.endpoint(TOKEN_URL, auth)).await.unwrap();
    server.requests().concat()
}

/// The type of the examples is "example", which no client has to understand (RFC 6749 §7.1).
fn bearer(answer: &str) -> String {
    answer.replace(r#""token_type":"example""#, r#""token_type":"Bearer""#)
}

const RFC_6749_SECTION_4_4_3: &str = r#"HTTP/1.1 200 OK
Content-Type: application/json;charset=UTF-8
Cache-Control: no-store
Pragma: no-cache

{
  "access_token":"2YotnFZFEjr1zCsicMWpAA",
  "token_type":"example",
  "expires_in":3600,
  "example_parameter":"example_value"
}"#;

const RFC_6749_SECTION_5_1: &str = r#"HTTP/1.1 200 OK
Content-Type: application/json;charset=UTF-8
Cache-Control: no-store
Pragma: no-cache

{
  "access_token":"2YotnFZFEjr1zCsicMWpAA",
  "token_type":"example",
  "expires_in":3600,
  "refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA",
  "example_parameter":"example_value"
}"#;

const RFC_6749_SECTION_5_2: &str = r#"HTTP/1.1 400 Bad Request
Content-Type: application/json;charset=UTF-8
Cache-Control: no-store
Pragma: no-cache

{
  "error":"invalid_request"
}"#;

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_2_3_1_client_password_in_the_header() {
    let request = asked(ClientAuth::client_secret_basic("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw")).await;
    let header = "Authorization: Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3\n";
    assert!(request.contains(header), "{request}");
}

/// The example refreshes a token; its client credentials are what is compared.
#[tokio::test(start_paused = true)]
async fn rfc_6749_section_2_3_1_client_password_in_the_body() {
    let request = asked(ClientAuth::client_secret_post("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw")).await;
    let expected = "\
POST /token HTTP/1.1
Host: server.example.com
Content-Type: application/x-www-form-urlencoded

grant_type=client_credentials&client_id=s6BhdRkqt3&client_secret=7Fjfp0ZBr1KtDRbnfVdmIw
";
    assert_eq!(request, expected);
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_4_4_2_access_token_request() {
    let expected = "\
POST /token HTTP/1.1
Host: server.example.com
Authorization: Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW
Content-Type: application/x-www-form-urlencoded

grant_type=client_credentials
";
    assert_eq!(asked(ClientAuth::client_secret_basic("s6BhdRkqt3", "gX1fBat3bV")).await, expected);
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_sections_4_4_3_and_5_1_a_token_of_type_example_is_refused_as_it_is_not_bearer() {
    for answer in [RFC_6749_SECTION_4_4_3, RFC_6749_SECTION_5_1] {
        let error = answered(answer).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("not \"Bearer\""), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_4_4_3_access_token_response_with_bearer() {
    let token = answered(&bearer(RFC_6749_SECTION_4_4_3)).await.unwrap();
    assert_eq!(token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
    assert_eq!(token.token_type(), "Bearer");
    assert_eq!((token.lifetime(), token.scope()), (Some(Duration::from_secs(3600)), None));
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_5_1_successful_response_with_bearer() {
    let token = answered(&bearer(RFC_6749_SECTION_5_1)).await.unwrap();
    assert_eq!(token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
    assert_eq!(token.lifetime(), Some(Duration::from_secs(3600)));
    assert!(!format!("{token:?}").contains("tGzv3JOkF0XG5Qx2TlKWIA"), "nothing is kept of a refresh token");
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_5_2_error_response() {
    let error = answered(RFC_6749_SECTION_5_2).await.unwrap_err();
    assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Refused, Some("invalid_request")));
    assert_eq!((error.error_description(), error.error_uri()), (None, None));
    assert_eq!(error.status().unwrap(), 400);
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_5_2_every_error_code_is_a_refusal() {
    for code in [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ] {
        let error = answered(&RFC_6749_SECTION_5_2.replace("invalid_request", code)).await.unwrap_err();
        assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Refused, Some(code)));
    }
}

/// In the header, a space is `%20` and not `+`, as more servers decode it.
#[tokio::test(start_paused = true)]
async fn rfc_6749_appendix_b_form_encoding() {
    let value = " %&+£€";
    let request = asked(ClientAuth::client_secret_post("s6BhdRkqt3", value)).await;
    assert!(request.ends_with("&client_secret=+%25%26%2B%C2%A3%E2%82%AC\n"), "{request}");

    let expected = AccessToken::basic("s6BhdRkqt3", "%20%25%26%2B%C2%A3%E2%82%AC").unwrap();
    let request = asked(ClientAuth::client_secret_basic("s6BhdRkqt3", value)).await;
    let header = format!("Authorization: {}\n", expected.header_value().to_str().unwrap());
    assert!(request.contains(&header), "{request}");
}

#[tokio::test(start_paused = true)]
async fn rfc_6750_section_2_1_authorization_request_header() {
    let seen = Arc::new(Mutex::new(String::new()));
    let api = {
        let seen = Arc::clone(&seen);
        tower::service_fn(move |request: Request<Body>| {
            let seen = Arc::clone(&seen);
            async move {
                let request = printed(request).await;
                *lock(&seen) = request;
                Ok::<_, Infallible>(Response::new(Body::default()))
            }
        })
    };
    let tokens = TokenCache::new(|| async { AccessToken::bearer("mF_9.B5f-4.1JqM") });
    let origins = Origins::new(["https://server.example.com"]).unwrap();
    let request = Request::get("https://server.example.com/resource").body(Body::default()).unwrap();
    OAuthLayer::new(tokens, origins).layer(api).oneshot(request).await.unwrap();
    let expected = "\
GET /resource HTTP/1.1
Host: server.example.com
Authorization: Bearer mF_9.B5f-4.1JqM
";
    assert_eq!(*lock(&seen), expected);
}

#[test]
fn rfc_7617_sections_2_and_2_1_basic() {
    let aladdin = AccessToken::basic("Aladdin", "open sesame").unwrap();
    assert_eq!(aladdin.header_value(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let in_utf_8 = AccessToken::basic("test", "123£").unwrap();
    assert_eq!(in_utf_8.header_value(), "Basic dGVzdDoxMjPCow==");
}

const RFC_6901_SECTION_5: &str = r#"HTTP/1.1 200 OK

{
  "foo": ["bar", "baz"],
  "": 0,
  "a/b": 1,
  "c%d": 2,
  "e^f": 3,
  "g|h": 4,
  "i\\j": 5,
  "k\"l": 6,
  " ": 7,
  "m~n": 8
}"#;

async fn pointed(format: ResponseFormat) -> Result<CachedToken, TokenError> {
    let auth = ClientAuth::none("s6BhdRkqt3");
    let endpoint = Server::answering(RFC_6901_SECTION_5).endpoint(TOKEN_URL, auth);
    fetch(endpoint.response_format(format)).await
}

#[tokio::test(start_paused = true)]
async fn rfc_6901_section_5_pointers() {
    let format = ResponseFormat::default().access_token("/foo/0").unwrap();
    assert_eq!(pointed(format.clone()).await.unwrap().expose_secret(), "bar");

    let pointers = ["/a~1b", "/c%d", "/e^f", "/g|h", "/i\\j", "/k\"l", "/ ", "/m~0n"];
    for (value, pointer) in (1..).zip(pointers) {
        let token = pointed(format.clone().expires_in(pointer).unwrap()).await.unwrap();
        assert_eq!(token.lifetime(), Some(Duration::from_secs(value)), "{pointer}");
    }
    let error = pointed(format.clone().expires_in("/").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("zero"), "the member with no name is 0: {error}");

    let error = pointed(format.access_token("/foo").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("not a string"), "{error}");
}

#[test]
fn rfc_6901_section_5_the_whole_document_is_no_member() {
    assert!(ResponseFormat::default().access_token("").is_err());
}

const RFC_8414_SECTION_3_2: &str = r#"HTTP/1.1 200 OK
Content-Type: application/json

{
 "issuer":
   "https://server.example.com",
 "authorization_endpoint":
   "https://server.example.com/authorize",
 "token_endpoint":
   "https://server.example.com/token",
 "token_endpoint_auth_methods_supported":
   ["client_secret_basic", "private_key_jwt"],
 "token_endpoint_auth_signing_alg_values_supported":
   ["RS256", "ES256"],
 "userinfo_endpoint":
   "https://server.example.com/userinfo",
 "jwks_uri":
   "https://server.example.com/jwks.json",
 "registration_endpoint":
   "https://server.example.com/register",
 "scopes_supported":
   ["openid", "profile", "email", "address",
    "phone", "offline_access"],
 "response_types_supported":
   ["code", "code token"],
 "service_documentation":
   "http://server.example.com/service_documentation.html",
 "ui_locales_supported":
   ["en-US", "en-GB", "en-CA", "fr-FR", "fr-CA"]
}"#;

const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";

fn basic() -> ClientAuth {
    ClientAuth::client_secret_basic("s6BhdRkqt3", "gX1fBat3bV")
}

async fn discovered(server: &Server, issuer: &str, auth: ClientAuth) -> Result<CachedToken, TokenError> {
    fetch(server.endpoint(Issuer::try_from(issuer).unwrap(), auth)).await
}

/// A server whose metadata stands at `path`, in the words of section 3.2.
fn described(path: &'static str, issuer: &str) -> Server {
    let metadata = RFC_8414_SECTION_3_2.replace("\"https://server.example.com\"", &format!("\"{issuer}\""));
    Server::answering(&bearer(RFC_6749_SECTION_4_4_3)).answer(path, metadata)
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_1_metadata_request() {
    let server = described(WELL_KNOWN, "https://example.com");
    discovered(&server, "https://example.com", basic()).await.unwrap();
    assert_eq!(server.requests()[0], format!("GET {WELL_KNOWN} HTTP/1.1\nHost: example.com\n"));
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_1_metadata_request_for_an_issuer_with_a_path() {
    const PATH: &str = "/.well-known/oauth-authorization-server/issuer1";
    for issuer in ["https://example.com/issuer1", "https://example.com/issuer1/"] {
        let server = described(PATH, issuer);
        discovered(&server, issuer, basic()).await.unwrap();
        assert_eq!(server.requests()[0], format!("GET {PATH} HTTP/1.1\nHost: example.com\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_2_metadata_response() {
    let server = described(WELL_KNOWN, "https://server.example.com");
    let token = discovered(&server, "https://server.example.com", basic()).await.unwrap();
    assert_eq!(token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].starts_with("POST /token HTTP/1.1\nHost: server.example.com\n"), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_2_a_method_that_is_not_supported_is_not_tried() {
    let server = described(WELL_KNOWN, "https://server.example.com");
    let auth = ClientAuth::client_secret_post("s6BhdRkqt3", "gX1fBat3bV");
    let error = discovered(&server, "https://server.example.com", auth).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Configuration);
    assert!(error.to_string().contains("client_secret_basic, private_key_jwt"), "{error}");
    assert_eq!(server.requests().len(), 1, "no secret was sent");
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_3_the_issuer_must_be_identical() {
    for other in [
        "https://server.example.com/",
        "https://SERVER.example.com",
        "https://server.example.com:443",
        "https://evil.test",
    ] {
        let server = described(WELL_KNOWN, other);
        let error = discovered(&server, "https://server.example.com", basic()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("another issuer"), "{error}");
        assert_eq!(server.requests().len(), 1, "no secret was sent");
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_5_the_path_of_openid_connect_is_tried_second() {
    const PATH: &str = "/issuer1/.well-known/openid-configuration";
    let server = described(PATH, "https://example.com/issuer1");
    discovered(&server, "https://example.com/issuer1", basic()).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests[0], format!("GET {WELL_KNOWN}/issuer1 HTTP/1.1\nHost: example.com\n"));
    assert_eq!(requests[1], format!("GET {PATH} HTTP/1.1\nHost: example.com\n"));
}
