//! Programs with each crypto provider and each kind of root certificates request a token over TLS.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::process::{Process, script};

/// The TLS server, and the private authority that has signed its certificate.
struct Server {
    token_url: String,
    ca_file: PathBuf,
    _process: Process,
}

impl Server {
    fn start() -> Self {
        let file = |name: &str, pem: String| {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new([]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_file = file("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();

        let mut command = Command::new("node");
        command.arg(script("tls_server.mjs"));
        command.arg(file("certificate.pem", certificate.pem()));
        command.arg(file("key.pem", key.serialize_pem()));
        let (process, ready) = Process::start(&mut command, "");
        let token_url = ready["token_url"].as_str().unwrap().to_owned();
        Self { token_url, ca_file, _process: process }
    }

    /// Builds a program with these features. Returns the output of its request.
    fn request(&self, features: &str, ca_file: Option<&Path>) -> String {
        let mut command = cargo("run", features);
        command.args(["--quiet", "--"]);
        command.args([&self.token_url, "client", "secret of the client"]).args(ca_file);
        // This is the trust store of the platform.
        output(command.env("SSL_CERT_FILE", &self.ca_file).env_remove("SSL_CERT_DIR"))
    }
}

/// Returns a cargo command for the program with these features.
fn cargo(command: &str, features: &str) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([command, "--locked", "--features", features, "--manifest-path"]);
    cargo.arg(script("crypto/Cargo.toml"));
    cargo.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("crypto"));
    cargo
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// One test, because a build replaces the program of the previous one.
#[test]
fn token_is_received_with_each_choice_of_tls_features() {
    let server = Server::start();
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

        assert_eq!(server.request(features, Some(&server.ca_file)), trusting, "{features}");
        let said = server.request(features, None);
        assert!(said.contains(by_default), "{features}: {said}");
    }
}
