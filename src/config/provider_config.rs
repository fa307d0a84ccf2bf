//! The public type of a configuration.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{key_names::KeyNames, keys::Provider, tree::Tree};

/// The configuration of one provider: a source of tokens, the origins that receive the token, and
/// the settings of the cache. See the [module](super) for its keys.
///
/// It is read from a file by [`Deserialize`], or from environment variables by
/// [`from_env`](Self::from_env).
///
/// `Debug` shows no secrets.
#[derive(Clone)]
pub struct ProviderConfig {
    pub(super) provider: Provider,
    /// The form of the keys in errors.
    pub(super) names: KeyNames,
}

/// Fails with an error that names the key and quotes no value that may be a secret.
impl<'de> Deserialize<'de> for ProviderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let provider = deserializer.deserialize_any(ProviderVisitor)?;
        Ok(Self { provider, names: KeyNames::File })
    }
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.provider.fmt(f)
    }
}

/// Defines methods of a visitor that reject a value without quoting it.
macro_rules! reject {
    ($($visit:ident($type:ty))*) => {
        $(fn $visit<E: Error>(self, _: $type) -> Result<Provider, E> {
            Err(E::custom("the configuration of a provider must be a table"))
        })*
    };
}

struct ProviderVisitor;

impl<'de> Visitor<'de> for ProviderVisitor {
    type Value = Provider;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Provider, A::Error> {
        let map = TreeMap { map, key: String::new() };
        Provider::deserialize(MapAccessDeserializer::new(map))
    }

    reject! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_i128(i128) visit_u128(u128)
        visit_f64(f64) visit_str(&str)
    }
}

/// Reads each value into a [`Tree`] first. An error about it is returned while the format reads the
/// value, so that the format adds the position of the value.
struct TreeMap<A> {
    map: A,
    /// The key of the next value.
    key: String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for TreeMap<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.map.next_key_seed(KeySeed { seed, key: &mut self.key })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(ValueSeed { seed, key: &self.key })
    }
}

struct KeySeed<'a, K> {
    seed: K,
    key: &'a mut String,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for KeySeed<'_, K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        *self.key = String::deserialize(deserializer)?;
        self.seed.deserialize(serde::de::value::StrDeserializer::new(self.key))
    }
}

struct ValueSeed<'a, V> {
    seed: V,
    key: &'a str,
}

impl<'de, V: DeserializeSeed<'de>> DeserializeSeed<'de> for ValueSeed<'_, V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let value = self.seed.deserialize(Tree::deserialize(deserializer)?);
        value.map_err(|error| {
            D::Error::custom(error.under(self.key).into_config_error(&KeyNames::File))
        })
    }
}
