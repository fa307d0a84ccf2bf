//! The JSON Schema of a configuration.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::{
    keys::Provider,
    provider_config::ProviderConfig,
    tree::TAGS,
    values::{
        FileOrVariable, Hidden, PositiveDuration, SecretPlace, Status, UrlText, VariableOnly,
    },
};

/// Describes the keys of a provider, for a schema of your own configuration type. See the
/// [module](super#json-schema).
impl JsonSchema for ProviderConfig {
    fn schema_name() -> Cow<'static, str> {
        "ProviderConfig".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::ProviderConfig").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Provider::json_schema(generator)
    }
}

macro_rules! inline_schemas {
    ($($type:ty: |$generator:pat_param| $schema:expr;)*) => {
        $(impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        })*
    };
}

inline_schemas! {
    UrlText: |_| json_schema!({ "type": "string" });
    // The pattern is approximate: a number, and then a unit. `PositiveDuration` checks the rest.
    PositiveDuration: |_| json_schema!({
        "type": "string",
        "pattern": "^[0-9P].*[A-Za-z]",
        "examples": ["30s", "1h 30m"],
    });
    Status: |_| json_schema!({ "type": "integer", "minimum": 100, "maximum": 999 });
    Hidden: |generator| json_schema!({
        "anyOf": [{ "type": "string" }, generator.subschema_for::<VariableOnly>()],
    });
    SecretPlace: |generator| json_schema!({
        "anyOf": [{ "type": "string" }, generator.subschema_for::<FileOrVariable>()],
    });
}

/// Makes the key that names the variant optional for the first variant, which is the default.
pub(super) fn first_tag_is_default(schema: &mut Schema) {
    let required = schema.pointer_mut("/oneOf/0/required").and_then(Value::as_array_mut);
    if let Some(required) = required {
        required.retain(|key| !key.as_str().is_some_and(|key| TAGS.contains(&key)));
    }
}
