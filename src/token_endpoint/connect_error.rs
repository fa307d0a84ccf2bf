//! Recognizing the errors of a transport: it could not connect, refused the certificate of the
//! server, or could not use its proxy.

use std::error::Error;

#[cfg(feature = "default-transport")]
use super::proxy_error::ProxyError;

/// Returns true if another attempt to connect may succeed and cannot repeat a request: an error of
/// the client of hyper-util says that it could not connect.
///
/// A TLS error is permanent: the server was reached, but its certificate or its settings do not
/// fit. So is the refusal of a proxy, which may block a user name after a few wrong passwords.
#[cfg(feature = "default-transport")]
pub(super) fn is_connect_retryable(error: &(dyn Error + 'static)) -> bool {
    use hyper_util::client::legacy;

    let is_connect_error = |link: &(dyn Error + 'static)| {
        link.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)
    };
    chain(error).any(is_connect_error)
        && !is_tls_error(error)
        && !proxy_error(error).is_some_and(ProxyError::is_permanent)
}

/// Returns true if a proxy cannot be used until it, or its setting, is changed.
#[cfg(feature = "default-transport")]
pub(super) fn is_refused_by_proxy(error: &(dyn Error + 'static)) -> bool {
    proxy_error(error).is_some_and(ProxyError::is_refusal)
}

/// Without the feature `default-transport`, the type of the error is not known.
#[cfg(not(feature = "default-transport"))]
pub(super) fn is_refused_by_proxy(_: &(dyn Error + 'static)) -> bool {
    false
}

/// Returns true if the error is one of TLS.
#[cfg(feature = "default-transport")]
pub(super) fn is_tls_error(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(<dyn Error>::is::<rustls::Error>)
}

/// Returns what to do about a proxy, if the proxy caused the error.
#[cfg(feature = "default-transport")]
pub(super) fn proxy_advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    proxy_error(error).map(ProxyError::advice)
}

/// Returns `None`: without the feature `default-transport`, the type of the error is not known.
#[cfg(not(feature = "default-transport"))]
pub(super) fn proxy_advice(_: &(dyn Error + 'static)) -> Option<&'static str> {
    None
}

#[cfg(feature = "default-transport")]
fn proxy_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ProxyError> {
    chain(error).find_map(<dyn Error>::downcast_ref)
}

/// Returns the message of the last error in the chain, which is the helpful one.
#[cfg(feature = "default-transport")]
pub(super) fn innermost_message(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// Returns true if the certificate of the server was refused.
#[cfg(feature = "default-transport")]
pub(super) fn is_certificate_error(error: &(dyn Error + 'static)) -> bool {
    chain(error)
        .filter_map(<dyn Error>::downcast_ref)
        .any(|error| matches!(error, rustls::Error::InvalidCertificate(_)))
}

/// Returns false: without the feature `default-transport`, the type of the error is not known.
#[cfg(not(feature = "default-transport"))]
pub(super) fn is_certificate_error(_: &(dyn Error + 'static)) -> bool {
    false
}

/// Returns false: without the feature `default-transport`, the type of the error is not known.
#[cfg(not(feature = "default-transport"))]
pub(super) fn is_connect_retryable(_: &(dyn Error + 'static)) -> bool {
    false
}

#[cfg(feature = "default-transport")]
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |link: &&'a (dyn Error + 'static)| cause(*link))
}

/// Returns the cause of an error. An I/O error hides its inner error: its source is the source of
/// that error.
#[cfg(feature = "default-transport")]
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
