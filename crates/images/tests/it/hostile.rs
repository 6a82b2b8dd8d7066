//! Archives from strangers: every one is refused with a reason and leaves nothing.

use std::io::{self, Cursor, Read};

use archive::compression::Compression;
use images::{ErrorKind, LoadRequest};
use oci::Digest;
use serde_json::json;

use crate::fixtures::{Picture, Site, archive_of, blob_path, compressed, describe, files_of, layer, tar};

fn picture() -> Picture {
    Picture::new(&[layer("a", 20_000), layer("b", 20_000)], &["app:1"])
}

/// Loads `archive`, which must fail with a message that starts with `expected`, and must leave nothing.
fn refused(archive: &[u8], expected: &str) {
    let site = Site::new();
    site.set_no_users();
    let error = site.load(archive).unwrap_err();
    let message = describe(&error);
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{message}");
    site.assert_empty();
}

#[test]
fn junk_is_named() {
    refused(b"", "no image in the archive: it has neither manifest.json nor index.json");
    refused(b"junk\n", "invalid archive: ");
    refused(&[0xff; 4096], "invalid archive: ");
    refused(&compressed(b"junk", Compression::Gzip), "invalid archive: ");
    refused(&tar(&[("readme", b"hello")]), "no image in the archive: it has neither manifest.json nor index.json");
    refused(&layer("a root file system", 100), "no image in the archive: it has neither");
    refused(b"\x1f\x8b and then nonsense", "");
}

#[test]
fn a_layer_that_is_another_one() {
    let mut picture = picture();
    picture.layers[1] = layer("another", 20_000);
    let expected = format!("invalid diffID for layer 1: expected \"{}\"", Digest::of(&layer("b", 20_000)));
    refused(&Picture::old_archive(&[picture.clone()]), &expected);
    refused(&Picture::oci_archive(&[picture], Compression::Gzip), &expected);
}

#[test]
fn a_blob_that_is_another_one() {
    let mut files = files_of(&Picture::oci_archive(&[picture()], Compression::Zstd));
    let replaced = compressed(&layer("b", 20_000), Compression::Gzip);
    let digest = Digest::of(&compressed(&layer("b", 20_000), Compression::Zstd));
    let name = blob_path(&digest);
    files.iter_mut().find(|(other, _)| *other == name).unwrap().1 = replaced.clone();
    // Its contents are right, but the manifest speaks of other bytes.
    refused(&archive_of(&files), &format!("{name} hashes to {}", Digest::of(&replaced)));
}

#[test]
fn a_stream_that_breaks_off_anywhere() {
    let archive = Picture::oci_archive(&[picture()], Compression::Gzip);
    let (site, whole) = (Site::new(), archive.len());
    site.set_no_users();
    for length in (0..whole - 1024).step_by(whole / 23) {
        let message = site.load_error(&archive[..length]);
        assert!(!message.is_empty());
        site.assert_empty();
    }
    let zstd = compressed(&archive, Compression::Zstd);
    for length in [10, zstd.len() / 2, zstd.len() - 5] {
        site.load_error(&zstd[..length]);
        site.assert_empty();
    }
}

#[test]
fn a_client_that_goes_away() {
    /// Gives some bytes and then an error.
    struct Broken(Cursor<Vec<u8>>);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                length => Ok(length),
            }
        }
    }
    let archive = Picture::old_archive(&[picture()]);
    let site = Site::new();
    site.set_no_users();
    let input = Broken(Cursor::new(archive[..archive.len() / 2].to_vec()));
    let error = site.store.load(Box::new(input), &LoadRequest::default(), &|_| {}).unwrap_err();
    assert!(describe(&error).starts_with("cannot read the archive: "), "{}", describe(&error));
    site.assert_empty();
}

