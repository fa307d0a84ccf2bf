//! Verifying the certificate of a server: trusted certificates first, then the trust anchors.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::certificates::Certificate;

/// A verifier that accepts a server which sends one of the trusted certificates, if the name of the
/// server and the validity period are right. The inner verifier verifies all other certificates.
///
/// The inner verifier has the trusted certificates as trust anchors. That is not enough: it rejects
/// the certificate of a server if it says that it belongs to an authority (`CA:TRUE`), as
/// `openssl req -x509` makes it.
#[derive(Debug)]
pub(super) struct CertificateVerifier {
    trusted: Vec<Certificate>,
    inner: Arc<dyn ServerCertVerifier>,
}

impl CertificateVerifier {
    pub(super) fn new(mut trusted: Vec<Certificate>, inner: Arc<dyn ServerCertVerifier>) -> Self {
        // `check_time` depends on the order of checks in webpki. All certificates have expired at
        // this time. If `check_time` does not say so for one, it does not work for that one, which
        // is then left to the inner verifier.
        let end_of_time = UnixTime::since_unix_epoch(Duration::MAX);
        trusted.retain(|certificate| {
            ParsedCertificate::try_from(certificate)
                .is_ok_and(|certificate| check_time(&certificate, end_of_time).is_err())
        });
        Self { trusted, inner }
    }
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.trusted.iter().any(|trusted| trusted == end_entity) {
            let inner = &self.inner;
            return inner.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        check_time(&certificate, now)?;
        verify_server_name(&certificate, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Checks the validity period of a certificate (RFC 5280 §4.1.2.5).
///
/// Rustls has no function for this alone. It checks the period before it looks for a trust anchor,
/// so without anchors any other error means that the period is right.
fn check_time(certificate: &ParsedCertificate<'_>, now: UnixTime) -> Result<(), Error> {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};

    let no_anchors = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(certificate, &no_anchors, &[], now, &[]) {
        Err(
            error @ Error::InvalidCertificate(
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
            ),
        ) => Err(error),
        _ => Ok(()),
    }
}
