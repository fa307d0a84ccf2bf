//! Programs with each crypto provider and each kind of root certificates request a token over TLS.

use crate::token_program::{TlsServer, TokenProgram, cargo, output};

#[test]
fn token_is_received_with_each_choice_of_tls_features() {
    let server = TlsServer::start("crypto");
    // The result of a program that is given the private authority, and of one that is not.
    for (features, providers, trusting, by_default) in [
        ("ring", &["ring"][..], "Bearer", "NoRootCertificates"),
        ("ring,platform-verifier", &["ring"], "Bearer", "Bearer"),
        ("ring,webpki-roots", &["ring"], "Bearer", "UnknownIssuer"),
        ("aws-lc-rs,webpki-roots", &["aws-lc-rs"], "Bearer", "UnknownIssuer"),
        ("aws-lc-rs,platform-verifier,webpki-roots", &["aws-lc-rs"], "Bearer", "Bearer"),
        ("aws-lc-rs,ring,platform-verifier", &["aws-lc-rs", "ring"], "Bearer", "Bearer"),
        ("installed,platform-verifier", &["ring"], "Bearer", "Bearer"),
        ("platform-verifier", &[], "NoCryptoProvider", "NoCryptoProvider"),
    ] {
        let tree = output(cargo("tree", features).args(["--edges", "normal", "--prefix", "none"]));
        let mut linked: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        linked.retain(|name| ["aws-lc-rs", "ring"].contains(name));
        linked.sort_unstable();
        linked.dedup();
        assert_eq!(linked, providers, "{features}");

        let program = TokenProgram::build("crypto", features);
        for (ca_file, expected) in [(Some(&*server.ca_file), trusting), (None, by_default)] {
            // The file in this variable is the trust store of the platform.
            let said = program.request(&server.url("127.0.0.1"), ca_file, |command| {
                command.env("SSL_CERT_FILE", &server.ca_file).env_remove("SSL_CERT_DIR")
            });
            assert!(said.contains(expected), "{features}: {said}");
        }
    }
}
