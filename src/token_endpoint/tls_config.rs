//! The TLS configuration of the ready-made transport: its crypto provider and its trust anchors.

use std::sync::Arc;

use rustls::{ClientConfig, client::danger::ServerCertVerifier, crypto::CryptoProvider};
#[cfg(any(feature = "webpki-roots", not(feature = "platform-verifier")))]
use rustls::{RootCertStore, client::WebPkiServerVerifier};
#[cfg(feature = "platform-verifier")]
use rustls_platform_verifier::Verifier;

use super::{certificate_verifier::CertificateVerifier, certificates::Certificate};
use crate::error::ConfigError;

/// The public certificate authorities that are trusted.
#[derive(Clone, Copy)]
pub(super) enum Roots {
    /// Those of the platform.
    #[cfg(feature = "platform-verifier")]
    Platform,
    /// Those of the crate `webpki-roots`.
    #[cfg(feature = "webpki-roots")]
    Bundled,
    /// None: the features of this crate include neither of the two.
    #[cfg(not(any(feature = "platform-verifier", feature = "webpki-roots")))]
    None,
}

impl Roots {
    /// The roots that are used unless others are chosen: those of the platform, if both kinds are
    /// there.
    #[cfg(feature = "platform-verifier")]
    pub(super) const DEFAULT: Self = Self::Platform;
    #[cfg(all(feature = "webpki-roots", not(feature = "platform-verifier")))]
    pub(super) const DEFAULT: Self = Self::Bundled;
    #[cfg(not(any(feature = "platform-verifier", feature = "webpki-roots")))]
    pub(super) const DEFAULT: Self = Self::None;

    /// Returns a verifier that trusts these roots and `extra`.
    fn verifier(
        self,
        extra: &[Certificate],
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
        match self {
            #[cfg(feature = "platform-verifier")]
            Self::Platform => {
                let verifier = Verifier::new_with_extra_roots(extra.iter().cloned(), provider);
                Ok(Arc::new(verifier.map_err(|error| no_platform_roots(&error))?))
            }
            #[cfg(feature = "webpki-roots")]
            Self::Bundled => {
                let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
                webpki_verifier(roots, extra, provider)
            }
            #[cfg(not(any(feature = "platform-verifier", feature = "webpki-roots")))]
            Self::None if extra.is_empty() => Err(ConfigError::NoRootCertificates),
            #[cfg(not(any(feature = "platform-verifier", feature = "webpki-roots")))]
            Self::None => webpki_verifier(RootCertStore::empty(), extra, provider),
        }
    }
}

/// Creates a TLS configuration that trusts `roots` and `extra`.
pub(super) fn tls_config(
    roots: Roots,
    extra: Vec<Certificate>,
) -> Result<ClientConfig, ConfigError> {
    let provider = crypto_provider()?;
    let verifier = roots.verifier(&extra, Arc::clone(&provider))?;
    let verifier = CertificateVerifier::new(extra, verifier);
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable_provider(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(tls)
}

/// Returns the provider that the program has installed, or else the one of the features of this
/// crate.
///
/// `aws-lc-rs` is used if both are enabled: `ring` is a default feature, and `aws-lc-rs` was
/// enabled on purpose.
fn crypto_provider() -> Result<Arc<CryptoProvider>, ConfigError> {
    if let Some(installed) = CryptoProvider::get_default() {
        return Ok(Arc::clone(installed));
    }
    #[cfg(feature = "aws-lc-rs")]
    let provider = Ok(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    let provider = Ok(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    let provider = Err::<CryptoProvider, _>(ConfigError::NoCryptoProvider);
    provider.map(Arc::new)
}

#[cfg(any(feature = "webpki-roots", not(feature = "platform-verifier")))]
fn webpki_verifier(
    mut roots: RootCertStore,
    extra: &[Certificate],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
    roots.add_parsable_certificates(extra.iter().cloned());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    Ok(verifier.map_err(|error| ConfigError::Tls {
        reason: format!("{error}; check the certificates to trust"),
    })?)
}

#[cfg(feature = "platform-verifier")]
fn no_platform_roots(error: &rustls::Error) -> ConfigError {
    ConfigError::Tls {
        reason: format!(
            "{error}; install root certificates (for example the package ca-certificates), or use \
             the bundled ones (the feature webpki-roots of tower-oauth, and with_bundled_roots or \
             the key bundled_roots)"
        ),
    }
}

fn unusable_provider(error: &dyn std::error::Error) -> ConfigError {
    ConfigError::Tls {
        reason: format!(
            "{error}; install a rustls CryptoProvider with cipher suites of TLS 1.2 or 1.3"
        ),
    }
}
