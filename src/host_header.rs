//! The `Host` header of a request, compared with the URI (RFC 9110 §7.2).

use http::{HeaderMap, HeaderValue, Uri, header::HOST, uri::Authority};

use crate::url_check::effective_port;

/// Returns true if the `Host` header names the server of the URI. A server behind a shared front
/// end is chosen by that header, so another name would take the token to another receiver.
///
/// More than one header, and a header that is not a host with an optional port, name no server. The
/// server of a URI without an authority is not known, so each valid header agrees with it.
#[cold]
pub(crate) fn host_header_agrees(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => is_server_of(uri, value),
        (Some(_), Some(_)) => false,
    }
}

fn is_server_of(uri: &Uri, value: &HeaderValue) -> bool {
    // Equal texts are compared without an allocation, as nearly all are equal.
    let is_equal = |authority: &Authority| value == authority.as_str() && !has_user(authority);
    if uri.authority().is_some_and(is_equal) {
        return true;
    }
    let Ok(host) = Authority::try_from(value.as_bytes()) else { return false };
    if has_user(&host) || host.host().is_empty() {
        return false;
    }
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return true };
    host.host().eq_ignore_ascii_case(authority.host())
        && effective_port(scheme, &host)
            .is_some_and(|port| effective_port(scheme, authority) == Some(port))
}

fn has_user(authority: &Authority) -> bool {
    authority.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees(uri: &'static str, hosts: &[&[u8]]) -> bool {
        let hosts = hosts.iter().map(|host| (HOST, HeaderValue::from_bytes(host).unwrap()));
        host_header_agrees(&Uri::from_static(uri), &hosts.collect())
    }

    #[test]
    fn host_and_effective_port_are_compared() {
        for (uri, host) in [
            ("https://a.test/", "a.test"),
            ("https://a.test/", "A.Test:443"),
            ("https://a.test:443/", "a.test"),
            ("https://a.test:8443/", "a.test:8443"),
            ("http://a.test/", "a.test:80"),
            ("https://me:pw@a.test/", "a.test"),
            ("https://[2001:DB8::A]/", "[2001:db8::a]"),
            ("/path", "a.test"),
            ("/path", "a.test:81"),
        ] {
            assert!(agrees(uri, &[host.as_bytes()]), "{uri} {host}");
        }
        for (uri, host) in [
            ("https://a.test/", "evil.test"),
            ("https://a.test/", "a.test."),
            ("https://a.test/", "a.test:444"),
            ("https://a.test/", "a.test:80"),
            ("https://a.test:8443/", "a.test"),
            ("https://a.test/", "me@a.test"),
            ("https://a.test/", "a.test@evil.test"),
            ("https://me@a.test/", "me@a.test"),
            ("https://a.test/", "a.test:"),
            ("https://a.test/", "a.test:+443"),
            ("https://a.test/", "a.test/"),
            ("https://a.test/", "a.test, evil.test"),
            ("https://a.test/", "https://a.test"),
            ("https://a.test/", ""),
            ("https://a.test/", " a.test"),
            ("/path", ""),
            ("/path", "me@a.test"),
            ("/path", "a.test/x"),
        ] {
            assert!(!agrees(uri, &[host.as_bytes()]), "{uri} {host}");
        }
        assert!(!agrees("https://a.test/", &[b"a.test\xFC"]));
    }

    #[test]
    fn more_than_one_host_header_names_no_server() {
        assert!(agrees("https://a.test/", &[]));
        for uri in ["https://a.test/", "/path"] {
            assert!(!agrees(uri, &[b"a.test", b"a.test"]));
            assert!(!agrees(uri, &[b"a.test", b"evil.test"]));
        }
    }
}
