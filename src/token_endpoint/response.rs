//! Reading the answer of a token endpoint: a token (RFC 6749 §5.1), an error (§5.2), or neither.
//!
//! Judged by what the body says, then by the status: servers answer errors with 200, and bad credentials with 400 or 401.
//! Nothing of a body reaches a message but the members that RFC 6749 §5.2 means for it.

use std::{iter, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{
    error::{Refusal, TokenError, TokenErrorKind},
    token::AccessToken,
    token_request::Redactor,
};

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

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

pub(super) fn read(answer: &Answer, redactor: &Redactor) -> Result<Granted, TokenError> {
    let json = serde_json::from_slice::<Value>(&answer.body);
    if let Ok(Value::Object(object)) = &json {
        if let Some(refusal) = refusal(object, redactor) {
            return Err(refused(refusal, answer.status));
        }
        if answer.status.is_success() {
            return granted(object).map_err(|what| invalid(what, answer.status));
        }
    }
    Err(match (answer.status, json) {
        (status, _) if status.is_redirection() => TokenError::new(
            TokenErrorKind::Server,
            format!(
                "answered {status}; a redirect is not followed, as the request carries the client's secret"
            ),
        )
        .with_status(status),
        (status, _) if !status.is_success() => {
            TokenError::new(TokenErrorKind::Server, format!("answered {status} without an OAuth error"))
                .with_status(status)
        }
        (status, Ok(_)) => invalid("the answer is JSON, but no object".into(), status),
        (status, Err(_)) if answer.body.is_empty() => invalid("the answer is empty".into(), status),
        (status, Err(_)) if answer.body.trim_ascii_start().starts_with(b"<") => {
            invalid("the answer is HTML or XML, not JSON".into(), status)
        }
        // The position helps; the error's text never quotes the input, as nothing is read into a type of ours.
        (status, Err(error)) => invalid(format!("the answer is not JSON: {error}"), status),
    })
}

fn granted(object: &Map<String, Value>) -> Result<Granted, String> {
    let value = match object.get("access_token") {
        Some(Value::String(value)) => value,
        Some(_) => return Err("\"access_token\" is not a string".into()),
        None => return Err("the answer has no \"access_token\"".into()),
    };
    check_token_type(object.get("token_type"))?;
    let lifetime = lifetime(object.get("expires_in"))?;
    let mut token = AccessToken::bearer(value).map_err(|error| error.what().to_owned())?;
    if let Some(scope) = scope(object.get("scope")) {
        token = token.with_scope(scope);
    }
    Ok(Granted { token, lifetime })
}

/// Missing counts as `Bearer`, and case does not (RFC 6749 §5.1).
fn check_token_type(token_type: Option<&Value>) -> Result<(), String> {
    match token_type {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(name)) if name.eq_ignore_ascii_case("bearer") => Ok(()),
        Some(Value::String(name)) if ["dpop", "mac"].iter().any(|known| name.eq_ignore_ascii_case(known)) => {
            Err(format!("the token is of type {name:?}, which needs more than \"Bearer\""))
        }
        Some(_) => Err("\"token_type\" is not \"Bearer\"".into()),
    }
}

/// Seconds (RFC 6749 §5.1), which servers send as an integer, a float or a string of either.
fn lifetime(expires_in: Option<&Value>) -> Result<Option<Duration>, String> {
    let seconds = match expires_in {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    match seconds {
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            Ok(Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
        }
        Some(seconds) if seconds.is_finite() => {
            Err("\"expires_in\" is zero or less: the token has expired already".into())
        }
        _ => Err("\"expires_in\" is not a number of seconds".into()),
    }
}

fn scope(scope: Option<&Value>) -> Option<String> {
    match scope? {
        Value::String(scope) => Some(scope.clone()),
        Value::Array(values) => Some(values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

fn refusal(object: &Map<String, Value>, redactor: &Redactor) -> Option<Refusal> {
    let member = |name| object.get(name).and_then(Value::as_str).map(|text| redactor.clean(text));
    Some(Refusal {
        error: member("error").filter(|error| !error.is_empty())?,
        description: member("error_description"),
        uri: member("error_uri"),
    })
}

fn refused(refusal: Refusal, status: StatusCode) -> TokenError {
    let Refusal { error, description, uri } = &refusal;
    let description = description.iter().map(|text| format!(" ({text})"));
    let uri = uri.iter().map(|uri| format!(", see {uri}"));
    let what: String = iter::once(format!("refused with {error:?}")).chain(description).chain(uri).collect();
    let kind = match refusal.error.as_str() {
        "temporarily_unavailable" | "server_error" => TokenErrorKind::Server,
        _ => TokenErrorKind::Refused,
    };
    TokenError::new(kind, what).with_status(status).with_refusal(refusal)
}

fn invalid(what: String, status: StatusCode) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, what).with_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token_request::TokenRequest;

    fn read_as(status: u16, body: &str) -> Result<Granted, TokenError> {
        let (_, redactor) = TokenRequest::new("x").into_parts(&"https://as.test/".parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        read(&Answer { status, body: Bytes::copy_from_slice(body.as_bytes()) }, &redactor)
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
            (200, r#"{"token":"T0KEN"}"#, "no \"access_token\""),
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
}
