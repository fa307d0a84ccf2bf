//! The structure of a configuration file.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf};

use serde::Deserialize;

use super::scalar::{HiddenString, HumanDuration};
use crate::{token::Secret, token_endpoint::RequestFormat};

/// The configuration of one provider: a source of tokens, the origins that receive the token, and
/// the settings of the cache. See the [module](super) for its keys.
///
/// `Debug` shows no secrets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    pub(super) source: SourceConfig,
    #[serde(default)]
    pub(super) origins: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) refresh_timeout: Option<HumanDuration>,
    pub(super) token_request_limit: Option<TokenRequestLimit>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRequestLimit {
    pub(super) most: NonZeroU32,
    pub(super) period: HumanDuration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum SourceConfig {
    ClientCredentials(Box<ClientCredentialsConfig>),
    StaticBearer { token: HiddenString },
    StaticBasic { user: String, password: Secret },
    TokenFile { path: PathBuf, reread_after: Option<HumanDuration> },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientCredentialsConfig {
    pub(super) token_url: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) discover_at: Option<String>,
    pub(super) client_auth: ClientAuthConfig,
    pub(super) scope: Option<String>,
    pub(super) audience: Option<String>,
    #[serde(default)]
    pub(super) resource: Vec<String>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, HiddenString>,
    #[serde(default)]
    pub(super) request_format: RequestFormat,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, HiddenString>,
    #[serde(default)]
    pub(super) response_format: ResponseFormatConfig,
    pub(super) timeout: Option<HumanDuration>,
    pub(super) default_lifetime: Option<HumanDuration>,
    pub(super) refresh_at_age: Option<HumanDuration>,
    pub(super) refresh_before_expiry: Option<HumanDuration>,
    pub(super) ca_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) danger_plain_http: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ClientAuthConfig {
    ClientSecretBasic { client_id: String, client_secret: Secret },
    ClientSecretBasicRaw { client_id: String, client_secret: Secret },
    ClientSecretPost { client_id: String, client_secret: Secret },
    None { client_id: String },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseFormatConfig {
    pub(super) access_token: Option<String>,
    pub(super) token_type: Option<String>,
    pub(super) expires_in: Option<String>,
    pub(super) expires_at: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) success: Option<String>,
    pub(super) error: Option<String>,
    pub(super) error_description: Option<String>,
}
