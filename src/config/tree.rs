//! The value of a key before its type is known: a tree.
//!
//! All formats are read into this tree, and the keys are read from it. Therefore the errors are the
//! same for all formats. They name the path of the key and quote no secret. The errors of a format
//! would quote the value.

use std::{collections::HashSet, fmt, vec};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error, Expected, IntoDeserializer, MapAccess, SeqAccess,
        VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};
use zeroize::Zeroizing;

use super::{inline_table::InlineTable, key_error::KeyError, key_names::INLINE_TABLES};

/// The keys that name the variant of a table. An enumeration that serde knows by one of these names
/// is read from a table in which this key names the variant. If the key is missing, the first
/// variant is used.
pub(super) const TAGS: [&str; 2] = ["type", "method"];

/// The key of a number, if `serde_json` has the feature `arbitrary_precision`.
const JSON_NUMBER: &str = "$serde_json::private::Number";

pub(super) enum Tree {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// A number that no key accepts: negative, fractional or too large.
    OtherNumber,
    Text(Zeroizing<String>),
    List(Vec<Tree>),
    Table(Vec<(String, Tree)>),
    /// The value of an environment variable. The key decides whether it is read as a string, a
    /// number, a boolean, a list or a table.
    Variable(Zeroizing<String>),
    /// The values that a table shares with the tables inside of it.
    Inline(InlineTable<Tree>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(u64::try_from(value).map_or(Tree::OtherNumber, Tree::Unsigned))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::OtherNumber)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::OtherNumber)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::OtherNumber)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(Zeroizing::new(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(match entries.as_slice() {
            [(key, Tree::Text(number))] if key == JSON_NUMBER => {
                number.parse().map_or(Tree::OtherNumber, Tree::Unsigned)
            }
            _ => Tree::Table(entries),
        })
    }
}

