//! Verifying the certificate of a server: named certificates first, then the trust anchors.

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

/// A verifier that accepts each named certificate as that of a server, if the name of the server
/// and the time fit. All other certificates are verified by the inner verifier.
///
/// The inner verifier accepts a named certificate as a trust anchor only. It refuses a certificate
/// of a server that says that it belongs to an authority (`CA:TRUE`), as `openssl req -x509` makes
/// it.
#[derive(Debug)]
pub(super) struct CertificateVerifier {
    named: Vec<Certificate>,
    inner: Arc<dyn ServerCertVerifier>,
}

impl CertificateVerifier {
    pub(super) fn new(mut named: Vec<Certificate>, inner: Arc<dyn ServerCertVerifier>) -> Self {
        // `check_time` depends on the order of checks in webpki. Each certificate ends before this
        // time, so one for which the check does not work is left to the inner verifier.
        let end_of_time = UnixTime::since_unix_epoch(Duration::MAX);
        named.retain(|certificate| {
            ParsedCertificate::try_from(certificate)
                .is_ok_and(|certificate| check_time(&certificate, end_of_time).is_err())
        });
        Self { named, inner }
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
        if !self.named.iter().any(|named| named == end_entity) {
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
/// so with no anchors all other errors mean that the time fits.
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
