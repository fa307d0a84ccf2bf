//! The program in `crypto`, with chosen features, and a TLS server for its token requests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::process::{Process, script};

/// An authorization server with TLS, and the private authority that has signed its certificate.
pub(crate) struct TlsServer {
    pub(crate) port: u16,
    pub(crate) ca_file: PathBuf,
    _process: Process,
}

impl TlsServer {
    /// Starts a server. `name` is a part of the names of its files.
    pub(crate) fn start(name: &str) -> Self {
        let file = |extension: &str, pem: String| {
            let path = file(&format!("{name}.{extension}"));
            fs::write(&path, pem).unwrap();
            path
        };
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new([]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_file = file("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
        let key = KeyPair::generate().unwrap();
        let hosts = ["127.0.0.1", "0.0.0.0"].map(str::to_owned);
        let certificate = CertificateParams::new(hosts).unwrap();
        let certificate = certificate.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();

        let mut command = Command::new("node");
        command.arg(script("tls_server.mjs"));
        command.arg(file("certificate.pem", certificate.pem()));
        command.arg(file("key.pem", key.serialize_pem()));
        let (process, ready) = Process::start(&mut command, "");
        let port = ready["port"].as_u64().unwrap().try_into().unwrap();
        Self { port, ca_file, _process: process }
    }

    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/token", self.port)
    }
}

/// A link to the program: the next build replaces the original, but not its content.
pub(crate) struct TokenProgram(PathBuf);

impl TokenProgram {
    /// Builds the program. `name` is the name of the link.
    pub(crate) fn build(name: &str, features: &str) -> Self {
        static BUILD: Mutex<()> = Mutex::new(());
        let _one_at_a_time = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
        output(cargo("build", features).arg("--quiet"));
        let link = file(&format!("{name}.{}", process::id()));
        fs::hard_link(target().join("debug/token_request"), &link).unwrap();
        Self(link)
    }

    /// Sends a token request, and returns the type of the token or the error. `configure` may set
    /// variables. Those for proxies are not inherited.
    pub(crate) fn request(
        &self,
        url: &str,
        ca_file: Option<&Path>,
        configure: impl FnOnce(&mut Command) -> &mut Command,
    ) -> String {
        let mut command = Command::new(&self.0);
        command.args([url, "client", "secret of the client"]).args(ca_file);
        for name in ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_ascii_lowercase());
        }
        output(configure(&mut command))
    }
}

impl Drop for TokenProgram {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Returns a cargo command for the program with these features.
pub(crate) fn cargo(command: &str, features: &str) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([command, "--locked", "--features", features, "--manifest-path"]);
    cargo.arg(script("crypto/Cargo.toml"));
    cargo.env("CARGO_TARGET_DIR", target());
    cargo
}

/// Returns what the command prints to stdout.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Returns a path for a file of these tests.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn target() -> PathBuf {
    file("crypto")
}
