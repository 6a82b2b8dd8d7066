//! Reading what the kernel sends.

/// The attributes of a message, one after the other. Ends at the first that does not fit, so that broken input yields less,
/// never more.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its kind, without the flags for nesting and byte order.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        const KIND_MASK: u16 = 0x3fff;
        let (head, _) = self.rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind: u16::from_ne_bytes([head[2], head[3]]) & KIND_MASK, value })
    }
}

impl<'a> Attribute<'a> {
    /// The attributes inside it.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }

    /// A number in the machine's byte order.
    pub fn number(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.value.try_into().ok()?))
    }

    /// A number in network byte order.
    pub fn network_number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.try_into().ok()?))
    }

    /// A long number in network byte order.
    pub fn network_long(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.value.try_into().ok()?))
    }

    /// A text, without the terminating zero.
    pub fn text(&self) -> Option<&'a str> {
        let end = self.value.iter().position(|&byte| byte == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).ok()
    }

    /// An IP address, by its length.
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        match self.value.len() {
            4 => Some(<[u8; 4]>::try_from(self.value).ok()?.into()),
            16 => Some(<[u8; 16]>::try_from(self.value).ok()?.into()),
            _ => None,
        }
    }

    /// A hardware address.
    pub fn mac(&self) -> Option<[u8; 6]> {
        self.value.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_beyond_the_end_ends_the_list() {
        assert_eq!(Attributes::new(&[8, 0, 1, 0, 1, 2]).next(), None);
        assert_eq!(Attributes::new(&[3, 0, 1, 0]).next(), None);
        assert_eq!(Attributes::new(&[4, 0]).next(), None);
    }

    #[test]
    fn the_last_attribute_may_lack_its_padding() {
        let all: Vec<_> = Attributes::new(&[5, 0, 1, 0x80, 7]).collect();
        assert_eq!(all, [Attribute { kind: 1, value: &[7] }]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for attribute in Attributes::new(&bytes) {
                prop_assert!(attribute.value.len() < bytes.len());
                let _ = (attribute.text(), attribute.number(), attribute.ip(), attribute.mac());
                let _ = attribute.nested().count();
            }
        }
    }
}
