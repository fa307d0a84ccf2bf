use std::{convert::Infallible, error::Error, fmt};

/// A setting that cannot work, found before anything is sent.
///
/// The messages contain no secret: URLs are shown without user information and query.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The token URL cannot be used (RFC 6749 §3.2).
    #[non_exhaustive]
    TokenUrl {
        /// The URL as given, without user information and query.
        url: String,
        /// The reason, such as `has no host`.
        reason: &'static str,
    },
    /// The token URL would send the client secret over plain HTTP to another machine.
    #[non_exhaustive]
    InsecureTokenUrl {
        /// The URL without its query.
        url: String,
    },
    /// The text is not an origin: a scheme, a host and optionally a port (RFC 6454).
    #[non_exhaustive]
    Origin {
        /// The origin as given, without user information and query.
        origin: String,
        /// The reason, such as `must not be a pattern`.
        reason: &'static str,
    },
    /// The client authentication cannot be used (RFC 6749 §2.3).
    #[non_exhaustive]
    ClientAuth {
        /// The reason, such as `has a control character in the client secret`.
        reason: &'static str,
    },
    /// The list of origins is empty, so no request could ever have a token attached.
    NoOrigin,
    /// The request parameter has a setter of its own, or is set already (RFC 6749 §3.2: parameters
    /// must not be included more than once).
    #[non_exhaustive]
    Parameter {
        /// The name of the parameter.
        name: String,
        /// The reason, such as `is set by the client authentication`.
        reason: &'static str,
    },
    /// The header of the token request is invalid, is set already, or is not yours to set.
    #[non_exhaustive]
    Header {
        /// The name of the header as given.
        name: String,
        /// The reason, such as `is not a header name`.
        reason: &'static str,
    },
    /// The text is not a JSON Pointer (RFC 6901).
    #[non_exhaustive]
    JsonPointer {
        /// The pointer as given.
        pointer: String,
        /// The reason, such as `does not begin with a slash`.
        reason: &'static str,
    },
    /// The static token or credential cannot be used.
    #[non_exhaustive]
    StaticToken {
        /// The reason, such as `the access token is empty`.
        reason: String,
    },
    /// The settings of a provider contradict each other, or one is missing.
    #[non_exhaustive]
    Provider {
        /// The reason, such as ``needs either `source.token_url` or `source.issuer` ``.
        reason: String,
    },
    /// The value of a key of a configuration cannot be used, or the key is unknown or missing.
    #[non_exhaustive]
    Key {
        /// The path of the key, such as `source.timeout`, or the name of the environment variable.
        key: String,
        /// The reason, such as `must be true or false`. It quotes no value that may be a secret.
        reason: String,
    },
    /// The issuer cannot be used (RFC 8414 §2).
    #[non_exhaustive]
    Issuer {
        /// The issuer as given, without user information and query.
        issuer: String,
        /// The reason, such as `does not begin with https://`.
        reason: &'static str,
    },
    /// The certificates to trust cannot be read.
    #[non_exhaustive]
    Certificates {
        /// The reason, such as an I/O error, and what to do about it.
        reason: String,
    },
    /// The proxy for token requests cannot be used. The message does not show its URL, which may
    /// contain a password.
    #[non_exhaustive]
    Proxy {
        /// The setting that names the proxy, such as `HTTPS_PROXY`.
        setting: String,
        /// The reason, such as `has no host`.
        reason: &'static str,
    },
    /// TLS cannot be set up, for example because the machine has no root certificates.
    #[non_exhaustive]
    Tls {
        /// The message of the TLS library, and what to do about it.
        reason: String,
    },
    /// There is no crypto provider for TLS: the program has installed none, and the features of
    /// this crate include neither `ring` nor `aws-lc-rs`.
    NoCryptoProvider,
    /// There are no root certificates for TLS: the features of this crate include neither
    /// `platform-verifier` nor `webpki-roots`, and no certificate was given.
    NoRootCertificates,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenUrl { url, reason } => write!(f, "the token URL {url:?} {reason}"),
            Self::InsecureTokenUrl { url } => write!(
                f,
                "the token URL {url:?} would send the client secret unencrypted: use https, or \
                 TokenUrl::danger_plain_http if the connection is encrypted by other means"
            ),
            Self::ClientAuth { reason } => write!(f, "the client authentication {reason}"),
            Self::Origin { origin, reason } => write!(
                f,
                "{origin:?} is not an origin such as \"https://api.example.com\": it {reason}"
            ),
            Self::NoOrigin => f.write_str(
                "the list of origins is empty: name at least one origin that may receive the \
                 token, or use Origins::without_authority for requests without an authority",
            ),
            Self::Parameter { name, reason } => {
                write!(f, "the token request parameter {name:?} {reason}")
            }
            Self::Header { name, reason } => {
                write!(f, "the token request header {name:?} {reason}")
            }
            Self::JsonPointer { pointer, reason } => {
                write!(f, "{pointer:?} is not a JSON Pointer such as \"/data/token\": it {reason}")
            }
            Self::StaticToken { reason } => write!(f, "the static token cannot be used: {reason}"),
            Self::Provider { reason } => write!(f, "the configuration of the provider {reason}"),
            Self::Key { key, reason } => write!(f, "the setting `{key}` {reason}"),
            Self::Issuer { issuer, reason } => write!(f, "the issuer {issuer:?} {reason}"),
            Self::Certificates { reason } => {
                write!(f, "the certificates to trust cannot be read: {reason}")
            }
            Self::Proxy { setting, reason } => write!(f, "the proxy URL in {setting} {reason}"),
            Self::Tls { reason } => write!(f, "TLS cannot be set up: {reason}"),
            Self::NoCryptoProvider => f.write_str(
                "TLS cannot be set up, because there is no crypto provider: enable the feature \
                 ring or aws-lc-rs of tower-oauth, or call rustls's \
                 CryptoProvider::install_default before you create the transport",
            ),
            Self::NoRootCertificates => f.write_str(
                "TLS cannot be set up, because there are no root certificates: enable the feature \
                 platform-verifier or webpki-roots of tower-oauth, or name the certificates to \
                 trust",
            ),
        }
    }
}

