//! Reading the response of a token endpoint: a token (RFC 6749 §5.1), an error (§5.2), or neither.
//!
//! The members of the body are read first, and then the status: servers send errors with status
//! 200, and reject bad credentials with 400 or 401. An error shows no text of the body, except for
//! the members of RFC 6749 §5.2 and those in which other servers explain an error.

use std::time::Duration;

use http::{
    HeaderName, StatusCode,
    header::{DATE, RETRY_AFTER},
};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use serde_json::Value;

use super::{
    lifetime::{read_lifetime, time_until},
    response_format::ResponseFormat,
    round_trip::RawResponse,
};
use crate::{
    error::{ErrorResponse, TokenError, TokenErrorKind},
    redact::Redactor,
    token::{AccessToken, without_scheme},
};

/// A response that contains a token.
#[derive(Debug)]
pub(super) struct ParsedResponse {
    /// The token, without its lifetime.
    pub(super) access_token: AccessToken,
    /// The lifetime in the response, if it has one that can be read.
    pub(super) lifetime: Option<Duration>,
    /// The complete JSON object.
    pub(super) members: Value,
}

pub(super) fn parse_response(
    response: &RawResponse,
    format: &ResponseFormat,
    redactor: &Redactor,
) -> Result<ParsedResponse, TokenError> {
    Parser { response, format, redactor }.parse().map_err(|error| {
        error.with_status(response.status).with_retry_after(response.retry_after())
    })
}

impl RawResponse {
    /// Returns the current time of the server's clock, or of the local clock if the response has no
    /// `Date`.
    fn now(&self) -> Timestamp {
        self.date().unwrap_or_else(Timestamp::now)
    }

    /// Returns the latest time that the server's clock can have. `Date` has whole seconds, so this
    /// is the end of its second. A lifetime that is measured from here is never too long.
    fn latest_now(&self) -> Timestamp {
        self.date()
            .and_then(|date| date.checked_add(Duration::from_secs(1)).ok())
            .unwrap_or_else(Timestamp::now)
    }

    fn date(&self) -> Option<Timestamp> {
        self.header(&DATE).and_then(parse_http_date)
    }

    /// Returns how long the server asks clients to wait: the longest `Retry-After` that can be
    /// read, or else the end of the period of a rate limit.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let asked = self.values(&RETRY_AFTER).filter_map(|value| self.parse_retry_after(value));
        let is_limited =
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&self.status);
        asked.max().or_else(|| {
            let resets = RATE_LIMIT_RESET.iter().flat_map(|name| self.values(name));
            let left = resets.filter_map(|value| self.parse_reset(value)).max();
            left.filter(|left| is_limited && !left.is_zero())
        })
    }

    /// Parses seconds or a date. Proxies join the values of two lines with a comma.
    fn parse_retry_after(&self, value: &str) -> Option<Duration> {
        let seconds = value.split(',').filter_map(parse_seconds).max();
        seconds.or_else(|| Some(self.time_until(parse_http_date(value)?)))
    }

    /// Parses seconds since 1970, or seconds from now.
    fn parse_reset(&self, value: &str) -> Option<Duration> {
        /// Smaller numbers are not times of this century.
        const MIN_EPOCH: Duration = Duration::from_secs(1_000_000_000);
        match parse_seconds(value)? {
            epoch if epoch >= MIN_EPOCH => {
                Some(self.time_until(Timestamp::UNIX_EPOCH.checked_add(epoch).ok()?))
            }
            seconds => Some(seconds),
        }
    }

    fn time_until(&self, at: Timestamp) -> Duration {
        time_until(at, self.now()).unwrap_or(Duration::ZERO)
    }

    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The headers in which servers say when the period of a rate limit ends.
static RATE_LIMIT_RESET: [HeaderName; 2] =
    [HeaderName::from_static("x-rate-limit-reset"), HeaderName::from_static("x-ratelimit-reset")];

