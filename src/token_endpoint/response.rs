//! Reading the answer of a token endpoint: a token (RFC 6749 §5.1), an error (§5.2), or neither.
//!
//! Judged by what the body says, then by the status: servers answer errors with 200, and bad credentials with 400 or 401.
//! Nothing of a body reaches a message but the members that RFC 6749 §5.2 means for it.

use std::{iter, time::Duration};

use http::{
    StatusCode,
    header::{DATE, RETRY_AFTER},
};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use serde_json::Value;
use tokio::time::Instant;

use super::{response_format::ResponseFormat, round_trip::Answer};
use crate::{
    error::{Refusal, TokenError, TokenErrorKind},
    token::AccessToken,
    token_request::Redactor,
};

/// A token with the lifetime that the server named, if any.
#[derive(Debug)]
pub(super) struct Granted {
    token: AccessToken,
    lifetime: Option<Duration>,
}

impl Granted {
    pub(super) fn into_access_token(self, asked_at: Instant, default_lifetime: Duration) -> AccessToken {
        self.token.expires_in_from(asked_at, self.lifetime.unwrap_or(default_lifetime))
    }
}

pub(super) fn read(
    answer: &Answer,
    format: &ResponseFormat,
    redactor: &Redactor,
) -> Result<Granted, TokenError> {
    let reader = Reader { answer, format, redactor };
    reader.read().map_err(|error| error.with_status(answer.status).with_retry_after(answer.retry_after()))
}

impl Answer {
    /// The server's clock, by which its other times are to be understood; ours where it does not say.
    fn now(&self) -> Timestamp {
        self.date().unwrap_or_else(Timestamp::now)
    }

    /// The latest that it can be by that clock, as a `Date` has whole seconds: the safe side for an expiry.
    fn latest_now(&self) -> Timestamp {
        let end_of_second = self.date().and_then(|date| date.checked_add(Duration::from_secs(1)).ok());
        end_of_second.unwrap_or_else(Timestamp::now)
    }

    fn date(&self) -> Option<Timestamp> {
        self.header(&DATE).and_then(http_date)
    }

    fn retry_after(&self) -> Option<Duration> {
        let value = self.header(&RETRY_AFTER)?.trim();
        match value.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => Some(until(http_date(value)?, self.now()).unwrap_or(Duration::ZERO)),
        }
    }

    fn header(&self, name: &http::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// RFC 9110 §5.6.7, in the form that may be sent.
fn http_date(value: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(value).ok()
}

/// `None`: it is over.
fn until(at: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(at.duration_since(now)).ok().filter(|duration| !duration.is_zero())
}

struct Reader<'a> {
    answer: &'a Answer,
    format: &'a ResponseFormat,
    redactor: &'a Redactor,
}

