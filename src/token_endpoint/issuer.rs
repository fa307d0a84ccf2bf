//! From an issuer to its token endpoint: authorization server metadata (RFC 8414), or `OpenID` Connect Discovery 1.0.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header::ACCEPT, uri::PathAndQuery};
use serde_json::Value;

use super::{
    round_trip::{Answer, RoundTrip},
    token_url::TokenUrl,
};
use crate::{
    authority::{check_server, is_loopback, without_secrets},
    error::{ConfigError, TokenError, TokenErrorKind},
    token_request::Redactor,
};

/// The issuer identifier of an authorization server (RFC 8414 §2), by which its token endpoint is found.
///
/// With the first token request, its metadata is fetched (RFC 8414 §3, or `OpenID` Connect Discovery 1.0 §4): the issuer in it
/// must be identical to this one, and the client authentication must be among the supported ones where the metadata names
/// them. What was found is remembered until a token request fails.
///
/// ```no_run
/// # #[cfg(feature = "default-transport")]
/// # fn main() -> Result<(), tower_oauth::ConfigError> {
/// use tower_oauth::{ClientAuth, Issuer, TokenEndpoint};
///
/// let issuer = Issuer::try_from("https://auth.example.com")?;
/// let endpoint = TokenEndpoint::new(issuer, ClientAuth::client_secret_basic("my-client", "hunter2"))?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "default-transport"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Issuer {
    identifier: String,
    uri: Uri,
    found: Arc<Mutex<Option<Found>>>,
}

/// What the metadata said.
#[derive(Clone)]
struct Found {
    url: TokenUrl,
    /// The supported ways to authenticate, where it names them.
    methods: Option<Vec<String>>,
}

impl TryFrom<&str> for Issuer {
    type Error = ConfigError;

    fn try_from(issuer: &str) -> Result<Self, ConfigError> {
        let uri = parse(issuer)
            .map_err(|reason| ConfigError::Issuer { issuer: without_secrets(issuer), reason })?;
        Ok(Self { identifier: issuer.to_owned(), uri, found: Arc::default() })
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identifier)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({self})")
    }
}

impl Issuer {
    #[cfg(feature = "default-transport")]
    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The token endpoint, if the server supports `method` there. Found once; then remembered.
    pub(super) async fn token_url(
        &self,
        method: &str,
        round_trip: &RoundTrip,
    ) -> Result<TokenUrl, TokenError> {
        let known = self.found().clone();
        let found = match known {
            Some(found) => Ok(found),
            None => self.discover(round_trip).await,
        };
        let found = found.and_then(|found| check_method(&found, method).map(|()| found));
        let found = found.map_err(|error| error.at("issuer", &self.identifier))?;
        *self.found() = Some(found.clone());
        Ok(found.url)
    }

    /// After a failure: the server may have moved.
    pub(super) fn forget(&self) {
        *self.found() = None;
    }

