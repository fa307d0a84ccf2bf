//! What is given on the command line.

use std::{collections::HashMap, error::Error, ffi::OsString, fmt};

use http::Uri;
use tower_oauth::ClientSecret;

const PROVIDER: &str = "PROVIDER";
const GET_URL: &str = "GET-URL";
const OPTIONS: [&str; 4] = ["--base-url", "--client-id", "--client-secret-file", "--audience"];

/// By name; each is taken once.
pub(crate) struct Given(HashMap<&'static str, String>);

impl Given {
    /// An unknown name is shown, but not what stands behind it: it may be a secret.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, WrongUse> {
        let mut args =
            args.map(|arg| arg.into_string().map_err(|_| WrongUse("an argument is not UTF-8".into())));
        let mut given = HashMap::new();
        while let Some(arg) = args.next().transpose()? {
            let (name, value) = match arg.split_once('=') {
                _ if !arg.starts_with('-') && !given.contains_key(PROVIDER) => (PROVIDER, Some(arg)),
                _ if !arg.starts_with('-') => (GET_URL, Some(arg)),
                Some((option, value)) => (known(option)?, Some(value.to_owned())),
                None => (known(&arg)?, args.next().transpose()?),
            };
            let Some(value) = value.filter(|value| !value.is_empty() && !value.starts_with("--")) else {
                return Err(WrongUse(format!("{name} needs a value")));
            };
            if given.insert(name, value).is_some() {
                return Err(WrongUse(format!("{name} is given twice")));
            }
        }
        Ok(Self(given))
    }

    pub(crate) fn provider(&mut self) -> Result<String, WrongUse> {
        self.take(PROVIDER)
    }

    pub(crate) fn base_url(&mut self) -> Result<String, WrongUse> {
        Ok(self.take("--base-url")?.trim_end_matches('/').to_owned())
    }

    pub(crate) fn client_id(&mut self) -> Result<String, WrongUse> {
        self.take("--client-id")
    }

    pub(crate) fn secret(&mut self) -> Result<ClientSecret, WrongUse> {
        self.take("--client-secret-file").map(ClientSecret::from_file)
    }

    pub(crate) fn audience(&mut self) -> Result<String, WrongUse> {
        self.take("--audience")
    }

    /// With its origin. A token on plain HTTP can be read on its way, unless it stays on this machine.
    pub(crate) fn get_url(&mut self) -> Result<Option<(Uri, String)>, WrongUse> {
        let Some(url) = self.0.remove(GET_URL) else { return Ok(None) };
        let url = url.parse::<Uri>().unwrap_or_default();
        let here = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        match (url.scheme_str(), url.authority()) {
            (Some(scheme), Some(authority)) if scheme == "https" || (scheme == "http" && here) => {
                let origin = format!("{scheme}://{authority}");
                Ok(Some((url, origin)))
            }
            _ => {
                Err(WrongUse(format!("{GET_URL} must be an https:// URL, or an http:// URL of this machine")))
            }
        }
    }

    pub(crate) fn nothing_else(&self) -> Result<(), WrongUse> {
        match self.0.keys().next() {
            Some(name) => Err(WrongUse(format!("{name} is not for this provider"))),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str) -> Result<String, WrongUse> {
        self.0.remove(name).ok_or_else(|| WrongUse(format!("{name} is missing")))
    }
}

fn known(option: &str) -> Result<&'static str, WrongUse> {
    let name = OPTIONS.into_iter().find(|name| *name == option);
    name.ok_or_else(|| WrongUse(format!("there is no option {option:?}")))
}

/// The command line asks for what cannot be done.
#[derive(Debug)]
pub(crate) struct WrongUse(pub(crate) String);

impl fmt::Display for WrongUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for WrongUse {}
