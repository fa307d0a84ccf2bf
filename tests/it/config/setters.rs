//! Each setter of the crate has a key in a configuration.

use std::{collections::BTreeSet, fs};

use syn::{
    Fields, Ident, ImplItem, ImplItemFn, ItemEnum, ItemImpl, ReturnType, Type, Variant, Visibility,
    parse_file,
    visit::{self, Visit},
};

/// The types with settings of a provider, and their files.
const TYPES: [(&str, &str); 17] = [
    ("OAuthLayer", "layer.rs"),
    ("Origins", "origins.rs"),
    ("TokenCacheBuilder", "cache/builder.rs"),
    ("BufferBody", "replay/buffer_body.rs"),
    ("TonicBody", "replay/tonic_body.rs"),
    ("ClientCredentials", "source/client_credentials.rs"),
    ("StaticToken", "source/static_token.rs"),
    ("TokenFile", "source/token_file.rs"),
    ("Secret", "token/secret.rs"),
    ("ClientAuth", "token_endpoint/client_auth.rs"),
    ("DefaultTransport", "token_endpoint/default_transport.rs"),
    ("TokenEndpoint", "token_endpoint/endpoint.rs"),
    ("Issuer", "token_endpoint/issuer.rs"),
    ("RequestFormat", "token_endpoint/request_format.rs"),
    ("ResponseEncoding", "token_endpoint/response_body.rs"),
    ("ResponseFormat", "token_endpoint/response_format.rs"),
    ("TokenUrl", "token_endpoint/token_url.rs"),
];

/// The setters with a key of another name.
const OTHER_NAMES: [(&str, &str); 19] = [
    ("Origins::new", "origins"),
    ("Origins::and_without_authority", "without_authority"),
    ("BufferBody::with_cap", "replay_cap"),
    ("TonicBody::with_cap", "replay_cap"),
    ("ClientCredentials::new", "client_credentials"),
    ("ClientCredentials::parameter", "parameters"),
    ("StaticToken::bearer", "static_bearer"),
    ("StaticToken::basic", "static_basic"),
    ("TokenFile::new", "token_file"),
    ("Secret::from_file", "file"),
    ("DefaultTransport::new_trusting", "ca_file"),
    ("DefaultTransport::with_bundled_roots", "bundled_roots"),
    ("DefaultTransport::with_bundled_roots_trusting", "bundled_roots"),
    ("TokenEndpoint::new", "token_url"),
    ("TokenEndpoint::new_trusting", "ca_file"),
    ("TokenEndpoint::header", "headers"),
    ("TokenEndpoint::secret", "secrets"),
    ("ResponseFormat::form", "encoding"),
    ("ResponseFormat::text", "encoding"),
];

/// The setters without a key, with the reason.
const WITHOUT_KEY: [(&str, &str); 6] = [
    ("OAuthLayer::new", "is ProviderConfig::layer_with_cache"),
    ("OAuthLayer::with_replay", "changes the type of the layer"),
    ("OAuthLayer::grpc", "changes the type of the layer"),
    ("TokenCacheBuilder::wall_clock", "takes a closure, for tests"),
    ("TokenEndpoint::with_transport", "is ProviderConfig::token_cache_with_transport"),
    ("DefaultTransport::new", "is used where no key asks for more"),
];

/// Collects the public functions of a type that return the type or a `Result` of it.
struct Setters<'a> {
    of: &'a str,
    found: BTreeSet<String>,
}

impl Setters<'_> {
    fn is_setter(&self, function: &ImplItemFn) -> bool {
        let ReturnType::Type(_, returned) = &function.sig.output else { return false };
        let mut names = Names::default();
        names.visit_type(returned);
        let returns_builder = names.0.contains("Self") || names.0.contains(self.of);
        matches!(function.vis, Visibility::Public(_)) && returns_builder
    }

    fn add(&mut self, name: &Ident) {
        self.found.insert(format!("{}::{name}", self.of));
    }
}

