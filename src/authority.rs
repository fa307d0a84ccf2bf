//! The server part of a URL (RFC 3986 §3.2), and what of a URL may be shown.

use std::net::IpAddr;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

/// The port that is meant. `None` where there is no telling: a port that is no number from 1 to 65535, a scheme that has no
/// default. HTTP clients would go to the default port then.
pub(crate) fn effective_port(scheme: &Scheme, authority: &Authority) -> Option<u16> {
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host_and_port = authority.as_str().rsplit('@').next().unwrap_or_default();
    match host_and_port.get(authority.host().len()..) {
        Some("") => Some(default),
        Some(_) => authority.port_u16().filter(|port| *port != 0),
        None => None,
    }
}

/// Whether a host is this machine itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Why a scheme and an authority do not name a server.
pub(crate) fn check_server(scheme: &Scheme, authority: &Authority) -> Result<(), &'static str> {
    if authority.as_str().contains('@') {
        return Err("must not have user information");
    }
    if authority.host().is_empty() {
        return Err("has no host");
    }
    match effective_port(scheme, authority) {
        Some(_) => Ok(()),
        None => Err("needs the scheme https or http, and a port from 1 to 65535 if any"),
    }
}

/// A URL without its query.
pub(crate) fn shown(uri: &Uri) -> String {
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}{}", uri.path()),
        _ => uri.path().to_owned(),
    }
}

/// What may be shown of a text that should have been a URL: nothing before the last `@`, nothing behind a `?` or a `#`.
pub(crate) fn without_secrets(text: &str) -> String {
    let scheme =
        ["https://", "http://"].into_iter().find(|scheme| text.starts_with(scheme)).unwrap_or_default();
    let rest = text[scheme.len()..].rsplit('@').next().unwrap_or_default();
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_password_or_a_query_is_shown() {
        for (text, expected) in [
            ("https://me:hunter2@a.test/t?key=hunter2", "https://a.test/t"),
            ("https://me:hunter#2@a.test/t", "https://a.test/t"),
            ("https://me:hunter?2@a.test/t", "https://a.test/t"),
            ("me:hunter2@a.test", "a.test"),
            ("a.test/token?hunter2#x", "a.test/token"),
            ("hunter2@://x", "://x"),
            ("?hunter2://x@y", "y"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(text), expected, "{text}");
            assert!(!without_secrets(text).contains("hunter"), "{text}");
        }
    }

    #[test]
    fn an_at_sign_in_a_path_is_no_user_information() {
        let uri = Uri::from_static("https://auth.example.com/tenants/me@corp.test/token?x=y");
        assert_eq!(shown(&uri), "https://auth.example.com/tenants/me@corp.test/token");
    }
}
