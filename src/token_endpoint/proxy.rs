//! The proxies of the ready-made transport: the proxy of a request, and its credentials.

use std::{env, fmt, sync::Arc};

use http::{HeaderValue, Uri, uri::Scheme};
use hyper_util::client::proxy::matcher::Matcher;

use crate::{
    error::ConfigError,
    url_check::{check_server, effective_port, is_loopback},
};

/// The variables that name a proxy for `https` URLs. The first one that is not empty counts.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// The variables with the servers that are reached without that proxy.
const EXCEPTION_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// An HTTP proxy. `Display` and `Debug` show its host, its port and the setting that names it.
#[derive(Clone)]
pub(super) struct Proxy {
    /// Scheme, host and port.
    url: Uri,
    authorization: Option<HeaderValue>,
    setting: String,
}

impl Proxy {
    /// Reads a URL such as `http://user:password@proxy.example.com:3128`. No error shows it, because
    /// it may contain a password.
    pub(super) fn parse(url: &str, setting: impl Into<String>) -> Result<Self, ConfigError> {
        let setting = setting.into();
        let error = |reason| ConfigError::Proxy { setting: setting.clone(), reason };
        // hyper-util parses the URL of a proxy only within a matcher. This one returns the proxy
        // for every server.
        let matcher = Matcher::builder().all(url.trim()).build();
        let proxy = matcher.intercept(&Uri::from_static("https://any.invalid"));
        let proxy = proxy.ok_or_else(|| {
            error(
                "is not the URL of an HTTP proxy, such as http://user:password@proxy.example.com:\
                 3128: correct it, with special characters of the password percent-encoded",
            )
        })?;
        let url = proxy.uri().clone();
        let (Some(scheme), Some(authority)) = (url.scheme(), url.authority()) else {
            return Err(error("has no host"));
        };
        if authority.as_str().contains('@') {
            return Err(error("has an @ in the user name or the password: write it as %40"));
        }
        check_server(scheme, authority).map_err(|_| {
            error(
                "needs the scheme http or https, and a valid port if any: SOCKS is not supported, \
                 and special characters of the user name and the password must be \
                 percent-encoded, such as / as %2F",
            )
        })?;
        let authorization = proxy.basic_auth().cloned();
        Ok(Self { url, authorization, setting })
    }

    pub(super) fn url(&self) -> &Uri {
        &self.url
    }

    /// Returns the value of the `Proxy-Authorization` header (RFC 9110 §11.7.2).
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", host_and_port(&self.url), self.setting)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Returns the host and the port of a URL, as in a `CONNECT` request (RFC 9110 §9.3.6).
pub(super) fn host_and_port(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    let port = url.scheme().zip(url.authority());
    let port = port.and_then(|(scheme, authority)| effective_port(scheme, authority));
    format!("{host}:{}", port.unwrap_or_default())
}

/// The choice of a proxy for each request.
#[derive(Clone)]
pub(super) enum Proxies {
    None,
    /// This proxy for all requests.
    Always(Proxy),
    /// The proxy that the environment of the process names.
    Environment(Arc<Environment>),
}

pub(super) struct Environment {
    proxy: Option<Result<Proxy, ConfigError>>,
    /// Intercepts the servers that are not exempt from the proxy.
    filter: Matcher,
}

impl Proxies {
    /// Reads the environment of the process.
    pub(super) fn from_environment() -> Self {
        // A value that is not UTF-8 must not be ignored: the request would bypass the proxy.
        let read = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::Environment(Arc::new(Environment::new(read)))
    }

