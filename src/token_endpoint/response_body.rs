//! Reading the body of a response: JSON, a form or a text, in bytes that are not quite in order.

use std::borrow::Cow;

use http::{
    HeaderName,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use serde_json::{Map, Value};

use super::round_trip::RawResponse;
use crate::{
    error::{TokenError, TokenErrorKind},
    redact::Redactor,
};

/// The encoding of a successful response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub(crate) enum ResponseEncoding {
    /// A JSON object.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// The access token alone.
    Text,
}

const DECOMPRESS: &str = "use a transport that decompresses responses, such as one with the DecompressionLayer of \
     tower-http: {TokenEndpoint::with_transport|ProviderConfig::token_cache_with_transport}";

impl RawResponse {
    /// Returns the members of the response. A JSON object is read in every encoding, because
    /// servers send errors as JSON.
    pub(super) fn members(&self, encoding: ResponseEncoding) -> serde_json::Result<Value> {
        let json = self.json();
        if matches!(json, Ok(Value::Object(_))) || self.compression().is_some() {
            return json;
        }
        let text = self.text();
        let text = text.trim();
        let is_other = text.is_empty() || text.starts_with('<');
        match encoding {
            ResponseEncoding::Form if !is_other => Ok(parse_form(text)),
            ResponseEncoding::Text
                if !is_other && self.status.is_success() && !text.contains(char::is_whitespace) =>
            {
                Ok(serde_json::json!({ "access_token": text }))
            }
            _ => json,
        }
    }

    /// Parses the body as JSON.
    pub(super) fn json(&self) -> serde_json::Result<Value> {
        let text = self.text();
        serde_json::from_str(&text).or_else(|error| {
            let quoted = quote_huge_numbers(&text);
            serde_json::from_str(&quoted).map_err(|_| error)
        })
    }

    /// Returns the body as text: without a byte order mark, and with replacement characters for
    /// invalid UTF-8.
    fn text(&self) -> Cow<'_, str> {
        let body = &*self.body;
        String::from_utf8_lossy(body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body))
    }

    /// Returns the name of the compression, if the body is compressed.
    pub(super) fn compression(&self) -> Option<Cow<'_, str>> {
        match self.header_text(&CONTENT_ENCODING) {
            Some(coding) if !coding.trim().eq_ignore_ascii_case("identity") => Some(coding),
            _ => self.body.starts_with(b"\x1f\x8b").then_some("gzip".into()),
        }
    }

    /// Returns an error for a body that should be a JSON object, and is not. `subject` names the
    /// document. `json` is the result of parsing it.
    pub(super) fn not_an_object(
        &self,
        subject: &str,
        json: &serde_json::Result<Value>,
        redactor: &Redactor,
    ) -> TokenError {
        let about = self.describe(redactor);
        let body = self.body.trim_ascii_start();
        let problem = match json {
            Ok(_) => format!("is JSON, but not an object ({about})"),
            Err(_) if body.is_empty() => "is empty".into(),
            Err(_) if self.compression().is_some() => {
                format!("is compressed, which was not asked for ({about})")
            }
            Err(_) if body.starts_with(b"<") => format!("is HTML or XML, not JSON ({about})"),
            // The error contains a position and no text of the body, because the body is parsed
            // into a `Value` and not into a type of this crate.
            Err(error) => format!("is not JSON ({about}): {error}"),
        };
        let error =
            TokenError::new(TokenErrorKind::InvalidResponse, format!("{subject} {problem}"));
        match self.advice() {
            Some(advice) => error.with_advice(advice),
            None => error,
        }
    }

    /// Returns the advice about a body that cannot be read, if its cause is known.
    pub(super) fn advice(&self) -> Option<&'static str> {
        if self.compression().is_some() {
            return Some(DECOMPRESS);
        }
        let media_type = self.header_text(&CONTENT_TYPE)?.trim_start().to_ascii_lowercase();
        media_type.starts_with("application/x-www-form-urlencoded").then_some(
            "read the response as a form: {ResponseFormat::form|response_format.encoding}",
        )
    }

    /// Describes the body by its headers and its length.
    pub(super) fn describe(&self, redactor: &Redactor) -> String {
        let header = |name: &HeaderName, shown: &str| {
            let text = self.header_text(name)?;
            Some(format!("{shown} {:?}, ", redactor.clean(&text)))
        };
        let media_type = header(&CONTENT_TYPE, "Content-Type");
        let media_type = media_type.unwrap_or_else(|| "no Content-Type, ".into());
        let coding = header(&CONTENT_ENCODING, "Content-Encoding").unwrap_or_default();
        format!("{media_type}{coding}{} bytes", self.body.len())
    }

    fn header_text(&self, name: &HeaderName) -> Option<Cow<'_, str>> {
        Some(String::from_utf8_lossy(self.headers.get(name)?.as_bytes()))
    }
}

