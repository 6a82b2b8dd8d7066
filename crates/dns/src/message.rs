//! DNS messages: what a resolver of names and addresses must understand of them (RFC 1035, 3596, 6891).
//!
//! Bytes are strangers'. Everything is read with a check of its length, names are followed through a limited number of pointers, and
//! what makes no sense is an error or the end of the list, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

pub(crate) const A: u16 = 1;
pub(crate) const POINTER: u16 = 12;
pub(crate) const AAAA: u16 = 28;
const START_OF_AUTHORITY: u16 = 6;
const OPTIONS: u16 = 41;
const INTERNET: u16 = 1;

pub(crate) const NO_ERROR: u8 = 0;
pub(crate) const FORMAT_ERROR: u8 = 1;
pub(crate) const SERVER_FAILURE: u8 = 2;
pub(crate) const NO_SUCH_NAME: u8 = 3;
pub(crate) const NOT_IMPLEMENTED: u8 = 4;

const HEADER_BYTES: usize = 12;
/// The most bytes of a name.
const NAME_BYTES: usize = 255;
/// A name has at most 127 labels; no honest one needs as many pointers.
const POINTERS: usize = 32;
/// What fits a datagram of a client that says nothing else.
const PLAIN_DATAGRAM_BYTES: usize = 512;
/// What we can take in a datagram: fits every path without being cut.
const OUR_DATAGRAM_BYTES: u16 = 1232;
/// As Docker's.
const TIME_TO_LIVE_SECONDS: u32 = 600;

const FLAG_RESPONSE: u8 = 0x80;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;

/// Why bytes are no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum QueryError {
    /// Nobody waits for an answer to this.
    #[error("it is no query")]
    NoQuery,
    /// It is answered with this code.
    #[error("it cannot be read")]
    Refused { id: [u8; 2], code: u8 },
}

/// A question of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) bytes: &'a [u8],
    /// In lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// The question section ends here.
    question_end: usize,
    /// What the client takes in a datagram, where it says so.
    datagram_bytes: Option<u16>,
}

impl<'a> Query<'a> {
    /// Reads one.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, QueryError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(QueryError::NoQuery)?;
        if header[2] & FLAG_RESPONSE != 0 {
            return Err(QueryError::NoQuery);
        }
        let refused = |code| QueryError::Refused { id: [header[0], header[1]], code };
        if (header[2] >> 3) & 0xf != 0 {
            return Err(refused(NOT_IMPLEMENTED));
        }
        if number(bytes, 4) != Some(1) {
            return Err(refused(FORMAT_ERROR));
        }
        let (name, end) = read_name(bytes, HEADER_BYTES).ok_or_else(|| refused(FORMAT_ERROR))?;
        let (kind, class) = number(bytes, end).zip(number(bytes, end + 2)).ok_or_else(|| refused(FORMAT_ERROR))?;
        let question_end = end + 4;
        let counts = [6, 8, 10].map(|at| usize::from(number(bytes, at).unwrap_or(0)));
        let options = Records::new(bytes, question_end, counts.iter().sum()).find(|record| record.kind == OPTIONS);
        let datagram_bytes = options.map(|record| record.class);
        Ok(Self { bytes, name, kind, class, question_end, datagram_bytes })
    }

    pub(crate) fn id(&self) -> [u8; 2] {
        [self.bytes[0], self.bytes[1]]
    }

    /// Whether it asks for something on the Internet, as everything does but for what is very old.
    pub(crate) fn is_plain(&self) -> bool {
        self.class == INTERNET
    }

    /// What its answer may be as large as in a datagram.
    pub(crate) fn datagram_bytes(&self) -> usize {
        usize::from(self.datagram_bytes.unwrap_or(0)).max(PLAIN_DATAGRAM_BYTES)
    }

    /// What makes two queries have the same answer: the whole of it but for the id.
    pub(crate) fn key(&self) -> Vec<u8> {
        let mut key = self.bytes[2..].to_vec();
        // The case of letters is the client's to choose and says nothing.
        let name = HEADER_BYTES - 2..(self.question_end - 2).min(key.len());
        key[name].make_ascii_lowercase();
        key
    }

    /// The address whose name is asked for.
    pub(crate) fn pointer(&self) -> Option<IpAddr> {
        if self.kind != POINTER {
            return None;
        }
        if let Some(reversed) = self.name.strip_suffix(".in-addr.arpa") {
            let mut octets = [0; 4];
            let mut labels = reversed.split('.');
            for octet in octets.iter_mut().rev() {
                *octet = labels.next()?.parse().ok()?;
            }
            return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
        }
        let mut digits: Vec<u8> = Vec::new();
        for label in self.name.strip_suffix(".ip6.arpa")?.split('.') {
            digits.push(u8::from_str_radix(label, 16).ok().filter(|digit| *digit < 16)?);
        }
        let digits: [u8; 32] = digits.try_into().ok()?;
        let bits = digits.iter().rev().fold(0_u128, |bits, digit| (bits << 4) | u128::from(*digit));
        Some(Ipv6Addr::from_bits(bits).into())
    }
}

