//! The errors of a connection through a proxy.

use std::{error::Error, fmt, time::Duration};

use http::StatusCode;

use crate::error::{ConfigError, is_transient_status};

/// The reason why there is no connection through a proxy. The message is complete: there is no
/// source. It shows the host and the port of the proxy, and no credentials.
#[derive(Debug)]
pub(super) struct ProxyError {
    /// Host, port and setting.
    pub(super) proxy: String,
    pub(super) problem: ProxyProblem,
}

#[derive(Debug)]
pub(super) enum ProxyProblem {
    /// An environment variable cannot be used.
    Setting(ConfigError),
    /// There is no connection to the proxy.
    Unreachable { cause: String, is_tls_error: bool },
    /// The proxy did not answer in time.
    Timeout(Duration),
    /// The proxy answered with an error.
    Refused { status: StatusCode, target: String, has_credentials: bool },
    /// The proxy did not answer as an HTTP proxy does.
    InvalidAnswer { cause: String },
}

impl ProxyError {
    /// Returns true if another attempt would fail as well.
    pub(super) fn is_permanent(&self) -> bool {
        let is_tls_error =
            matches!(self.problem, ProxyProblem::Unreachable { is_tls_error: true, .. });
        is_tls_error || self.is_refusal()
    }

    /// Returns true if the proxy refuses the connection, or cannot be asked for one because of its
    /// setting.
    pub(super) fn is_refusal(&self) -> bool {
        match &self.problem {
            ProxyProblem::Setting(_) => true,
            ProxyProblem::Refused { status, .. } => !is_transient_status(*status),
            _ => false,
        }
    }

    /// Returns what to do about it.
    pub(super) fn advice(&self) -> &'static str {
        match &self.problem {
            ProxyProblem::Setting(_) => {
                "correct the environment variable, or exempt this server from the proxy with \
                 NO_PROXY"
            }
            ProxyProblem::Unreachable { is_tls_error: true, .. } => {
                "check the certificate of the proxy, and whether it accepts TLS, as the https in \
                 its URL says"
            }
            ProxyProblem::Unreachable { .. } => {
                "check the host and the port of the proxy, and whether it is running"
            }
            ProxyProblem::Timeout(_) => {
                "check the health of the proxy, and whether it can reach this server"
            }
            // Tinyproxy answers 401 to wrong credentials, and 407 to none.
            ProxyProblem::Refused {
                status: StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED,
                has_credentials,
                ..
            } => {
                if *has_credentials {
                    "check the user name and the password in the URL of the proxy, and whether it \
                     accepts HTTP Basic"
                } else {
                    "add a user name and a password to the URL of the proxy, as in \
                     http://user:password@proxy.example.com:3128"
                }
            }
            ProxyProblem::Refused { status, .. } if status.is_server_error() => {
                "check whether the proxy can resolve the name of this server and reach it"
            }
            ProxyProblem::Refused { .. } => {
                "permit CONNECT requests to this server in the configuration of the proxy, or \
                 connect to it without the proxy"
            }
            ProxyProblem::InvalidAnswer { .. } => {
                "check whether this is the host and the port of an HTTP proxy, and its health"
            }
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = &self.proxy;
        match &self.problem {
            ProxyProblem::Setting(error) => write!(f, "{error}"),
            ProxyProblem::Unreachable { cause, .. } => {
                write!(f, "no connection to the proxy {proxy}: {cause}")
            }
            ProxyProblem::Timeout(limit) => {
                write!(f, "the proxy {proxy} opened no tunnel within {limit:?}")
            }
            ProxyProblem::Refused { status, target, .. } => {
                write!(f, "the proxy {proxy} opened no tunnel to {target}: it answered {status}")
            }
            ProxyProblem::InvalidAnswer { cause } => {
                write!(f, "the proxy {proxy} opened no tunnel: {cause}")
            }
        }
    }
}

impl Error for ProxyError {}
