//! Finding the token endpoint of an issuer through its metadata: authorization server metadata
//! (RFC 8414), or `OpenID` Connect Discovery 1.0.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header::ACCEPT, uri::PathAndQuery};
use serde_json::Value;

use super::{
    advice::advice_for_metadata,
    round_trip::{RawResponse, RoundTrip},
    token_url::TokenUrl,
};
use crate::{
    error::{ConfigError, TokenError, TokenErrorKind, is_transient_status},
    log_text::{url_text_without_secrets, url_without_query},
    redact::Redactor,
    sync::{Mutex, lock},
    url_check::{check_server, is_https_or_loopback},
};

/// The issuer identifier of an authorization server (RFC 8414 §2), through which its token endpoint
/// is found.
///
/// The metadata of the server is fetched before the first token request (RFC 8414 §3, or `OpenID`
/// Connect Discovery 1.0 §4). If the first well-known URL has none, or that of another issuer, the
/// other ones are tried. Redirects are not followed. The issuer in the metadata must be identical
/// to this one. If the metadata lists client authentication methods, that of the endpoint must be
/// among them, except for [`ClientAuth::none`](crate::ClientAuth::none). The metadata is kept until
/// a token request fails. Clones share it.
///
/// `http` is accepted for this machine only, as for a [`TokenUrl`](crate::TokenUrl).
///
/// The token endpoint must have the scheme of the URL at which the metadata is found. If that URL
/// is not the issuer, because the issuer is reached through a back channel, use
/// [`discover_at`](Self::discover_at).
///
/// ```no_run
/// # #[cfg(feature = "default-transport")]
/// # fn main() -> Result<(), tower_oauth::ConfigError> {
/// use tower_oauth::{ClientAuth, Issuer, TokenEndpoint};
///
/// let issuer: Issuer = "https://auth.example.com".parse()?;
/// let auth = ClientAuth::client_secret_basic("my-client", "hunter2");
/// let endpoint = TokenEndpoint::new(issuer, auth)?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "default-transport"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Issuer {
    identifier: String,
    /// The URL from which the metadata URLs are made.
    discovery_url: Uri,
    metadata: Arc<Mutex<Option<Metadata>>>,
}

/// The part of the metadata that is used.
#[derive(Clone)]
struct Metadata {
    token_url: TokenUrl,
    /// The supported client authentication methods. `None` if the metadata does not list them.
    methods: Option<Vec<String>>,
}

/// Fails with [`ConfigError::Issuer`] if the text is not an issuer identifier.
impl FromStr for Issuer {
    type Err = ConfigError;

    fn from_str(issuer: &str) -> Result<Self, ConfigError> {
        let discovery_url = parse(issuer)?;
        Ok(Self { identifier: issuer.to_owned(), discovery_url, metadata: Arc::default() })
    }
}

/// The same as [`FromStr`].
impl TryFrom<&str> for Issuer {
    type Error = ConfigError;

    fn try_from(issuer: &str) -> Result<Self, ConfigError> {
        issuer.parse()
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identifier)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({})", self.place())
    }
}

impl Issuer {
    /// Fetches the metadata from another URL than the issuer: for a server that is reached through
    /// a back channel, such as an internal host name. Its metadata names the issuer by its public
    /// URL. The well-known paths are added to `url` as to an issuer. Default: the issuer.
    ///
    /// The issuer in the metadata must still be identical to this one (RFC 8414 §3.3). The token
    /// request goes to the `token_endpoint` of the metadata, which must have the scheme of `url`.
    ///
    /// ```
    /// use tower_oauth::Issuer;
    ///
    /// let issuer: Issuer = "https://login.example.com/realms/orders".parse()?;
    /// let issuer = issuer.discover_at("https://keycloak.internal:8443/realms/orders")?;
    /// # Ok::<_, tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Issuer`] if `url` could not be an issuer: `http` is accepted for this machine
    /// only, because the metadata decides where the client's secret is sent. For a plain `http`
    /// endpoint that is secured by other means, use
    /// [`TokenUrl::danger_plain_http`](crate::TokenUrl::danger_plain_http) instead of an issuer.
    pub fn discover_at(self, url: &str) -> Result<Self, ConfigError> {
        // Clones share the metadata, so this issuer gets a place of its own for it.
        Ok(Self { discovery_url: parse(url)?, metadata: Arc::default(), ..self })
    }

    /// Returns the URL at which the metadata is found.
    #[cfg(feature = "default-transport")]
    pub(super) fn discovery_url(&self) -> &Uri {
        &self.discovery_url
    }

