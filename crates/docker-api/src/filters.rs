//! The `filters=` parameter of lists, prunes and events, and timestamps of `since` and `until`.

use std::collections::BTreeMap;

use serde_json::Value;

/// Filters by name; the values of one name are alternatives (or all required: each filter has its own rule).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads both forms: `{"label":{"a=b":true}}` of Go clients and `{"label":["a=b"]}` of the other SDKs.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_str(text).map_err(|_| FilterError::Json)? {
            Value::Object(entries) => entries
                .into_iter()
                .map(|(name, values)| Ok((name, values_of(values)?)))
                .collect::<Result<_, _>>()
                .map(Self),
            Value::Null => Ok(Self::default()),
            _ => Err(FilterError::Json),
        }
    }

    /// The form that every version of Docker reads.
    pub fn to_json(&self) -> String {
        let form: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(name, values)| (name.as_str(), values.iter().map(|value| (value.as_str(), true)).collect()))
            .collect();
        serde_json::to_string(&form).expect("maps of strings always serialise")
    }

    /// Adds a value.
    pub fn add(&mut self, name: &str, value: &str) {
        let values = self.0.entry(name.to_owned()).or_default();
        if !values.iter().any(|known| known == value) {
            values.push(value.to_owned());
        }
    }

    /// Reads `name=value` as a command line gives it.
    pub fn add_argument(&mut self, argument: &str) -> Result<(), FilterError> {
        let (name, value) = argument.split_once('=').ok_or_else(|| FilterError::Argument(argument.to_owned()))?;
        self.add(name.trim().to_lowercase().as_str(), value.trim());
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a filter of this name was given.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of a filter.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Takes the values of a filter out.
    pub fn take(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    /// Every filter with its values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Refuses names that a request does not know.
    pub fn accept(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(FilterError::Unknown(name.clone())),
            None => Ok(()),
        }
    }

    /// A filter that says yes or no; `None` where it was not given.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, FilterError> {
        let Some(values) = self.0.get(name) else {
            return Ok(None);
        };
        let has = |words: [&str; 2]| values.iter().any(|value| words.contains(&value.as_str()));
        match (has(["1", "true"]), has(["0", "false"])) {
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            _ => Err(FilterError::invalid(name, values)),
        }
    }
}

fn values_of(values: Value) -> Result<Vec<String>, FilterError> {
    match values {
        // Go keeps a value whose flag is false, too: only the key counts.
        Value::Object(values) => values
            .into_iter()
            .map(|(value, flag)| match flag {
                Value::Bool(_) | Value::Null => Ok(value),
                _ => Err(FilterError::Json),
            })
            .collect(),
        Value::Array(values) => values
            .into_iter()
            .map(|value| match value {
                Value::String(value) => Ok(value),
                Value::Null => Ok(String::new()),
                _ => Err(FilterError::Json),
            })
            .collect(),
        Value::Null => Ok(Vec::new()),
        _ => Err(FilterError::Json),
    }
}

/// Filters that cannot be used; the messages are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Neither of the two forms.
    #[error("invalid filter")]
    Json,
    /// Nothing filters by this name here.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// The filter exists, its values make no sense.
    #[error("invalid filter '{name}=[{values}]'")]
    Invalid {
        /// The filter.
        name: String,
        /// Its values, with spaces between them.
        values: String,
    },
    /// A command line's filter has no equals sign.
    #[error("invalid argument {0:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)")]
    Argument(String),
}

impl FilterError {
    /// The refusal of a filter's values.
    pub fn invalid(name: &str, values: &[String]) -> Self {
        Self::Invalid { name: name.to_owned(), values: values.join(" ") }
    }
}

/// Seconds and nanoseconds since 1970, as `since` and `until` give them: `1136073600.000000001`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// The rest, 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Reads a timestamp; `None` where nothing was given.
    pub fn parse(text: &str) -> Result<Option<Self>, TimestampError> {
        if text.is_empty() {
            return Ok(None);
        }
        let refusal = || TimestampError(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refusal());
        }
        let padded: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
        Ok(Some(Self {
            seconds: whole.parse().map_err(|_| refusal())?,
            nanoseconds: padded.parse().map_err(|_| refusal())?,
        }))
    }
}

/// A timestamp that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
pub struct TimestampError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let map = Filters::parse(r#"{"label":{"a=b":true,"c":false},"status":{}}"#).unwrap();
        let list = Filters::parse(r#"{"label":["a=b","c"],"status":[]}"#).unwrap();
        assert_eq!(map, list);
        assert_eq!(map.get("label"), ["a=b", "c"]);
        assert!(map.contains("status") && !map.contains("name"));
        assert_eq!(Filters::parse(&map.to_json()).unwrap(), map);
        assert_eq!(map.to_json(), r#"{"label":{"a=b":true,"c":true},"status":{}}"#);
    }

    #[test]
    fn refusals_use_dockers_words() {
        let refusal =
            |text: &str| Filters::parse(text).and_then(|filters| filters.accept(&["label"])).unwrap_err().to_string();
        for junk in ["x", "[]", "3", r#"{"a":3}"#, r#"{"a":[3]}"#, r#"{"a":{"b":"c"}}"#] {
            assert_eq!(refusal(junk), "invalid filter", "{junk}");
        }
        assert_eq!(refusal(r#"{"foo":["x"]}"#), "invalid filter 'foo'");
        assert!(Filters::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_flag_is_yes_or_no_and_never_both() {
        let flag = |values: &str| Filters::parse(&format!(r#"{{"dangling":[{values}]}}"#)).unwrap().flag("dangling");
        assert_eq!(flag(r#""1""#), Ok(Some(true)));
        assert_eq!(flag(r#""false""#), Ok(Some(false)));
        assert_eq!(flag(r#""true","0""#).unwrap_err().to_string(), "invalid filter 'dangling=[true 0]'");
        assert!(flag(r#""maybe""#).is_err());
        assert_eq!(Filters::default().flag("dangling"), Ok(None));
    }

    #[test]
    fn timestamps_keep_their_nanoseconds() {
        let parse = |text| Timestamp::parse(text).unwrap().unwrap();
        assert_eq!(parse("12"), Timestamp { seconds: 12, nanoseconds: 0 });
        assert_eq!(parse("12.5"), Timestamp { seconds: 12, nanoseconds: 500_000_000 });
        assert_eq!(parse("12.0000000019"), Timestamp { seconds: 12, nanoseconds: 1 });
        assert_eq!(Timestamp::parse(""), Ok(None));
        for wrong in ["x", "1.x", "1.2.3", "2020-01-01"] {
            assert!(Timestamp::parse(wrong).is_err(), "{wrong}");
        }
    }
}
