//! Providers in a configuration file: TOML, YAML, JSON or whatever serde reads.
//!
//! A service keeps what differs between its environments in a file. [`ProviderConfig`] is the whole of a provider in that
//! form; an unknown key is an error that names it, and so is a duration without a unit.
//!
//! # Example
//!
//! ```
//! use std::collections::HashMap;
//! use tower_oauth::config::ProviderConfig;
//!
//! let file = r#"
//!     [search]
//!     origins = ["https://api.example.com"]
//!
//!     [search.source]
//!     type = "client_credentials"
//!     token_url = "https://auth.example.com/oauth2/token"
//!     client_auth = { method = "client_secret_basic", client_id = "me", client_secret = { file = "/run/secrets/me" } }
//!     scope = "api:search"
//!
//!     [experts]
//!     origins = ["https://experts.example.com"]
//!
//!     [experts.source]
//!     type = "client_credentials"
//!     token_url = "https://experts.example.com/oauth/token"
//!     client_auth = { method = "client_secret_post", client_id = "me", client_secret = "hunter2" }
//!     response = { access_token = "/data/accessToken", expires_at = "/data/accessTokenExpiresAt", success = "/success" }
//!     renew_at_age = "24h"
//!
//!     [legacy]
//!     origins = ["https://old.example.com"]
//!     source = { type = "static_basic", user = "token-id", password = { file = "/run/secrets/legacy" } }
//! "#;
//! let providers: HashMap<String, ProviderConfig> = toml::from_str(file)?;
//! # #[cfg(feature = "default-transport")]
//! let oauth = providers["search"].layer()?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Keys
//!
//! | of | keys |
//! | --- | --- |
//! | a provider | `source`, `origins` (a list), `name`, `refresh_timeout`, `token_request_limit` |
//! | `token_request_limit` | `most`, `period` |
//! | `source` of type `client_credentials` | `token_url` or `issuer`, `client_auth`; `scope`, `audience`, `resource` (a list), `parameters`; `body` (`form`, `json`), `headers`, `response`; `timeout`, `default_lifetime`, `renew_at_age` or `renew_before_expiry`; `ca_file` (PEM), `danger_plain_http` |
//! | `client_auth` | `method` (`client_secret_basic`, `client_secret_basic_raw`, `client_secret_post`, `none`), `client_id`, `client_secret` |
//! | `response`: JSON Pointers | `access_token`, `token_type`, `expires_in`, `expires_at`, `scope`, `success`, `error`, `error_description` |
//! | `source` of type `static_bearer` | `token` |
//! | `source` of type `static_basic` | `user`, `password` |
//! | `source` of type `token_file` | `path`, `reread_after` |
//!
//! `client_secret` and `password` are a string or `{ file = "…" }`, which is read with each token request. A duration is a
//! string with units such as `"30s"`, `"24h"` or `"1h 30m"`; a day has 24 hours. What a key does stands with the setter of the
//! same name: [`TokenEndpoint`](crate::TokenEndpoint), [`ClientCredentials`](crate::ClientCredentials),
//! [`ClientAuth`](crate::ClientAuth), [`ResponseFormat`](crate::ResponseFormat), [`StaticToken`](crate::StaticToken),
//! [`TokenFile`](crate::TokenFile), [`TokenCacheBuilder`](crate::TokenCacheBuilder).
//!
//! # Caveats
//!
//! - Keys and types are checked when the file is read, values such as URLs when a cache or a layer is made of it.
//! - The error of a parser may quote the line that it could not read, secret included: print `toml`'s `error.message()` rather
//!   than the error.
//! - A secret in a configuration file is in backups and in version control before long. Prefer `{ file = "…" }`.

mod build;
mod provider;
mod scalar;

pub use provider::ProviderConfig;
