//! The token request while it is put together (RFC 6749 §4): grants and client authentication both write to it.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) struct TokenRequest {
    parameters: Vec<(String, Zeroizing<String>)>,
    authorization: Option<HeaderValue>,
    secrets: Vec<Zeroizing<String>>,
}

/// How the parameters of a token request are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded`, as RFC 6749 §4 demands it.
    #[default]
    Form,
    /// A JSON object of strings, for providers that want it so. A parameter that is there twice becomes an array.
    Json,
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

    /// Notes what must not come back in a message, as it is and as a form has it: see [`Redactor`].
    pub(crate) fn keep_secret(&mut self, secret: &str) {
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        self.secrets.extend([Zeroizing::new(form), Zeroizing::new(secret.to_owned())]);
    }

    /// The request, and what hides its secrets in whatever is said about it.
    pub(crate) fn into_parts(
        self,
        uri: &Uri,
        format: BodyFormat,
        headers: &HeaderMap,
    ) -> (Request<Bytes>, Redactor) {
        let (content_type, body) = match format {
            BodyFormat::Form => (FORM, form(&self.parameters)),
            BodyFormat::Json => (JSON, json(&self.parameters)),
        };
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        let authorization = self.authorization.map(|value| (AUTHORIZATION, value));
        request
            .headers_mut()
            .extend([(CONTENT_TYPE, content_type), (ACCEPT, JSON)].into_iter().chain(authorization));
        (request, Redactor::new(self.secrets))
    }
}

fn form(parameters: &[(String, Zeroizing<String>)]) -> String {
    let mut body = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        body.append_pair(name, value);
    }
    body.finish()
}

fn json(parameters: &[(String, Zeroizing<String>)]) -> String {
    let mut object = Map::new();
    for (name, value) in parameters {
        let value = Value::from(value.as_str());
        match object.get_mut(name) {
            None => drop(object.insert(name.clone(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object).to_string()
}

/// Hides the secrets of a request in texts that come from elsewhere: a server or a proxy may echo what it was sent.
#[derive(Default)]
pub(crate) struct Redactor(Vec<Zeroizing<String>>);

impl Redactor {
    const LONGEST: usize = 512;

    /// Longest first: a secret may be part of another.
    fn new(mut secrets: Vec<Zeroizing<String>>) -> Self {
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// One more secret, such as a token in the answer.
    pub(crate) fn and(&self, secret: &str) -> Self {
        Self::new(self.0.iter().cloned().chain([Zeroizing::new(secret.to_owned())]).collect())
    }

    /// `text` without secrets and without what changes how a line is shown, cut to a length that a log line can bear.
    pub(crate) fn clean(&self, text: &str) -> String {
        let text = self.redact(text);
        let shown = |c: char| if c.is_alphanumeric() || c.is_ascii_graphic() { c } else { ' ' };
        let mut rest = text.chars();
        let mut clean: String = rest.by_ref().take(Self::LONGEST).map(shown).collect();
        if rest.next().is_some() {
            clean.push('…');
        }
        // What was shown in another way may have become a secret.
        self.redact(&clean)
    }

    pub(crate) fn is_clean(&self, text: &str) -> bool {
        self.redact(text) == text
    }

    fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = replace_ignoring_case(&text, secret);
        }
        text
    }
}

/// Percent-encodings come in either case.
fn replace_ignoring_case(text: &str, secret: &str) -> String {
    let (lower_text, lower_secret) = (text.to_ascii_lowercase(), Zeroizing::new(secret.to_ascii_lowercase()));
    let mut replaced = String::with_capacity(text.len());
    let mut end = 0;
    for (start, found) in lower_text.match_indices(lower_secret.as_str()) {
        replaced.push_str(&text[end..start]);
        replaced.push_str("[redacted]");
        end = start + found.len();
    }
    replaced + &text[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|secret| Zeroizing::new((*secret).to_owned())).collect())
    }

    #[test]
    fn an_echoed_secret_is_hidden() {
        let clean = redactor(&["s3cret", ""]).clean("bad secret 's3cret', I said s3cret");
        assert_eq!(clean, "bad secret '[redacted]', I said [redacted]");
    }

    #[test]
    fn a_secret_is_hidden_in_the_forms_in_which_it_was_sent() {
        let mut request = TokenRequest::new("x");
        request.keep_secret("s3cr+et ~");
        let uri = Uri::from_static("https://as.test/");
        let (_, redactor) = request.into_parts(&uri, BodyFormat::Form, &HeaderMap::new());
        let clean = redactor.clean("s3cr+et ~, s3cr%2Bet+%7E, s3cr%2bet+%7e, S3CR+ET ~");
        assert_eq!(clean, "[redacted], [redacted], [redacted], [redacted]");
    }

    #[test]
    fn a_message_stays_on_its_line_and_short() {
        assert_eq!(redactor(&[]).clean("a\r\nb\u{85}c\u{202e}d\u{2028}ü\u{1b}[1m"), "a  b c d ü [1m");
        let long = redactor(&[]).clean(&"ü".repeat(5_000));
        assert_eq!(long.chars().count(), Redactor::LONGEST + 1);
    }

    #[test]
    fn json_has_strings_and_an_array_for_what_is_there_more_than_once() {
        let mut request = TokenRequest::new("client_credentials");
        for resource in ["urn:1", "urn:2", "urn:3"] {
            request.parameter("resource", resource);
        }
        request.parameter("quoted", "\"\n");
        let uri = Uri::from_static("https://as.test/");
        let (request, _) = request.into_parts(&uri, BodyFormat::Json, &HeaderMap::new());
        assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
        let expected = serde_json::json!({
            "grant_type": "client_credentials",
            "resource": ["urn:1", "urn:2", "urn:3"],
            "quoted": "\"\n",
        });
        assert_eq!(serde_json::from_slice::<Value>(request.body()).unwrap(), expected);
    }
}
