//! The encoding of the parameters of a token request.

use http::HeaderValue;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// The encoding of the parameters of a token request. See
/// [`TokenEndpoint::request_format`](crate::TokenEndpoint::request_format).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
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

    pub(super) fn encode(self, parameters: &[(String, Zeroizing<String>)]) -> String {
        match self {
            Self::Form => encode_form(parameters),
            Self::Json => encode_json(parameters),
        }
    }
}

fn encode_form(parameters: &[(String, Zeroizing<String>)]) -> String {
    let mut body = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        body.append_pair(name, value);
    }
    body.finish()
}

fn encode_json(parameters: &[(String, Zeroizing<String>)]) -> String {
    let mut object = Map::new();
    for (name, value) in parameters {
        let value = Value::from(value.as_str());
        match object.get_mut(name) {
            None => drop(object.insert(name.clone(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object).to_string()
}