/// Whether `answer` answers the query with this id and nothing else.
pub(crate) fn answers(answer: &[u8], id: [u8; 2], query: &Query<'_>) -> bool {
    let is_answer = answer.len() >= HEADER_BYTES && answer[..2] == id && answer[2] & FLAG_RESPONSE != 0;
    is_answer
        && number(answer, 4) == Some(1)
        && read_name(answer, HEADER_BYTES).is_some_and(|(name, end)| {
            name == query.name
                && number(answer, end) == Some(query.kind)
                && number(answer, end + 2) == Some(query.class)
        })
}

/// The code of an answer that has been checked.
pub(crate) fn code(answer: &[u8]) -> u8 {
    answer.get(3).map_or(SERVER_FAILURE, |byte| byte & 0xf)
}

/// Whether an answer was cut to fit.
pub(crate) fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|byte| byte & FLAG_TRUNCATED != 0)
}

/// What is said of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    Name(String),
}

/// An answer of our own. As many records as fit `limit` bytes; what is missing is told.
pub(crate) fn answer(query: &Query<'_>, data: &[Data], limit: usize) -> Vec<u8> {
    let mut bytes = head(query, NO_ERROR);
    let options_bytes = if query.datagram_bytes.is_some() { 11 } else { 0 };
    let mut count: u16 = 0;
    for one in data {
        let record = record(query.kind, one);
        if bytes.len() + record.len() + options_bytes > limit {
            bytes[2] |= FLAG_TRUNCATED;
            break;
        }
        bytes.extend_from_slice(&record);
        count += 1;
    }
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    finish(query, bytes)
}

/// An answer that says only this.
pub(crate) fn refusal(query: &Query<'_>, code: u8) -> Vec<u8> {
    finish(query, head(query, code))
}

/// An answer to what could not be read.
pub(crate) fn bare_refusal(id: [u8; 2], code: u8) -> Vec<u8> {
    vec![id[0], id[1], FLAG_RESPONSE, FLAG_RECURSION_AVAILABLE | code, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// An answer that is too large for a datagram, cut down to the news that it is.
pub(crate) fn cut(query: &Query<'_>) -> Vec<u8> {
    let mut bytes = head(query, NO_ERROR);
    bytes[2] |= FLAG_TRUNCATED;
    finish(query, bytes)
}

fn head(query: &Query<'_>, code: u8) -> Vec<u8> {
    let [first, second] = query.id();
    let flags = FLAG_RESPONSE | (query.bytes[2] & FLAG_RECURSION_DESIRED);
    let mut bytes = vec![first, second, flags, FLAG_RECURSION_AVAILABLE | code, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&query.bytes[HEADER_BYTES..query.question_end]);
    bytes
}

/// Adds what a client that speaks of options expects.
fn finish(query: &Query<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    if query.datagram_bytes.is_some() {
        let [high, low] = OUR_DATAGRAM_BYTES.to_be_bytes();
        bytes.extend_from_slice(&[0, 0, OPTIONS as u8, high, low, 0, 0, 0, 0, 0, 0]);
        bytes[11] = 1;
    }
    bytes
}

fn record(kind: u16, data: &Data) -> Vec<u8> {
    /// A pointer to the name of the question.
    const QUESTION: [u8; 2] = [0xc0, HEADER_BYTES as u8];
    let value = match data {
        Data::Address(IpAddr::V4(address)) => address.octets().to_vec(),
        Data::Address(IpAddr::V6(address)) => address.octets().to_vec(),
        Data::Name(name) => encode_name(name),
    };
    let mut bytes = QUESTION.to_vec();
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&INTERNET.to_be_bytes());
    bytes.extend_from_slice(&TIME_TO_LIVE_SECONDS.to_be_bytes());
    // No value is longer than a name.
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&value);
    bytes
}

