//! Advice about failed token requests, by the response and the settings of the request.

use http::{StatusCode, header::LOCATION, uri::Authority};

use super::{
    client_auth::ClientAuth,
    connect_error::{is_certificate_error, proxy_advice},
    request_format::RequestFormat,
    round_trip::RawResponse,
    token_url::TokenUrl,
};
use crate::{
    error::{Advice, TokenError, TokenErrorKind, is_transient_status},
    redact::Redactor,
};

const CERTIFICATE_ADVICE: &str = "check the certificate of the server and the clock of this machine; to trust \
                          a certificate that no public authority has signed, use \
                          {TokenEndpoint::new_trusting|ca_file}";

/// The settings of a token request on which the advice depends.
pub(super) struct RequestFacts<'a> {
    pub(super) url: &'a TokenUrl,
    /// The URL is from the metadata of an issuer.
    pub(super) is_discovered: bool,
    pub(super) format: RequestFormat,
    pub(super) auth: &'a ClientAuth,
    /// The id or the secret was changed by the form-encoding of HTTP Basic.
    pub(super) is_encoded: bool,
}

/// Returns what to do about metadata that could not be obtained or used.
pub(super) fn advice_for_metadata(error: &TokenError) -> &'static str {
    if let Some(advice) = proxy_advice(error) {
        return advice;
    }
    match error.kind() {
        TokenErrorKind::Transport if is_certificate_error(error) => CERTIFICATE_ADVICE,
        TokenErrorKind::Transport => "check {the issuer|issuer}, the network and the TLS trust",
        TokenErrorKind::Timeout => {
            "check the health of the authorization server and the network, or raise \
             {TokenEndpoint::timeout|timeout}"
        }
        TokenErrorKind::Server if !error.is_final() => {
            "check the health of the authorization server, and any proxy or gateway in front of it"
        }
        TokenErrorKind::Configuration => {
            "use one of these methods: {ClientAuth|client_auth.method}"
        }
        TokenErrorKind::Server if error.status().is_some_and(|status| status.is_redirection()) => {
            "redirects are not followed: if the metadata is on another server, name that with \
             {Issuer::discover_at|discover_at}, or use {a token URL|token_url} instead"
        }
        TokenErrorKind::Server => {
            "check {the issuer|issuer}; if the server publishes no metadata, use {a token URL|\
             token_url} instead"
        }
        _ => {
            "check {the issuer|issuer} and the metadata of the server, or use {a token URL|\
             token_url} instead"
        }
    }
}