/// Parses a number of seconds that is not negative.
fn parse_seconds(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok().filter(|seconds| *seconds >= 0.0)?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Parses a date in the format that senders must use (RFC 9110 §5.6.7).
fn parse_http_date(value: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(value).ok()
}

struct Parser<'a> {
    response: &'a RawResponse,
    format: &'a ResponseFormat,
    redactor: &'a Redactor,
}

impl Parser<'_> {
    fn parse(&self) -> Result<ParsedResponse, TokenError> {
        match self.response.members(self.format.encoding) {
            Ok(object @ Value::Object(_)) => match self.error_response(&object) {
                Some(error) => Err(error),
                None if self.response.status.is_success() => self.token_response(object),
                None => Err(self.neither_token_nor_error(&Ok(object))),
            },
            other => Err(self.neither_token_nor_error(&other)),
        }
    }

    fn token_response(&self, object: Value) -> Result<ParsedResponse, TokenError> {
        let ResponseFormat { access_token, token_type, scope, .. } = self.format;
        let Some(Value::String(value)) = object.pointer(access_token) else {
            return Err(self.no_access_token(&object));
        };
        self.check_token_type(&object, object.pointer(token_type))?;
        let now = self.response.latest_now();
        let (lifetime, unreadable) = read_lifetime(&object, self.format, now);
        let access_token = AccessToken::bearer(value).map_err(|error| {
            invalid_response(error.message()).with_advice(
                "check that {ResponseFormat::access_token|response_format.access_token} is the \
                 position of the token, and report the invalid token to the provider",
            )
        })?;
        let mut access_token = access_token.with_unreadable_lifetime(unreadable);
        if let Some(scope) = parse_scope(object.pointer(scope)) {
            access_token = access_token.with_scope(scope);
        }
        Ok(ParsedResponse { access_token, lifetime, members: object })
    }

    fn no_access_token(&self, object: &Value) -> TokenError {
        let pointer = &self.format.access_token;
        let text = in_parentheses(self.error_text(object).as_deref());
        let problem = match object.pointer(pointer) {
            Some(_) => format!("{pointer:?} is not a string{text}"),
            None => format!("the response has no {pointer:?}{text}"),
        };
        invalid_response(problem).with_advice(
            "if the token is at another position, set \
             {ResponseFormat::access_token|response_format.access_token}; if the response is an \
             error, set {ResponseFormat::error|response_format.error}",
        )
    }

    /// Accepts `Bearer` in any case (RFC 6749 §5.1), and a missing type.
    fn check_token_type(
        &self,
        object: &Value,
        token_type: Option<&Value>,
    ) -> Result<(), TokenError> {
        const OTHER_KNOWN_TYPES: [&str; 2] = ["dpop", "mac"];
        let name = match token_type {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::String(name)) if name.eq_ignore_ascii_case("bearer") => return Ok(()),
            Some(name) => name.as_str().filter(|name| is_type_name(name)).unwrap_or_default(),
        };
        let name = self.redactor_of(object).clean(name);
        let is_known = OTHER_KNOWN_TYPES.iter().any(|known| name.eq_ignore_ascii_case(known));
        let advice = if is_known {
            "configure the client at the authorization server for tokens of the type Bearer"
        } else {
            "if the token works as a bearer token, set \
             {ResponseFormat::token_type|response_format.token_type} to a position without a \
             member, such as /none, to ignore the type"
        };
        let problem = if name.is_empty() {
            "the type of the token is not \"Bearer\"".to_owned()
        } else {
            format!("the type of the token is {name:?}, not \"Bearer\"")
        };
        Err(invalid_response(problem).with_advice(advice))
    }

    /// Returns an error if the object has an error, or a success flag that is not set.
    fn error_response(&self, object: &Value) -> Option<TokenError> {
        let ResponseFormat { error, error_uri, success, .. } = self.format;
        let status = self.response.status;
        let clean = |text: &str| self.redactor_of(object).clean(text);
        if let Some(error) = object.pointer(error).filter(|error| !means_success(error)) {
            let code = error_code(error);
            let kind = TokenErrorKind::of_response(code.as_deref(), status);
            let response = ErrorResponse {
                error: code.as_deref().map(clean),
                description: self.error_text(object),
                uri: object.pointer(error_uri).and_then(non_empty_text).map(clean),
            };
            let message = error_message(&response, kind, status);
            return Some(TokenError::new(kind, message).with_error_response(response));
        }
        let success = success.as_ref()?;
        let has_token = object.pointer(&self.format.access_token).is_some_and(Value::is_string);
        match object.pointer(success) {
            // A number is an error code, or `false` of a language without this type.
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) && has_token => None,
            Some(Value::Bool(true)) => None,
            Some(Value::String(flag)) if is_word_for_success(flag) || flag == "true" => None,
            None if !status.is_success() => None,
            None | Some(Value::Object(_) | Value::Array(_)) => {
                let message = format!("the response has no success flag at {success:?}");
                let advice = "check the position of the success flag: \
                              {ResponseFormat::success|response_format.success}";
                Some(invalid_response(message).with_advice(advice))
            }
            Some(_) => {
                let message = "the response says that the request did not succeed";
                let description = self.error_text(object);
                let message = format!("{message}{}", in_parentheses(description.as_deref()));
                let response = ErrorResponse { description, ..ErrorResponse::default() };
                let kind = TokenErrorKind::of_response(None, status);
                Some(TokenError::new(kind, message).with_error_response(response))
            }
        }
    }

    /// Returns the text in which the server explains an error.
    fn error_text(&self, object: &Value) -> Option<String> {
        let ResponseFormat { error, error_description, .. } = self.format;
        let error_message = format!("{error}/message");
        let pointers = [
            error_description,
            "/error_description",
            "/message",
            &error_message,
            "/detail",
            "/msg",
        ];
        let text = pointers.iter().find_map(|pointer| non_empty_text(object.pointer(pointer)?))?;
        Some(self.redactor_of(object).clean(text))
    }

    /// Returns a redactor for the token in the response as well.
    fn redactor_of(&self, object: &Value) -> Redactor {
        let token = object.pointer(&self.format.access_token).and_then(Value::as_str);
        self.redactor.and(without_scheme(token.unwrap_or_default()))
    }

    fn neither_token_nor_error(&self, json: &serde_json::Result<Value>) -> TokenError {
        let status = self.response.status;
        let text = json.as_ref().ok().and_then(|object| self.error_text(object));
        if status.is_redirection() || !status.is_success() {
            let problem = if status.is_redirection() {
                "; a redirect is not followed, because it could take the client's credentials to \
                 another server"
            } else {
                ", without an OAuth error"
            };
            let about = match json {
                Err(_) if !self.response.body.is_empty() => {
                    Some(self.response.describe(self.redactor))
                }
                _ => None,
            };
            let shown = in_parentheses(text.as_deref().or(about.as_deref()));
            let message = format!("the status is {status}{problem}{shown}");
            let response = ErrorResponse { description: text, ..ErrorResponse::default() };
            let error = TokenError::new(TokenErrorKind::Server, message);
            let error = error.with_error_response(response);
            return match self.response.advice() {
                Some(advice) if json.is_err() && status.is_client_error() => {
                    error.with_advice(advice)
                }
                _ => error,
            };
        }
        self.response.not_an_object("the response", json, self.redactor)
    }
}

