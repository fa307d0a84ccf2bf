//! The token endpoint of a fake authorization server.

use std::{collections::HashMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{
    issued_tokens::IssuedTokens,
    messages::{ResponseBody, body, credentials, is_of_type, json},
    server::Respond,
};

/// The path of the token endpoint.
pub(super) const PATH: &str = "/token";

/// The responder of the token endpoint. Clones share its tokens and its settings.
#[derive(Clone)]
pub(super) struct TokenResponder {
    pub(super) client: Client,
    pub(super) tokens: IssuedTokens,
    pub(super) settings: watch::Sender<Settings>,
}

/// The only registered client.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: String,
}

/// The properties of the tokens that are issued from now on.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) lifetime: Duration,
    /// The granted scope, instead of the requested one.
    pub(super) scope: Option<String>,
}

/// The parameters of a request. None is empty or repeated.
type Form = HashMap<String, String>;

impl Respond for TokenResponder {
    /// Answers a token request with the client credentials grant (RFC 6749 §4.4).
    async fn respond(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let basic = credentials(&request, "Basic").map(str::to_owned);
        let has_basic = basic.is_some();
        match self.issue(basic.as_deref(), request).await {
            Ok(response) => response,
            Err(error) => error.response(has_basic),
        }
    }
}

impl TokenResponder {
    async fn issue(
        &self,
        basic: Option<&str>,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, RequestError> {
        if request.uri().path() != PATH {
            return Err(RequestError::NotFound);
        }
        if request.method() != Method::POST {
            return Err(RequestError::NotPost);
        }
        if !is_of_type(&request, "application/x-www-form-urlencoded") {
            return Err(RequestError::invalid("the body is not a form"));
        }
        let content = request.into_body().collect().await;
        let form = parse_form(&content.map(Collected::to_bytes).unwrap_or_default())?;
        self.authenticate(basic, &form)?;
        match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => {}
            Some(_) => return Err(RequestError::Code("unsupported_grant_type", "")),
            None => return Err(RequestError::invalid("grant_type is missing")),
        }
        let Settings { lifetime, scope } = self.settings.borrow().clone();
        let token = self.tokens.issue(lifetime);
        let scope = scope.or_else(|| form.get("scope").cloned());
        let scope = scope.map(|scope| format!(r#","scope":{}"#, quoted(&scope)));
        Ok(json(
            StatusCode::OK,
            format!(
                r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{}{}}}"#,
                lifetime.as_secs(),
                scope.unwrap_or_default(),
            ),
        ))
    }

    /// Checks the credentials in the header or in the body, but not in both (RFC 6749 §2.3).
    fn authenticate(&self, basic: Option<&str>, form: &Form) -> Result<(), RequestError> {
        let in_form = form.get("client_secret");
        let credentials = match (basic, in_form) {
            (Some(_), Some(_)) => {
                return Err(RequestError::invalid("there is more than one client secret"));
            }
            (Some(basic), None) => decode_basic(basic),
            (None, Some(secret)) => form.get("client_id").cloned().zip(Some(secret.clone())),
            (None, None) => None,
        };
        let expected = (&self.client.id, &self.client.secret);
        match credentials {
            Some((id, secret)) if (&id, &secret) == expected => Ok(()),
            _ => Err(RequestError::InvalidClient),
        }
    }
}

/// Decodes id and secret, which are form-encoded and joined with a colon (RFC 6749 §2.3.1).
fn decode_basic(basic: &str) -> Option<(String, String)> {
    let pair = String::from_utf8(BASE64_STANDARD.decode(basic).ok()?).ok()?;
    // With an equals sign instead of the colon, they are a form.
    let form = pair.replacen(':', "=", 1);
    let mut pairs = form_urlencoded::parse(form.as_bytes()).into_owned();
    pairs.next().filter(|_| pairs.next().is_none())
}

/// Parses a form. A parameter without a value counts as absent, and none may be repeated (RFC 6749
/// §3.2), except `resource` (RFC 8707 §2).
fn parse_form(content: &[u8]) -> Result<Form, RequestError> {
    let mut form = Form::new();
    for (name, value) in form_urlencoded::parse(content).into_owned() {
        if !value.is_empty() && name != "resource" && form.insert(name, value).is_some() {
            return Err(RequestError::invalid("a parameter is repeated"));
        }
    }
    Ok(form)
}

/// An error response of the token endpoint (RFC 6749 §5.2).
enum RequestError {
    NotFound,
    NotPost,
    InvalidClient,
    /// An error code with a description.
    Code(&'static str, &'static str),
}

impl RequestError {
    fn invalid(description: &'static str) -> Self {
        Self::Code("invalid_request", description)
    }

    fn response(self, has_basic: bool) -> Response<ResponseBody> {
        match self {
            Self::NotFound => text(StatusCode::NOT_FOUND, "the token endpoint is /token"),
            Self::NotPost => {
                let mut response =
                    text(StatusCode::METHOD_NOT_ALLOWED, "a token request is a POST");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
                response
            }
            Self::InvalidClient => {
                let mut response =
                    error_json(StatusCode::UNAUTHORIZED, "invalid_client", "unknown id or secret");
                if has_basic {
                    let challenge = HeaderValue::from_static(r#"Basic realm="fake provider""#);
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                }
                response
            }
            Self::Code(code, description) => error_json(StatusCode::BAD_REQUEST, code, description),
        }
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(body(text));
    *response.status_mut() = status;
    response
}

fn error_json(status: StatusCode, code: &str, description: &str) -> Response<ResponseBody> {
    json(status, format!(r#"{{"error":"{code}","error_description":"{description}"}}"#))
}

/// Returns the text as a JSON string (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let escape = |char| match char {
        '"' | '\\' => format!("\\{char}"),
        '\0'..' ' => format!("\\u{:04x}", u32::from(char)),
        _ => char.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}
