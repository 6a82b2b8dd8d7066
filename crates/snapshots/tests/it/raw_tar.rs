//! Tars made byte by byte, as no honest program would.

/// A tar in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawTar {
    bytes: Vec<u8>,
}

/// A header whose every field can be bent.
#[derive(Debug, Clone)]
pub(crate) struct RawHeader {
    block: [u8; 512],
}

impl RawHeader {
    pub(crate) fn new(name: &str, typeflag: u8) -> Self {
        let mut header = RawHeader { block: [0; 512] };
        header.put(0, &name.as_bytes()[..name.len().min(100)]);
        header.put(100, if typeflag == b'5' { b"0000755" } else { b"0000644" });
        header.put(108, b"0000000");
        header.put(116, b"0000000");
        header.put(124, b"00000000000");
        header.put(136, b"14371573200");
        header.block[156] = typeflag;
        header.put(257, b"ustar\x0000");
        header
    }

    pub(crate) fn gnu(mut self) -> Self {
        self.put(257, b"ustar  \0");
        self
    }

    pub(crate) fn size(mut self, size: u64) -> Self {
        self.put(124, format!("{size:011o}").as_bytes());
        self
    }

    pub(crate) fn link(mut self, target: &str) -> Self {
        self.put(157, target.as_bytes());
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.put(100, format!("{mode:07o}").as_bytes());
        self
    }

    pub(crate) fn device(mut self, major: u32, minor: u32) -> Self {
        self.put(329, format!("{major:07o}").as_bytes());
        self.put(337, format!("{minor:07o}").as_bytes());
        self
    }

    pub(crate) fn raw(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn finish(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.block.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.block
    }
}

impl RawTar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn header(mut self, header: RawHeader) -> Self {
        self.bytes.extend_from_slice(&header.finish());
        self
    }

    /// Contents, filled up to a whole block.
    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, contents: &str) -> Self {
        self.header(RawHeader::new(name, b'0').size(contents.len() as u64)).data(contents.as_bytes())
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.header(RawHeader::new(name, b'5'))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.header(RawHeader::new(name, b'2').link(target))
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.header(RawHeader::new(name, b'1').link(target))
    }

    /// A PAX header with these records.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() > length {
                length += 1;
            }
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.extension(b'x', &text)
    }

    pub(crate) fn extension(self, typeflag: u8, contents: &[u8]) -> Self {
        self.header(RawHeader::new("././@Extension", typeflag).size(contents.len() as u64)).data(contents)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).bytes
    }

    pub(crate) fn without_end(self) -> Vec<u8> {
        self.bytes
    }
}
