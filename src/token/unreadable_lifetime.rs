//! A part of a token response that a cache reports when it takes the token into use.

/// A member of a token response that should be a lifetime and cannot be read. Its value is not
/// kept, as it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableLifetime {
    /// The JSON Pointer of the member.
    pub(crate) member: String,
    /// The JSON Pointer of the member that is used instead. `None` for the default lifetime.
    pub(crate) replaced_by: Option<String>,
    /// The setting that names the member, as a text for `SettingNames::expand`.
    pub(crate) setting: &'static str,
}

impl UnreadableLifetime {
    pub(crate) fn expires_in(member: &str) -> Self {
        Self::new(member, "{ResponseFormat::expires_in|response_format.expires_in}")
    }

    pub(crate) fn expires_at(member: &str) -> Self {
        Self::new(member, "{ResponseFormat::expires_at|response_format.expires_at}")
    }

    fn new(member: &str, setting: &'static str) -> Self {
        Self { member: member.to_owned(), replaced_by: None, setting }
    }

    /// Sets the JSON Pointer of the member that is used instead.
    pub(crate) fn replaced_by(self, member: &str) -> Self {
        Self { replaced_by: Some(member.to_owned()), ..self }
    }
}