/// Returns true for values with which servers say that there is no error.
fn means_success(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_error) => !is_error,
        Value::Number(code) => code.as_f64() == Some(0.0),
        Value::String(code) => ["", "0"].contains(&code.as_str()) || is_word_for_success(code),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn is_word_for_success(text: &str) -> bool {
    text.eq_ignore_ascii_case("ok") || text.eq_ignore_ascii_case("success")
}

/// Returns the error code: a text or a number, or the member `code` of an object.
fn error_code(error: &Value) -> Option<String> {
    match error {
        Value::String(code) => Some(code.clone()),
        Value::Number(code) => Some(code.to_string()),
        Value::Object(members) => members.get("code").and_then(|code| match code {
            Value::String(_) | Value::Number(_) => error_code(code),
            _ => None,
        }),
        _ => None,
    }
}

fn error_message(response: &ErrorResponse, kind: TokenErrorKind, status: StatusCode) -> String {
    let ErrorResponse { error, description, uri } = response;
    let code = error.as_ref().map(|code| format!("{code:?}"));
    let text = in_parentheses(description.as_deref());
    let see = uri.as_ref().map(|uri| format!(", see {uri}")).unwrap_or_default();
    let problem = match (kind, code) {
        (TokenErrorKind::Rejected, Some(code)) => format!("the request was rejected with {code}"),
        (_, Some(code)) => format!("the status is {status}, with the error {code}"),
        (_, None) => format!("the request was rejected with the status {status}"),
    };
    format!("{problem}{text}{see}")
}

