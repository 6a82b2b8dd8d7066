//! PAX records: `LENGTH KEY=VALUE\n`, again and again.

use super::{Timestamp, Xattr};

/// What the PAX header of one entry says, as far as it concerns us.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: PaxSparse,
}

/// GNU's three ways to say in PAX where a sparse file has its bytes.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`.
    pub(super) size: Option<u64>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    /// Formats 0.0 and 0.1: offset, length, offset, length.
    pub(super) numbers: Vec<u64>,
    pub(super) any: bool,
}

type Malformed = &'static str;

impl Pax {
    pub(super) fn parse(records: &[u8]) -> Result<Pax, Malformed> {
        let mut pax = Pax::default();
        for record in Records(records) {
            let (key, value) = record?;
            pax.set(key, value)?;
        }
        // A later record replaces an earlier one with the same key: a stable sort, then the last of each name.
        pax.xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        pax.xattrs.reverse();
        pax.xattrs.dedup_by(|a, b| a.name == b.name);
        pax.xattrs.reverse();
        Ok(pax)
    }

    /// Global headers concern every later entry for GNU tar and none for Docker. Harmless keys pass, the others cannot be right.
    pub(super) fn check_global(records: &[u8]) -> Result<(), Malformed> {
        for record in Records(records) {
            let (key, _) = record?;
            if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
                return Err("a global header gives names or sizes");
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match key {
            b"path" => self.path = Some(name(value)?),
            b"linkpath" => self.link_path = Some(name(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"SCHILY.realsize" | b"SCHILY.filetype" => return Err("star's sparse files are not supported"),
            _ => match (key.strip_prefix(b"SCHILY.xattr."), key.strip_prefix(b"GNU.sparse.")) {
                (Some(name), _) => self.xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() }),
                (_, Some(key)) => self.sparse.set(key, value)?,
                _ => {}
            },
        }
        Ok(())
    }
}

impl PaxSparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        self.any = true;
        match key {
            b"name" => self.name = Some(name(value)?),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"numblocks" => {
                decimal(value)?;
            }
            b"offset" if self.numbers.len().is_multiple_of(2) => self.numbers.push(decimal(value)?),
            b"numbytes" if !self.numbers.len().is_multiple_of(2) => self.numbers.push(decimal(value)?),
            b"map" if self.numbers.is_empty() && !value.is_empty() => {
                self.numbers = value.split(|byte| *byte == b',').map(decimal).collect::<Result<_, _>>()?;
            }
            b"map" if value.is_empty() => {}
            _ => return Err("an unknown or misplaced GNU.sparse record"),
        }
        Ok(())
    }
}

struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.split();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record.ok_or("a record is not LENGTH KEY=VALUE"))
    }
}

impl<'a> Records<'a> {
    fn split(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(20).position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(&self.0[..space]).ok()?).ok()?;
        let (record, rest) = self.0.split_at_checked(length)?;
        let text = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = text.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&text[..equals], &text[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return None;
        }
        self.0 = rest;
        Some((key, value))
    }
}

fn name(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    // An empty value means "as if the record were not there" to some and an empty name to others.
    if value.is_empty() || value.contains(&0) { Err("a name is empty or has a NUL in it") } else { Ok(value.to_vec()) }
}

pub(super) fn decimal(value: &[u8]) -> Result<u64, Malformed> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or("a number is not one")
}

fn time(value: &[u8]) -> Result<Timestamp, Malformed> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("a time is not one");
    }
    let seconds = i64::try_from(decimal(whole)?).map_err(|_| "a time is out of range")?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Ok(signed(negative, seconds, nanoseconds))
}

fn signed(negative: bool, seconds: i64, nanoseconds: u32) -> Timestamp {
    match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<(i64, u32)>| {
            let found = time(text.as_bytes()).ok().map(|time| (time.seconds, time.nanoseconds));
            assert_eq!(found, expected, "{text}");
        };
        check("1", Some((1, 0)));
        check("1.5", Some((1, 500_000_000)));
        check("1.123456789", Some((1, 123_456_789)));
        check("1.1234567899", Some((1, 123_456_789)));
        check("-1.25", Some((-2, 750_000_000)));
        check("-3", Some((-3, 0)));
        check("", None);
        check(".5", None);
        check("1.5x", None);
        check("9223372036854775808", None);
    }

    #[test]
    fn records_are_strict() {
        let parse = |records: &str| Pax::parse(records.as_bytes()).map(|pax| pax.path);
        assert_eq!(parse("12 path=a/b\n"), Ok(Some(b"a/b".to_vec())));
        assert_eq!(parse("12 path=a/b\n10 path=c\n"), Ok(Some(b"c".to_vec())));
        assert!(parse("13 path=a/b\n").is_err());
        assert!(parse("11 path=a/b\n").is_err());
        assert!(parse("path=a/b\n").is_err());
        assert!(parse("99999999999999999999999 path=a\n").is_err());
        assert!(parse("8 path=\n").is_err());
        assert!(parse("-5 path=a\n").is_err());
        assert!(parse("10 =abcde\n").is_err());
    }

    #[test]
    fn the_last_of_equal_xattrs_wins() {
        let pax =
            Pax::parse(b"25 SCHILY.xattr.user.b=x\n25 SCHILY.xattr.user.a=1\n25 SCHILY.xattr.user.b=y\n").unwrap();
        let found: Vec<_> = pax.xattrs.iter().map(|xattr| (xattr.name.as_slice(), xattr.value.as_slice())).collect();
        assert_eq!(found, [(&b"user.a"[..], &b"1"[..]), (b"user.b", b"y")]);
    }
}
