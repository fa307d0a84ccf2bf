//! The JSON Schema of a configuration, and the list of keys that is made from it.

use std::{env, fmt::Write, fs, path::Path};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};
use tower_oauth::config::ProviderConfig;

use super::{complete_configurations, pointers, wrong_values};

fn generated() -> Value {
    schemars::schema_for!(ProviderConfig).to_value()
}

/// Compares a file with its generated content. With `UPDATE_GENERATED=1`, writes it.
fn check_file(path: &str, generated: &str) {
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(path, generated).unwrap();
    }
    let content = fs::read_to_string(path).unwrap_or_default();
    assert!(
        content == generated,
        "{path} is out of date: run UPDATE_GENERATED=1 cargo test --all-features --test it schema"
    );
}

#[test]
fn schema_in_the_package_is_up_to_date() {
    let schema = serde_json::to_string_pretty(&generated()).unwrap();
    check_file("src/config/schema.json", &format!("{schema}\n"));
}

#[test]
fn list_of_keys_in_the_documentation_is_up_to_date() {
    check_file("src/config/keys.md", &list_of_keys(&generated()));
}

/// Returns the tables of all keys, in Markdown.
fn list_of_keys(schema: &Value) -> String {
    let mut text = table_of_keys(schema, schema, "Keys of a provider");
    for (title, key) in [
        ("`token_request_limit`", "TokenRequestLimit"),
        ("`source`, if the `type` is", "Source"),
        ("`client_auth`, if the `method` is", "ClientAuthentication"),
        ("`response_format`", "ResponseMembers"),
    ] {
        let definition = &schema["$defs"][key];
        let Some(variants) = definition["oneOf"].as_array() else {
            text += &table_of_keys(schema, definition, &format!("Keys of {title}"));
            continue;
        };
        for variant in variants {
            let tags = ["type", "method"].map(|tag| &variant["properties"][tag]["const"]);
            let tag = tags.into_iter().find_map(Value::as_str).unwrap();
            text += &table_of_keys(schema, variant, &format!("Keys of {title} `{tag}`"));
        }
    }
    text
}

fn table_of_keys(root: &Value, table: &Value, title: &str) -> String {
    let about = table["description"].as_str().filter(|_| table != root);
    let about = about.map_or(String::new(), |about| format!(" {}", one_line(about)));
    let mut text = format!("{title}:{about}\n\n");
    text += "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
    let required = table["required"].as_array().cloned().unwrap_or_default();
    for (key, value) in table["properties"].as_object().unwrap() {
        if value["const"].is_string() {
            continue;
        }
        let description = one_line(value["description"].as_str().unwrap());
        let (meaning, default) = description.split_once(" Default: ").unwrap_or((&description, ""));
        let default = match default.trim_end_matches('.') {
            "" if required.contains(&json!(key)) => "required",
            "" => "none",
            default => default,
        };
        let type_name = type_name(value);
        writeln!(text, "| `{key}` | {type_name} | {default} | {meaning} |").unwrap();
    }
    text + "\n"
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn type_name(value: &Value) -> String {
    let is_duration = |value: &Value| value["pattern"].is_string();
    let is_secret = |value: &Value| value.to_string().contains("VariableOnly");
    let alternatives = value["anyOf"].as_array().into_iter().flatten();
    let mut alternatives = alternatives.filter(|value| value["type"] != "null");
    let type_of = &value["type"];
    let type_of = type_of.as_str().or_else(|| type_of[0].as_str()).unwrap_or_default();
    match type_of {
        _ if value.to_string().contains("FileOrVariable") => "secret".into(),
        "string" if is_duration(value) => "duration".into(),
        "array" => format!("list of {}s", type_name(&value["items"])),
        "object" if value["additionalProperties"].is_object() => {
            format!("table of {}s", type_name(&value["additionalProperties"]))
        }
        "" if is_secret(value) => "text".into(),
        "" => match alternatives.next() {
            Some(alternative) => type_name(alternative),
            // The values of an enumeration.
            None => match value["$ref"].as_str().unwrap().rsplit('/').next().unwrap() {
                "RequestFormat" => "`form` or `json`".into(),
                "ResponseEncoding" => "`json`, `form` or `text`".into(),
                _ => "table".into(),
            },
        },
        "integer" => "number".into(),
        type_of => type_of.into(),
    }
}

/// The schema as a validator.
struct Validator(Schemas, SchemaIndex);

impl Validator {
    fn new(schema: Value) -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("schema.json", schema).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap();
        Self(schemas, index)
    }

    fn accepts(&self, value: &Value) -> bool {
        self.0.validate(value, self.1).is_ok()
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        self.0.validate(value, self.1).map_err(|error| format!("{error:#}"))
    }
}

