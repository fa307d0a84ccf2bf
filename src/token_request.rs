//! The token request while it is put together (RFC 6749 §4): grants and client authentication both write to it.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use zeroize::Zeroizing;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) struct TokenRequest {
    parameters: Vec<(String, Zeroizing<String>)>,
    authorization: Option<HeaderValue>,
    secrets: Vec<Zeroizing<String>>,
}

impl TokenRequest {
    pub(crate) fn new(grant_type: &str) -> Self {
        let mut request = Self { parameters: Vec::new(), authorization: None, secrets: Vec::new() };
        request.parameter("grant_type", grant_type);
        request
    }

    pub(crate) fn parameter(&mut self, name: &str, value: &str) {
        self.parameters.push((name.to_owned(), Zeroizing::new(value.to_owned())));
    }

    pub(crate) fn secret_parameter(&mut self, name: &str, secret: &str) {
        self.keep_secret(secret);
        self.parameter(name, secret);
    }

    pub(crate) fn authorize(&mut self, mut value: HeaderValue) {
        value.set_sensitive(true);
        self.authorization = Some(value);
    }

    /// Notes what must not come back in a message: see [`Redactor`].
    pub(crate) fn keep_secret(&mut self, secret: &str) {
        self.secrets.push(Zeroizing::new(secret.to_owned()));
    }

    /// The request, and what hides its secrets in whatever is said about it.
    pub(crate) fn into_parts(self, uri: &Uri) -> (Request<Bytes>, Redactor) {
        let mut body = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.parameters {
            body.append_pair(name, value);
        }
        let mut request = Request::new(Bytes::from(body.finish()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        let authorization = self.authorization.map(|value| (AUTHORIZATION, value));
        request.headers_mut().extend([(CONTENT_TYPE, FORM), (ACCEPT, JSON)].into_iter().chain(authorization));
        (request, Redactor(self.secrets))
    }
}

/// Hides the secrets of a request in texts that come from elsewhere: a server or a proxy may echo what it was sent.
pub(crate) struct Redactor(Vec<Zeroizing<String>>);

impl Redactor {
    const LONGEST: usize = 512;

    /// `text` without secrets and control characters, cut to a length that a log line can bear.
    pub(crate) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.0.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret.as_str(), "[redacted]");
        }
        let mut clean: String =
            text.chars().take(Self::LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if clean.len() < text.len() {
            clean.push('…');
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor(secrets.iter().map(|secret| Zeroizing::new((*secret).to_owned())).collect())
    }

    #[test]
    fn an_echoed_secret_is_hidden() {
        let clean = redactor(&["s3cret", ""]).clean("bad secret 's3cret', I said s3cret");
        assert_eq!(clean, "bad secret '[redacted]', I said [redacted]");
    }

    #[test]
    fn a_message_stays_on_its_line_and_short() {
        assert_eq!(redactor(&[]).clean("a\r\nb"), "a  b");
        let long = redactor(&[]).clean(&"ü".repeat(5_000));
        assert_eq!(long.chars().count(), Redactor::LONGEST + 1);
    }
}
