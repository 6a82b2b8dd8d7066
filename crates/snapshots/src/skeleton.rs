//! What is left of a tar when its files' contents are taken out, and the tar put together again.
//!
//! ```text
//! "conexskl"  version: u32  tar bytes: u64  disk bytes: u64       little-endian, then, compressed with zstd:
//! 0  length: u64  bytes                                            these bytes stand in the tar
//! 1  length: u64  offset: u64  path length: u32  path              these bytes of the unpacked file stand in the tar
//! ```

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use archive::compression::{Compression, Compressor, decompress};
use archive::layer::{LayerTree, NodeId, NodeKind};
use archive::pipe::{Produced, produce};
use rustix::fs::{Mode, OFlags, ResolveFlags};

const MAGIC: &[u8; 8] = b"conexskl";
const VERSION: u32 = 1;
const LITERAL: u8 = 0;
const CONTENTS: u8 = 1;
/// No path in a tree is longer; a damaged skeleton must not make us allocate without end.
const PATH_BYTES_MAX: u32 = 1 << 20;
const COPY_BYTES: usize = 256 << 10;
/// What a file or directory takes on the disk besides its contents, about.
const DISK_BLOCK_BYTES: u64 = 4096;

/// A run of the tar that stands in an unpacked file.
struct Run {
    tar_offset: u64,
    length: u64,
    file_offset: u64,
    path: Vec<u8>,
}

/// Writes the skeleton of `tar`, whose tree has been unpacked.
pub(crate) fn write(tree: &LayerTree, tar: &File, tar_bytes: u64, place: &Path) -> io::Result<()> {
    let (runs, disk_bytes) = runs(tree);
    let mut output = File::create_new(place)?;
    output.write_all(MAGIC)?;
    output.write_all(&VERSION.to_le_bytes())?;
    output.write_all(&tar_bytes.to_le_bytes())?;
    output.write_all(&disk_bytes.to_le_bytes())?;
    let mut output = BufWriter::new(Compressor::new(output, Compression::Zstd)?);
    let mut at = 0;
    for run in runs {
        literal(tar, at, run.tar_offset - at, &mut output)?;
        output.write_all(&[CONTENTS])?;
        output.write_all(&run.length.to_le_bytes())?;
        output.write_all(&run.file_offset.to_le_bytes())?;
        output.write_all(&(run.path.len() as u32).to_le_bytes())?;
        output.write_all(&run.path)?;
        at = run.tar_offset + run.length;
    }
    literal(tar, at, tar_bytes - at, &mut output)?;
    output.into_inner().map_err(io::IntoInnerError::into_error)?.finish().map(drop)
}

/// Where the contents of the files that were unpacked stand in the tar, in its order; and about what the files take on the disk.
/// Files that a later entry replaced are not among them: their contents stay in the skeleton.
fn runs(tree: &LayerTree) -> (Vec<Run>, u64) {
    let mut runs = Vec::new();
    let mut disk_bytes = DISK_BLOCK_BYTES;
    let mut seen = vec![false; tree.node_count()];
    let mut directories = vec![(NodeId::ROOT, Vec::new())];
    while let Some((directory, path)) = directories.pop() {
        for (name, id) in tree.children(directory) {
            if std::mem::replace(&mut seen[id.index()], true) {
                continue;
            }
            let path = if path.is_empty() { name.to_vec() } else { [path.as_slice(), name].join(&b'/') };
            let before = runs.len();
            match &tree.node(id).kind {
                NodeKind::Directory { .. } => directories.push((id, path)),
                NodeKind::File { size, data_offset, sparse } => {
                    let segments = match sparse {
                        None => vec![(0, *size)],
                        Some(map) => map.segments.iter().map(|segment| (segment.offset, segment.length)).collect(),
                    };
                    add_runs(&segments, *data_offset, &path, &mut runs);
                }
                _ => {}
            }
            let contents = runs[before..].iter().map(|run| run.length.next_multiple_of(DISK_BLOCK_BYTES));
            disk_bytes += DISK_BLOCK_BYTES / 4 + contents.sum::<u64>();
        }
    }
    runs.sort_unstable_by_key(|run| run.tar_offset);
    (runs, disk_bytes)
}

fn add_runs(segments: &[(u64, u64)], data_offset: u64, path: &[u8], runs: &mut Vec<Run>) {
    let mut tar_offset = data_offset;
    for (file_offset, length) in segments.iter().copied().filter(|(_, length)| *length > 0) {
        runs.push(Run { tar_offset, length, file_offset, path: path.to_vec() });
        tar_offset += length;
    }
}

fn literal(tar: &File, mut at: u64, mut length: u64, output: &mut impl Write) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    output.write_all(&[LITERAL])?;
    output.write_all(&length.to_le_bytes())?;
    let mut buffer = vec![0; COPY_BYTES];
    while length > 0 {
        let piece = &mut buffer[..COPY_BYTES.min(usize::try_from(length).unwrap_or(COPY_BYTES))];
        tar.read_exact_at(piece, at)?;
        output.write_all(piece)?;
        at += piece.len() as u64;
        length -= piece.len() as u64;
    }
    Ok(())
}

/// A skeleton on the disk.
#[derive(Debug)]
pub(crate) struct Skeleton {
    tar_bytes: u64,
    disk_bytes: u64,
    /// Open behind the part that is not compressed.
    file: File,
}

impl Skeleton {
    pub(crate) fn open(place: &Path) -> io::Result<Self> {
        let mut file = File::open(place)?;
        let mut magic = [0; 8];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC || u32::from_le_bytes(array(&mut file)?) != VERSION {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this is no skeleton of a layer, or of another version",
            ));
        }
        let (tar_bytes, disk_bytes) = (u64::from_le_bytes(array(&mut file)?), u64::from_le_bytes(array(&mut file)?));
        Ok(Skeleton { tar_bytes, disk_bytes: disk_bytes + file.metadata()?.len(), file })
    }

    pub(crate) fn tar_bytes(&self) -> u64 {
        self.tar_bytes
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// The tar, byte for byte, from the skeleton and the unpacked files in `root`.
    pub(crate) fn tar(self, root: File) -> io::Result<Produced> {
        produce("layer-tar", move |output| {
            let mut records = BufReader::new(decompress(Box::new(self.file))?);
            let mut tag = [0];
            while records.read(&mut tag)? == 1 {
                let length = u64::from_le_bytes(array(&mut records)?);
                if tag[0] == LITERAL {
                    copy_exactly(&mut records, length, output)?;
                } else {
                    contents(&mut records, length, &root, output)?;
                }
            }
            Ok(())
        })
    }
}

fn contents(records: &mut impl Read, length: u64, root: &File, output: &mut impl Write) -> io::Result<()> {
    let offset = u64::from_le_bytes(array(records)?);
    let path_length = u32::from_le_bytes(array(records)?);
    if path_length > PATH_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut path = vec![0; path_length as usize];
    records.read_exact(&mut path)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(root.as_fd(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let mut file = File::from(file);
    io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
    copy_exactly(&mut file, length, output)
}

fn copy_exactly(input: &mut impl Read, length: u64, output: &mut impl Write) -> io::Result<()> {
    let copied = io::copy(&mut input.take(length), output)?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
