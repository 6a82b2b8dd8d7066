//! Who a certificate says that its holder is: the common name of its subject and its alternative names.
//!
//! The library that verifies certificates does not tell their names, so the few fields are read here (X.509, RFC 5280, in DER). What is read
//! has been verified before; what cannot be read is left out.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;

/// The names in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The last common name of the subject, which is the most specific.
    pub common_name: Option<String>,
    /// Host names, addresses, addresses of mail and URIs.
    pub alternative_names: Vec<String>,
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTF16_STRING: u8 = 0x1e;
/// `[0]` of a certificate: its version.
const VERSION: u8 = 0xa0;
/// `[3]` of a certificate: its extensions.
const EXTENSIONS: u8 = 0xa3;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const MAIL: u8 = 0x81;
const HOST: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

impl Identity {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self::read(certificate).unwrap_or_default()
    }

    fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Values(Values(der).next_of(SEQUENCE)?);
        let mut fields = Values(certificate.next_of(SEQUENCE)?);
        if fields.peek() == Some(VERSION) {
            fields.next();
        }
        // Serial number, signature, issuer, validity.
        fields.nth(3)?;
        let subject = fields.next_of(SEQUENCE)?;
        let extensions = fields.find(|(tag, _)| *tag == EXTENSIONS);
        let alternatives = extensions.and_then(|(_, inside)| alternative_names(inside)).unwrap_or_default();
        Some(Self { common_name: common_name(subject), alternative_names: alternatives })
    }
}

/// A name is a sequence of sets of pairs of a kind and a text.
fn common_name(subject: &[u8]) -> Option<String> {
    let pairs = Values(subject).flat_map(|(_, set)| Values(set));
    let names = pairs.filter_map(|(_, pair)| {
        let mut pair = Values(pair);
        (pair.next_of(OBJECT_IDENTIFIER)? == COMMON_NAME).then(|| pair.next())?
    });
    names.last().map(|(tag, text)| match tag {
        UTF16_STRING => {
            let units: Vec<u16> = text.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(text).into_owned(),
    })
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let extensions = Values(Values(extensions).next_of(SEQUENCE)?);
    let mut values = extensions.filter_map(|(_, extension)| {
        let mut parts = Values(extension);
        // Between the two stands whether it is critical.
        (parts.next_of(OBJECT_IDENTIFIER)? == ALTERNATIVE_NAME).then(|| parts.find(|(tag, _)| *tag == OCTET_STRING))?
    });
    let (_, names) = values.next()?;
    let shown = |(tag, name): (u8, &[u8])| match tag {
        MAIL | HOST | URI => Some(String::from_utf8_lossy(name).into_owned()),
        ADDRESS => match name.len() {
            4 => <[u8; 4]>::try_from(name).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(name).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    };
    Some(Values(Values(names).next_of(SEQUENCE)?).filter_map(shown).collect())
}

/// The values that follow one another in some DER, each with its tag; ends where they cannot be read.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next value, if it is of this kind.
    fn next_of(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // So many bytes of length follow.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn certificate(name: &str) -> CertificateDer<'static> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        crate::files::certificates(&path).unwrap().remove(0)
    }

    #[test]
    fn names_are_read() {
        let client = Identity::of(&certificate("client.pem"));
        assert_eq!((client.common_name.as_deref(), client.alternative_names.len()), (Some("client"), 0));
        let server = Identity::of(&certificate("server.pem"));
        assert_eq!(server.common_name.as_deref(), Some("server"));
        assert_eq!(server.alternative_names, ["127.0.0.1", "localhost"]);
    }

    #[test]
    fn what_is_cut_or_changed_is_left_out_and_nothing_breaks() {
        let whole = certificate("server.pem");
        for length in 0..whole.len() {
            assert_eq!(Identity::read(&whole[..length]), None);
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0x84, 0xff] {
                let mut changed = whole.to_vec();
                changed[at] = value;
                let _ = Identity::read(&changed);
            }
        }
    }
}
