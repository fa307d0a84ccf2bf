//! A cache with a token endpoint that knows several secrets, and the search for them.

use std::{convert::Infallible, future::ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::runtime::Builder;
use tower::service_fn;
use tower_oauth::{ClientAuth, ClientCredentials, RequestFormat, TokenCache, TokenEndpoint};
use zeroize::Zeroizing;

use crate::hidden_text::HiddenText;

/// The end of the use of a cache, after which no secret must be left.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The cache is closed while a clone of it still exists.
    Close,
    /// The last clone is dropped.
    Drop,
    /// The runtime shuts down, and then the cache is dropped.
    Shutdown,
}

/// The response of the token endpoint, which gets the body of the request.
pub(crate) type Respond = fn(&[u8]) -> (u16, Bytes);

type Authenticate = fn(&str, String) -> ClientAuth;

pub(crate) fn token(_: &[u8]) -> (u16, Bytes) {
    (200, Bytes::from_static(br#"{"access_token":"T0KEN","expires_in":3600}"#))
}

pub(crate) fn check_that_no_secret_is_left(respond: Respond) {
    for end in [End::Close, End::Drop, End::Shutdown] {
        for format in [RequestFormat::Form, RequestFormat::Json] {
            check(|id, secret| ClientAuth::client_secret_post(id, secret), format, respond, end);
        }
        check(
            |id, secret| ClientAuth::client_secret_basic(id, secret),
            RequestFormat::Form,
            respond,
            end,
        );
        check(
            |id, secret| ClientAuth::client_secret_basic_raw(id, secret),
            RequestFormat::Form,
            respond,
            end,
        );
    }
}

fn check(authenticate: Authenticate, format: RequestFormat, respond: Respond, end: End) {
    let secrets: [HiddenText; 4] = std::array::from_fn(|_| HiddenText::random());
    let [client_secret, parameter, header, named] = &secrets;
    let auth = authenticate("id", client_secret.reveal());
    let endpoint = endpoint(auth, respond)
        .request_format(format)
        .secret(named.reveal())
        .header("x-key", &Zeroizing::new(header.reveal()))
        .unwrap();
    let grant = ClientCredentials::new(endpoint).parameter("key", parameter.reveal()).unwrap();
    let cache = TokenCache::new(grant);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let result = runtime.block_on(cache.token());
    assert_eq!(result.is_ok(), respond(b"").0 == 200, "{result:?}");
    for secret in &secrets {
        assert!(secret.count_in_memory() > 0, "the search finds the secret of an open cache");
    }

    let still_held = match end {
        End::Close => {
            cache.close();
            Some(cache)
        }
        End::Drop => {
            drop(cache);
            None
        }
        End::Shutdown => {
            runtime.shutdown_background();
            drop(cache);
            None
        }
    };
    for (secret, name) in secrets.iter().zip(["client secret", "parameter", "header", "named"]) {
        assert_eq!(secret.count_in_memory(), 0, "{name} after {end:?} with {format:?}");
    }
    assert_eq!(client_secret.in_base64().count_in_memory(), 0, "Basic pair after {end:?}");
    drop(still_held);
}

fn endpoint(auth: ClientAuth, respond: Respond) -> TokenEndpoint {
    let transport = service_fn(move |request: Request<Bytes>| {
        let (status, body) = respond(request.body());
        let mut response = Response::new(Full::<Bytes>::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        ready(Ok::<_, Infallible>(response))
    });
    TokenEndpoint::with_transport("https://as.test/token", auth, transport).unwrap()
}
