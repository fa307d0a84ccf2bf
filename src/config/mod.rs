//! Providers in a configuration file: TOML, YAML, JSON, or any other format that serde reads.
//!
//! A [`ProviderConfig`] is the complete configuration of one provider, so that a service can keep
//! the differences between its environments in a file. An unknown key is an error that names the
//! key. A duration without a unit is an error, too.
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
//!     scope = "api:search"
//!
//!     [search.source.client_auth]
//!     method = "client_secret_basic"
//!     client_id = "me"
//!     client_secret = { file = "/run/secrets/me" }
//!
//!     [experts]
//!     origins = ["https://experts.example.com"]
//!
//!     [experts.source]
//!     type = "client_credentials"
//!     token_url = "https://experts.example.com/oauth/token"
//!     client_auth = { method = "client_secret_post", client_id = "me", client_secret = "hunter2" }
//!     response_format = { access_token = "/data/accessToken", expires_at = "/data/expiresAt" }
//!     refresh_at_age = "24h"
//!
//!     [legacy]
//!     origins = ["https://old.example.com"]
//!
//!     [legacy.source]
//!     type = "static_basic"
//!     user = "token-id"
//!     password = { file = "/run/secrets/legacy" }
//! "#;
//! let providers: HashMap<String, ProviderConfig> = toml::from_str(file)?;
//! # #[cfg(feature = "default-transport")]
//! let oauth = providers["search"].layer()?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Many providers
//!
//! [`layer`](ProviderConfig::layer) and [`token_cache`](ProviderConfig::token_cache) make a
//! transport for each provider. To share one, which saves memory and start-up time (see
//! [`DefaultTransport`](crate::DefaultTransport)):
//!
//! ```
//! # #[cfg(feature = "default-transport")]
//! # fn main() -> Result<(), tower_oauth::ConfigError> {
//! use std::collections::HashMap;
//! use tower_oauth::{DefaultTransport, OAuthLayer, config::ProviderConfig};
//!
//! # let providers = HashMap::<String, ProviderConfig>::new();
//! let transport = DefaultTransport::new()?;
//! let mut layers = HashMap::new();
//! for (name, provider) in &providers {
//!     let cache = provider.token_cache_with_transport(transport.clone())?;
//!     layers.insert(name, OAuthLayer::new(cache, provider.origins()?));
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "default-transport"))]
//! # fn main() {}
//! ```
//!
//! # Keys
//!
//! Keys of a provider:
//!
//! | key | value |
//! | --- | --- |
//! | `source` | see below |
//! | `origins` | list of the [`Origins`](crate::Origins) that receive the token |
//! | `name` | [`TokenCacheBuilder::name`](crate::TokenCacheBuilder::name) |
//! | `refresh_timeout` | duration |
//! | `token_request_limit` | `{ max = 10, period = "1d" }` |
//!
//! Keys of a `source`, by its `type`:
//!
//! | `type` | required keys | optional keys |
//! | --- | --- | --- |
//! | `client_credentials` | `token_url` or `issuer`; `client_auth` | see below |
//! | `static_bearer` | `token` | |
//! | `static_basic` | `user`, `password` | |
//! | `token_file` | `path` | `reread_after` |
//!
//! Optional keys of a `client_credentials` source:
//!
//! | key | value |
//! | --- | --- |
//! | `discover_at` | URL at which the metadata of the `issuer` is found |
//! | `scope`, `audience` | string |
//! | `resource` | list of strings |
//! | `parameters` | table of strings |
//! | `request_format` | `form` or `json` |
//! | `headers` | table of strings; `user-agent` replaces `tower-oauth/VERSION` |
//! | `response_format` | table of JSON Pointers, and the `encoding`, see below |
//! | `timeout`, `default_lifetime` | duration |
//! | `max_token_bytes` | number |
//! | `refresh_at_age`, `refresh_before_expiry` | duration; at most one of both |
//! | `ca_file` | path of a PEM file with certificates to trust: authorities, or that of the server |
//! | `danger_plain_http` | `true` accepts an `http` `token_url` of another machine |
//!
//! Keys of `response_format`: `access_token`, `token_type`, `expires_in`, `expires_at`, `scope`,
//! `success`, `error`, `error_description`; and `encoding`: `json` (the default), `form` or `text`,
//! see [`ResponseFormat::form`](crate::ResponseFormat::form) and
//! [`ResponseFormat::text`](crate::ResponseFormat::text).
//!
//! Keys of `client_auth`: `method` (`client_secret_basic`, `client_secret_basic_raw`,
//! `client_secret_post` or `none`), `client_id`, and `client_secret` unless the method is `none`.
//!
//! `client_secret` and `password` are a string or `{ file = "…" }`. The file is read for each token
//! request. A duration is a string with units, such as `"30s"`, `"24h"` or `"1h 30m"`; a day has 24
//! hours.
//!
//! Each key has the meaning and the default of the setter with the same name in
//! [`TokenEndpoint`](crate::TokenEndpoint), [`ClientCredentials`](crate::ClientCredentials),
//! [`ClientAuth`](crate::ClientAuth), [`ResponseFormat`](crate::ResponseFormat),
//! [`Issuer`](crate::Issuer), [`StaticToken`](crate::StaticToken), [`TokenFile`](crate::TokenFile)
//! or [`TokenCacheBuilder`](crate::TokenCacheBuilder).
//!
//! # Caveats
//!
//! - Keys and types are checked when the file is read. Values such as URLs are checked when a cache
//!   or a layer is made.
//! - For an error within a `source`, a parser may show the line of the `source` instead of that of
//!   the key, because the valid keys depend on `type`.
//! - Errors of this module quote no value, except for a value that is not one of a few words or not
//!   a number or a boolean. A parser may add the line with the value, which may be a secret. With
//!   `toml`, print `error.message()` instead of the error.
//! - Configuration files are copied to backups and version control. Prefer `{ file = "…" }` for
//!   secrets.

mod build;
mod provider_config;
mod scalar;

pub use provider_config::ProviderConfig;