impl Reader<'_> {
    fn read(&self) -> Result<Granted, TokenError> {
        let json = serde_json::from_slice::<Value>(&self.answer.body);
        if let Ok(object @ Value::Object(_)) = &json {
            if let Some(error) = self.refusal(object) {
                return Err(error);
            }
            if self.answer.status.is_success() {
                return self.granted(object).map_err(invalid);
            }
        }
        Err(self.neither(json))
    }

    fn granted(&self, object: &Value) -> Result<Granted, String> {
        let ResponseFormat { access_token, token_type, scope, .. } = self.format;
        let value = match object.pointer(access_token) {
            Some(Value::String(value)) => value,
            Some(_) => return Err(format!("{access_token:?} is not a string")),
            None => return Err(format!("the answer has no {access_token:?}")),
        };
        check_token_type(object.pointer(token_type))?;
        let lifetime = self.lifetime(object)?;
        let mut token = AccessToken::bearer(value).map_err(|error| error.what().to_owned())?;
        if let Some(scope) = read_scope(object.pointer(scope)) {
            token = token.with_scope(scope);
        }
        Ok(Granted { token, lifetime })
    }

    fn lifetime(&self, object: &Value) -> Result<Option<Duration>, String> {
        let ResponseFormat { expires_in, expires_at, .. } = self.format;
        match expires_at.as_ref().and_then(|pointer| given(object, pointer)) {
            Some(at) => lifetime_until(at, self.answer.latest_now()).map(Some),
            None => given(object, expires_in).map(lifetime_of).transpose(),
        }
    }

    fn refusal(&self, object: &Value) -> Option<TokenError> {
        let token = object.pointer(&self.format.access_token).and_then(Value::as_str);
        let redactor = self.redactor.and(token.unwrap_or_default());
        let member = |pointer: &str| {
            let text = object.pointer(pointer)?.as_str().filter(|text| !text.is_empty())?;
            Some(redactor.clean(text))
        };
        let format = self.format;
        let description = member(&format.error_description);
        let refused = format
            .success
            .as_ref()
            .is_some_and(|pointer| object.pointer(pointer) != Some(&Value::Bool(true)));
        match member(&format.error) {
            Some(error) => {
                let kind =
                    self.kind_of(object.pointer(&format.error).and_then(Value::as_str).unwrap_or_default());
                Some(refused_with(kind, Refusal { error, description, uri: member(&format.error_uri) }))
            }
            None if refused => {
                let what = iter::once("the answer says that the request did not succeed".to_owned());
                let what: String = what.chain(description.map(|text| format!(" ({text})"))).collect();
                Some(TokenError::new(self.kind_of(""), what))
            }
            None => None,
        }
    }

    /// A server in trouble, or a gateway before it, has an `error` of its own: only the codes of the RFCs are a refusal then.
    fn kind_of(&self, code: &str) -> TokenErrorKind {
        let status = self.answer.status;
        let in_trouble = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        match code {
            "temporarily_unavailable" | "server_error" => TokenErrorKind::Server,
            code if in_trouble && !REFUSALS.contains(&code) => TokenErrorKind::Server,
            _ => TokenErrorKind::Refused,
        }
    }

    fn neither(&self, json: serde_json::Result<Value>) -> TokenError {
        let Answer { status, body, .. } = self.answer;
        if status.is_redirection() {
            let what = "a redirect is not followed, as the request carries the client's secret";
            return TokenError::new(TokenErrorKind::Server, format!("answered {status}; {what}"));
        }
        if !status.is_success() {
            return TokenError::new(
                TokenErrorKind::Server,
                format!("answered {status} without an OAuth error"),
            );
        }
        invalid(match json {
            Ok(_) => "the answer is JSON, but no object".into(),
            Err(_) if body.is_empty() => "the answer is empty".into(),
            Err(_) if body.trim_ascii_start().starts_with(b"<") => {
                "the answer is HTML or XML, not JSON".into()
            }
            // The position helps; the error's text never quotes the input, as nothing is read into a type of ours.
            Err(error) => format!("the answer is not JSON: {error}"),
        })
    }
}

fn given<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    object.pointer(pointer).filter(|value| !value.is_null())
}

/// Missing counts as `Bearer`, and case does not (RFC 6749 §5.1).
fn check_token_type(token_type: Option<&Value>) -> Result<(), String> {
    match token_type {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(name)) if name.eq_ignore_ascii_case("bearer") => Ok(()),
        Some(Value::String(name)) if ["dpop", "mac"].iter().any(|known| name.eq_ignore_ascii_case(known)) => {
            Err(format!("the token is of type {name:?}, which needs more than \"Bearer\""))
        }
        Some(_) => Err("the token's type is not \"Bearer\"".into()),
    }
}

/// Seconds (RFC 6749 §5.1), which servers send as an integer, a float or a string of either.
fn lifetime_of(expires_in: &Value) -> Result<Duration, String> {
    let seconds = match expires_in {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
        }
        Some(seconds) if seconds.is_finite() => Err(EXPIRED.into()),
        _ => Err("its lifetime is not a number of seconds".into()),
    }
}

const EXPIRED: &str = "its lifetime is zero or less: the token has expired already";

fn lifetime_until(expires_at: &Value, now: Timestamp) -> Result<Duration, String> {
    let at = match expires_at {
        // What some platforms say for "never".
        Value::String(text) if text.trim().starts_with("9999-12-31") => return Ok(Duration::MAX),
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(seconds) => seconds.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok()),
        _ => None,
    };
    match at {
        Some(at) => until(at, now).ok_or_else(|| EXPIRED.into()),
        None => Err("its expiry is not a time such as \"2026-01-31T12:00:00Z\" (RFC 3339)".into()),
    }
}

