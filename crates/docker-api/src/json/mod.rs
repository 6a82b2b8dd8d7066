//! JSON by the rules of Go's `encoding/json`.
//!
//! Clients in other languages rely on what a Go server forgives: a key may be written in any case, `null` means "not set" for every type,
//! unknown keys are ignored. A deserializer over [`serde_json::Value`] implements this once, so that the types need no attributes for it.
//! Most documents need none of this, and large ones are lists of what we or Docker wrote: they are first read without a tree ([`exact`]).

mod exact;

use serde::Serialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde_json::{Error, Value};

/// Reads one JSON document as Go would.
///
/// ```ignore
/// let config: Config = json::from_slice(br#"{"image":"alpine","Env":null}"#)?;
/// ```
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    match read_exactly(bytes) {
        Ok(value) => Ok(value),
        Err(_) => from_value(serde_json::from_slice(bytes)?),
    }
}

fn read_exactly<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = T::deserialize(exact::Exact(&mut reader))?;
    reader.end()?;
    Ok(value)
}

/// Reads a JSON value as Go would.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

/// Writes a document as Docker's handlers do: compact, with a line feed at the end.
pub fn to_line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    append(&mut bytes, value);
    bytes.push(b'\n');
    bytes
}

/// Writes a value, compact, behind what is there.
pub fn append<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(bytes, value)
        .expect("wire types have string keys and finite numbers, so they always serialise");
}

/// A JSON value that deserialises by Go's rules.
#[derive(Debug)]
struct Lenient(Value);

impl<'de> IntoDeserializer<'de, Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Lenient {
    fn into_entries<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        rename: impl Fn(String) -> String,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(MapDeserializer::new(std::iter::empty::<(String, Lenient)>())),
            Value::Object(entries) => visitor
                .visit_map(MapDeserializer::new(entries.into_iter().map(|(key, value)| (rename(key), Lenient(value))))),
            other => other_type(&other, &visitor),
        }
    }
}

/// The error that serde_json itself would give.
fn other_type<'de, V: Visitor<'de>, T>(value: &Value, visitor: &V) -> Result<T, Error> {
    use serde::de::{Error as _, Unexpected};
    let found = match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(_) => Unexpected::Other("number"),
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    };
    Err(Error::invalid_type(found, visitor))
}

/// `null` stands for a zero value, everything else goes to the strict reader.
macro_rules! zero_when_null {
    ($($method:ident => $visit:ident($zero:expr);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::Null => visitor.$visit($zero),
                value => value.$method(visitor),
            }
        })*
    };
}

impl<'de> serde::Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }

    zero_when_null! {
        deserialize_bool => visit_bool(false);
        deserialize_i8 => visit_i8(0);
        deserialize_i16 => visit_i16(0);
        deserialize_i32 => visit_i32(0);
        deserialize_i64 => visit_i64(0);
        deserialize_i128 => visit_i128(0);
        deserialize_u8 => visit_u8(0);
        deserialize_u16 => visit_u16(0);
        deserialize_u32 => visit_u32(0);
        deserialize_u64 => visit_u64(0);
        deserialize_u128 => visit_u128(0);
        deserialize_f32 => visit_f32(0.0);
        deserialize_f64 => visit_f64(0.0);
        deserialize_char => visit_char('\0');
        deserialize_str => visit_str("");
        deserialize_string => visit_str("");
        deserialize_bytes => visit_bytes(b"");
        deserialize_byte_buf => visit_bytes(b"");
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            value => visitor.visit_some(Lenient(value)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_unit(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Lenient>())),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Lenient))),
            other => other_type(&other, &visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let padding = len.saturating_sub(items.len());
                let items = items.into_iter().chain(std::iter::repeat_n(Value::Null, padding)).take(len);
                visitor.visit_seq(SeqDeserializer::new(items.map(Lenient)))
            }
            Value::Null => visitor.visit_seq(SeqDeserializer::new(std::iter::repeat_n(Value::Null, len).map(Lenient))),
            other => other_type(&other, &visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.into_entries(visitor, |key| key)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = Lenient(without_repeated_keys(self.0, fields));
        entries.into_entries(visitor, |key| match canonical(&key, fields) {
            Some(field) => field.to_owned(),
            None => key,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(variant) => visitor.visit_enum(UnitVariant(variant)),
            other => other_type(&other, &visitor),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

fn canonical(key: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    fields
        .iter()
        .find(|field| **field == key)
        .or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(key)))
        .copied()
}

/// Keeps one of several spellings of a field, the exact one first: serde refuses a field that comes twice, Go does not.
fn without_repeated_keys(value: Value, fields: &'static [&'static str]) -> Value {
    let Value::Object(mut entries) = value else {
        return value;
    };
    let respelled: Vec<String> = entries
        .keys()
        .filter(|key| canonical(key, fields).is_some_and(|field| field != key.as_str() && entries.contains_key(field)))
        .cloned()
        .collect();
    for key in respelled {
        entries.remove(&key);
    }
    let mut seen = std::collections::HashSet::new();
    entries.retain(|key, _| canonical(key, fields).is_none_or(|field| seen.insert(field)));
    Value::Object(entries)
}

