//! Providers in a configuration file (TOML, YAML, JSON, or any other format that serde reads) or in
//! environment variables.
//!
//! A [`ProviderConfig`] is the complete configuration of one provider, so that a service can keep
//! the differences between its environments outside of its code. An error names the key. An unknown
//! key is an error, and so is a duration without a unit.
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
//!     token_url = "https://auth.example.com/oauth2/token"
//!     scope = "api:search"
//!
//!     [search.source.client_auth]
//!     client_id = "me"
//!     client_secret = { file = "/run/secrets/me" }
//!
//!     [experts]
//!     origins = ["https://experts.example.com"]
//!     rejection_statuses = [403]
//!
//!     [experts.source]
//!     token_url = "https://experts.example.com/oauth/token"
//!     response_format = { access_token = "/data/accessToken", expires_at = "/data/expiresAt" }
//!     refresh_at_age = "24h"
//!
//!     [experts.source.client_auth]
//!     method = "client_secret_post"
//!     client_id = "me"
//!     client_secret = { env = "EXPERTS_SECRET" }
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
//! use tower_oauth::{DefaultTransport, config::ProviderConfig};
//!
//! # let providers = HashMap::<String, ProviderConfig>::new();
//! let transport = DefaultTransport::new()?;
//! let mut layers = HashMap::new();
//! for (name, provider) in &providers {
//!     let cache = provider.token_cache_with_transport(transport.clone())?;
//!     layers.insert(name, provider.layer_with_cache(cache)?);
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "default-transport"))]
//! # fn main() {}
//! ```
//!
//! # Bodies and gRPC
//!
//! The way in which the layer keeps bodies for a retry is a type, so the program chooses it, and
//! not the configuration. The key `replay_cap` has an effect on these two:
//!
//! ```
//! # #[cfg(all(feature = "default-transport", feature = "tonic"))] {
//! # use tower_oauth::{ConfigError, config::ProviderConfig};
//! # fn example(provider: ProviderConfig) -> Result<(), ConfigError> {
//! let for_streams = provider.layer()?.with_replay(provider.buffer_body());
//! let for_grpc = provider.layer()?.grpc().with_replay(provider.tonic_body());
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! # Environment variables
//!
//! [`ProviderConfig::from_env`] reads one provider from variables with a common prefix:
//!
//! ```sh
//! SEARCH_TOKEN_URL=https://auth.example.com/oauth2/token
//! SEARCH_CLIENT_ID=me
//! SEARCH_CLIENT_SECRET__FILE=/run/secrets/me
//! SEARCH_ORIGINS=https://api.example.com,https://search.example.com
//! SEARCH_RESPONSE_FORMAT__ACCESS_TOKEN=/data/accessToken
//! SEARCH_HEADERS=x-api-key=hunter2,x-tenant=blue
//! SEARCH_REFRESH_AT_AGE=24h
//! ```
//!
//! - A variable has the name of a key in upper case, after the prefix and an underscore.
//! - The key of a table is added to the name of the table after two underscores. The names `source`
//!   and `client_auth` are left out: the key `source.client_auth.method` is `SEARCH_METHOD`, and
//!   the key `source.type` is `SEARCH_TYPE`.
//! - The items of a list are separated by commas. White space around them is ignored.
//! - `headers` and `parameters` are lists of `name=value`. A value with a comma cannot be written.
//! - An empty variable is the same as a missing one.
//! - An unknown variable with the prefix is an error. Choose a prefix that is not the beginning of
//!   other names, such as `SEARCH_OAUTH`.
//!
//! # JSON Schema
//!
//! With the feature `json-schema`, [`ProviderConfig`] implements `schemars::JsonSchema`, for the
//! schema of your own configuration type. The schema of one provider is also in the package, as
//! `src/config/schema.json`. An editor completes and checks the keys if the first line of a file
//! names the schema:
//!
//! ```text
//! #:schema ./schema.json                         (TOML, with taplo)
//! # yaml-language-server: $schema=./schema.json  (YAML)
//! ```
//!
//! # Keys
//!
//! A *duration* is a string with units, such as `"30s"`, `"24h"` or `"1h 30m"`, and longer than
//! zero. A *text* is a string or `{ env = "…" }`, the name of an environment variable. A *secret*
//! is a text or `{ file = "…" }`. The file is read for each token request, and the variable when a
//! cache is made. A variable that is not set, or empty, is an error.
//!
#![doc = include_str!("keys.md")]
//!
//! The setters with the same names describe the keys in full: those of
//! [`TokenEndpoint`](crate::TokenEndpoint), [`ClientCredentials`](crate::ClientCredentials),
//! [`ClientAuth`](crate::ClientAuth), [`ResponseFormat`](crate::ResponseFormat),
//! [`Issuer`](crate::Issuer), [`StaticToken`](crate::StaticToken), [`TokenFile`](crate::TokenFile),
//! [`TokenCacheBuilder`](crate::TokenCacheBuilder), [`Origins`](crate::Origins) and
//! [`OAuthLayer`](crate::OAuthLayer).
//!
//! # Caveats
//!
//! - Keys and types are checked when the file is read. Values such as URLs are checked when a cache
//!   or a layer is made.
//! - For an error within a table of a provider, a parser shows the position of the table. The
//!   message has the path of the key.
//! - Errors of this module quote no value that may be a secret. They quote other values, such as a
//!   path, an unknown `type`, or a URL without its user information and query. A parser may add
//!   lines of the file, which may contain a secret. With `toml`, print `error.message()` instead of
//!   the error.
//! - Configuration files are copied to backups and version control, and environment variables to
//!   child processes. Prefer `{ file = "…" }` for secrets.

mod build;
mod environment;
mod inline_table;
mod key_error;
mod key_names;
mod keys;
mod provider_config;
#[cfg(feature = "json-schema")]
mod schema;
mod tree;
mod values;

pub use provider_config::ProviderConfig;