impl RequestFacts<'_> {
    /// Returns what to do about an error that has no response, or none that could be read.
    pub(super) fn advice(&self, error: &TokenError) -> Advice {
        if let Some(advice) = proxy_advice(error) {
            return advice.into();
        }
        let is_tls = self.url.uri().scheme_str() == Some("https");
        let advice = match (error.kind(), self.is_discovered) {
            (TokenErrorKind::Transport, _) if is_certificate_error(error) => CERTIFICATE_ADVICE,
            (TokenErrorKind::Transport, false) if is_tls => {
                "check {the token URL|token_url}, the network and the TLS trust"
            }
            (TokenErrorKind::Transport, false) => "check {the token URL|token_url} and the network",
            (TokenErrorKind::Transport, true) if is_tls => {
                "check the network, the TLS trust and the token_endpoint in the issuer's metadata"
            }
            (TokenErrorKind::Transport, true) => {
                "check the network and the token_endpoint in the issuer's metadata"
            }
            (TokenErrorKind::Timeout, _) => {
                "check the health of the authorization server and the network, or raise \
                 {TokenEndpoint::timeout|timeout}"
            }
            (_, false) => {
                "check that {the token URL|token_url} is that of an OAuth 2.0 token endpoint, and \
                 check any proxy or gateway in front of it"
            }
            (_, true) => {
                "check the token_endpoint in the issuer's metadata, and any proxy or gateway in \
                 front of it"
            }
        };
        advice.into()
    }

    /// Returns what to do about an error that a response says by its code or its status.
    pub(super) fn advice_for_response(
        &self,
        error: &TokenError,
        response: &RawResponse,
        redactor: &Redactor,
    ) -> Advice {
        let status = response.status;
        match error.error_code() {
            None if error.kind() == TokenErrorKind::InvalidResponse => self.advice(error),
            None if status.is_redirection() => self.advice_for_redirect(response, redactor),
            None if error.kind() == TokenErrorKind::Server && is_other_client_error(status) => {
                self.advice(error)
            }
            code => self.advice_for_rejection(code, status).into(),
        }
    }

    fn advice_for_redirect(&self, response: &RawResponse, redactor: &Redactor) -> Advice {
        let Some(location) = response.headers.get(LOCATION) else {
            return self.advice_for_url().into();
        };
        let location = String::from_utf8_lossy(location.as_bytes());
        let location = if location.starts_with('/') && !location.starts_with("//") {
            let uri = self.url.uri();
            let authority = uri.authority().map(Authority::as_str);
            let scheme = uri.scheme_str().unwrap_or_default();
            format!("{scheme}://{}{location}", authority.unwrap_or_default())
        } else {
            location.into_owned()
        };
        let location = redactor.clean_url_text(&location);
        let advice = if self.is_discovered {
            "correct the token_endpoint in the issuer's metadata, which redirects to {}"
        } else {
            "if {} is the token endpoint, use it as {the token URL|token_url}"
        };
        Advice::with_detail(advice, location)
    }

    fn advice_for_url(&self) -> &'static str {
        if self.is_discovered {
            "check the token_endpoint in the issuer's metadata"
        } else {
            "check {the token URL|token_url}"
        }
    }

    fn advice_for_rejection(&self, code: Option<&str>, status: StatusCode) -> &'static str {
        let is_json = self.format == RequestFormat::Json;
        let has_body_credentials = self.auth.method() == "client_secret_post";
        match (code, status.as_u16()) {
            (Some("temporarily_unavailable" | "server_error"), _) => {
                "check the health of the authorization server"
            }
            (Some("invalid_request" | "unsupported_grant_type"), _) | (None, 400 | 415 | 422)
                if is_json =>
            {
                "if the server does not accept JSON, set \
                 {TokenEndpoint::request_format|request_format} to {RequestFormat::Form|form}; then \
                 check the parameters of the request"
            }
            (Some("invalid_client"), _) if is_json && has_body_credentials => {
                "check the client's id and secret; if the server does not accept JSON, set \
                 {TokenEndpoint::request_format|request_format} to {RequestFormat::Form|form}"
            }
            (Some("invalid_request"), _) => {
                "check the parameters that the provider requires, such as audience or resource"
            }
            (Some("unsupported_grant_type"), _) => {
                "use a grant that the authorization server supports"
            }
            (Some("unauthorized_client"), _) => {
                "permit the grant in the client's registration at the authorization server"
            }
            (Some("invalid_grant"), _) => {
                "check the credential of the grant, such as a refresh token, and the client's \
                 registration"
            }
            (Some("invalid_scope"), _) => {
                "check the requested scope, and the scopes that the client's registration permits"
            }
            (Some("invalid_target"), _) => "check the requested resource and audience",
            (None, 415) => {
                "if the server expects JSON, set {TokenEndpoint::request_format|request_format} to \
                 {RequestFormat::Json|json}"
            }
            (None, 400 | 422) => {
                "check the parameters of the request; if the server expects JSON, set \
                 {TokenEndpoint::request_format|request_format} to {RequestFormat::Json|json}"
            }
            // The codes are those of an API, not of a token endpoint (RFC 6750 §3.1).
            (Some("invalid_token" | "insufficient_scope"), _) | (None, 404 | 405 | 410) => {
                self.advice_for_url()
            }
            (None, 407) => "check the proxy that the transport uses, and the credentials for it",
            (_, 429) => "send fewer token requests: let all clients share one TokenCache",
            (_, _) if is_transient_status(status) => {
                "check the health of the authorization server, and any proxy or gateway in front \
                 of it"
            }
            (Some("invalid_client"), _) | (None, 401) => self.advice_for_credentials().unwrap_or(
                "check the client's id, secret and authentication method: \
                     {ClientAuth|client_auth.method}",
            ),
            _ => self.advice_for_credentials().unwrap_or(
                "check the client's registration: id, secret, authentication method, scope and \
                 audience",
            ),
        }
    }

    /// Returns the advice about credentials with a special problem.
    fn advice_for_credentials(&self) -> Option<&'static str> {
        if self.is_encoded {
            Some(
                "check the client's id and secret; if the server expects them without the \
                 form-encoding, use {ClientAuth::client_secret_basic_raw|the client_auth.method \
                 client_secret_basic_raw}",
            )
        } else if self.auth.method() == "none" {
            Some(
                "check the client's id, and whether its registration requires another \
                 {ClientAuth|client_auth.method}",
            )
        } else {
            None
        }
    }
}

/// Returns true for client errors that say neither that the client is rejected, nor what is wrong
/// with its request.
fn is_other_client_error(status: StatusCode) -> bool {
    const KNOWN: [u16; 9] = [400, 401, 403, 404, 405, 407, 410, 415, 422];
    status.is_client_error() && !is_transient_status(status) && !KNOWN.contains(&status.as_u16())
}
