//! The certificates that a caller trusts: reading them from PEM.

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};

use crate::error::ConfigError;

pub(crate) type Certificate = CertificateDer<'static>;

const BEGIN: &str = "-----BEGIN ";

/// Reads the certificates in `pem`, and checks that each can be a trust anchor. No error shows the
/// content of `pem`, which may be a private key.
pub(crate) fn parse_certificates(pem: &[u8]) -> Result<Vec<Certificate>, ConfigError> {
    let error = |problem: String| ConfigError::Certificates {
        reason: format!("{problem}; provide them as PEM, with BEGIN CERTIFICATE lines"),
    };
    let certificates: Vec<_> = Certificate::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|cause| error(reason(&cause).into()))?;
    if certificates.is_empty() {
        return Err(error(found_instead(pem)));
    }
    let mut anchors = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        let number = index + 1;
        anchors.add(certificate.clone()).map_err(|cause| {
            error(format!("certificate {number} is not an X.509 certificate: {cause}"))
        })?;
    }
    Ok(certificates)
}

/// Returns the reason without the bytes that the message of the PEM library contains.
fn reason(cause: &pem::Error) -> &'static str {
    match cause {
        pem::Error::MissingSectionEnd { .. } => "a section has no -----END line",
        pem::Error::IllegalSectionStart { .. } => {
            "a line begins with -----BEGIN and does not end with -----"
        }
        pem::Error::Base64Decode(_) => "a section is not Base64",
        _ => "a section cannot be read",
    }
}

/// Says what a text without a certificate contains. Shows the labels of its sections, such as
/// `PRIVATE KEY`, and nothing else.
fn found_instead(pem: &[u8]) -> String {
    const DER_SEQUENCE: u8 = 0x30;
    let text = String::from_utf8_lossy(pem);
    let labels: Vec<_> = text.lines().filter_map(section_label).take(3).collect();
    if !labels.is_empty() {
        return format!("there is no certificate in it, but {}", labels.join(", "));
    }
    match pem.first() {
        None => "there is no certificate in it: it is empty".into(),
        Some(&DER_SEQUENCE) => {
            "there is no certificate in it: it is not PEM, but probably DER, which `openssl x509 \
             -inform der` converts"
                .into()
        }
        Some(_) => "there is no certificate in it: it is not PEM".into(),
    }
}

/// Returns the label of a line that begins a section (RFC 7468 §2).
fn section_label(line: &str) -> Option<&str> {
    let label = line.trim_end().strip_prefix(BEGIN)?.strip_suffix("-----")?;
    let is_label = label.len() <= 40
        && label
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || matches!(byte, b' ' | b'0'..=b'9'));
    is_label.then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_what_is_there_instead_of_a_certificate() {
        let body = "c2VjcmV0";
        let section =
            |label: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for (pem, said) in [
            (String::new(), "it is empty"),
            ("hunter2".into(), "it is not PEM"),
            ("0\u{82}".into(), "openssl x509 -inform der"),
            (section("PRIVATE KEY"), "no certificate in it, but PRIVATE KEY;"),
            (section("ENCRYPTED PRIVATE KEY"), "but ENCRYPTED PRIVATE KEY;"),
            (section("EC PRIVATE KEY").replace('\n', "\r\n"), "but EC PRIVATE KEY;"),
            (
                [section("EC PARAMETERS"), section("PUBLIC KEY")].concat(),
                "but EC PARAMETERS, PUBLIC KEY;",
            ),
            (section("hunter2"), "it is not PEM"),
            (section("CERTIFICATE").replace("c2V", "%%%"), "a section is not Base64"),
            (
                section("CERTIFICATE").replace("CERTIFICATE-----\nc2V", "CERTIFICATE\nc2V"),
                "-----BEGIN",
            ),
            (section("CERTIFICATE").replace("-----END", "END"), "no -----END line"),
            (section("CERTIFICATE"), "certificate 1 is not an X.509 certificate"),
        ] {
            let error = parse_certificates(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{pem}: {error}");
            assert!(!error.contains(body) && !error.contains("hunter2"), "{error}");
            assert!(!error.contains('['), "bytes as numbers: {error}");
        }
    }
}