    /// Returns the proxy for a request to `url`. The error is that of an environment variable.
    ///
    /// The environment never chooses a proxy for an `http` URL, because the proxy would see the
    /// client secret. Such a URL is that of this machine, or the connection is encrypted by other
    /// means ([`TokenUrl::danger_plain_http`](crate::TokenUrl::danger_plain_http)).
    pub(super) fn of(&self, url: &Uri) -> Result<Option<&Proxy>, &ConfigError> {
        let is_plain = url.scheme() != Some(&Scheme::HTTPS);
        let is_local = url.host().is_some_and(is_loopback);
        match self {
            Self::None => Ok(None),
            Self::Always(proxy) => Ok((!is_plain || !is_local).then_some(proxy)),
            Self::Environment(environment) => {
                if is_plain || is_local || environment.filter.intercept(url).is_none() {
                    return Ok(None);
                }
                environment.proxy.as_ref().map(Result::as_ref).transpose()
            }
        }
    }
}

impl Environment {
    fn new(read: impl Fn(&str) -> Option<String>) -> Self {
        let find = |names: &[&'static str]| {
            let mut set = names.iter().filter_map(|name| Some((*name, read(name)?)));
            set.find(|(_, value)| !value.trim().is_empty())
        };
        let no_proxy = find(&EXCEPTION_VARIABLES).map_or_else(String::new, |(_, servers)| servers);
        // The matcher does not compare `*` with IP addresses.
        let is_unused = no_proxy.split(',').any(|server| server.trim() == "*");
        let proxy = find(&PROXY_VARIABLES).filter(|_| !is_unused);
        let proxy = proxy.map(|(name, url)| Proxy::parse(&url, name));
        let filter = Matcher::builder().all("http://any.invalid").no(no_proxy).build();
        Self { proxy, filter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Proxies {
        Proxies::Environment(Arc::new(Environment::new(|name| {
            let found = variables.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        })))
    }

    fn shown(proxies: &Proxies, url: &'static str) -> String {
        match proxies.of(&Uri::from_static(url)) {
            Ok(proxy) => proxy.map(Proxy::to_string).unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn first_variable_with_a_value_names_the_proxy() {
        let all: Vec<_> =
            PROXY_VARIABLES.iter().rev().map(|name| (*name, "http://p.test:1")).collect();
        let none = ("HTTPS_PROXY", " ");
        for (count, name) in (1..).zip(PROXY_VARIABLES.iter().rev()) {
            let mut variables = all[..count].to_vec();
            assert_eq!(
                shown(&environment(&variables), "https://as.test/token"),
                format!("p.test:1 ({name})")
            );
            if count < all.len() {
                variables.push(none);
                assert!(shown(&environment(&variables), "https://as.test/").contains(name));
            }
        }
        assert_eq!(shown(&environment(&[none]), "https://as.test/"), "");
    }

    #[test]
    fn exempt_plain_and_local_requests_bypass_the_environment() {
        let proxy = ("ALL_PROXY", "p.test");
        let exempt = "as.test, 10.0.0.0/8,.b.test,::2,c.test:8443";
        let upper = environment(&[proxy, ("NO_PROXY", exempt), ("no_proxy", "c.test")]);
        let lower = environment(&[proxy, ("no_proxy", exempt)]);
        for (url, is_proxied) in [
            ("https://other.test/token", true),
            ("https://as.test.evil.test/", true),
            ("https://notas.test/", true),
            ("https://11.0.0.1/", true),
            ("https://as.test:8443/token", false),
            ("https://AS.test/token", false),
            ("https://x.as.test/", false),
            ("https://x.b.test/", false),
            ("https://10.1.2.3/", false),
            ("https://c.test:8443/", true),
            ("https://[::2]:8443/", false),
            ("https://localhost/", false),
            ("https://127.0.0.9:8443/", false),
            ("https://[::1]/", false),
            ("http://other.test/token", false),
        ] {
            let expected = if is_proxied { "p.test:80 (ALL_PROXY)" } else { "" };
            assert_eq!(shown(&upper, url), expected, "{url}");
            assert_eq!(shown(&lower, url), expected, "{url}");
        }
        let all_exempt = environment(&[proxy, ("NO_PROXY", "as.test, *")]);
        for url in ["https://other.test/", "https://11.0.0.1/", "https://[::2]/"] {
            assert_eq!(shown(&all_exempt, url), "", "{url}");
        }
        assert_eq!(shown(&Proxies::None, "https://other.test/"), "");
    }

    #[test]
    fn named_proxy_is_bypassed_by_plain_local_requests_only() {
        let proxy = Proxy::parse("https://p.test", "the setter").unwrap();
        for (url, is_proxied) in [
            ("https://as.test/", true),
            ("https://localhost/", true),
            ("http://as.test/", true),
            ("http://localhost/", false),
            ("http://[::1]:80/", false),
        ] {
            let expected = if is_proxied { "p.test:443 (the setter)" } else { "" };
            assert_eq!(shown(&Proxies::Always(proxy.clone()), url), expected, "{url}");
        }
    }

    #[test]
    fn credentials_are_decoded_and_not_shown() {
        for (url, basic) in [
            ("http://p.test:3128", None),
            ("http://me:s3cr%40t@p.test:3128", Some("Basic bWU6czNjckB0")),
            ("me:s3cr%40t@p.test:3128", Some("Basic bWU6czNjckB0")),
            ("http://me@p.test:3128/", Some("Basic bWU6")),
            (" http://p.test:3128\n", None),
        ] {
            let proxy = Proxy::parse(url, "HTTPS_PROXY").unwrap();
            let value = proxy.authorization();
            assert_eq!(value.map(|value| value.to_str().unwrap()), basic, "{url}");
            assert!(value.is_none_or(HeaderValue::is_sensitive));
            assert_eq!(proxy.to_string(), "p.test:3128 (HTTPS_PROXY)");
            assert_eq!(format!("{proxy:?}"), "Proxy(p.test:3128 (HTTPS_PROXY))");
        }
        let ipv6 = Proxy::parse("http://[::1]:3128", "HTTPS_PROXY").unwrap();
        assert_eq!(ipv6.to_string(), "[::1]:3128 (HTTPS_PROXY)");
    }

    #[test]
    fn unusable_proxy_is_an_error_without_its_text() {
        for url in [
            "",
            "http://",
            "socks5://me:s3cret@p.test:1080",
            "ftp://me:s3cret@p.test",
            "http://me:s3cret",
            "http://me:s3cret@p.test:port",
            "http://me:s3cret@p.test:0",
            "http://me:s3cret@x@p.test:1",
            "http://me:s3cret@",
            "http://s3cret p.test",
            "s3cret\u{fffd}",
        ] {
            let error = Proxy::parse(url, "HTTPS_PROXY").unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("HTTPS_PROXY") && !shown.contains("s3cret"), "{url}: {shown}");
            println!("{error}");
        }
        let broken = environment(&[("HTTPS_PROXY", "socks5://p.test"), ("NO_PROXY", "a.test")]);
        assert!(shown(&broken, "https://as.test/").contains("HTTPS_PROXY"));
        assert_eq!(shown(&broken, "https://a.test/"), "");
    }
}