/// An enum value that is only a name.
struct UnitVariant(String);

impl<'de> EnumAccess<'de> for UnitVariant {
    type Error = Error;
    type Variant = UnitOnly;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Error> {
        let variant = seed.deserialize(self.0.into_deserializer())?;
        Ok((variant, UnitOnly))
    }
}

struct UnitOnly;

impl<'de> VariantAccess<'de> for UnitOnly {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Error> {
        Err(not_a_unit_variant())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Error> {
        Err(not_a_unit_variant())
    }

    fn struct_variant<V: Visitor<'de>>(self, _fields: &'static [&'static str], _visitor: V) -> Result<V::Value, Error> {
        Err(not_a_unit_variant())
    }
}

fn not_a_unit_variant() -> Error {
    serde::de::Error::custom("the wire has no enum with data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Sample {
        name: String,
        count: i64,
        flag: bool,
        list: Vec<String>,
        maybe: Option<Vec<String>>,
        map: BTreeMap<String, crate::Empty>,
        pair: [u32; 2],
        nested: Option<Box<Sample>>,
    }

    fn read(text: &str) -> Sample {
        from_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn null_is_the_zero_value_of_every_type() {
        let all_null =
            r#"{"Name":null,"Count":null,"Flag":null,"List":null,"Maybe":null,"Map":null,"Pair":null,"Nested":null}"#;
        assert_eq!(read(all_null), Sample::default());
        assert_eq!(read(r#"{"List":["a",null]}"#).list, ["a", ""]);
        assert!(read(r#"{"Map":{"80/tcp":null}}"#).map.contains_key("80/tcp"));
    }

    #[test]
    fn keys_match_in_any_case_and_the_exact_one_wins() {
        assert_eq!(read(r#"{"name":"a","COUNT":3}"#).count, 3);
        assert_eq!(read(r#"{"NAME":"b","Name":"a"}"#).name, "a");
        assert_eq!(read(r#"{"nested":{"NAME":"x"}}"#).nested.unwrap().name, "x");
    }

    #[test]
    fn unknown_keys_are_ignored_and_wrong_types_refused() {
        assert_eq!(read(r#"{"Future":{"a":[1]},"Name":"a"}"#).name, "a");
        for wrong in [r#"{"Name":3}"#, r#"{"Count":"3"}"#, r#"{"List":{}}"#, r#"{"Map":[]}"#, "[]", "3"] {
            assert!(from_slice::<Sample>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn short_arrays_are_filled_and_long_ones_cut() {
        assert_eq!(read(r#"{"Pair":[1]}"#).pair, [1, 0]);
        assert_eq!(read(r#"{"Pair":[1,2,3]}"#).pair, [1, 2]);
    }

    #[test]
    fn a_line_ends_with_a_line_feed_and_keeps_angle_brackets() {
        assert_eq!(to_line(&"<a&b>"), b"\"<a&b>\"\n");
    }
}