/// Parses a form. The first of several members with one name counts.
fn parse_form(text: &str) -> Value {
    let mut members = Map::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        members.entry(name).or_insert_with(|| Value::from(value));
    }
    Value::Object(members)
}

/// Puts numbers that an `f64` cannot hold, such as `1e400`, in quotes. Otherwise they make the
/// whole text invalid for `serde_json`.
fn quote_huge_numbers(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let mut quoted = String::with_capacity(text.len());
    let (mut rest, mut is_string) = (text, false);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            // The character after a backslash does not end the string.
            '\\' if is_string => rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at),
            '-' | '0'..='9' if !is_string => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        is_string ^= first == '"';
        match part.parse::<f64>() {
            Ok(number) if !is_string && number.is_infinite() => {
                quoted.extend(["\"", part, "\""]);
            }
            _ => quoted.push_str(part),
        }
        rest = after;
    }
    quoted
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn response(body: &[u8]) -> RawResponse {
        let body = Bytes::copy_from_slice(body);
        RawResponse { status: StatusCode::OK, headers: HeaderMap::new(), body }
    }

    #[test]
    fn byte_order_mark_is_skipped_and_invalid_utf_8_replaced() {
        let json = response(b"\xef\xbb\xbf{\"a\":\"f\xfcr\"}").json().unwrap();
        assert_eq!(json["a"], "f\u{fffd}r");
        assert!(response(b"\xef\xbb\xbf").json().is_err());
        assert!(response(b"{\"a\xff\":1, \xff}").json().is_err());
    }

    #[test]
    fn number_that_no_f64_can_hold_becomes_a_text() {
        let json = response(br#"{"a":1e400,"b":[-1E+999],"c":"1e400\"1e400","d":1e300}"#).json();
        let expected = serde_json::json!({
            "a": "1e400", "b": ["-1E+999"], "c": "1e400\"1e400", "d": 1e300,
        });
        assert_eq!(json.unwrap(), expected);
        for text in ["1e400 \\", "\"\\", "\"1e400", "\\1e400", "é1e999é", ""] {
            assert!(response(text.as_bytes()).json().is_err(), "{text}");
        }
    }

    #[test]
    fn form_is_read_as_members_and_html_is_not() {
        let form = b"access_token=a%2Bb+c&expires=5184000&expires=1\n";
        let members = response(form).members(ResponseEncoding::Form).unwrap();
        let expected = serde_json::json!({ "access_token": "a+b c", "expires": "5184000" });
        assert_eq!(members, expected);
        for body in ["", " ", "<html>access_token=t</html>"] {
            assert!(response(body.as_bytes()).members(ResponseEncoding::Form).is_err(), "{body}");
        }
    }

    #[test]
    fn text_is_a_token_and_json_stays_json() {
        let members = |body: &str| response(body.as_bytes()).members(ResponseEncoding::Text);
        assert_eq!(members(" a.b-c\r\n").unwrap()["access_token"], "a.b-c");
        assert_eq!(members(r#"{"error":"x"}"#).unwrap()["error"], "x");
        for body in ["", "<html>", "not a token", "a\nb"] {
            assert!(members(body).is_err(), "{body}");
        }
    }
}
