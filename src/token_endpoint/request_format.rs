//! The encoding of the parameters of a token request.

use form_urlencoded::byte_serialize;
use http::HeaderValue;
use zeroize::Zeroizing;

/// The encoding of the parameters of a token request. See
/// [`TokenEndpoint::request_format`](crate::TokenEndpoint::request_format).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded`, the encoding of RFC 6749 §4 and appendix B.
    #[default]
    Form,
    /// A JSON object of strings, for providers that require it. A parameter that occurs more than
    /// once becomes an array.
    Json,
}

impl RequestFormat {
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Form => "application/x-www-form-urlencoded",
            Self::Json => "application/json",
        })
    }

    /// Returns the encoded parameters. Their memory is zeroed on drop.
    pub(super) fn encode(self, parameters: &[(String, Zeroizing<String>)]) -> Zeroizing<Vec<u8>> {
        // An escape has up to six bytes for one. The vector never grows and leaves a copy behind.
        let size = |text: &str| 6 * text.len() + "\"\":,[]{}".len();
        let size = parameters.iter().map(|(name, value)| size(name) + size(value)).sum();
        let mut body = Zeroizing::new(Vec::with_capacity(size));
        match self {
            Self::Form => encode_form(parameters, &mut body),
            Self::Json => encode_json(parameters, &mut body),
        }
        body
    }
}

fn encode_form(parameters: &[(String, Zeroizing<String>)], body: &mut Vec<u8>) {
    for (index, (name, value)) in parameters.iter().enumerate() {
        if index > 0 {
            body.push(b'&');
        }
        body.extend(byte_serialize(name.as_bytes()).flat_map(str::bytes));
        body.push(b'=');
        body.extend(byte_serialize(value.as_bytes()).flat_map(str::bytes));
    }
}

/// Writes the object without a `serde_json::Value`, which would hold copies of the values.
fn encode_json(parameters: &[(String, Zeroizing<String>)], body: &mut Vec<u8>) {
    body.push(b'{');
    for (index, (name, _)) in parameters.iter().enumerate() {
        if parameters[..index].iter().any(|(earlier, _)| earlier == name) {
            continue;
        }
        if index > 0 {
            body.push(b',');
        }
        encode_json_string(name, body);
        body.push(b':');
        let values = || parameters.iter().filter(|(other, _)| other == name);
        let is_array = values().count() > 1;
        if is_array {
            body.push(b'[');
        }
        for (index, (_, value)) in values().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            encode_json_string(value, body);
        }
        if is_array {
            body.push(b']');
        }
    }
    body.push(b'}');
}

#[allow(clippy::expect_used)]
fn encode_json_string(text: &str, body: &mut Vec<u8>) {
    serde_json::to_writer(body, text).expect("a text can be written to a vector");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_encoded_parameters_never_grows() {
        // Each character takes six bytes of JSON.
        let text = "\u{1}".repeat(1000);
        let parameters = [(text.clone(), Zeroizing::new(text))];
        let body = RequestFormat::Json.encode(&parameters);
        assert_eq!(body.len(), 2 * 6000 + r#"{"":""}"#.len());
        assert!(body.capacity() < body.len() + 16, "{}", body.capacity());
    }
}