/// The bytes of a name; labels are cut at what a label may have, and the name at what fits.
fn encode_name(name: &str) -> Vec<u8> {
    const LABEL_BYTES: usize = 63;
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(LABEL_BYTES)];
        if bytes.len() + label.len() + 2 > NAME_BYTES {
            break;
        }
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

/// How long an answer may be kept; `None` when it may not be.
pub(crate) fn lifetime(answer: &[u8]) -> Option<u32> {
    let (counts, start) = sections(answer)?;
    let [answers, authorities, _] = counts;
    let records: Vec<Record> = Records::new(answer, start, answers + authorities).collect();
    if answers == 0 {
        // How long it is known that there is nothing (RFC 2308).
        let authority = records.iter().find(|record| record.kind == START_OF_AUTHORITY)?;
        let minimum = answer.get(authority.end.checked_sub(4)?..authority.end)?.try_into().ok()?;
        return Some(authority.lifetime.min(u32::from_be_bytes(minimum)));
    }
    if records.len() < answers {
        return None;
    }
    records[..answers].iter().map(|record| record.lifetime).min()
}

/// Takes the time that an answer was kept off what it says of its lifetime.
pub(crate) fn grow_old(answer: &mut [u8], seconds: u32) {
    let Some((counts, start)) = sections(answer) else { return };
    let records: Vec<Record> = Records::new(answer, start, counts.iter().sum()).collect();
    for record in records.into_iter().filter(|record| record.kind != OPTIONS) {
        let left = record.lifetime.saturating_sub(seconds).to_be_bytes();
        answer[record.lifetime_at..record.lifetime_at + 4].copy_from_slice(&left);
    }
}

/// How many records each section has, and where the first starts.
fn sections(answer: &[u8]) -> Option<([usize; 3], usize)> {
    let mut at = HEADER_BYTES;
    for _ in 0..number(answer, 4)? {
        at = read_name(answer, at)?.1 + 4;
    }
    Some(([number(answer, 6)?, number(answer, 8)?, number(answer, 10)?].map(usize::from), at))
}

/// A record's fixed parts.
#[derive(Debug, Clone, Copy)]
struct Record {
    kind: u16,
    class: u16,
    lifetime: u32,
    lifetime_at: usize,
    end: usize,
}