fn read_scope(scope: Option<&Value>) -> Option<String> {
    match scope? {
        Value::String(scope) => Some(scope.clone()),
        Value::Array(values) => Some(values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

/// RFC 6749 §5.2, and RFC 8707 §2.
const REFUSALS: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

fn refused_with(kind: TokenErrorKind, refusal: Refusal) -> TokenError {
    let Refusal { error, description, uri } = &refusal;
    let description = description.iter().map(|text| format!(" ({text})"));
    let uri = uri.iter().map(|uri| format!(", see {uri}"));
    let what: String = iter::once(format!("refused with {error:?}")).chain(description).chain(uri).collect();
    TokenError::new(kind, what).with_refusal(refusal)
}

fn invalid(what: String) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, what)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::token_request::{BodyFormat, TokenRequest};

    fn read_as(status: u16, body: &str) -> Result<Granted, TokenError> {
        read_answer(&[], status, body, &ResponseFormat::default())
    }

    fn read_answer(
        headers: &[(http::HeaderName, &'static str)],
        status: u16,
        body: &str,
        format: &ResponseFormat,
    ) -> Result<Granted, TokenError> {
        let uri = "https://as.test/".parse().unwrap();
        let (_, redactor) = TokenRequest::new("x").into_parts(&uri, BodyFormat::Form, &HeaderMap::new());
        let status = StatusCode::from_u16(status).unwrap();
        let headers = headers.iter().cloned().map(|(name, value)| (name, HeaderValue::from_static(value)));
        let body = Bytes::copy_from_slice(body.as_bytes());
        read(&Answer { status, headers: headers.collect(), body }, format, &redactor)
    }

    #[test]
    fn the_example_of_rfc_6749_section_4_4_3_is_read() {
        let granted = read_as(
            200,
            r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"example","expires_in":3600,
                "example_parameter":"example_value"}"#,
        );
        assert_eq!(granted.unwrap_err().kind(), TokenErrorKind::InvalidResponse, "its type is not Bearer");
        let granted = read_as(
            200,
            r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"Bearer","expires_in":3600,
                "example_parameter":"example_value"}"#,
        )
        .unwrap();
        assert_eq!(granted.token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
        assert_eq!(granted.lifetime, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn the_example_of_rfc_6749_section_5_2_is_a_refusal() {
        let error = read_as(400, r#"{"error":"invalid_request"}"#).unwrap_err();
        assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Refused, Some("invalid_request")));
    }

    #[test]
    fn an_error_is_judged_by_its_code_and_not_by_the_status() {
        for status in [200, 400, 401, 403, 500] {
            let error =
                read_as(status, r#"{"error":"invalid_client","error_description":"no"}"#).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Refused, "{status}");
            assert_eq!(error.error_description(), Some("no"));
            assert_eq!(error.status().unwrap().as_u16(), status);
        }
        for status in [429, 500, 503] {
            let error = read_as(status, r#"{"status":503,"error":"Service Unavailable"}"#).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Server, "{status}");
        }
        let busy = read_as(503, r#"{"error":"temporarily_unavailable"}"#).unwrap_err();
        assert_eq!(busy.kind(), TokenErrorKind::Server);
    }

    #[test]
    fn a_lifetime_is_read_in_all_the_forms_that_servers_send() {
        let lifetime_of = |expires_in: &str| {
            read_as(200, &format!(r#"{{"access_token":"t","expires_in":{expires_in}}}"#))
                .map(|granted| granted.lifetime)
        };
        for form in ["3600", "3600.0", r#""3600""#, r#"" 3600 ""#, "3.6e3"] {
            assert_eq!(lifetime_of(form).unwrap(), Some(Duration::from_secs(3600)), "{form}");
        }
        assert_eq!(lifetime_of("null").unwrap(), None);
        assert_eq!(lifetime_of("1e300").unwrap(), Some(Duration::MAX));
        for form in ["0", "-1", r#""soon""#, "true", r#""NaN""#, r#""inf""#, "[]"] {
            assert_eq!(lifetime_of(form).unwrap_err().kind(), TokenErrorKind::InvalidResponse, "{form}");
        }
    }

    #[test]
    fn a_scope_is_read_as_string_or_array_and_true_is_none() {
        let scope_of = |scope: &str| {
            let body = format!(r#"{{"access_token":"t","scope":{scope}}}"#);
            read_as(200, &body).unwrap().token.scope().map(str::to_owned)
        };
        assert_eq!(scope_of(r#""a b""#).as_deref(), Some("a b"));
        assert_eq!(scope_of(r#"["a","b"]"#).as_deref(), Some("a b"));
        assert_eq!(scope_of("true"), None);
    }

    #[test]
    fn what_is_no_token_is_named_and_never_quoted() {
        for (status, body, said) in [
            (200, "", "empty"),
            (200, "<!DOCTYPE html><p>T0KEN", "HTML"),
            (200, r#"{"access_token":"T0KEN"#, "not JSON"),
            (200, "T0KEN", "not JSON"),
            (200, r#"["T0KEN"]"#, "no object"),
            (200, r#"{"token":"T0KEN"}"#, "no \"/access_token\""),
            (200, r#"{"access_token":["T0KEN"]}"#, "not a string"),
            (200, r#"{"access_token":"T0KEN\n"}"#, "not printable ASCII"),
            (200, r#"{"access_token":"","x":"T0KEN"}"#, "is empty"),
            (200, r#"{"access_token":"T0KEN","token_type":"T0KEN"}"#, "not \"Bearer\""),
            (200, r#"{"access_token":"T0KEN","token_type":"mac"}"#, "\"mac\""),
            (302, "T0KEN", "redirect"),
            (404, r#"{"message":"T0KEN"}"#, "404"),
            (503, "T0KEN", "503"),
        ] {
            let error = read_as(status, body).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(said), "{body}: {shown}");
            assert!(!shown.contains("T0KEN"), "{shown}");
        }
    }

    const NOW: (http::HeaderName, &str) = (DATE, "Sat, 31 Jan 2026 12:00:00 GMT");

    /// As one of the providers of the README has it.
    fn enveloped() -> ResponseFormat {
        let format = ResponseFormat::default().access_token("/data/accessToken").unwrap();
        let format = format.expires_at("/data/accessTokenExpiresAt").unwrap().scope("/data/scope").unwrap();
        format.success("/success").unwrap().error_description("/message").unwrap()
    }

    #[test]
    fn an_enveloped_answer_with_a_point_in_time_is_read_by_its_pointers() {
        let body = r#"{"data":{"accessToken":"t","accessTokenExpiresAt":"2026-02-01T13:00:00.500+01:00","client":{},
            "user":{},"scope":true},"success":true}"#;
        let granted = read_answer(&[NOW], 200, body, &enveloped()).unwrap();
        assert_eq!(granted.token.expose_secret(), "t");
        assert_eq!(granted.lifetime, Some(Duration::from_millis(86_399_500)));
    }

    #[test]
    fn success_false_is_an_error_whatever_else_is_there() {
        for success in ["false", "null", "\"true\"", "0"] {
            let body = format!(
                r#"{{"data":{{"accessToken":"T0KEN"}},"success":{success},"message":"no such client"}}"#
            );
            let error = read_answer(&[], 200, &body, &enveloped()).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Refused);
            assert!(error.to_string().contains("did not succeed (no such client)"), "{error}");
            assert!(!error.to_string().contains("T0KEN"));
        }
    }

    #[test]
    fn a_point_in_time_is_rfc_3339_or_seconds_and_must_lie_ahead() {
        let lifetime_of = |expires_at: &str| {
            let body = format!(r#"{{"access_token":"t","at":{expires_at},"expires_in":60}}"#);
            let format = ResponseFormat::default().expires_at("/at").unwrap();
            read_answer(&[NOW], 200, &body, &format).map(|granted| granted.lifetime.unwrap().as_secs())
        };
        for form in [
            r#""2026-01-31T13:00:00Z""#,
            r#""2026-01-31 13:00:00.0Z""#,
            r#""2026-01-31T14:00:00+01:00""#,
            "1769864400",
        ] {
            assert_eq!(lifetime_of(form).unwrap(), 3599, "{form}");
        }
        assert_eq!(lifetime_of("null").unwrap(), 60, "without it, the seconds count");
        for (form, said) in [
            (r#""2026-01-31T12:00:00Z""#, "expired already"),
            (r#""1999-01-01T00:00:00Z""#, "expired already"),
            (r#""2026-01-31T13:00:00""#, "RFC 3339"),
            (r#""tomorrow""#, "RFC 3339"),
            ("1e300", "RFC 3339"),
            ("true", "RFC 3339"),
            ("9223372036854775807", "RFC 3339"),
        ] {
            let error = lifetime_of(form).unwrap_err();
            assert!(error.to_string().contains(said), "{form}: {error}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let retry_after = |value| {
            let headers = [NOW, (RETRY_AFTER, value)];
            read_answer(&headers, 503, "busy", &ResponseFormat::default()).unwrap_err().retry_after()
        };
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 12:02:00 GMT"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 11:00:00 GMT"), Some(Duration::ZERO));
        for value in ["soon", "-1", "1.5", ""] {
            assert_eq!(retry_after(value), None, "{value}");
        }
    }
}
