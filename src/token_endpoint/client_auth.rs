//! Client authentication at the token endpoint (RFC 6749 §2.3).

use std::fmt;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use super::token_request::TokenRequest;
use crate::{
    error::{ConfigError, TokenError},
    token::{Secret, basic_credentials, sensitive_header},
};

/// The bytes that are percent-encoded: those that `application/x-www-form-urlencoded` encodes, and
/// the space. It becomes `%20` and not `+`, as most servers accept only `%20`.
const FORM_COMPONENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// Client authentication at the token endpoint (RFC 6749 §2.3). One request uses one method.
///
/// The constructors have the names of the methods in the metadata of authorization servers
/// (RFC 8414, `token_endpoint_auth_methods_supported`). A secret is a string or a
/// [`Secret`], which can be read from a file. `Debug` does not show it.
///
/// An id or a secret with a control character, such as a line break at its end, is an error when the
/// endpoint is created ([`ConfigError::ClientAuth`]; RFC 6749 §A.1, §A.2). All other characters are
/// accepted.
///
/// ```
/// use tower_oauth::{ClientAuth, Secret};
///
/// let auth = ClientAuth::client_secret_basic("my-client", "hunter2");
/// assert!(!format!("{auth:?}").contains("hunter2"));
///
/// let rotated = Secret::from_file("/run/secrets/orders-client");
/// let auth = ClientAuth::client_secret_post("my-client", rotated);
/// ```
#[derive(Clone)]
pub struct ClientAuth {
    client_id: String,
    method: Method,
}

#[derive(Clone)]
enum Method {
    Basic(Secret),
    BasicRaw(Secret),
    Post(Secret),
    None,
}

impl ClientAuth {
    /// Sends the client id and the secret in the `Authorization` header, each form-encoded (RFC
    /// 6749 §2.3.1; a space is sent as `%20`). Every authorization server must support this method,
    /// so try it first.
    pub fn client_secret_basic(client_id: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self { client_id: client_id.into(), method: Method::Basic(secret.into()) }
    }

    /// Like [`client_secret_basic`](Self::client_secret_basic), but **without** the form-encoding:
    /// for servers that do not decode it, and therefore reject an id or a secret with special
    /// characters. The id must not contain a colon.
    pub fn client_secret_basic_raw(
        client_id: impl Into<String>,
        secret: impl Into<Secret>,
    ) -> Self {
        Self { client_id: client_id.into(), method: Method::BasicRaw(secret.into()) }
    }

    /// Sends the client id and the secret as the parameters `client_id` and `client_secret` of the
    /// body (RFC 6749 §2.3.1), for servers that require it.
    pub fn client_secret_post(client_id: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self { client_id: client_id.into(), method: Method::Post(secret.into()) }
    }

    /// Sends only the parameter `client_id` (RFC 6749 §3.2.1): for clients that authenticate by
    /// other means, such as a TLS certificate, and for public clients.
    pub fn none(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), method: Method::None }
    }

    /// Returns the name of the method in the IANA registry "OAuth Token Endpoint Authentication
    /// Methods" (RFC 7591 §4.2): `client_secret_basic`, `client_secret_post` or `none`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self.method {
            Method::Basic(_) | Method::BasicRaw(_) => "client_secret_basic",
            Method::Post(_) => "client_secret_post",
            Method::None => "none",
        }
    }

    /// Fails with [`ConfigError::ClientAuth`] if the id or the secret cannot be sent.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let secret = match &self.method {
            Method::Basic(secret) | Method::BasicRaw(secret) | Method::Post(secret) => Some(secret),
            Method::None => None,
        };
        let reason = if self.client_id.contains(char::is_control) {
            "has a control character in the client id, such as a line break: remove it"
        } else if secret.is_some_and(Secret::has_control_character) {
            "has a control character in the client secret, such as a line break: remove it"
        } else {
            return Ok(());
        };
        Err(ConfigError::ClientAuth { reason })
    }

    /// Adds the client authentication to `request`. Reads the secret from its file, if it has one.
    pub(super) async fn authenticate(
        &self,
        request: TokenRequest,
    ) -> Result<TokenRequest, TokenError> {
        let client_id = &self.client_id;
        let secret = match &self.method {
            Method::Basic(secret) | Method::BasicRaw(secret) | Method::Post(secret) => secret,
            Method::None => return Ok(request.parameter("client_id", client_id)),
        };
        let secret = secret.read().await?;
        let encoded = form_encode(&secret);
        let raw_pair = basic_credentials(client_id, &secret);
        let encoded_pair = basic_credentials(&form_encode(client_id), &encoded);
        // A server or a proxy may know and repeat more than the form that is sent.
        let request = [&secret, &encoded, &raw_pair, &encoded_pair]
            .into_iter()
            .fold(request, |request, form| request.register_secret(form));
        Ok(match self.method {
            Method::Basic(_) => {
                let request = request.authorization(basic(&encoded_pair));
                if *encoded_pair == *raw_pair {
                    request
                } else {
                    request.with_encoded_credentials()
                }
            }
            Method::BasicRaw(_) => request.authorization(basic(&raw_pair)),
            Method::Post(_) | Method::None => request
                .parameter("client_id", client_id)
                .parameter("client_secret", secret.as_str()),
        })
    }
}