    /// Returns the issuer, and the URL of its metadata if that differs, for errors.
    fn place(&self) -> String {
        if self.identifier.parse().is_ok_and(|uri: Uri| uri == self.discovery_url) {
            return self.identifier.clone();
        }
        format!("{} (discovered at {})", self.identifier, url_without_query(&self.discovery_url))
    }

    /// Returns the token URL, from kept metadata if there is any. Fails if the server does not
    /// support the client authentication `method`.
    pub(super) async fn token_url(
        &self,
        method: &str,
        round_trip: &RoundTrip,
        redactor: &Redactor,
    ) -> Result<TokenUrl, TokenError> {
        let kept = lock(&self.metadata).clone();
        let metadata = match kept {
            Some(metadata) => Ok(metadata),
            None => self.fetch_metadata(round_trip, redactor).await,
        };
        let metadata = metadata
            .and_then(|metadata| check_method(&metadata, method, redactor).map(|()| metadata))
            .map_err(|error| {
                let advice = advice_for_metadata(&error);
                error.at("issuer", &self.place()).with_advice(advice)
            })?;
        *lock(&self.metadata) = Some(metadata.clone());
        Ok(metadata.token_url)
    }

    /// Forgets the metadata, after a failed token request: the endpoint may have moved.
    pub(super) fn forget_metadata(&self) {
        *lock(&self.metadata) = None;
    }

    /// Returns the metadata from the first of its well-known URLs that has it.
    ///
    /// Other servers may answer at the other URLs: with a page for each unknown path, or with
    /// metadata of another issuer behind the same host.
    async fn fetch_metadata(
        &self,
        round_trip: &RoundTrip,
        redactor: &Redactor,
    ) -> Result<Metadata, TokenError> {
        let [first, second, third] = self.metadata_urls();
        let mut error = match self.metadata_at(&first, round_trip, redactor).await {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        let others = [Some(&second), (third != second).then_some(&third)];
        for url in others.into_iter().flatten() {
            if ends_discovery(&error) {
                break;
            }
            match self.metadata_at(url, round_trip, redactor).await {
                Ok(metadata) => return Ok(metadata),
                Err(other) if relevance(&other) > relevance(&error) => error = other,
                Err(_) => {}
            }
        }
        Err(error)
    }

    async fn metadata_at(
        &self,
        url: &Uri,
        round_trip: &RoundTrip,
        redactor: &Redactor,
    ) -> Result<Metadata, TokenError> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = url.clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = round_trip.send(request, redactor).await?;
        self.parse_metadata(&response, redactor).map_err(|error| {
            error.with_status(response.status).with_retry_after(response.retry_after())
        })
    }

    /// Returns the well-known URLs. RFC 8414 §3.1 inserts its path before the path of the issuer,
    /// `OpenID` Connect Discovery 1.0 §4 appends it, and some servers insert that path as well
    /// (RFC 8414 §5). The last two are equal if the issuer has no path.
    fn metadata_urls(&self) -> [Uri; 3] {
        let path = self.discovery_url.path().trim_end_matches('/');
        [
            format!("/.well-known/oauth-authorization-server{path}"),
            format!("{path}/.well-known/openid-configuration"),
            format!("/.well-known/openid-configuration{path}"),
        ]
        .map(|path| {
            let mut parts = self.discovery_url.clone().into_parts();
            parts.path_and_query = PathAndQuery::try_from(path).ok();
            Uri::from_parts(parts).unwrap_or_else(|_| self.discovery_url.clone())
        })
    }

    fn parse_metadata(
        &self,
        response: &RawResponse,
        redactor: &Redactor,
    ) -> Result<Metadata, TokenError> {
        if response.status != StatusCode::OK {
            let message = format!(
                "there is no metadata at its well-known URLs: the status is {}",
                response.status
            );
            return Err(TokenError::new(TokenErrorKind::Server, message));
        }
        let invalid = |message| Err(TokenError::new(TokenErrorKind::InvalidResponse, message));
        let metadata = match response.json() {
            Ok(metadata) => metadata,
            error => return Err(response.not_an_object("its metadata", &error, redactor)),
        };
        // RFC 8414 §3.3: without this check, another server could pose as this issuer.
        match metadata["issuer"].as_str() {
            Some(issuer) if issuer == self.identifier => {}
            Some(other) => {
                let other = redactor.clean_url_text(other);
                let advice = "if the server is yours, use the issuer in its metadata; if it is \
                              reached through a back channel, name that with \
                              {Issuer::discover_at|discover_at}";
                return invalid(format!(
                    "its metadata is of another issuer, {other:?}: both must be identical"
                ))
                .map_err(|error| error.with_advice(advice));
            }
            None => return invalid("its metadata has no issuer".into()),
        }
        let Some(url) = metadata["token_endpoint"].as_str() else {
            return invalid("its metadata has no token_endpoint".into());
        };
        match url.parse::<TokenUrl>() {
            Ok(token_url) if token_url.uri().scheme() == self.discovery_url.scheme() => {
                let methods = metadata["token_endpoint_auth_methods_supported"].as_array();
                let methods = methods.map(|methods| {
                    methods.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                });
                Ok(Metadata { token_url, methods })
            }
            Ok(url) => {
                let url = redactor.clean_url(url.uri());
                invalid(format!("its token endpoint {url} has another scheme than its metadata"))
            }
            Err(mut error) => {
                if let ConfigError::TokenUrl { url: shown, .. }
                | ConfigError::InsecureTokenUrl { url: shown } = &mut error
                {
                    *shown = redactor.clean_url_text(url);
                }
                invalid(format!("its metadata has an unusable token_endpoint: {error}"))
            }
        }
    }
}

