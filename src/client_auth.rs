//! How the client authenticates at the token endpoint (RFC 6749 §2.3).

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::{error::TokenError, token::ClientSecret, token_request::TokenRequest};

/// The bytes that `application/x-www-form-urlencoded` leaves as they are, less the `+` for a space: `%20` is what most
/// servers accept.
const FORM_COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// Client authentication at the token endpoint, by the method names of RFC 8414
/// (`token_endpoint_auth_methods_supported`). One request uses one method.
///
/// ```
/// use tower_oauth::{ClientAuth, ClientSecret};
///
/// let auth = ClientAuth::client_secret_basic("my-client", "hunter2");
/// assert!(!format!("{auth:?}").contains("hunter2"));
///
/// let rotated = ClientSecret::from_file("/run/secrets/orders-client");
/// let auth = ClientAuth::client_secret_post("my-client", rotated);
/// ```
#[derive(Clone)]
pub struct ClientAuth {
    client_id: String,
    method: Method,
}

#[derive(Clone)]
enum Method {
    Basic(ClientSecret),
    BasicRaw(ClientSecret),
    Post(ClientSecret),
    None,
}

impl ClientAuth {
    /// Id and secret in the `Authorization` header, each form-encoded first as RFC 6749 §2.3.1 demands (a space as `%20`).
    /// What every authorization server has to support: the one to try first.
    pub fn client_secret_basic(client_id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        Self { client_id: client_id.into(), method: Method::Basic(secret.into()) }
    }

    /// [`client_secret_basic`](Self::client_secret_basic) **without** the encoding, for servers that do not decode: they
    /// refuse an id or a secret with special characters otherwise. An id with a colon cannot be understood this way.
    pub fn client_secret_basic_raw(client_id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        Self { client_id: client_id.into(), method: Method::BasicRaw(secret.into()) }
    }

    /// Id and secret as `client_id` and `client_secret` in the body (RFC 6749 §2.3.1), for servers that want it so.
    pub fn client_secret_post(client_id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        Self { client_id: client_id.into(), method: Method::Post(secret.into()) }
    }

    /// No authentication, the `client_id` alone in the body (RFC 6749 §3.2.1): where something else tells who the client
    /// is.
    pub fn none(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), method: Method::None }
    }

    /// The name of the method in the IANA registry of RFC 7591 and 8414.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self.method {
            Method::Basic(_) | Method::BasicRaw(_) => "client_secret_basic",
            Method::Post(_) => "client_secret_post",
            Method::None => "none",
        }
    }

    pub(crate) async fn authenticate(&self, request: &mut TokenRequest) -> Result<(), TokenError> {
        match &self.method {
            Method::Basic(secret) => {
                let secret = encode(&note(secret, request).await?);
                basic(&encode(&self.client_id), &secret, request);
            }
            Method::BasicRaw(secret) => {
                let secret = note(secret, request).await?;
                basic(&self.client_id, &secret, request);
            }
            Method::Post(secret) => {
                let secret = note(secret, request).await?;
                request.parameter("client_id", &self.client_id);
                request.secret_parameter("client_secret", &secret);
            }
            Method::None => request.parameter("client_id", &self.client_id),
        }
        Ok(())
    }
}

/// The secret, noted in all the forms in which a server might say it back.
async fn note(secret: &ClientSecret, request: &mut TokenRequest) -> Result<Zeroizing<String>, TokenError> {
    let secret = secret.read().await?;
    request.keep_secret(&secret);
    request.keep_secret(&encode(&secret));
    Ok(secret)
}

#[allow(clippy::expect_used)] // base64 is always a header value
fn basic(client_id: &str, secret: &str, request: &mut TokenRequest) {
    let pair = Zeroizing::new(format!("{client_id}:{secret}"));
    let credentials = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
    request.keep_secret(&credentials);
    let value = Zeroizing::new(format!("Basic {}", *credentials));
    request.authorize(HeaderValue::from_str(&value).expect("base64 is ASCII"));
}

fn encode(component: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(component, FORM_COMPONENT).to_string())
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth")
            .field("method", &self.method())
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Uri, header::AUTHORIZATION};
    use tokio_test::block_on;

    use super::*;
    use crate::token_request::BodyFormat;

    fn sent(auth: &ClientAuth) -> (Option<String>, String) {
        let mut request = TokenRequest::new("client_credentials");
        block_on(auth.authenticate(&mut request)).unwrap();
        let uri = Uri::from_static("https://as.test/token");
        let (request, _) = request.into_parts(&uri, BodyFormat::Form, &HeaderMap::new());
        let header = request.headers().get(AUTHORIZATION).map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        });
        (header, String::from_utf8(request.into_body().to_vec()).unwrap())
    }

    fn pair(header: Option<String>) -> (String, String) {
        let pair = BASE64_STANDARD.decode(header.unwrap().strip_prefix("Basic ").unwrap()).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let (id, secret) = pair.split_once(':').unwrap();
        (id.to_owned(), secret.to_owned())
    }

    #[test]
    fn basic_is_the_example_of_rfc_6749_section_2_3_1() {
        let (header, body) = sent(&ClientAuth::client_secret_basic("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw"));
        assert_eq!(header.unwrap(), "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
        assert_eq!(body, "grant_type=client_credentials");
    }

    #[test]
    fn post_puts_both_into_the_body_and_nothing_into_the_header() {
        let (header, body) = sent(&ClientAuth::client_secret_post("s6BhdRkqt3", "a b&c"));
        assert_eq!(header, None);
        assert_eq!(body, "grant_type=client_credentials&client_id=s6BhdRkqt3&client_secret=a+b%26c");
    }

    #[test]
    fn none_sends_the_id_alone() {
        let (header, body) = sent(&ClientAuth::none("s6BhdRkqt3"));
        assert_eq!((header, body.as_str()), (None, "grant_type=client_credentials&client_id=s6BhdRkqt3"));
    }

    #[test]
    fn every_special_character_of_id_and_secret_survives_a_strict_decoder() {
        let (id, secret) = ("a:b%c+d e&f=g~h", "ü\u{1F511} \n\0:%2B+*-._");
        let (header, _) = sent(&ClientAuth::client_secret_basic(id, secret));
        let (sent_id, sent_secret) = pair(header);
        assert!(!sent_secret.contains(['+', ' ']), "a space is %20, not +: {sent_secret}");
        let decode =
            |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
        assert_eq!((decode(&sent_id).as_str(), decode(&sent_secret).as_str()), (id, secret));
    }

    #[test]
    fn raw_leaves_the_characters_as_they_are() {
        let (header, _) = sent(&ClientAuth::client_secret_basic_raw("id", "a+b %:ü"));
        assert_eq!(pair(header), ("id".to_owned(), "a+b %:ü".to_owned()));
    }
}