impl<'ast> Visit<'ast> for Setters<'_> {
    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let mut of = Names::default();
        of.visit_type(&item.self_ty);
        if item.trait_.is_some() || !of.0.contains(self.of) {
            return;
        }
        for item in &item.items {
            match item {
                ImplItem::Fn(function) if self.is_setter(function) => self.add(&function.sig.ident),
                // `pointers!` of `ResponseFormat`: the names of setters, with doc comments.
                ImplItem::Macro(item) => {
                    let tokens = item.mac.tokens.clone().into_iter();
                    let names = tokens.filter_map(|token| syn::parse2(token.into()).ok());
                    names.for_each(|name| self.add(&name));
                }
                _ => {}
            }
        }
    }

    /// The variants are the values of a key, if serde reads them.
    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        let mut names = String::new();
        for attribute in &item.attrs {
            names += &attribute.parse_args().map_or(String::new(), |args: AttributeArgs| args.0);
        }
        let is_read = names.contains("Deserialize");
        assert!(item.ident != self.of || is_read, "serde does not read {}", self.of);
    }
}

/// The text of the arguments of an attribute.
struct AttributeArgs(String);

impl syn::parse::Parse for AttributeArgs {
    fn parse(input: syn::parse::ParseStream<'_>) -> syn::Result<Self> {
        let mut text = String::new();
        while !input.is_empty() {
            text += &input.step(|cursor| Ok(cursor.token_tree().unwrap()))?.to_string();
        }
        Ok(Self(text))
    }
}

/// Collects all names in a type.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.0.insert(ident.to_string());
    }

    fn visit_type(&mut self, ty: &'ast Type) {
        visit::visit_type(self, ty);
    }
}

/// Collects the names of fields, and of variants in the form in which serde reads them.
#[derive(Default)]
struct Keys(BTreeSet<String>);

impl<'ast> Visit<'ast> for Keys {
    fn visit_fields(&mut self, fields: &'ast Fields) {
        self.0.extend(fields.iter().filter_map(|field| Some(field.ident.as_ref()?.to_string())));
    }

    fn visit_variant(&mut self, variant: &'ast Variant) {
        let mut name = String::new();
        for character in variant.ident.to_string().chars() {
            if character.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(character.to_lowercase());
        }
        self.0.insert(name);
        visit::visit_variant(self, variant);
    }
}

fn parse(file: &str) -> syn::File {
    parse_file(&fs::read_to_string(format!("src/{file}")).unwrap()).unwrap()
}

#[test]
fn every_setter_has_a_key_or_a_reason() {
    let mut setters = BTreeSet::new();
    for (of, file) in TYPES {
        let mut found = Setters { of, found: BTreeSet::new() };
        found.visit_file(&parse(file));
        let has_values_only = ["RequestFormat", "ResponseEncoding"].contains(&of);
        assert!(has_values_only || !found.found.is_empty(), "{of} in {file} has no setters");
        setters.extend(found.found);
    }
    let mut keys = Keys::default();
    keys.visit_file(&parse("config/keys.rs"));
    keys.visit_file(&parse("config/values.rs"));

    assert!(setters.len() > 40, "{setters:?}");
    for setter in &setters {
        let other_name = OTHER_NAMES.iter().find(|(other, _)| other == setter);
        let key = other_name.map_or_else(|| setter.rsplit(':').next().unwrap(), |(_, key)| key);
        let has_reason = WITHOUT_KEY.iter().any(|(other, _)| other == setter);
        assert!(
            has_reason || keys.0.contains(key),
            "{setter} needs a key in src/config/keys.rs, or a reason in WITHOUT_KEY of this test"
        );
    }
    for (setter, _) in OTHER_NAMES.iter().chain(&WITHOUT_KEY) {
        assert!(setters.contains(*setter), "{setter} is no setter any more");
    }
}