#[test]
fn types_that_are_confused() {
    let picture = picture();
    let swap = |name: &str, bytes: &[u8]| {
        let mut files = files_of(&Picture::old_archive(std::slice::from_ref(&picture)));
        files.retain(|(other, _)| other != name);
        files.push((name.to_owned(), bytes.to_vec()));
        archive_of(&files)
    };
    let config = format!("{}.json", Digest::of(&picture.config).hex());
    let layer_path = format!("{}/layer.tar", Digest::of(&picture.layers[0]).hex());
    refused(
        &swap("manifest.json", &picture.layers[0]),
        "manifest.json is named by the archive's manifest.json but missing",
    );
    refused(&swap("manifest.json", b"{}"), "invalid manifest.json in the archive");
    refused(&swap("manifest.json", b"[]"), "no image in the archive: manifest.json names none");
    refused(&swap("manifest.json", b"[[\"a\",[],[]]]"), "invalid manifest.json in the archive");
    refused(&swap("manifest.json", &b"[".repeat(100_000)), "invalid manifest.json in the archive");
    refused(&swap(&config, b"[1]"), &format!("invalid {config} in the archive"));
    refused(
        &swap(&config, &picture.layers[0]),
        &format!("{config} is named by the archive's manifest.json but missing"),
    );
    refused(&swap(&layer_path, b"{}"), &format!("{layer_path} is neither a tar nor a compressed tar"));
    refused(&swap(&layer_path, b""), &format!("{layer_path} is neither a tar nor a compressed tar"));
    refused(&swap(&layer_path, &compressed(b"no tar", Compression::Gzip)), &format!("cannot store layer {layer_path}"));
}

#[test]
fn names_that_lead_out() {
    let picture = picture();
    for path in ["../../../etc/passwd", "a/../../etc/passwd", ".."] {
        let manifest = json!([{"Config": path, "RepoTags": ["x:1"], "Layers": []}]).to_string();
        refused(&tar(&[("manifest.json", manifest.as_bytes())]), &format!("invalid path {path:?} in manifest.json"));
        let manifest = json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": [path, path]}]).to_string();
        let files: [(&str, &[u8]); 2] = [("c.json", &picture.config), ("manifest.json", manifest.as_bytes())];
        refused(&tar(&files), &format!("invalid path {path:?} in manifest.json"));
    }
}

/// One entry of `size_bytes` spaces, made while it is read.
struct Bomb {
    head: Cursor<Vec<u8>>,
    left: u64,
}

impl Bomb {
    fn new(name: &str, size_bytes: u64) -> Bomb {
        use archive::tar::{EntryKind, Header, Metadata, Writer};
        let kind = EntryKind::File { size: size_bytes, sparse: None };
        let mut head = Vec::new();
        Writer::new(&mut head)
            .start(&Header { path: name.as_bytes(), metadata: &Metadata::default(), kind: &kind })
            .unwrap();
        Bomb { head: Cursor::new(head), left: size_bytes + 1024 }
    }
}

impl Read for Bomb {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.head.read(buffer)?;
        if length > 0 {
            return Ok(length);
        }
        let length = (buffer.len() as u64).min(self.left) as usize;
        // The last kibibyte is the end of the tar.
        let byte = if self.left <= 1024 { 0 } else { b' ' };
        let length = if byte == b' ' { length.min((self.left - 1024) as usize) } else { length };
        buffer[..length].fill(byte);
        self.left -= length as u64;
        Ok(length)
    }
}

fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn documents_of_a_gigabyte_take_no_memory() {
    let before = peak_memory_bytes();
    for (name, expected) in [
        ("manifest.json", "manifest.json is larger than 4194304 bytes"),
        ("index.json", "index.json is larger than 4194304 bytes"),
        ("c.json", "no image in the archive: it has neither manifest.json nor index.json"),
    ] {
        let site = Site::new();
        let error = site.store.load(Box::new(Bomb::new(name, 1 << 30)), &LoadRequest::default(), &|_| {}).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let grown = peak_memory_bytes() - before;
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
}

#[test]
fn many_small_documents_are_too_many() {
    let document = vec![b' '; 7 << 20];
    let files: Vec<(String, Vec<u8>)> = (0..10).map(|number| (format!("{number}.json"), document.clone())).collect();
    refused(&archive_of(&files), "the archive's documents take more than 67108864 bytes");
}
