//! The parameters of a token request as servers receive them (RFC 6749 §3.2 and §3.3).

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc::unbounded_channel;
use tower_oauth::{ClientAuth, ClientCredentials, RequestFormat, TokenCache, TokenEndpoint};

/// Returns the body of the token request of a grant.
async fn sent(
    format: RequestFormat,
    settings: impl FnOnce(ClientCredentials) -> ClientCredentials,
) -> Bytes {
    let (sender, mut bodies) = unbounded_channel();
    let transport = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let sender = sender.clone();
        async move {
            sender.send(request.into_body().collect().await?.to_bytes()).unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(r#"{"access_token":"T0KEN"}"#)))
        }
    });
    let auth = ClientAuth::client_secret_basic("id", "S3CRET");
    let endpoint = TokenEndpoint::with_transport("https://as.test/token", auth, transport);
    let endpoint = endpoint.unwrap().request_format(format);
    TokenCache::new(settings(ClientCredentials::new(endpoint))).token().await.unwrap();
    bodies.recv().await.unwrap()
}

/// Returns the parameters of a form, without the grant type.
async fn form(
    settings: impl FnOnce(ClientCredentials) -> ClientCredentials,
) -> Vec<(String, String)> {
    let body = sent(RequestFormat::Form, settings).await;
    form_urlencoded::parse(&body).into_owned().skip(1).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// Some servers reject `scope=`, although they must treat it as if it were omitted.
#[tokio::test]
async fn parameter_without_a_value_is_not_sent() {
    let empty = |grant: ClientCredentials| {
        grant.scope("").audience("").resource("").parameter("tenant", "").unwrap()
    };
    assert_eq!(form(empty).await, []);
    assert_eq!(sent(RequestFormat::Json, empty).await, r#"{"grant_type":"client_credentials"}"#);
    assert_eq!(form(|grant| grant.scope(" \n")).await, []);
}

/// As in a block of a YAML file, or a list with a line for each value.
#[tokio::test]
async fn scope_values_are_separated_by_one_space() {
    for scope in
        ["a:read b/.write", " a:read  b/.write\n", "a:read\nb/.write\r\n", "a:read\tb/.write"]
    {
        let sent = form(|grant| grant.scope(scope)).await;
        assert_eq!(sent, pairs([("scope", "a:read b/.write")]), "{scope:?}");
    }
}

#[tokio::test]
async fn special_characters_arrive_unchanged() {
    let value = "https://api.test/.default?a=b&c=d#e f+g%20ü\u{1F511}\"\\";
    let sent =
        form(|grant| grant.audience(value).resource(value).parameter("tenant", value).unwrap());
    let expected = pairs([("audience", value), ("resource", value), ("tenant", value)]);
    assert_eq!(sent.await, expected);
}