/// The records of a message, up to the first that does not fit.
struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Records<'a> {
    fn new(bytes: &'a [u8], at: usize, left: usize) -> Self {
        Self { bytes, at, left }
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.left = self.left.checked_sub(1)?;
        let at = skip_name(self.bytes, self.at)?;
        let fixed = self.bytes.get(at..at + 10)?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        self.at = at + 10 + length;
        (self.at <= self.bytes.len()).then(|| Record {
            kind: u16::from_be_bytes([fixed[0], fixed[1]]),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            lifetime: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            lifetime_at: at + 4,
            end: self.at,
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where a name ends, without following it.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// A name in lower case, and where it ends.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let end = skip_name(bytes, start)?;
    let (mut name, mut at, mut pointers) = (Vec::new(), start, 0);
    loop {
        match *bytes.get(at)? {
            0 => break,
            length @ 1..=63 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                at += usize::from(length) + 1;
            }
            high @ 192.. => {
                pointers += 1;
                at = usize::from(high & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            }
            _ => return None,
        }
        if name.len() > NAME_BYTES || pointers > POINTERS {
            return None;
        }
    }
    // Bytes that are no text are no name of ours, and are forwarded as they came.
    Some((String::from_utf8_lossy(&name).into_owned(), end))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A query as a client makes it.
    pub(crate) fn query(id: u16, name: &str, kind: u16, options: bool) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(options)]);
        bytes.extend(encode_name(name));
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&INTERNET.to_be_bytes());
        if options {
            bytes.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    }

    /// The addresses in an answer to A.
    pub(crate) fn addresses(answer: &[u8]) -> Vec<Ipv4Addr> {
        let (counts, start) = sections(answer).unwrap();
        let records = Records::new(answer, start, counts[0]).filter(|record| record.kind == A);
        records.map(|record| <[u8; 4]>::try_from(&answer[record.end - 4..record.end]).unwrap().into()).collect()
    }

    #[test]
    fn a_query_is_read_whatever_its_case() {
        let bytes = query(7, "Web.Example", A, true);
        let read = Query::parse(&bytes).unwrap();
        assert_eq!((read.name.as_str(), read.kind, read.datagram_bytes()), ("web.example", A, 1232));
        let other = query(9, "wEB.example", A, true);
        assert_eq!(Query::parse(&other).unwrap().key(), read.key());
        assert_ne!(Query::parse(&query(7, "web.example", A, false)).unwrap().key(), read.key());
    }

    #[test]
    fn answers_carry_the_question_and_what_fits() {
        let bytes = query(7, "web", A, true);
        let read = Query::parse(&bytes).unwrap();
        let data: Vec<Data> = (1..=100).map(|last| Data::Address(Ipv4Addr::new(10, 0, 0, last).into())).collect();
        let all = answer(&read, &data, 4096);
        assert!(answers(&all, [0, 7], &read) && !answers(&all, [0, 8], &read));
        assert_eq!(addresses(&all).len(), 100);
        let some = answer(&read, &data, 512);
        assert!(some.len() <= 512 && is_truncated(&some) && addresses(&some).len() > 20);
        assert_eq!((lifetime(&all), code(&refusal(&read, NO_SUCH_NAME))), (Some(600), NO_SUCH_NAME));
        let mut old = all.clone();
        grow_old(&mut old, 590);
        assert_eq!(lifetime(&old), Some(10));
        grow_old(&mut old, 590);
        assert_eq!(lifetime(&old), Some(0));
    }

    #[test]
    fn addresses_are_read_from_reversed_names() {
        let pointer = |name: &str| Query::parse(&query(1, name, POINTER, false)).unwrap().pointer();
        assert_eq!(pointer("2.0.17.172.in-addr.arpa"), Some("172.17.0.2".parse().unwrap()));
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(pointer(six), Some("fd00::1".parse().unwrap()));
        for wrong in ["0.17.172.in-addr.arpa", "1.2.0.17.172.in-addr.arpa", "x.0.17.172.in-addr.arpa", "1.ip6.arpa"] {
            assert_eq!(pointer(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_that_points_at_itself_ends() {
        let mut bytes = query(1, "", A, false)[..HEADER_BYTES].to_vec();
        bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(Query::parse(&bytes), Err(QueryError::Refused { id: [0, 1], code: FORMAT_ERROR }));
    }

    #[test]
    fn what_is_no_query_has_its_own_answer() {
        let mut response = query(1, "a", A, false);
        response[2] |= FLAG_RESPONSE;
        assert_eq!(Query::parse(&response), Err(QueryError::NoQuery));
        let mut update = query(1, "a", A, false);
        update[2] |= 5 << 3;
        assert_eq!(Query::parse(&update), Err(QueryError::Refused { id: [0, 1], code: NOT_IMPLEMENTED }));
        assert_eq!(Query::parse(&[1, 2, 3]), Err(QueryError::NoQuery));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            crate::fuzzing::message(&bytes);
        }

        #[test]
        fn a_damaged_answer_is_read_without_panic(at in 0..200_usize, value in any::<u8>(), cut in 0..300_usize) {
            let bytes = query(7, "web.example", A, true);
            let read = Query::parse(&bytes).unwrap();
            let data = vec![Data::Address(Ipv4Addr::new(10, 0, 0, 1).into()); 9];
            let mut damaged = answer(&read, &data, 512);
            let length = damaged.len();
            damaged[at % length] = value;
            damaged.truncate(cut.max(1));
            crate::fuzzing::message(&damaged);
            let _ = answers(&damaged, [0, 7], &read);
        }
    }
}
