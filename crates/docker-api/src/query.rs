//! Query strings.

/// The decoded parameters of a request, in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes what stands behind the question mark. Malformed escapes are kept as they are.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter, `""` where it is absent.
    pub fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or("")
    }

    /// The first value of a parameter.
    pub fn find(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A parameter as Docker reads truth: everything but nothing, `0`, `no`, `false` and `none`.
    pub fn flag(&self, key: &str) -> bool {
        truth(self.get(key))
    }

    /// Like [`Self::flag`], with an answer for an absent parameter.
    pub fn flag_or(&self, key: &str, absent: bool) -> bool {
        self.find(key).map_or(absent, truth)
    }
}

fn truth(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    !matches!(text.as_str(), "" | "0" | "no" | "false" | "none")
}

/// Decodes `%xx` and, in a query, `+`.
fn decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

/// Decodes `%xx`; malformed escapes stay, and bytes that are no UTF-8 are replaced.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match escaped_byte(&bytes[at..]) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// Builds a query string.
#[derive(Debug, Clone, Default)]
pub struct QueryBuilder(String);

impl QueryBuilder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        encode(key, &mut self.0);
        self.0.push('=');
        encode(value, &mut self.0);
        self
    }

    /// Adds a parameter unless its value is empty.
    #[must_use]
    pub fn with_some(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(key, value) }
    }

    /// Adds `key=1` when the flag is set.
    #[must_use]
    pub fn with_flag(self, key: &str, flag: bool) -> Self {
        if flag { self.with(key, "1") } else { self }
    }

    /// Adds the filters unless there are none.
    #[must_use]
    pub fn with_filters(self, filters: &crate::Filters) -> Self {
        if filters.is_empty() { self } else { self.with("filters", &filters.to_json()) }
    }

    /// The string with its question mark, or nothing.
    pub fn build(self) -> String {
        self.0
    }
}

/// A name made fit for a path; slashes stay, because image names keep theirs.
pub fn encode_path_segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, part) in name.split('/').enumerate() {
        if at > 0 {
            out.push('/');
        }
        encode(part, &mut out);
    }
    out
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_may_repeat() {
        let query = Query::parse("names=a%2Fb&names=c+d&flag&bad=%zz&n%61me=x");
        assert_eq!(query.all("names").collect::<Vec<_>>(), ["a/b", "c d"]);
        assert_eq!((query.get("bad"), query.get("name"), query.get("absent")), ("%zz", "x", ""));
    }

    #[test]
    fn truth_is_dockers() {
        let query = Query::parse("a=1&b=True&c=yes&d=0&e=No&f=false&g=none&h=&i=2");
        let set: String = "abcdefghi".chars().filter(|key| query.flag(&key.to_string())).collect();
        assert_eq!(set, "abci");
        assert!(query.flag_or("absent", true) && !query.flag_or("h", true));
    }

    #[test]
    fn what_is_built_is_read_back() {
        let built = QueryBuilder::new().with("a b", "ü&=/+ %").with_some("none", "").with_flag("f", true).build();
        let query = Query::parse(built.strip_prefix('?').unwrap());
        assert_eq!((query.get("a b"), query.get("f")), ("ü&=/+ %", "1"));
        assert_eq!(QueryBuilder::new().build(), "");
        assert_eq!(encode_path_segment("a/b:c@d e"), "a/b:c@d%20e");
    }
}