/// Checks that the server supports the method, before a secret is sent. A client without a secret is
/// not checked: it may be authenticated by its TLS certificate (RFC 8705), or be public.
fn check_method(metadata: &Metadata, method: &str, redactor: &Redactor) -> Result<(), TokenError> {
    let Some(supported) = &metadata.methods else { return Ok(()) };
    if method == "none" || supported.iter().any(|supported| supported == method) {
        return Ok(());
    }
    let supported = redactor.clean(&supported.join(", "));
    let message =
        format!("it does not support the client authentication {method}, but: {supported}");
    Err(TokenError::new(TokenErrorKind::Configuration, message))
}

/// Returns true if the server could not be reached, or asks for fewer requests (RFC 6585 §4,
/// RFC 9110 §10.2.3): it gets no further request.
fn ends_discovery(error: &TokenError) -> bool {
    match error.status() {
        None | Some(StatusCode::TOO_MANY_REQUESTS) => true,
        Some(status) => status.is_server_error() && error.retry_after().is_some(),
    }
}

/// Returns the rank of the error about one URL among those about the others. A server in trouble
/// may have its metadata there. A document says more than its absence.
fn relevance(error: &TokenError) -> u8 {
    match error.status() {
        _ if ends_discovery(error) => 3,
        Some(status) if is_transient_status(status) => 2,
        Some(status) if status.is_success() => 1,
        _ => 0,
    }
}

fn parse(issuer: &str) -> Result<Uri, ConfigError> {
    check(issuer)
        .map_err(|reason| ConfigError::Issuer { issuer: url_text_without_secrets(issuer), reason })
}

/// Checks an issuer identifier (RFC 8414 §2): `https`, without query and fragment.
fn check(issuer: &str) -> Result<Uri, &'static str> {
    const NOT_HTTPS: &str = "does not begin with https://";
    let uri = issuer.parse::<Uri>().map_err(|_| "is not a URL")?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(NOT_HTTPS);
    };
    check_server(scheme, authority)?;
    if !is_https_or_loopback(&uri) {
        return Err(NOT_HTTPS);
    }
    if uri.query().is_some() || issuer.contains('#') {
        return Err(
            "has a query or a fragment, which an issuer must not have (RFC 8414 section 2)",
        );
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata_urls(issuer: &str) -> [String; 3] {
        issuer.parse::<Issuer>().unwrap().metadata_urls().map(|url| url.to_string())
    }

    #[test]
    fn metadata_urls_are_those_of_rfc_8414_and_openid_connect() {
        assert_eq!(
            metadata_urls("https://example.com"),
            [
                "https://example.com/.well-known/oauth-authorization-server",
                "https://example.com/.well-known/openid-configuration",
                "https://example.com/.well-known/openid-configuration"
            ]
        );
        assert_eq!(
            metadata_urls("https://example.com/issuer1/"),
            [
                "https://example.com/.well-known/oauth-authorization-server/issuer1",
                "https://example.com/issuer1/.well-known/openid-configuration",
                "https://example.com/.well-known/openid-configuration/issuer1"
            ]
        );
    }

    #[test]
    fn issuer_is_shown_with_another_place_of_its_metadata() {
        let issuer: Issuer = "https://a.test/x".parse().unwrap();
        assert_eq!(issuer.to_string(), "https://a.test/x");
        assert_eq!(format!("{issuer:?}"), "Issuer(https://a.test/x)");
        let issuer = issuer.discover_at("https://b.test/y").unwrap();
        assert_eq!(issuer.to_string(), "https://a.test/x");
        let shown = "Issuer(https://a.test/x (discovered at https://b.test/y))";
        assert_eq!(format!("{issuer:?}"), shown);
    }

    #[test]
    fn unusable_issuer_is_rejected_with_its_reason() {
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
