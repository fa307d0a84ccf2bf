//! The shape of the file.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf};

use serde::Deserialize;

use super::scalar::{Hidden, HumanDuration};
use crate::{token::ClientSecret, token_request::BodyFormat};

/// A provider of tokens and who may see them, as it stands in a configuration file. See the [module](super).
///
/// `Debug` shows no secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    pub(super) source: Source,
    #[serde(default)]
    pub(super) origins: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) refresh_timeout: Option<HumanDuration>,
    pub(super) token_request_limit: Option<Limit>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    pub(super) most: NonZeroU32,
    pub(super) period: HumanDuration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Source {
    ClientCredentials(Box<Grant>),
    StaticBearer { token: Hidden },
    StaticBasic { user: String, password: ClientSecret },
    TokenFile { path: PathBuf, reread_after: Option<HumanDuration> },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) token_url: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) client_auth: Auth,
    pub(super) scope: Option<String>,
    pub(super) audience: Option<String>,
    #[serde(default)]
    pub(super) resource: Vec<String>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Hidden>,
    #[serde(default)]
    pub(super) body: BodyFormat,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Hidden>,
    #[serde(default)]
    pub(super) response: Response,
    pub(super) timeout: Option<HumanDuration>,
    pub(super) default_lifetime: Option<HumanDuration>,
    pub(super) renew_at_age: Option<HumanDuration>,
    pub(super) renew_before_expiry: Option<HumanDuration>,
    pub(super) ca_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) danger_plain_http: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Auth {
    ClientSecretBasic { client_id: String, client_secret: ClientSecret },
    ClientSecretBasicRaw { client_id: String, client_secret: ClientSecret },
    ClientSecretPost { client_id: String, client_secret: ClientSecret },
    None { client_id: String },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Response {
    pub(super) access_token: Option<String>,
    pub(super) token_type: Option<String>,
    pub(super) expires_in: Option<String>,
    pub(super) expires_at: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) success: Option<String>,
    pub(super) error: Option<String>,
    pub(super) error_description: Option<String>,
}
