//! The keys of a configuration. A comment of a field is the description of the key in the schema.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
};

use serde::Deserialize;

use super::values::{Hidden, PositiveDuration, SecretPlace, Status, UrlText};
use crate::token_endpoint::{RequestFormat, ResponseEncoding};

/// The configuration of one provider: a source of tokens, the servers that receive the token, and
/// the settings of the cache and the layer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub(super) struct Provider {
    /// The source of the tokens: a table with the keys of its `type`.
    pub(super) source: Source,
    /// The servers that receive the token, such as `https://api.example.com`: scheme, host and
    /// optional port. Default: none.
    #[serde(default)]
    pub(super) origins: Vec<UrlText>,
    /// Sends the token with requests without an authority as well: those of a tonic channel.
    /// Default: false.
    #[serde(default)]
    pub(super) without_authority: bool,
    /// The HTTP statuses that count as a rejection of the token, besides 401. Default: none.
    #[serde(default)]
    pub(super) rejection_statuses: Vec<Status>,
    /// The number of bytes of a request body that are kept for a retry, for programs that do not
    /// clone bodies. Default: 65536.
    pub(super) replay_cap: Option<usize>,
    /// The name of the token in events and metrics. Default: `default`.
    pub(super) name: Option<String>,
    /// The time limit of one refresh, with all its requests. Default: 30s.
    pub(super) refresh_timeout: Option<PositiveDuration>,
    /// The largest number of token requests in a period. Default: no limit.
    pub(super) token_request_limit: Option<TokenRequestLimit>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub(super) struct TokenRequestLimit {
    /// The number of token requests.
    pub(super) max: NonZeroU32,
    /// The length of the period.
    pub(super) period: PositiveDuration,
}

/// A source of tokens, by its `type`.
// The name for serde is the key that tells the variant, see `tree::TAGS`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename = "type", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(
    feature = "json-schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Source", tag = "type", transform = super::schema::first_tag_is_default)
)]
pub(super) enum Source {
    /// The client credentials grant: tokens for the client itself. The default.
    ClientCredentials(Box<ClientCredentialsSource>),
    /// A fixed bearer token.
    StaticBearer {
        /// The token.
        token: Hidden,
    },
    /// HTTP Basic, for an API without tokens.
    StaticBasic {
        /// The user name, or the id of a token.
        user: String,
        /// The password, or the secret of a token.
        password: SecretPlace,
    },
    /// A bearer token in a file that another process updates.
    TokenFile {
        /// The path of the file.
        path: String,
        /// The age of the token at which the file is read again. Default: 1m.
        reread_after: Option<PositiveDuration>,
    },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub(super) struct ClientCredentialsSource {
    /// The URL of the token endpoint. Either this or `issuer` is required.
    pub(super) token_url: Option<UrlText>,
    /// The issuer of which the metadata names the token endpoint.
    pub(super) issuer: Option<UrlText>,
    /// The URL at which the metadata is fetched. Default: the `issuer`.
    pub(super) discover_at: Option<UrlText>,
    /// The client authentication: a table with the keys of its `method`.
    pub(super) client_auth: ClientAuthentication,
    /// The requested scope: one or more values, separated by spaces. Default: none.
    pub(super) scope: Option<String>,
    /// The API that the token is for. Some providers require it. Default: none.
    pub(super) audience: Option<String>,
    /// The URIs of the APIs that the token is for (RFC 8707). Default: none.
    #[serde(default)]
    pub(super) resource: Vec<String>,
    /// Further parameters of the token request. Default: none.
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Hidden>,
    /// The encoding of the request parameters. Default: `form`.
    #[serde(default)]
    pub(super) request_format: RequestFormat,
    /// Further headers of the token request. `user-agent` replaces that of this library. Default:
    /// none.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Hidden>,
    /// The encoding of the response and the positions of its members. Default: those of RFC 6749.
    #[serde(default)]
    pub(super) response_format: ResponseMembers,
    /// The time limit of one token request. Default: 20s.
    pub(super) timeout: Option<PositiveDuration>,
    /// The lifetime of a token if the response names none. Default: 1h.
    pub(super) default_lifetime: Option<PositiveDuration>,
    /// The maximum length of a token in bytes. Default: 65536.
    pub(super) max_token_bytes: Option<NonZeroUsize>,
    /// The age at which a token is refreshed in the background, if that is earlier than the default
    /// time. Not together with `refresh_before_expiry`. Default: none.
    pub(super) refresh_at_age: Option<PositiveDuration>,
    /// The time before its expiry at which a token is refreshed in the background. Default: 20m.
    pub(super) refresh_before_expiry: Option<PositiveDuration>,
    /// Further secrets that no error shows, such as a key that a proxy adds to token requests.
    /// Default: none.
    #[serde(default)]
    pub(super) secrets: Vec<Hidden>,
    /// The path of a PEM file with certificates to trust: authorities, or that of the server.
    /// Default: none.
    pub(super) ca_file: Option<String>,
    /// Trusts the root certificates that are a part of the program (cargo feature `webpki-roots`),
    /// and none of the platform. Default: false.
    #[serde(default)]
    pub(super) bundled_roots: bool,
    /// The URL of the HTTP proxy for token requests. Not together with `no_proxy`. Default: that of
    /// the environment.
    pub(super) proxy: Option<Hidden>,
    /// Sends token requests without a proxy, whatever the environment says. Default: false.
    #[serde(default)]
    pub(super) no_proxy: bool,
    /// Accepts an `http` `token_url` of another machine, to which the client secret is sent
    /// unencrypted. Default: false.
    #[serde(default)]
    pub(super) danger_plain_http: bool,
}

/// The client authentication, by its `method`.
// The name for serde is the key that tells the variant, see `tree::TAGS`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename = "method", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(
    feature = "json-schema",
    derive(schemars::JsonSchema),
    schemars(
        rename = "ClientAuthentication",
        tag = "method",
        transform = super::schema::first_tag_is_default
    )
)]
pub(super) enum ClientAuthentication {
    /// Id and secret in the `Authorization` header, form-encoded (RFC 6749 §2.3.1). The default.
    ClientSecretBasic(ClientSecret),
    /// The same without the form-encoding.
    ClientSecretBasicRaw(ClientSecret),
    /// Id and secret in the body.
    ClientSecretPost(ClientSecret),
    /// Only the id, in the body.
    None {
        /// The id of the client.
        client_id: String,
    },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub(super) struct ClientSecret {
    /// The id of the client.
    pub(super) client_id: String,
    /// The secret of the client.
    pub(super) client_secret: SecretPlace,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub(super) struct ResponseMembers {
    /// The encoding of a successful response. Default: `json`.
    #[serde(default)]
    pub(super) encoding: ResponseEncoding,
    /// The JSON Pointer of the access token. Default: `/access_token`.
    pub(super) access_token: Option<String>,
    /// The JSON Pointer of the token type. Default: `/token_type`.
    pub(super) token_type: Option<String>,
    /// The JSON Pointer of the lifetime in seconds. Default: `/expires_in`.
    pub(super) expires_in: Option<String>,
    /// The JSON Pointer of the expiry as a point in time. Default: none.
    pub(super) expires_at: Option<String>,
    /// The JSON Pointer of the granted scope. Default: `/scope`.
    pub(super) scope: Option<String>,
    /// The JSON Pointer of a flag that tells a success from an error. Default: none.
    pub(super) success: Option<String>,
    /// The JSON Pointer of the error code. Default: `/error`.
    pub(super) error: Option<String>,
    /// The JSON Pointer of the error description. Default: `/error_description`.
    pub(super) error_description: Option<String>,
}
