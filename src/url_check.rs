//! Checks whether a URL names a server (RFC 3986 §3.2), and whether a secret may be sent there.

use std::net::IpAddr;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

/// Returns the port that a URL means: its own, or the default of its scheme. Returns `None` for a
/// port that is not a number from 1 to 65535, for which HTTP clients use the default port, and for
/// a scheme other than `https` and `http`.
pub(crate) fn effective_port(scheme: &Scheme, authority: &Authority) -> Option<u16> {
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host_and_port = authority.as_str().rsplit('@').next().unwrap_or_default();
    match host_and_port.get(authority.host().len()..) {
        Some("") => Some(default),
        Some(port) => parse_port(port.strip_prefix(':')?),
        None => None,
    }
}

/// Returns the port that is written with digits only: `"+81"` is a number for Rust, but not a port
/// (RFC 3986 §3.2.3).
fn parse_port(digits: &str) -> Option<u16> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

/// Returns true if `host` is this machine: `localhost`, `127.0.0.0/8` or `[::1]`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Returns true if a secret can be sent to `uri`: the connection is encrypted, or it does not leave
/// this machine.
pub(crate) fn is_https_or_loopback(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS) || uri.host().is_some_and(is_loopback)
}

/// Checks that a scheme and an authority name a server. The error continues a sentence that begins
/// with the URL.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_has_digits_only() {
        let port = |authority| effective_port(&Scheme::HTTPS, &Authority::from_static(authority));
        for (authority, expected) in [
            ("a.test", Some(443)),
            ("a.test:81", Some(81)),
            ("a.test:0081", Some(81)),
            ("me:pw@[::1]:65535", Some(65535)),
            ("a.test:+81", None),
            ("a.test:-81", None),
            ("a.test:", None),
            ("a.test:0", None),
            ("a.test:65536", None),
            ("a.test:81a", None),
        ] {
            assert_eq!(port(authority), expected, "{authority}");
        }
    }

    #[test]
    fn secret_is_sent_over_https_or_to_this_machine_only() {
        for url in
            ["https://a.test/", "http://localhost:1/", "http://127.8.9.1/", "http://[::1]:8/"]
        {
            assert!(is_https_or_loopback(&Uri::from_static(url)), "{url}");
        }
        for url in ["http://a.test/", "http://localhost.a.test/", "http://[::2]/", "/path"] {
            assert!(!is_https_or_loopback(&Uri::from_static(url)), "{url}");
        }
    }
}
