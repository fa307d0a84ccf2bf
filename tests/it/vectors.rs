//! The examples of the RFCs, verbatim.

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
    AccessToken, CachedToken, ClientAuth, ClientCredentials, Issuer, OAuthLayer, Origins,
    ResponseFormat, TokenCache, TokenEndpoint, TokenError, TokenErrorKind, source_fn,
};

use crate::support::{Body, lock};

const TOKEN_URL: &str = "https://server.example.com/token";

/// A server that answers with the text of an RFC, and records requests in the notation of the RFCs.
#[derive(Clone, Default)]
struct Server {
    responses: Arc<Mutex<Vec<(&'static str, String)>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Adds a response for `path`. All other paths get a 404.
    fn with_response(self, path: &'static str, response: impl Into<String>) -> Self {
        lock(&self.responses).push((path, response.into()));
        self
    }

    /// Creates a server with a token endpoint that gives this response.
    fn new(token_response: &str) -> Self {
        Self::default().with_response("/token", token_response)
    }

    fn endpoint(&self, auth: ClientAuth) -> TokenEndpoint {
        TokenEndpoint::with_transport(TOKEN_URL, auth, self.transport()).unwrap()
    }

    fn transport(
        &self,
    ) -> impl tower::Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + use<> {
        let server = self.clone();
        tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok(server.serve(request).await) }
        })
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let request = print_request(request).await;
        lock(&self.requests).push(request);
        let responses = lock(&self.responses);
        let found = responses.iter().find(|(known, _)| *known == path);
        parse_response(found.map_or("HTTP/1.1 404 Not Found\n\n", |(_, response)| response))
    }

    fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}

/// Prints a request in the notation of the RFCs.
async fn print_request(request: Request<Body>) -> String {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {} HTTP/1.1\n", head.method, head.uri.path());
    writeln!(text, "Host: {}", head.uri.authority().unwrap()).unwrap();
    for (name, printed_name) in
        [("authorization", "Authorization"), ("content-type", "Content-Type")]
    {
        if let Some(value) = head.headers.get(name) {
            writeln!(text, "{printed_name}: {}", value.to_str().unwrap()).unwrap();
        }
    }
    let body = body.collect().await.unwrap().to_bytes();
    if !body.is_empty() {
        writeln!(text, "\n{}", str::from_utf8(&body).unwrap()).unwrap();
    }
    text
}

