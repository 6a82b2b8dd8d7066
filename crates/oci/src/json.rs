//! Small pieces of serde that several types share.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the type's default, as Go's decoder does: many producers write `null` for an empty list.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Says whether a field holds its type's default and can be left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