/// Defines methods that read a whole number, or a variable that contains one.
macro_rules! whole_numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
            match self {
                Tree::Unsigned(number) => visitor.visit_u64(number),
                Tree::Variable(text) => match text.parse() {
                    Ok(number) => visitor.visit_u64(number),
                    Err(_) => Err(KeyError::must_be("a whole number")),
                },
                _ => Err(KeyError::must_be("a whole number")),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Tree {
    type Error = KeyError;

    /// Reads a value that is either a string or a table.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        match self {
            Self::Text(text) | Self::Variable(text) => visitor.visit_str(&text),
            Self::Table(entries) => visitor.visit_map(Entries::new(entries)),
            _ => Err(KeyError::must_be(&visitor as &dyn Expected)),
        }
    }

    whole_numbers! { deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        match self {
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Variable(text) if matches!(text.as_str(), "true" | "false") => {
                visitor.visit_bool(text.as_str() == "true")
            }
            _ => Err(KeyError::must_be("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        match self {
            Self::Text(text) | Self::Variable(text) => visitor.visit_str(&text),
            _ => Err(KeyError::must_be("a string in quotes")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        match self {
            Self::Null => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        match self {
            Self::List(values) => visitor.visit_seq(Elements(values.into_iter())),
            Self::Variable(text) => {
                let values = items(&text).map(Self::variable).collect::<Vec<_>>();
                visitor.visit_seq(Elements(values.into_iter()))
            }
            _ => Err(KeyError::must_be("a list in square brackets")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        let entries = match self {
            Self::Table(entries) => entries,
            Self::Variable(text) => {
                let pairs = items(&text).map(|item| item.split_once('='));
                let entries = pairs.map(|pair| {
                    pair.map(|(name, value)| (name.trim().to_owned(), Self::variable(value.trim())))
                });
                let entries = entries.collect::<Option<Vec<_>>>();
                entries
                    .ok_or_else(|| KeyError::must_be("a list of name=value, separated by commas"))?
            }
            _ => return Err(KeyError::must_be("a table")),
        };
        // A map would keep the last one of two values without an error.
        let mut keys = HashSet::new();
        match entries.iter().find(|(key, _)| !keys.insert(key)) {
            Some((key, _)) => Err(KeyError::duplicate(key)),
            None => visitor.visit_map(Entries::new(entries)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        visitor.visit_map(Entries::new(self.into_entries(fields)?))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        if TAGS.contains(&name) {
            return visitor.visit_enum(Tagged::new(self, name, variants)?);
        }
        match self {
            Self::Text(text) | Self::Variable(text) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            _ => Err(KeyError::must_be("a string in quotes")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct
        tuple tuple_struct identifier ignored_any
    }
}

impl Tree {
    pub(super) fn variable(value: &str) -> Self {
        Self::Variable(Zeroizing::new(value.to_owned()))
    }

    /// Returns the entries of a table. `fields` are its keys.
    fn into_entries(
        self,
        fields: &'static [&'static str],
    ) -> Result<Vec<(String, Self)>, KeyError> {
        match self {
            Self::Table(entries) => Ok(entries),
            Self::Inline(variables) => {
                let take = |field: &str| {
                    if INLINE_TABLES.contains(&field) {
                        return Some(Self::Inline(variables.clone()));
                    }
                    variables.take(field)
                };
                variables.add_keys(fields);
                let entry = |field: &&str| take(field).map(|value| ((*field).to_owned(), value));
                Ok(fields.iter().filter_map(entry).collect())
            }
            _ => Err(self.not_a_table()),
        }
    }

    fn not_a_table(&self) -> KeyError {
        match self {
            Self::Variable(_) => {
                KeyError::custom("is a table: add two underscores and the name of a key to it")
            }
            _ => KeyError::must_be("a table"),
        }
    }
}

/// Returns the items of a list in an environment variable, without the empty ones.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

struct Elements(vec::IntoIter<Tree>);

impl<'de> SeqAccess<'de> for Elements {
    type Error = KeyError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, KeyError> {
        self.0.next().map(|value| seed.deserialize(value)).transpose()
    }
}

struct Entries {
    rest: vec::IntoIter<(String, Tree)>,
    current: Option<(String, Tree)>,
}

impl Entries {
    fn new(entries: Vec<(String, Tree)>) -> Self {
        Self { rest: entries.into_iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = KeyError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, KeyError> {
        self.current = self.rest.next();
        let key = self.current.as_ref().map(|(key, _)| key.as_str());
        key.map(|key| seed.deserialize(key.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, KeyError> {
        let (key, value) = self.current.take().ok_or_else(|| KeyError::custom("has no value"))?;
        seed.deserialize(value).map_err(|error| error.under(key))
    }
}

/// A table that is one of several variants.
struct Tagged {
    tag: &'static str,
    variant: String,
    table: Tree,
}

impl Tagged {
    fn new(
        mut table: Tree,
        tag: &'static str,
        variants: &'static [&'static str],
    ) -> Result<Self, KeyError> {
        let variant = match &mut table {
            Tree::Table(entries) => {
                let at = entries.iter().position(|(key, _)| key == tag);
                at.map(|at| entries.remove(at).1)
            }
            Tree::Inline(variables) => {
                variables.add_keys(&[tag]);
                variables.take(tag)
            }
            other => return Err(other.not_a_table()),
        };
        let variant = variant.map(String::deserialize);
        let variant = variant.transpose().map_err(|error| error.under(tag))?;
        let default = || variants.first().copied().unwrap_or_default().to_owned();
        Ok(Self { tag, variant: variant.unwrap_or_else(default), table })
    }
}

impl<'de> EnumAccess<'de> for Tagged {
    type Error = KeyError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), KeyError> {
        let variant = seed.deserialize(self.variant.as_str().into_deserializer());
        Ok((variant.map_err(|error: KeyError| error.under(self.tag))?, self))
    }
}

impl<'de> VariantAccess<'de> for Tagged {
    type Error = KeyError;

    fn unit_variant(self) -> Result<(), KeyError> {
        Err(KeyError::must_be("a table"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, KeyError> {
        let value = seed.deserialize(self.table);
        value.map_err(|error| error.in_variant(self.tag, &self.variant))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, KeyError> {
        Err(KeyError::must_be("a table"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        let value = self.table.deserialize_struct(self.tag, fields, visitor);
        value.map_err(|error| error.in_variant(self.tag, &self.variant))
    }
}