    fn found(&self) -> MutexGuard<'_, Option<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn discover(&self, round_trip: &RoundTrip) -> Result<Found, TokenError> {
        let [oauth, openid] = self.metadata_urls();
        let answer = match get(&oauth, round_trip).await? {
            answer if answer.status == StatusCode::OK => answer,
            _ => get(&openid, round_trip).await?,
        };
        self.read(&answer).map_err(|error| error.with_status(answer.status))
    }

    /// RFC 8414 §3.1 puts its path before that of the issuer; `OpenID` Connect Discovery 1.0 §4 behind it.
    fn metadata_urls(&self) -> [Uri; 2] {
        let path = self.uri.path().trim_end_matches('/');
        [
            format!("/.well-known/oauth-authorization-server{path}"),
            format!("{path}/.well-known/openid-configuration"),
        ]
        .map(|path| {
            let mut parts = self.uri.clone().into_parts();
            parts.path_and_query = PathAndQuery::try_from(path).ok();
            Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone())
        })
    }

    fn read(&self, answer: &Answer) -> Result<Found, TokenError> {
        if answer.status != StatusCode::OK {
            let what = format!(
                "there is no metadata under either of its well-known URLs: answered {}",
                answer.status
            );
            return Err(TokenError::new(TokenErrorKind::Server, what));
        }
        let invalid = |what: String| Err(TokenError::new(TokenErrorKind::InvalidResponse, what));
        let Ok(metadata) = serde_json::from_slice::<Value>(&answer.body) else {
            return invalid("its metadata is not JSON".into());
        };
        // RFC 8414 §3.3: identical, or another server may pass itself off as this one.
        match metadata["issuer"].as_str() {
            Some(issuer) if issuer == self.identifier => {}
            Some(other) => {
                let other = Redactor::default().clean(&without_secrets(other));
                return invalid(format!(
                    "its metadata is of another issuer, {other:?}: they must be identical"
                ));
            }
            None => return invalid("its metadata has no issuer".into()),
        }
        let Some(url) = metadata["token_endpoint"].as_str() else {
            return invalid("its metadata has no token_endpoint".into());
        };
        match TokenUrl::try_from(url) {
            Ok(url) if url.uri().scheme() == self.uri.scheme() => {
                let methods = metadata["token_endpoint_auth_methods_supported"].as_array();
                let methods = methods
                    .map(|methods| methods.iter().filter_map(Value::as_str).map(str::to_owned).collect());
                Ok(Found { url, methods })
            }
            Ok(url) => invalid(format!("its token endpoint {url} is not of the issuer's scheme")),
            Err(error) => {
                let error = Redactor::default().clean(&error.to_string());
                invalid(format!("its metadata has a token_endpoint that cannot be used: {error}"))
            }
        }
    }
}

fn check_method(Found { methods, .. }: &Found, method: &str) -> Result<(), TokenError> {
    let Some(supported) = methods else { return Ok(()) };
    if supported.iter().any(|supported| supported == method) {
        return Ok(());
    }
    let supported = Redactor::default().clean(&supported.join(", "));
    let what = format!("it does not support the client authentication {method}, but: {supported}");
    Err(TokenError::new(TokenErrorKind::Configuration, what))
}

async fn get(url: &Uri, round_trip: &RoundTrip) -> Result<Answer, TokenError> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = url.clone();
    request.headers_mut().insert(ACCEPT, http::HeaderValue::from_static("application/json"));
    round_trip.send(request, &Redactor::default()).await
}

/// RFC 8414 §2: `https`, without query and fragment. Plain `http` for this machine only, as for a token URL.
fn parse(issuer: &str) -> Result<Uri, &'static str> {
    let uri = issuer.parse::<Uri>().map_err(|_| "is not a URL")?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err("does not begin with https://");
    };
    check_server(scheme, authority)?;
    if scheme.as_str() != "https" && !is_loopback(authority.host()) {
        return Err("does not begin with https://");
    }
    if uri.query().is_some() || issuer.contains('#') {
        return Err("has a query or a fragment, which an issuer must not have (RFC 8414 section 2)");
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(issuer: &str) -> [String; 2] {
        Issuer::try_from(issuer).unwrap().metadata_urls().map(|url| url.to_string())
    }

    #[test]
    fn the_metadata_urls_are_those_of_rfc_8414_section_3_and_of_openid_connect() {
        assert_eq!(
            urls("https://example.com"),
            [
                "https://example.com/.well-known/oauth-authorization-server",
                "https://example.com/.well-known/openid-configuration"
            ]
        );
        assert_eq!(
            urls("https://example.com/issuer1/"),
            [
                "https://example.com/.well-known/oauth-authorization-server/issuer1",
                "https://example.com/issuer1/.well-known/openid-configuration"
            ]
        );
    }

    #[test]
    fn what_is_no_issuer_is_refused_with_its_reason() {
        for (issuer, reason) in [
            ("", "not a URL"),
            ("example.com", "https://"),
            ("http://example.com", "https://"),
            ("https://example.com?x", "query"),
            ("https://example.com#x", "query or a fragment"),
            ("https://u:hunter2@example.com", "user information"),
        ] {
            let error = Issuer::try_from(issuer).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
