//! The structure of a configuration file.

use std::{collections::BTreeMap, fmt, num::NonZeroU32};

use serde::{Deserialize, Deserializer};

use super::scalar::{HiddenText, HumanDuration, List, Table, Text, UrlText};
use crate::{
    token::Secret,
    token_endpoint::{RequestFormat, ResponseEncoding},
};

/// The configuration of one provider: a source of tokens, the origins that receive the token, and
/// the settings of the cache. See the [module](super) for its keys.
///
/// `Debug` shows no secrets.
#[derive(Clone)]
pub struct ProviderConfig(pub(super) Table<Provider>);

/// Fails with an error that quotes no value that may be a secret.
impl<'de> Deserialize<'de> for ProviderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Table::deserialize(deserializer).map(Self)
    }
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) source: Table<SourceConfig>,
    #[serde(default)]
    pub(super) origins: List<UrlText>,
    pub(super) name: Option<Text>,
    pub(super) refresh_timeout: Option<HumanDuration>,
    pub(super) token_request_limit: Option<Table<TokenRequestLimit>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRequestLimit {
    pub(super) max: NonZeroU32,
    pub(super) period: HumanDuration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum SourceConfig {
    ClientCredentials(Box<ClientCredentialsConfig>),
    StaticBearer { token: HiddenText },
    StaticBasic { user: Text, password: Secret },
    TokenFile { path: Text, reread_after: Option<HumanDuration> },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientCredentialsConfig {
    pub(super) token_url: Option<UrlText>,
    pub(super) issuer: Option<UrlText>,
    pub(super) discover_at: Option<UrlText>,
    pub(super) client_auth: Table<ClientAuthConfig>,
    pub(super) scope: Option<Text>,
    pub(super) audience: Option<Text>,
    #[serde(default)]
    pub(super) resource: List<Text>,
    #[serde(default)]
    pub(super) parameters: Table<BTreeMap<String, HiddenText>>,
    #[serde(default)]
    pub(super) request_format: RequestFormat,
    #[serde(default)]
    pub(super) headers: Table<BTreeMap<String, HiddenText>>,
    #[serde(default)]
    pub(super) response_format: Table<ResponseFormatConfig>,
    pub(super) timeout: Option<HumanDuration>,
    pub(super) default_lifetime: Option<HumanDuration>,
    pub(super) max_token_bytes: Option<usize>,
    pub(super) refresh_at_age: Option<HumanDuration>,
    pub(super) refresh_before_expiry: Option<HumanDuration>,
    pub(super) ca_file: Option<Text>,
    #[serde(default)]
    pub(super) danger_plain_http: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ClientAuthConfig {
    ClientSecretBasic { client_id: Text, client_secret: Secret },
    ClientSecretBasicRaw { client_id: Text, client_secret: Secret },
    ClientSecretPost { client_id: Text, client_secret: Secret },
    None { client_id: Text },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseFormatConfig {
    #[serde(default)]
    pub(super) encoding: ResponseEncoding,
    pub(super) access_token: Option<Text>,
    pub(super) token_type: Option<Text>,
    pub(super) expires_in: Option<Text>,
    pub(super) expires_at: Option<Text>,
    pub(super) scope: Option<Text>,
    pub(super) success: Option<Text>,
    pub(super) error: Option<Text>,
    pub(super) error_description: Option<Text>,
}
