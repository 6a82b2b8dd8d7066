//! One 512-byte header block: its fields, as they stand.

use crate::Refusal;

pub(super) const BLOCK: usize = 512;

/// Offset and length of a part of a sparse file, as the tar says.
pub(super) type RawSegment = (u64, u64);

/// A block that has passed the checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawHeader<'a> {
    block: &'a [u8; BLOCK],
    offset: u64,
}

/// The beginning of a GNU sparse map.
#[derive(Debug)]
pub(super) struct GnuSparse {
    /// The segments that fit into the header: four at most.
    pub(super) segments: Vec<RawSegment>,
    /// Whether more blocks of them follow.
    pub(super) continues: bool,
    /// The size of the whole file.
    pub(super) size: u64,
}

/// Which of the historical layouts a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before POSIX: no prefix, no device numbers that can be relied on.
    V7,
    /// POSIX: names may be split into prefix and name.
    Ustar,
    /// Jörg Schilling's star: as POSIX, with a shorter prefix.
    Star,
    /// GNU: times where POSIX has the prefix.
    Gnu,
}

impl<'a> RawHeader<'a> {
    /// Checks the sum; the block begins at `offset` of the tar.
    pub(super) fn parse(block: &'a [u8; BLOCK], offset: u64) -> Result<Self, Refusal> {
        let header = RawHeader { block, offset };
        let stated = header.number(148..156, "checksum")?;
        if stated != header.sum(u64::from) && stated != header.sum(|byte| byte as i8 as i64 as u64) {
            return Err(Refusal::Checksum { offset });
        }
        Ok(header)
    }

    /// The sum over the block with its own field as spaces. Some old tars added signed bytes.
    fn sum(&self, widen: impl Fn(u8) -> u64) -> u64 {
        let bytes = self.block.iter().enumerate();
        bytes.fold(0_u64, |sum, (at, byte)| sum.wrapping_add(if (148..156).contains(&at) { 32 } else { widen(*byte) }))
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.block[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") && &self.block[508..512] == b"tar\0" => Dialect::Star,
            magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
            _ => Dialect::V7,
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.block[156]
    }

    /// The name, prefix included. Where another reader would see a prefix and we do not, nothing good can come of it.
    pub(super) fn name(&self) -> Result<Vec<u8>, Refusal> {
        let name = self.text(0..100);
        let prefix = match self.dialect() {
            Dialect::Ustar => self.text(345..500),
            Dialect::Star => self.text(345..476),
            Dialect::Gnu | Dialect::V7 => {
                self.refuse_foreign_prefix(name)?;
                &[]
            }
        };
        Ok(if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() })
    }

    fn refuse_foreign_prefix(&self, name: &[u8]) -> Result<(), Refusal> {
        let first = self.block[345];
        let may_be_time = self.dialect() == Dialect::Gnu && (first & 0x80 != 0 || matches!(first, b'0'..=b'7' | b' '));
        if first == 0 || may_be_time {
            return Ok(());
        }
        Err(Refusal::InvalidName { name: crate::refusal::Name::new(name), reason: "it may or may not have a prefix" })
    }

    pub(super) fn link_name(&self) -> &'a [u8] {
        self.text(157..257)
    }

    pub(super) fn mode(&self) -> Result<u32, Refusal> {
        Ok((self.number(100..108, "mode")? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> Result<u64, Refusal> {
        self.number(108..116, "owner")
    }

    pub(super) fn gid(&self) -> Result<u64, Refusal> {
        self.number(116..124, "group")
    }

    pub(super) fn size(&self) -> Result<u64, Refusal> {
        self.number(124..136, "size")
    }

    pub(super) fn mtime(&self) -> Result<i64, Refusal> {
        let field = &self.block[136..148];
        if field[0] == 0xff {
            return self.negative_base256(field, "time");
        }
        let seconds = self.number(136..148, "time")?;
        i64::try_from(seconds).map_err(|_| self.bad("time"))
    }

    pub(super) fn device(&self) -> Result<(u64, u64), Refusal> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        Ok((self.number(329..337, "device number")?, self.number(337..345, "device number")?))
    }

    /// What a GNU header says of a sparse file.
    pub(super) fn gnu_sparse(&self) -> Result<GnuSparse, Refusal> {
        let segments = sparse_pairs(&self.block[386..482], self.offset)?;
        let size = self.number(483..495, "sparse size")?;
        Ok(GnuSparse { segments, continues: self.block[482] != 0, size })
    }

    fn text(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        until_nul(&self.block[range])
    }

    fn number(&self, range: std::ops::Range<usize>, field: &'static str) -> Result<u64, Refusal> {
        number(&self.block[range]).ok_or(Refusal::Number { field, offset: self.offset })
    }

    fn negative_base256(&self, field: &[u8], name: &'static str) -> Result<i64, Refusal> {
        let (sign, value) = field.split_at(field.len() - 8);
        let value = i64::from_be_bytes(value.try_into().map_err(|_| self.bad(name))?);
        if sign.iter().all(|byte| *byte == 0xff) && value < 0 { Ok(value) } else { Err(self.bad(name)) }
    }

    fn bad(&self, field: &'static str) -> Refusal {
        Refusal::Number { field, offset: self.offset }
    }
}

/// The segments in a further block of a GNU sparse map, and whether yet another follows.
pub(super) fn gnu_sparse_extension(block: &[u8; BLOCK], offset: u64) -> Result<(Vec<RawSegment>, bool), Refusal> {
    Ok((sparse_pairs(&block[..504], offset)?, block[504] != 0))
}

fn sparse_pairs(bytes: &[u8], offset: u64) -> Result<Vec<RawSegment>, Refusal> {
    let bad = || Refusal::Number { field: "sparse map", offset };
    let used = bytes.chunks_exact(24).take_while(|pair| pair[12] != 0);
    used.map(|pair| number(&pair[..12]).zip(number(&pair[12..])).ok_or_else(bad)).collect()
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An octal or GNU base-256 number. Nothing may stand between the digits and the padding, and nothing behind the padding:
/// readers differ in what they make of such fields.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        return base256(field);
    }
    let digits = field.iter().position(|byte| *byte != b' ').map_or(&[][..], |start| &field[start..]);
    let length = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    let (digits, padding) = digits.split_at(length);
    if padding.iter().any(|byte| !matches!(byte, b' ' | 0)) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
}

fn base256(field: &[u8]) -> Option<u64> {
    if field[0] != 0x80 {
        return None;
    }
    field[1..].iter().try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check =
            |field: &[u8], expected: Option<u64>| assert_eq!(number(field), expected, "{}", field.escape_ascii());
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"644     ", Some(0o644));
        check(b"77777777", Some(0o77777777));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"        ", Some(0));
        check(b"\x80\0\0\0\0\0\x01\0", Some(256));
        check(b"00000008", None);
        check(b"12 34 \0\0", None);
        check(b"12\x0004\0\0\0", None);
        check(b"\x0012\0\0\0\0\0", None);
        check(b"-1\0\0\0\0\0\0", None);
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff", None);
        check(b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None);
        check(b"0x12\0\0\0\0", None);
    }
}