#[allow(clippy::expect_used)] // Base64 is always a valid header value.
fn basic(credentials: &str) -> HeaderValue {
    sensitive_header(Zeroizing::new(["Basic", credentials].join(" "))).expect("base64 is ASCII")
}

fn form_encode(component: &str) -> Zeroizing<String> {
    // Allocated once: a string that grows would leave a copy behind.
    let mut encoded = Zeroizing::new(String::with_capacity(3 * component.len()));
    encoded.extend(utf8_percent_encode(component, FORM_COMPONENT));
    encoded
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
    use base64::{Engine, prelude::BASE64_STANDARD};
    use http::{HeaderMap, Uri, header::AUTHORIZATION};
    use tokio_test::block_on;

    use super::*;
    use crate::token_endpoint::request_format::RequestFormat;

    /// Returns the `Authorization` header and the body of a request with this authentication.
    fn sent(auth: &ClientAuth) -> (Option<String>, String) {
        let request = TokenRequest::new("client_credentials");
        let request = block_on(auth.authenticate(request)).unwrap();
        let uri = Uri::from_static("https://as.test/token");
        let (request, _) = request.into_http_request(&uri, RequestFormat::Form, &HeaderMap::new());
        let header = request.headers().get(AUTHORIZATION).map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        });
        (header, String::from_utf8(request.into_body().to_vec()).unwrap())
    }

    fn decode_basic(header: Option<String>) -> (String, String) {
        let pair = BASE64_STANDARD.decode(header.unwrap().strip_prefix("Basic ").unwrap()).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let (id, secret) = pair.split_once(':').unwrap();
        (id.to_owned(), secret.to_owned())
    }

    #[test]
    fn basic_sends_the_example_of_rfc_6749_section_2_3_1() {
        let auth = ClientAuth::client_secret_basic("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw");
        let (header, body) = sent(&auth);
        assert_eq!(header.unwrap(), "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
        assert_eq!(body, "grant_type=client_credentials");
    }

    #[test]
    fn post_sends_both_in_the_body_and_no_header() {
        let (header, body) = sent(&ClientAuth::client_secret_post("s6BhdRkqt3", "a b&c"));
        assert_eq!(header, None);
        let expected = "grant_type=client_credentials&client_id=s6BhdRkqt3&client_secret=a+b%26c";
        assert_eq!(body, expected);
    }

    #[test]
    fn none_sends_the_client_id_only() {
        let (header, body) = sent(&ClientAuth::none("s6BhdRkqt3"));
        let expected = "grant_type=client_credentials&client_id=s6BhdRkqt3";
        assert_eq!((header, body.as_str()), (None, expected));
    }

    #[test]
    fn basic_special_characters_survive_a_strict_decoder() {
        let (id, secret) = ("a:b%c+d e&f=g~h", "ü\u{1F511} \u{a0}:%2B+*-._");
        let (header, _) = sent(&ClientAuth::client_secret_basic(id, secret));
        let (sent_id, sent_secret) = decode_basic(header);
        assert!(!sent_secret.contains(['+', ' ']), "a space is sent as %20: {sent_secret}");
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
        };
        assert_eq!((decode(&sent_id).as_str(), decode(&sent_secret).as_str()), (id, secret));
    }

    #[test]
    fn control_character_in_id_or_secret_is_refused() {
        for bad in ["s3cret\n", "\ts3cret", "s3\0cret", "s3cret\u{7f}", "s3cret\u{85}"] {
            for auth in [
                ClientAuth::client_secret_basic("id", bad),
                ClientAuth::client_secret_basic_raw("id", bad),
                ClientAuth::client_secret_post("id", bad),
                ClientAuth::client_secret_post(bad, "x"),
                ClientAuth::none(bad),
            ] {
                let error = auth.check().unwrap_err();
                assert!(error.to_string().contains("control character in the client"), "{error}");
                assert!(!format!("{error} {error:?}").contains("s3"), "{error}");
            }
        }
        for good in ["", " ", "a b", "ü\u{a0}\u{1F511}", "\u{202e}", "~!\"\\%&+:"] {
            assert_eq!(ClientAuth::client_secret_basic(good, good).check(), Ok(()), "{good}");
        }
    }

    #[test]
    fn basic_raw_sends_the_characters_unencoded() {
        let (header, _) = sent(&ClientAuth::client_secret_basic_raw("id", "a+b %:ü"));
        assert_eq!(decode_basic(header), ("id".to_owned(), "a+b %:ü".to_owned()));
    }
}