#[test]
fn schema_accepts_what_the_crate_reads_and_nothing_else() {
    let validator = Validator::new(generated());
    let mut refused = 0;
    let mut compare = |config: &Value| {
        let read = serde_json::from_value::<ProviderConfig>(config.clone());
        let is_valid = validator.accepts(config);
        refused += usize::from(!is_valid);
        let reason = || validator.check(config);
        assert_eq!(read.is_ok(), is_valid, "{read:?}, {:?}: {config:#}", reason());
    };
    for complete in complete_configurations() {
        compare(&complete);
        for pointer in pointers(&complete, "") {
            for wrong in wrong_values() {
                let mut config = complete.clone();
                *config.pointer_mut(&pointer).unwrap() = wrong;
                compare(&config);
            }
            if let Some((table, key)) = pointer.rsplit_once('/') {
                let mut config = complete.clone();
                let table = config.pointer_mut(table).unwrap().as_object_mut().unwrap();
                let value = table.remove(key).unwrap();
                compare(&config);
                let table = config.pointer_mut(&pointer[..pointer.len() - key.len() - 1]).unwrap();
                table.as_object_mut().unwrap().insert("unknown".into(), value);
                compare(&config);
            }
        }
    }
    assert!(refused > 500, "only {refused} were refused");
}

/// Returns the TOML in a Markdown text or in the documentation of a Rust file.
fn toml_blocks(text: &str) -> Vec<String> {
    let line = |line: &str| line.trim_start().trim_start_matches("//!").trim().to_owned();
    let text = text.lines().map(line).collect::<Vec<_>>().join("\n");
    let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let strings = text.split("r#\"\n").skip(1).map(|rest| rest.split("\"#").next().unwrap());
    blocks.chain(strings).map(str::to_owned).collect()
}

#[test]
fn examples_in_the_documentation_fit_the_schema() {
    let validator = Validator::new(generated());
    let mut providers = 0;
    let mut check = |text: &str, place: &Path| {
        let Ok(table) = text.parse::<toml::Table>() else { return };
        let value = serde_json::to_value(table).unwrap();
        // A file has one provider, or a table of them.
        let one = [("", &value)];
        let several = value.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value));
        for (name, provider) in one.into_iter().chain(several) {
            if provider.get("source").is_some_and(Value::is_object) {
                let checked = validator.check(provider);
                assert!(checked.is_ok(), "{name} in {}: {checked:?}", place.display());
                providers += 1;
            }
        }
    };
    for place in ["README.md", "src/config/mod.rs"] {
        for block in toml_blocks(&fs::read_to_string(place).unwrap()) {
            check(&block, Path::new(place));
        }
    }
    for entry in fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            check(&fs::read_to_string(&path).unwrap(), &path);
        }
    }
    assert!(providers >= 3, "only {providers} providers were found");
}

/// A seed that the crate does not read is refused by the schema, too.
#[test]
fn seeds_of_the_fuzz_target_are_judged_like_the_schema() {
    let validator = Validator::new(generated());
    let mut valid = 0;
    for entry in fs::read_dir("tests/fuzz/seeds/configuration").unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let Ok(table) = text.parse::<toml::Table>() else { continue };
        let read = toml::from_str::<ProviderConfig>(&text);
        let checked = validator.check(&serde_json::to_value(table).unwrap());
        assert_eq!(read.is_ok(), checked.is_ok(), "{}: {checked:?}", path.display());
        valid += usize::from(read.is_ok());
    }
    assert!(valid > 5, "only {valid} seeds are valid");
}
