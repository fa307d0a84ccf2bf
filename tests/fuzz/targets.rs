//! One function for each parser. It passes the input to the parser through the public interface of
//! the crate, and panics if the parser panics or breaks a rule.
//!
//! The input of `token_response` and `metadata` is an HTTP response, in the notation of the RFCs.
//! Parts of it that HTTP forbids are left out. The input of `challenge` is one header value per
//! line, that of `configuration` is TOML, and that of `origin` is an origin and the URL of a request.

use std::{
    convert::Infallible,
    error::Error,
    fmt::Write,
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::{
    AccessToken, ClientAuth, Issuer, OAuthLayer, Origins, ResponseFormat, StaticToken, TokenCache,
    TokenEndpoint, TokenError, TokenRequest, config::ProviderConfig, source_fn,
};

use crate::Url;

pub type Target = fn(&[u8]);

/// All targets, each with its name.
pub const TARGETS: [(&str, Target); 5] = [
    ("token_response", token_response),
    ("metadata", metadata),
    ("challenge", challenge),
    ("configuration", configuration),
    ("origin", origin),
];

/// The secret of the client. Seeds contain it, as a server may repeat it.
const SECRET: &str = "correct-horse-battery";

/// The largest text of an error. It contains a few texts of the server, which are cut.
const MAX_ERROR_BYTES: usize = 8 * 1024;

type Body = Full<Bytes>;

/// Reads the input as the response of a token endpoint, in each encoding.
///
/// An error shows no secret and no control character, and is short. A token fits into a header.
pub fn token_response(input: &[u8]) {
    let wrapped = ResponseFormat::default().access_token("/data/accessToken").unwrap();
    let wrapped = wrapped.expires_at("/data/accessTokenExpiresAt").unwrap();
    let wrapped = wrapped.success("/success").unwrap().error_description("/message").unwrap();
    for format in
        [ResponseFormat::default(), ResponseFormat::form(), ResponseFormat::text(), wrapped]
    {
        let response = http_response(input);
        let transport =
            service_fn(move |_: Request<Body>| ready(Ok::<_, Infallible>(response.clone())));
        let endpoint = TokenEndpoint::with_transport("https://as.test/token", auth(), transport);
        let endpoint = endpoint.unwrap().response_format(format);
        let sent = endpoint.send(TokenRequest::new("client_credentials"));
        match runtime().block_on(sent) {
            Ok(response) => check_token(response.access_token()),
            Err(error) => check_error(&error),
        }
    }
}

/// Reads the input as the metadata of an issuer.
///
/// The secret of the client is sent over HTTPS only, or does not leave the machine. It is sent at
/// most once.
pub fn metadata(input: &[u8]) {
    for issuer in ["https://as.test/tenant", "http://127.0.0.1:8080"] {
        let token_urls = Arc::new(Mutex::new(Vec::new()));
        let (urls, response) = (Arc::clone(&token_urls), http_response(input));
        let transport = service_fn(move |request: Request<Body>| {
            let response = if request.method() == Method::GET {
                response.clone()
            } else {
                urls.lock().unwrap().push(request.uri().clone());
                Response::new(Body::from(r#"{"access_token":"t"}"#))
            };
            ready(Ok::<_, Infallible>(response))
        });
        let issuer: Issuer = issuer.parse().unwrap();
        let endpoint = TokenEndpoint::with_transport(issuer, auth(), transport).unwrap();
        let sent = endpoint.send(TokenRequest::new("client_credentials"));
        if let Err(error) = runtime().block_on(sent) {
            check_error(&error);
        }
        let token_urls = token_urls.lock().unwrap();
        assert!(token_urls.len() <= 1, "the secret is sent to {token_urls:?}");
        for url in token_urls.iter() {
            assert!(may_carry_secret(url), "the secret is sent to {url}");
        }
    }
}

/// Reads the input as the challenges of a 401.
///
/// The request is sent again with another token, unless a challenge states that this is of no use.
pub fn challenge(input: &[u8]) {
    let values =
        input.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    // A header map has room for 2^15 names and values.
    let values: Vec<_> = values.take(100).collect();
    // The parser removes the backslashes of quoted strings.
    let text: Vec<_> = values
        .iter()
        .flat_map(HeaderValue::as_bytes)
        .filter(|byte| **byte != b'\\')
        .copied()
        .collect();
    let text = String::from_utf8_lossy(&text).into_owned();

    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let api = service_fn(move |_: Request<Body>| {
        let mut response = Response::new(Body::default());
        if counter.fetch_add(1, Ordering::Relaxed) == 0 {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            for value in &values {
                response.headers_mut().append(WWW_AUTHENTICATE, value.clone());
            }
        }
        ready(Ok::<_, Infallible>(response))
    });
    let tokens = AtomicUsize::new(0);
    let tokens = TokenCache::new(source_fn(move |_| {
        ready(AccessToken::bearer(format!("t{}", tokens.fetch_add(1, Ordering::Relaxed))))
    }));
    let layer = OAuthLayer::new(tokens, Origins::new(["https://api.test"]).unwrap());
    let request = Request::get("https://api.test/").body(Body::default()).unwrap();
    let status = runtime().block_on(layer.layer(api).oneshot(request)).unwrap().status();

    let attempts = attempts.load(Ordering::Relaxed);
    assert_eq!(status == StatusCode::OK, attempts == 2, "{attempts} attempts, {status}");
    let is_of_no_use = ["insufficient_scope", "insufficient_user_authentication"]
        .iter()
        .any(|error| text.contains(error));
    assert!(attempts == 2 || is_of_no_use, "no new token after {text:?}");
}

/// Reads the input as a provider in TOML, and builds its cache.
///
/// No message and no `Debug` output shows a secret that the text contains once.
pub fn configuration(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let config = toml::from_str::<ProviderConfig>(text);
    let mut shown = String::new();
    match &config {
        Ok(config) => {
            let response = Response::new(Body::default());
            let transport =
                service_fn(move |_: Request<Body>| ready(Ok::<_, Infallible>(response.clone())));
            write!(shown, "{config:?} {:?}", config.origins()).unwrap();
            match config.token_cache_with_transport(transport) {
                Ok(cache) => write!(shown, "{cache:?}").unwrap(),
                Err(error) => write!(shown, "{error} {error:?}").unwrap(),
            }
        }
        // `Display` of a TOML error quotes the line, as the documentation of the module says.
        Err(error) => shown += error.message(),
    }
    let Ok(table) = text.parse::<toml::Table>() else { return };
    for secret in secrets_of(&table) {
        let is_secret = secret.len() >= 8 && text.matches(&secret).count() == 1;
        assert!(!is_secret || !shown.contains(&secret), "{secret:?} is shown in {shown}");
    }
}

/// Reads the first line of the input as an allowed origin, and the second as the URL of a request.
///
/// A request with a token goes to that origin for an independent parser as well, that of browsers.
pub fn origin(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let (origin, url) = text.split_once('\n').unwrap_or((text, text));
    let (Ok(origins), Ok(uri)) = (Origins::new([origin]), url.parse::<Uri>()) else { return };
    let has_authority = uri.authority().is_some();
    let request = Request::get(uri).body(Body::default()).unwrap();
    let api = service_fn(|request: Request<Body>| {
        ready(Ok::<_, Infallible>(Response::new(request.headers().contains_key(AUTHORIZATION))))
    });
    let tokens = TokenCache::new(StaticToken::bearer("t").unwrap());
    let layer = OAuthLayer::new(tokens, origins.and_without_authority());
    // The body of the response tells whether the request had a token.
    let api = api.map_response(|response: Response<bool>| {
        response.map(|has_token| Body::from(if has_token { "yes" } else { "" }))
    });
    let response = runtime().block_on(layer.layer(api).oneshot(request)).unwrap();
    let has_token = !http_body::Body::is_end_stream(response.body());
    if !has_token {
        return;
    }
    if has_authority {
        if let (Ok(origin), Ok(url)) = (Url::parse(origin), Url::parse(url)) {
            assert_eq!(origin.origin(), url.origin(), "{origin:?} and {url:?}");
        }
    } else if let Ok(resolved) = Url::parse("https://channel.test/").unwrap().join(url) {
        assert_eq!(resolved.host_str(), Some("channel.test"), "{url:?}");
    }
}

fn auth() -> ClientAuth {
    ClientAuth::client_secret_basic("me", SECRET)
}

/// Returns a runtime with paused time, so that no input takes long.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Parses a response in the notation of the RFCs, as far as possible.
fn http_response(input: &[u8]) -> Response<Body> {
    let end = input.windows(2).position(|bytes| bytes == b"\n\n");
    let (head, body) = end.map_or((&b""[..], input), |end| (&input[..end], &input[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| line.split(|byte| *byte == b' ').nth(1));
    let mut response = Response::new(Body::from(body.to_vec()));
    *response.status_mut() = status
        .and_then(|status| StatusCode::from_bytes(status).ok())
        .filter(|status| !status.is_informational())
        .unwrap_or_default();
    for line in lines.take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn check_token(token: &AccessToken) {
    let value = token.header_value();
    assert!(value.is_sensitive() && value.to_str().is_ok_and(|text| text.starts_with("Bearer ")));
    assert!(!token.expose_secret().is_empty());
}

fn check_error(error: &TokenError) {
    let message = error.to_string();
    assert!(message.len() <= MAX_ERROR_BYTES, "{} bytes: {message}", message.len());
    assert!(!message.contains(is_unprintable), "{message:?}");
    let mut shown = format!("{message} {error:?}");
    for text in [error.error_code(), error.error_description(), error.error_uri()] {
        shown += text.unwrap_or_default();
    }
    let mut source = error.source();
    while let Some(error) = source {
        write!(shown, "{error} {error:?}").unwrap();
        source = error.source();
    }
    assert!(!shown.contains(SECRET), "{shown}");
}

/// Returns true for characters that change the lines or the direction of a log.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn may_carry_secret(uri: &Uri) -> bool {
    let url = Url::parse(&uri.to_string()).unwrap();
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    url.scheme() == "https" || host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Returns the values that are secret by their key.
fn secrets_of(provider: &toml::Table) -> Vec<String> {
    let Some(source) = provider.get("source") else { return Vec::new() };
    let auth = source.get("client_auth").and_then(|auth| auth.get("client_secret"));
    let tables =
        ["headers", "parameters"].map(|key| source.get(key).and_then(toml::Value::as_table));
    let in_tables = tables.into_iter().flatten().flat_map(toml::Table::values);
    let direct = [auth, source.get("token"), source.get("password")].into_iter().flatten();
    let list = source.get("secrets").and_then(toml::Value::as_array).into_iter().flatten();
    direct.chain(list).chain(in_tables).filter_map(toml::Value::as_str).map(str::to_owned).collect()
}
