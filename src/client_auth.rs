//! How the client authenticates at the token endpoint (RFC 6749 §2.3).

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::{token::ClientSecret, token_request::TokenRequest};

/// The bytes that `application/x-www-form-urlencoded` leaves as they are, less the `+` for a space: `%20` is what most
/// servers accept.
const FORM_COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// Client authentication at the token endpoint, by the method names of RFC 8414
/// (`token_endpoint_auth_methods_supported`).
///
/// ```
/// use tower_oauth::ClientAuth;
///
/// let auth = ClientAuth::client_secret_basic("my-client", "hunter2");
/// assert!(!format!("{auth:?}").contains("hunter2"));
/// ```
#[derive(Clone)]
pub struct ClientAuth {
    client_id: String,
    method: Method,
}

#[derive(Clone)]
enum Method {
    Basic(ClientSecret),
    Post(ClientSecret),
}

impl ClientAuth {
    /// Id and secret in the `Authorization` header, each form-encoded first as RFC 6749 §2.3.1 demands (a space as `%20`).
    /// What every authorization server has to support: the one to try first.
    pub fn client_secret_basic(client_id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        Self { client_id: client_id.into(), method: Method::Basic(secret.into()) }
    }

    /// Id and secret as `client_id` and `client_secret` in the body (RFC 6749 §2.3.1), for servers that want it so.
    pub fn client_secret_post(client_id: impl Into<String>, secret: impl Into<ClientSecret>) -> Self {
        Self { client_id: client_id.into(), method: Method::Post(secret.into()) }
    }

    pub(crate) fn authenticate(&self, request: &mut TokenRequest) {
        match &self.method {
            Method::Basic(secret) => {
                let credentials = basic_credentials(&self.client_id, secret);
                request.keep_secret(secret.expose());
                request.keep_secret(&encode(secret.expose()));
                request.keep_secret(&credentials);
                request.authorize(header_value(&credentials));
            }
            Method::Post(secret) => {
                request.parameter("client_id", &self.client_id);
                request.secret_parameter("client_secret", secret.expose());
                request.keep_secret(&encode(secret.expose()));
            }
        }
    }
}

fn basic_credentials(client_id: &str, secret: &ClientSecret) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{}:{}", *encode(client_id), *encode(secret.expose())));
    Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()))
}

fn encode(component: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(component, FORM_COMPONENT).to_string())
}

#[allow(clippy::expect_used)] // base64 is always a header value
fn header_value(credentials: &str) -> HeaderValue {
    let value = Zeroizing::new(format!("Basic {credentials}"));
    HeaderValue::from_str(&value).expect("base64 is ASCII")
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Basic(_) => "client_secret_basic",
            Method::Post(_) => "client_secret_post",
        };
        f.debug_struct("ClientAuth")
            .field("method", &method)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::{Uri, header::AUTHORIZATION};

    use super::*;

    fn sent(auth: &ClientAuth) -> (Option<String>, String) {
        let mut request = TokenRequest::new("client_credentials");
        auth.authenticate(&mut request);
        let (request, _) = request.into_parts(&Uri::from_static("https://as.test/token"));
        let header = request.headers().get(AUTHORIZATION).map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        });
        (header, String::from_utf8(request.into_body().to_vec()).unwrap())
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
    fn every_special_character_of_id_and_secret_survives_a_strict_decoder() {
        let (id, secret) = ("a:b%c+d e&f=g~h", "ü\u{1F511} \n\0:%2B+*-._");
        let (header, _) = sent(&ClientAuth::client_secret_basic(id, secret));
        let pair = BASE64_STANDARD.decode(header.unwrap().strip_prefix("Basic ").unwrap()).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        assert!(!pair.contains(['+', ' ']), "a space is %20, not +: {pair}");
        let (left, right) = pair.split_once(':').unwrap();
        let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
        assert_eq!((decode(left).as_str(), decode(right).as_str()), (id, secret));
    }
}
