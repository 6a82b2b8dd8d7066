//! As much of DER as a public key takes.

/// A value that is not what a public key has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const OBJECT_ID: u8 = 0x06;
const BIT_STRING: u8 = 0x03;

/// Splits the first value of `bytes` off, which must have this tag: its contents, and what follows.
pub(crate) fn take(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Malformed> {
    let (&found, rest) = bytes.split_first().ok_or(Malformed)?;
    if found != tag {
        return Err(Malformed);
    }
    let (&first, rest) = rest.split_first().ok_or(Malformed)?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x0f)).ok_or(Malformed)?;
            let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            // DER has one way to write a length.
            let shortest = if length < 0x80 { 0 } else { 1 + usize::from(length > 0xff) };
            if shortest != digits.len() {
                return Err(Malformed);
            }
            (length, rest)
        }
        _ => return Err(Malformed),
    };
    rest.split_at_checked(length).ok_or(Malformed)
}

/// A SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyInfo<'a> {
    /// The algorithm's object id.
    pub(crate) algorithm: &'a [u8],
    /// The algorithm's parameters.
    pub(crate) parameters: &'a [u8],
    /// The key.
    pub(crate) bits: &'a [u8],
}

/// Reads a SubjectPublicKeyInfo, which must be all there is.
pub(crate) fn public_key(bytes: &[u8]) -> Result<KeyInfo<'_>, Malformed> {
    let (whole, after) = take(bytes, SEQUENCE)?;
    let (identifier, rest) = take(whole, SEQUENCE)?;
    let (algorithm, parameters) = take(identifier, OBJECT_ID)?;
    let (bits, end) = take(rest, BIT_STRING)?;
    let (unused, bits) = bits.split_first().ok_or(Malformed)?;
    if *unused != 0 || !after.is_empty() || !end.is_empty() {
        return Err(Malformed);
    }
    Ok(KeyInfo { algorithm, parameters, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_form() {
        assert_eq!(take(&[0x30, 1, 7, 8], SEQUENCE), Ok((&[7][..], &[8][..])));
        let long = [&[0x30, 0x81, 0x80][..], &[5; 0x80]].concat();
        assert_eq!(take(&long, SEQUENCE).unwrap().0.len(), 0x80);
        for wrong in [
            &[][..],
            &[0x30],
            &[0x31, 0],
            &[0x30, 2, 1],
            &[0x30, 0x81, 1, 1],
            &[0x30, 0x80],
            &[0x30, 0x84, 0, 0, 0, 1, 1],
        ] {
            assert_eq!(take(wrong, SEQUENCE), Err(Malformed), "{wrong:?}");
        }
    }
}
