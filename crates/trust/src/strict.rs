//! JSON objects read strictly: a member that comes twice, or that nobody knows, refuses the document.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// An object's members in their order, each name once.
#[derive(Debug, Clone)]
pub(crate) struct Members<T>(pub(crate) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = Members<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<T>, A::Error> {
        let mut members: Vec<(String, T)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            if members.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("member \"{name}\" is there twice")));
            }
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_comes_once() {
        let read = |text: &str| serde_json::from_str::<Members<u32>>(text);
        assert_eq!(read(r#"{"b":1,"a":2}"#).unwrap().0, [("b".to_owned(), 1), ("a".to_owned(), 2)]);
        assert!(read(r#"{"a":1,"a":1}"#).unwrap_err().to_string().starts_with("member \"a\" is there twice"));
        assert!(read("[]").is_err());
    }
}