fn parse_response(text: &str) -> Response<Body> {
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

/// Returns the client authentication of most examples.
fn basic() -> ClientAuth {
    ClientAuth::client_secret_basic("s6BhdRkqt3", "gX1fBat3bV")
}

/// Fetches a token from a server that answers with this response.
async fn fetch_response(response: &str) -> Result<CachedToken, TokenError> {
    fetch(Server::new(response).endpoint(basic())).await
}

/// Returns the token request of a client with this authentication.
async fn token_request(auth: ClientAuth) -> String {
    let server = Server::new(&with_bearer_type(RFC_6749_SECTION_4_4_3));
    fetch(server.endpoint(auth)).await.unwrap();
    server.requests().concat()
}

/// Replaces the token type "example", which clients need not support (RFC 6749 §7.1).
fn with_bearer_type(response: &str) -> String {
    response.replace(r#""token_type":"example""#, r#""token_type":"Bearer""#)
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
    let auth = ClientAuth::client_secret_basic("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw");
    let request = token_request(auth).await;
    let header = "Authorization: Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3\n";
    assert!(request.contains(header), "{request}");
}

/// The RFC's example has another grant type. The client credentials are the same.
#[tokio::test(start_paused = true)]
async fn rfc_6749_section_2_3_1_client_password_in_the_body() {
    let auth = ClientAuth::client_secret_post("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw");
    let request = token_request(auth).await;
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
    assert_eq!(token_request(basic()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_sections_4_4_3_and_5_1_type_example_is_an_error() {
    for response in [RFC_6749_SECTION_4_4_3, RFC_6749_SECTION_5_1] {
        let error = fetch_response(response).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("not \"Bearer\""), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_4_4_3_access_token_response_with_bearer() {
    let token = fetch_response(&with_bearer_type(RFC_6749_SECTION_4_4_3)).await.unwrap();
    assert_eq!(token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
    assert_eq!(token.token_type(), "Bearer");
    assert_eq!((token.lifetime(), token.scope()), (Some(Duration::from_secs(3600)), None));
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_5_1_successful_response_with_bearer() {
    let token = fetch_response(&with_bearer_type(RFC_6749_SECTION_5_1)).await.unwrap();
    assert_eq!(token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
    assert_eq!(token.lifetime(), Some(Duration::from_secs(3600)));
    assert!(
        !format!("{token:?}").contains("tGzv3JOkF0XG5Qx2TlKWIA"),
        "the refresh token must not be kept"
    );
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_5_2_error_response() {
    let error = fetch_response(RFC_6749_SECTION_5_2).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.error_code()),
        (TokenErrorKind::Rejected, Some("invalid_request"))
    );
    assert_eq!((error.error_description(), error.error_uri()), (None, None));
    assert_eq!(error.status().unwrap(), 400);
}

#[tokio::test(start_paused = true)]
async fn rfc_6749_section_5_2_error_codes_are_rejections() {
    for code in [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ] {
        let error = fetch_response(&RFC_6749_SECTION_5_2.replace("invalid_request", code))
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Rejected, Some(code)));
    }
}

/// The header encodes a space as `%20` instead of `+`, because more servers decode it.
#[tokio::test(start_paused = true)]
async fn rfc_6749_appendix_b_form_encoding() {
    let value = " %&+£€";
    let request = token_request(ClientAuth::client_secret_post("s6BhdRkqt3", value)).await;
    assert!(request.ends_with("&client_secret=+%25%26%2B%C2%A3%E2%82%AC\n"), "{request}");

    let expected = AccessToken::basic("s6BhdRkqt3", "%20%25%26%2B%C2%A3%E2%82%AC").unwrap();
    let request = token_request(ClientAuth::client_secret_basic("s6BhdRkqt3", value)).await;
    let header = format!("Authorization: {}\n", expected.header_value().to_str().unwrap());
    assert!(request.contains(&header), "{request}");
}

#[tokio::test(start_paused = true)]
async fn rfc_6750_section_2_1_authorization_request_header() {
    let recorded = Arc::new(Mutex::new(String::new()));
    let api = {
        let recorded = Arc::clone(&recorded);
        tower::service_fn(move |request: Request<Body>| {
            let recorded = Arc::clone(&recorded);
            async move {
                let request = print_request(request).await;
                *lock(&recorded) = request;
                Ok::<_, Infallible>(Response::new(Body::default()))
            }
        })
    };
    let tokens = TokenCache::new(source_fn(|_| async { AccessToken::bearer("mF_9.B5f-4.1JqM") }));
    let origins = Origins::new(["https://server.example.com"]).unwrap();
    let request =
        Request::get("https://server.example.com/resource").body(Body::default()).unwrap();
    OAuthLayer::new(tokens, origins).layer(api).oneshot(request).await.unwrap();
    let expected = "\
GET /resource HTTP/1.1
Host: server.example.com
Authorization: Bearer mF_9.B5f-4.1JqM
";
    assert_eq!(*lock(&recorded), expected);
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

/// Fetches a token from the document of RFC 6901 §5, read with this format.
async fn fetch_with_pointers(format: ResponseFormat) -> Result<CachedToken, TokenError> {
    let auth = ClientAuth::none("s6BhdRkqt3");
    let endpoint = Server::new(RFC_6901_SECTION_5).endpoint(auth);
    fetch(endpoint.response_format(format)).await
}

#[tokio::test(start_paused = true)]
async fn rfc_6901_section_5_pointers() {
    let format = ResponseFormat::default().access_token("/foo/0").unwrap();
    assert_eq!(fetch_with_pointers(format.clone()).await.unwrap().expose_secret(), "bar");

    let pointers = ["/a~1b", "/c%d", "/e^f", "/g|h", "/i\\j", "/k\"l", "/ ", "/m~0n"];
    for (value, pointer) in (1..).zip(pointers) {
        let token = fetch_with_pointers(format.clone().expires_in(pointer).unwrap()).await.unwrap();
        assert_eq!(token.lifetime(), Some(Duration::from_secs(value)), "{pointer}");
    }
    let token = fetch_with_pointers(format.clone().expires_in("/").unwrap()).await.unwrap();
    let lifetime = token.lifetime();
    assert_eq!(lifetime, Some(TokenEndpoint::MIN_LIFETIME), "the member with the empty name is 0");

    let error = fetch_with_pointers(format.access_token("/foo").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("not a string"), "{error}");
}

#[test]
fn rfc_6901_section_5_pointer_to_the_whole_document_is_an_error() {
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

/// Fetches a token from the token endpoint that the metadata of the issuer names.
async fn fetch_by_issuer(
    server: &Server,
    issuer: &str,
    auth: ClientAuth,
) -> Result<CachedToken, TokenError> {
    let issuer = Issuer::try_from(issuer).unwrap();
    fetch(TokenEndpoint::with_transport(issuer, auth, server.transport()).unwrap()).await
}

/// Creates a server with the metadata of RFC 8414 §3.2 at `path`, for this issuer.
fn server_with_metadata(path: &'static str, issuer: &str) -> Server {
    let issuer = format!("\"{issuer}\"");
    let metadata = RFC_8414_SECTION_3_2.replace("\"https://server.example.com\"", &issuer);
    Server::new(&with_bearer_type(RFC_6749_SECTION_4_4_3)).with_response(path, metadata)
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_1_metadata_request() {
    let server = server_with_metadata(WELL_KNOWN, "https://example.com");
    fetch_by_issuer(&server, "https://example.com", basic()).await.unwrap();
    assert_eq!(server.requests()[0], format!("GET {WELL_KNOWN} HTTP/1.1\nHost: example.com\n"));
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_1_metadata_request_with_a_path() {
    const PATH: &str = "/.well-known/oauth-authorization-server/issuer1";
    for issuer in ["https://example.com/issuer1", "https://example.com/issuer1/"] {
        let server = server_with_metadata(PATH, issuer);
        fetch_by_issuer(&server, issuer, basic()).await.unwrap();
        assert_eq!(server.requests()[0], format!("GET {PATH} HTTP/1.1\nHost: example.com\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_2_metadata_response() {
    let server = server_with_metadata(WELL_KNOWN, "https://server.example.com");
    let token = fetch_by_issuer(&server, "https://server.example.com", basic()).await.unwrap();
    assert_eq!(token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(
        requests[1].starts_with("POST /token HTTP/1.1\nHost: server.example.com\n"),
        "{requests:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_2_unsupported_method_is_an_error() {
    let server = server_with_metadata(WELL_KNOWN, "https://server.example.com");
    let auth = ClientAuth::client_secret_post("s6BhdRkqt3", "gX1fBat3bV");
    let error = fetch_by_issuer(&server, "https://server.example.com", auth).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Configuration);
    assert!(error.to_string().contains("client_secret_basic, private_key_jwt"), "{error}");
    assert_eq!(server.requests().len(), 1, "the secret must not be sent");
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_3_3_the_issuer_must_be_identical() {
    for other in [
        "https://server.example.com/",
        "https://SERVER.example.com",
        "https://server.example.com:443",
        "https://evil.test",
    ] {
        let server = server_with_metadata(WELL_KNOWN, other);
        let error =
            fetch_by_issuer(&server, "https://server.example.com", basic()).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
        assert!(error.to_string().contains("another issuer"), "{error}");
        let requests = server.requests();
        let no_post = requests.iter().all(|request| request.starts_with("GET "));
        assert!(no_post, "the secret must not be sent: {requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rfc_8414_section_5_openid_connect_path_is_tried_second() {
    const PATH: &str = "/issuer1/.well-known/openid-configuration";
    let server = server_with_metadata(PATH, "https://example.com/issuer1");
    fetch_by_issuer(&server, "https://example.com/issuer1", basic()).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests[0], format!("GET {WELL_KNOWN}/issuer1 HTTP/1.1\nHost: example.com\n"));
    assert_eq!(requests[1], format!("GET {PATH} HTTP/1.1\nHost: example.com\n"));
}
