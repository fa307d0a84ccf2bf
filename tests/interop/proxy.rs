//! Token requests through tinyproxy. 0.0.0.0 is this machine on Linux, and it is not a loopback
//! address, for which no proxy of the environment is used.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::token_program::{TlsServer, TokenProgram, file};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A tinyproxy that is killed on drop.
struct Proxy {
    port: u16,
    log: PathBuf,
    process: Child,
}

impl Proxy {
    /// Starts a proxy with these lines in its configuration. `name` is a part of the names of its
    /// files.
    fn start(name: &str, settings: &str) -> Self {
        let port = free_port();
        let log = file(&format!("{name}.log"));
        fs::write(&log, "").unwrap();
        let configuration = file(&format!("{name}.conf"));
        let fixed = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nMaxClients 10\nLogLevel Connect\n\
             LogFile \"{}\"\n{settings}\n",
            log.display()
        );
        fs::write(&configuration, fixed).unwrap();
        let mut command = Command::new("tinyproxy");
        command.args(["-d", "-c"]).arg(configuration);
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        let proxy = Self { port, log, process };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < START_TIMEOUT, "{name} did not start: {}", proxy.log());
            thread::sleep(Duration::from_millis(20));
        }
        proxy
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}127.0.0.1:{}", self.port)
    }

    /// Stops the process. The system still accepts its connections.
    fn suspend(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &id]).status().unwrap().success());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Returns the number of tunnels to this port that were asked for.
    fn requests_to(&self, port: u16) -> usize {
        self.log().matches(&format!(": CONNECT 0.0.0.0:{port} HTTP/1.1")).count()
    }

    /// Returns the number of all requests.
    fn requests(&self) -> usize {
        self.log().matches(" Request (file descriptor").count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn environment_sends_the_token_request_through_a_proxy() {
    let server = TlsServer::start("proxy");
    let program = TokenProgram::build("proxy", "ring");
    let proxy = Proxy::start("proxy", "");
    let (url, local_url) = (server.url("0.0.0.0"), server.url("127.0.0.1"));
    let proxy_url = proxy.url("");
    let mut requests = 0;
    for (url, variable, no_proxy, is_proxied) in [
        (&url, "HTTPS_PROXY", "", true),
        (&url, "https_proxy", "auth.example.com", true),
        (&url, "ALL_PROXY", "10.0.0.0/8", true),
        (&url, "HTTPS_PROXY", "0.0.0.0", false),
        (&url, "HTTPS_PROXY", "0.0.0.0/8", false),
        (&url, "HTTPS_PROXY", "*", false),
        (&url, "HTTP_PROXY", "", false),
        (&local_url, "HTTPS_PROXY", "", false),
    ] {
        let said = program.request(url, Some(&server.ca_file), |command| {
            command.env(variable, &proxy_url).env("NO_PROXY", no_proxy)
        });
        assert_eq!(said, "Bearer", "{variable} {no_proxy}");
        requests += usize::from(is_proxied);
        assert_eq!(proxy.requests(), requests, "{}", proxy.log());
    }
    assert_eq!(proxy.requests_to(server.port), requests);
}

#[test]
fn proxy_with_basic_credentials_gets_those_of_its_url() {
    let server = TlsServer::start("proxy_users");
    let program = TokenProgram::build("proxy_users", "ring");
    let proxy = Proxy::start("proxy_users", "BasicAuth user pa55word");
    let request = |user: &str| {
        program.request(&server.url("0.0.0.0"), Some(&server.ca_file), |command| {
            command.env("HTTPS_PROXY", proxy.url(user))
        })
    };
    assert_eq!(request("user:pa55w%6Frd@"), "Bearer");
    for (user, advice) in [
        ("", "add a user name and a password to the URL of the proxy"),
        ("user:wrong-pa55@", "check the user name and the password in the URL of the proxy"),
    ] {
        let said = request(user);
        let place = format!("the proxy 127.0.0.1:{} (HTTPS_PROXY) opened no tunnel", proxy.port);
        assert!(said.contains(&place) && said.contains(advice), "{said}");
        assert!(!said.contains("pa55"), "{said}");
    }
    assert_eq!(proxy.requests_to(server.port), 3, "a refusal is not repeated: {}", proxy.log());
}

#[test]
fn each_failure_of_a_real_proxy_has_its_own_advice() {
    let server = TlsServer::start("proxy_failures");
    let program = TokenProgram::build("proxy_failures", "ring");
    let request = |url: &str, proxy: &str| {
        program.request(url, Some(&server.ca_file), |command| command.env("HTTPS_PROXY", proxy))
    };
    let url = server.url("0.0.0.0");

    let forbidding = Proxy::start("proxy_forbidding", "ConnectPort 443");
    let said = request(&url, &forbidding.url(""));
    assert!(said.contains("403 Forbidden; permit CONNECT requests"), "{said}");

    let proxy = Proxy::start("proxy_failures", "");
    let said = request(&format!("https://0.0.0.0:{}/token", free_port()), &proxy.url(""));
    assert!(
        said.contains("it answered 5") && said.contains("check whether the proxy can"),
        "{said}"
    );

    let said = request(&url, &format!("http://127.0.0.1:{}", free_port()));
    assert!(said.contains("refused") && said.contains("whether it is running"), "{said}");

    proxy.suspend();
    let start = Instant::now();
    let said = request(&url, &proxy.url(""));
    assert!(said.contains("opened no tunnel within 5s; check the health of the proxy"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