impl Error for ConfigError {}

impl From<Infallible> for ConfigError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints every message for review: `cargo test --lib config_error -- --nocapture`.
    #[test]
    fn every_message_names_what_was_given() {
        let given = || "what-was-given".to_owned();
        let reason = "is wrong";
        let errors = [
            ConfigError::TokenUrl { url: given(), reason },
            ConfigError::InsecureTokenUrl { url: given() },
            ConfigError::Origin { origin: given(), reason },
            ConfigError::Parameter { name: given(), reason },
            ConfigError::Header { name: given(), reason },
            ConfigError::JsonPointer { pointer: given(), reason },
            ConfigError::Issuer { issuer: given(), reason },
            ConfigError::StaticToken { reason: given() },
            ConfigError::Provider { reason: given() },
            ConfigError::Key { key: given(), reason: "is wrong".into() },
            ConfigError::Certificates { reason: given() },
            ConfigError::Proxy { setting: given(), reason },
            ConfigError::Tls { reason: given() },
        ];
        for error in errors {
            println!("{error}");
            assert!(error.to_string().contains("what-was-given"), "{error}");
        }
        for error in
            [ConfigError::NoOrigin, ConfigError::NoCryptoProvider, ConfigError::NoRootCertificates]
        {
            println!("{error}");
        }
    }

    #[test]
    fn messages_name_the_method_to_use_instead() {
        let error = ConfigError::InsecureTokenUrl { url: String::new() };
        assert!(error.to_string().contains("TokenUrl::danger_plain_http"), "{error}");
        let error = ConfigError::NoOrigin;
        assert!(error.to_string().contains("Origins::without_authority"), "{error}");
    }
}