fn in_parentheses(text: Option<&str>) -> String {
    text.map(|text| format!(" ({text})")).unwrap_or_default()
}

fn non_empty_text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// Returns true if a text can be shown as the type of a token: the position of the type may be that
/// of a secret.
fn is_type_name(text: &str) -> bool {
    text.len() <= 24 && text.chars().all(|c| c.is_ascii_alphabetic() || "-_".contains(c))
}

fn parse_scope(scope: Option<&Value>) -> Option<String> {
    match scope? {
        Value::String(scope) => Some(scope.clone()),
        Value::Array(values) => {
            Some(values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    }
}

fn invalid_response(message: impl Into<String>) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, message)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn parse(status: u16, body: &str) -> Result<ParsedResponse, TokenError> {
        parse_with(&[], status, body, &ResponseFormat::default())
    }

    fn parse_with(
        headers: &[(HeaderName, &'static str)],
        status: u16,
        body: &str,
        format: &ResponseFormat,
    ) -> Result<ParsedResponse, TokenError> {
        let status = StatusCode::from_u16(status).unwrap();
        let headers =
            headers.iter().cloned().map(|(name, value)| (name, HeaderValue::from_static(value)));
        let body = Bytes::copy_from_slice(body.as_bytes());
        let response = RawResponse { status, headers: headers.collect(), body };
        parse_response(&response, format, &Redactor::default())
    }

    #[test]
    fn example_of_rfc_6749_section_4_4_3_is_parsed() {
        let parsed = parse(
            200,
            r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"example","expires_in":3600,
                "example_parameter":"example_value"}"#,
        );
        assert_eq!(
            parsed.unwrap_err().kind(),
            TokenErrorKind::InvalidResponse,
            "the type is not Bearer"
        );
        let parsed = parse(
            200,
            r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"Bearer","expires_in":3600,
                "example_parameter":"example_value"}"#,
        )
        .unwrap();
        assert_eq!(parsed.access_token.expose_secret(), "2YotnFZFEjr1zCsicMWpAA");
        assert_eq!(parsed.lifetime, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn example_of_rfc_6749_section_5_2_is_an_error() {
        let error = parse(400, r#"{"error":"invalid_request"}"#).unwrap_err();
        assert_eq!(
            (error.kind(), error.error_code()),
            (TokenErrorKind::Rejected, Some("invalid_request"))
        );
    }

    #[test]
    fn kind_of_an_error_depends_on_its_code_before_its_status() {
        for status in [200, 400, 401, 403, 500] {
            let error = parse(status, r#"{"error":"invalid_client","error_description":"no"}"#)
                .unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Rejected, "{status}");
            assert_eq!(error.error_description(), Some("no"));
            assert_eq!(error.status().unwrap().as_u16(), status);
        }
        for status in [429, 500, 503] {
            let error =
                parse(status, r#"{"status":503,"error":"Service Unavailable"}"#).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Server, "{status}");
        }
        let busy = parse(503, r#"{"error":"temporarily_unavailable"}"#).unwrap_err();
        assert_eq!(busy.kind(), TokenErrorKind::Server);
    }

    #[test]
    fn scope_is_a_string_or_an_array() {
        let scope_of = |scope: &str| {
            let body = format!(r#"{{"access_token":"t","scope":{scope}}}"#);
            parse(200, &body).unwrap().access_token.scope().map(str::to_owned)
        };
        assert_eq!(scope_of(r#""a b""#).as_deref(), Some("a b"));
        assert_eq!(scope_of(r#"["a","b"]"#).as_deref(), Some("a b"));
        assert_eq!(scope_of("true"), None);
    }

    #[test]
    fn unusable_response_is_described_and_not_quoted() {
        for (status, body, said) in [
            (200, "", "empty"),
            (200, "<!DOCTYPE html><p>T0KEN", "HTML"),
            (200, r#"{"access_token":"T0KEN"#, "not JSON"),
            (200, "T0KEN", "not JSON"),
            (200, r#"["T0KEN"]"#, "not an object"),
            (200, r#"{"token":"T0KEN"}"#, "no \"/access_token\""),
            (200, r#"{"access_token":["T0KEN"]}"#, "not a string"),
            (200, r#"{"access_token":"T0KEN\n"}"#, "ends with white space"),
            (200, r#"{"access_token":"T0KEN\u0000T0KEN"}"#, "not printable ASCII"),
            (200, r#"{"access_token":"","x":"T0KEN"}"#, "is empty"),
            (200, r#"{"access_token":"T0KEN","token_type":"T0KEN"}"#, "not \"Bearer\""),
            (200, r#"{"access_token":"T0KEN","token_type":"mac"}"#, "\"mac\""),
            (200, r#"{"access_token":"t","token_type":"SHORT-T0KEN"}"#, "token is not \"Bearer\""),
            (
                200,
                r#"{"access_token":"t","token_type":"long-long-long-long-token"}"#,
                "token is not \"Bearer\"",
            ),
            (302, "T0KEN", "redirect"),
            (404, r#"{"other":"T0KEN"}"#, "404"),
            (503, "T0KEN", "503"),
        ] {
            let error = parse(status, body).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(said), "{body}: {shown}");
            assert!(!shown.contains("T0KEN"), "{shown}");
        }
    }

    const NOW: (HeaderName, &str) = (DATE, "Sat, 31 Jan 2026 12:00:00 GMT");

    /// The format of one of the providers in the README.
    fn wrapped_format() -> ResponseFormat {
        let format = ResponseFormat::default().access_token("/data/accessToken").unwrap();
        let format =
            format.expires_at("/data/accessTokenExpiresAt").unwrap().scope("/data/scope").unwrap();
        format.success("/success").unwrap().error_description("/message").unwrap()
    }

    #[test]
    fn wrapped_response_is_parsed_by_its_pointers() {
        let body = r#"{"data":{"accessToken":"t",
            "accessTokenExpiresAt":"2026-02-01T13:00:00.500+01:00","client":{},"user":{},
            "scope":true},"success":true}"#;
        let parsed = parse_with(&[NOW], 200, body, &wrapped_format()).unwrap();
        assert_eq!(parsed.access_token.expose_secret(), "t");
        assert_eq!(parsed.lifetime, Some(Duration::from_millis(86_399_500)));
    }

    #[test]
    fn success_flag_that_is_not_true_is_an_error() {
        for success in ["false", "null", "\"no\"", "\"\"", "10014", "1"] {
            let body = format!(
                r#"{{"data":{{"accessToken":"T0KEN"}},"success":{success},
                    "message":"no such client: T0KEN"}}"#
            );
            let error = parse_with(&[], 200, &body, &wrapped_format()).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Rejected, "{success}");
            let text = "no such client: [redacted]";
            assert_eq!(error.error_description(), Some(text));
            assert!(error.to_string().contains(&format!("did not succeed ({text})")), "{error}");
        }
    }

    #[test]
    fn success_flag_is_true_zero_or_a_word_for_success() {
        for success in ["true", "0", "\"ok\"", "\"OK\"", "\"success\"", "\"true\""] {
            let body = format!(r#"{{"data":{{"accessToken":"t"}},"success":{success}}}"#);
            parse_with(&[], 200, &body, &wrapped_format()).unwrap();
        }
        let body = r#"{"success":0,"message":"no such client"}"#;
        let error = parse_with(&[], 200, body, &wrapped_format()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Rejected, "0 without a token means false");
    }

    #[test]
    fn wrong_success_pointer_is_not_a_rejection() {
        let token = r#"{"data":{"accessToken":"t"}}"#;
        for body in [token, r#"{"data":{"accessToken":"t"},"success":{}}"#] {
            let error = parse_with(&[], 200, body, &wrapped_format()).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
            let said = "no success flag at \"/success\"; check the position of the success flag: \
                        ResponseFormat::success";
            assert!(error.to_string().contains(said), "{error}");
        }
        let error = parse_with(&[], 401, r#"{"message":"who?"}"#, &wrapped_format()).unwrap_err();
        assert!(error.to_string().contains("401 Unauthorized, without an OAuth error (who?)"));
    }

    /// The format of a server that numbers its errors.
    fn numbered_format() -> ResponseFormat {
        ResponseFormat::default().error("/code").unwrap()
    }

    #[test]
    fn number_or_object_at_the_error_pointer_is_an_error() {
        for (status, body, format, code, said) in [
            (
                200,
                r#"{"error":{"message":"x"}}"#,
                ResponseFormat::default(),
                None,
                "status 200 OK (x)",
            ),
            (
                403,
                r#"{"error":{"message":"x","code":"NO"}}"#,
                ResponseFormat::default(),
                Some("NO"),
                "\"NO\" (x)",
            ),
            (403, r#"{"error":403}"#, ResponseFormat::default(), Some("403"), "\"403\""),
            (200, r#"{"error":true,"detail":"x"}"#, ResponseFormat::default(), None, "(x)"),
            (200, r#"{"error":["x"]}"#, ResponseFormat::default(), None, "200 OK"),
            (
                200,
                r#"{"code":10014,"msg":"app secret invalid"}"#,
                numbered_format(),
                Some("10014"),
                "rejected with \"10014\" (app secret invalid)",
            ),
        ] {
            let error = parse_with(&[], status, body, &format).unwrap_err();
            assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Rejected, code));
            assert!(error.to_string().contains(said), "{error}");
            assert!(error.is_final(), "{error}");
        }
    }

    #[test]
    fn value_for_success_at_the_error_pointer_is_no_error() {
        for code in ["0", "null", "false", "\"\"", "\"0\"", "\"ok\"", "\"success\"", "{}", "[]"] {
            let body = format!(r#"{{"access_token":"t","code":{code},"msg":"success"}}"#);
            parse_with(&[], 200, &body, &numbered_format()).unwrap();
        }
    }

    #[test]
    fn text_of_the_server_is_shown_from_each_known_member() {
        for (body, text) in [
            (r#"{"status":403,"message":"invalid client secret"}"#, "invalid client secret"),
            (r#"{"error_description":"d","message":"m"}"#, "d"),
            (r#"{"detail":"d","msg":"m"}"#, "d"),
            (r#"{"msg":"m"}"#, "m"),
            (r#"{"error":{"message":"m"}}"#, "m"),
            (r#"{"error":"e","message":"m"}"#, "m"),
            (r#"{"message":"","msg":"m"}"#, "m"),
            (r#"{"message":["x"],"msg":"m"}"#, "m"),
        ] {
            let error = parse(403, body).unwrap_err();
            assert_eq!(error.error_description(), Some(text), "{body}");
            assert!(error.to_string().contains(&format!("({text})")), "{error}");
            assert!(error.is_final(), "{error}");
        }
    }

    #[test]
    fn busy_server_is_named_with_its_status_and_its_delay() {
        let body = r#"{"error":"temporarily_unavailable"}"#;
        for (status, named) in [(429, "429 Too Many Requests"), (503, "503 Service Unavailable")] {
            let headers = [(RETRY_AFTER, "30")];
            let error = parse_with(&headers, status, body, &ResponseFormat::default()).unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Server);
            let said = format!(
                "the status is {named}, with the error \"temporarily_unavailable\"; the server \
                 asked to wait 30 s"
            );
            assert!(error.to_string().starts_with(&said), "{error}");
        }
    }

    #[test]
    fn expiry_is_measured_from_the_end_of_the_date_of_the_server() {
        let body = r#"{"access_token":"t","at":"2026-01-31T13:00:00Z"}"#;
        let format = ResponseFormat::default().expires_at("/at").unwrap();
        let parsed = parse_with(&[NOW], 200, body, &format).unwrap();
        assert_eq!(parsed.lifetime, Some(Duration::from_secs(3599)));
    }

    #[test]
    fn token_with_a_scheme_in_an_error_is_redacted() {
        let error = parse(
            400,
            r#"{"error":"T0KEN-1","error_description":"T0KEN-1","access_token":"bearer T0KEN-1"}"#,
        );
        let error = error.unwrap_err();
        assert!(!format!("{error} {error:?} {:?}", error.error_description()).contains("T0KEN"));
    }

    #[test]
    fn retry_after_is_parsed_as_seconds_and_as_a_date() {
        let retry_after = |value| {
            let headers = [NOW, (RETRY_AFTER, value)];
            parse_with(&headers, 503, "busy", &ResponseFormat::default()).unwrap_err().retry_after()
        };
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 12:02:00 GMT"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 11:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("55.0"), Some(Duration::from_secs(55)));
        assert_eq!(retry_after("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after("5, 7"), Some(Duration::from_secs(7)), "joined by a proxy");
        assert_eq!(retry_after("1e999"), Some(Duration::MAX));
        for value in ["soon", "-1", "NaN", ""] {
            assert_eq!(retry_after(value), None, "{value}");
        }
    }

    #[test]
    fn longest_of_several_retry_after_headers_counts() {
        let headers = [(RETRY_AFTER, "5"), (RETRY_AFTER, "soon"), (RETRY_AFTER, "55.0")];
        let error = parse_with(&headers, 429, "", &ResponseFormat::default()).unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(55)));
    }

    #[test]
    fn end_of_a_rate_limit_is_a_delay_without_retry_after() {
        let retry_after = |status, headers: &[(HeaderName, &'static str)]| {
            let headers = [&[NOW], headers].concat();
            let error = parse_with(&headers, status, "", &ResponseFormat::default()).unwrap_err();
            error.retry_after().map(|delay| delay.as_secs())
        };
        let [reset, other_name] = RATE_LIMIT_RESET.clone();
        let in_a_minute = "1769860860";
        assert_eq!(retry_after(429, &[(reset.clone(), in_a_minute)]), Some(60));
        assert_eq!(retry_after(503, &[(other_name, in_a_minute)]), Some(60));
        assert_eq!(retry_after(429, &[(reset.clone(), "60")]), Some(60));
        assert_eq!(retry_after(429, &[(reset.clone(), "1769860000")]), None, "it has passed");
        assert_eq!(retry_after(429, &[(reset.clone(), "1e300")]), None);
        assert_eq!(retry_after(401, &[(reset.clone(), in_a_minute)]), None, "no rate limit");
        let both = [(reset, in_a_minute), (RETRY_AFTER, "5")];
        assert_eq!(retry_after(429, &both), Some(5), "Retry-After is the standard");
    }
}
