//! Hostile tars, and what must come of each. The tests of whole engines read them too.

use Expected::{Refused, Stored};

use crate::raw_tar::{RawHeader, RawTar};

/// What must come of a tar.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// The whole layer is refused.
    Refused,
    /// It is stored, and these are the files in it: kind and path.
    Stored(&'static [(char, &'static str)]),
}

/// A tar.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) tar: Vec<u8>,
    pub(crate) expected: Expected,
}

fn case(name: &'static str, tar: RawTar, expected: Expected) -> Case {
    Case { name, tar: tar.end(), expected }
}

pub(crate) fn tar() -> RawTar {
    RawTar::new()
}

pub(crate) fn header(name: &str, typeflag: u8) -> RawHeader {
    RawHeader::new(name, typeflag)
}

/// Names and links that try to get out.
fn escapes() -> Vec<Case> {
    vec![
        case("dot-dot", tar().file("../canary/x", "x"), Refused),
        case("dot-dot inside", tar().directory("a").file("a/../../canary/x", "x"), Refused),
        case("dot-dot that stays inside", tar().directory("a").file("a/../b", "x"), Refused),
        case("only dot-dot", tar().directory(".."), Refused),
        case("dot-dot directory", tar().directory("../canary"), Refused),
        case("dot-dot by PAX", tar().pax(&[("path", b"../canary/x")]).file("ok", "x"), Refused),
        case("dot-dot by long name", tar().extension(b'L', b"../canary/x\0").file("ok", "x"), Refused),
        case("dot-dot by prefix", tar().header(header("x", b'0').raw(345, b"../canary")), Refused),
        case("absolute", tar().file("/x", "x"), Stored(&[('-', "x")])),
        case("many slashes", tar().file("///a//b", "x"), Stored(&[('d', "a"), ('-', "a/b")])),
        case("dots", tar().file("././a/./b", "x"), Stored(&[('d', "a"), ('-', "a/b")])),
        case("through a link to the root", tar().symlink("a", "/").file("a/x", "x"), Stored(&[('l', "a"), ('-', "x")])),
        case("through a link upwards", tar().symlink("a", "..").file("a/x", "x"), Stored(&[('l', "a"), ('-', "x")])),
        case(
            "through many dot-dots",
            tar().symlink("a", "../../../../..").file("a/x", "x"),
            Stored(&[('l', "a"), ('-', "x")]),
        ),
        case("through a link to the canary", tar().symlink("a", "../canary").file("a/x", "x"), Refused),
        case("through an absolute link", tar().symlink("a", "/canary").file("a/x", "x"), Refused),
        case(
            "through two links",
            tar().symlink("a", "b").symlink("b", "/").file("a/x", "x"),
            Stored(&[('l', "a"), ('l', "b"), ('-', "x")]),
        ),
        case("through a loop", tar().symlink("a", "b").symlink("b", "a").file("a/x", "x"), Refused),
        case("through a link to itself", tar().symlink("a", "a").file("a/x", "x"), Refused),
        case("below a file", tar().file("a", "x").file("a/x", "x"), Refused),
        case("below a device", tar().header(header("a", b'3').device(1, 3)).file("a/x", "x"), Refused),
        case(
            "link over directory, then into it",
            tar().directory("a").symlink("a", "../canary").file("a/x", "x"),
            Refused,
        ),
        case(
            "directory over link",
            tar().symlink("a", "../canary").header(header("a", b'5').mode(0o777)),
            Stored(&[('d', "a")]),
        ),
        case("file over link", tar().symlink("a", "../canary/file").file("a", "new"), Stored(&[('-', "a")])),
        case("hard link upwards", tar().hard_link("a", "../canary/file"), Refused),
        case("hard link to an absolute name", tar().hard_link("a", "/canary/file"), Refused),
        case("hard link to nothing", tar().hard_link("a", "b"), Refused),
        case("hard link to a directory", tar().directory("d").hard_link("a", "d"), Refused),
        case("hard link to the root", tar().hard_link("a", "."), Refused),
        case("hard link without target", tar().hard_link("a", ""), Refused),
        case("hard link to what comes later", tar().hard_link("a", "b").file("b", "x"), Refused),
        case("hard link through a link outwards", tar().symlink("s", "../canary").hard_link("a", "s/file"), Refused),
        case(
            "hard link to a link, then write",
            tar().symlink("s", "../canary/file").hard_link("a", "s").file("a", "x"),
            Stored(&[('-', "a"), ('l', "s")]),
        ),
        case("hard link to itself", tar().file("a", "x").hard_link("a", "a"), Stored(&[('-', "a")])),
        case(
            "hard link to a replaced file",
            tar().file("a", "x").hard_link("b", "a").file("a", "y"),
            Stored(&[('-', "a"), ('-', "b")]),
        ),
        case("the root as a file", tar().file(".", "x"), Refused),
        case("the root as a link", tar().symlink("./", "../canary"), Refused),
    ]
}

/// Names that are no names.
fn names() -> Vec<Case> {
    let long = "n".repeat(256);
    let deep = "d/".repeat(600) + "x";
    let longest = ["c".repeat(250).as_str()].repeat(20).join("/");
    vec![
        case("empty name", tar().header(header("", b'0')), Refused),
        case("NUL by PAX", tar().pax(&[("path", b"a\0b")]).file("ok", "x"), Refused),
        case("NUL by long name", tar().extension(b'L', b"a\0b\0").file("ok", "x"), Refused),
        case("component too long", tar().pax(&[("path", long.as_bytes())]).file("ok", "x"), Refused),
        case("name too long", tar().pax(&[("path", longest.as_bytes())]).file("ok", "x"), Refused),
        case("too deep", tar().pax(&[("path", deep.as_bytes())]).file("ok", "x"), Refused),
        case("file with a slash", tar().file("a/", "x"), Refused),
        case("old directory", tar().header(header("a/", 0)), Stored(&[('d', "a")])),
        case("case pair", tar().file("a", "x").file("A", "y"), Stored(&[('-', "A"), ('-', "a")])),
        case("not UTF-8", tar().header(header("", b'0').raw(0, b"\xff\xfe")), Stored(&[('-', "\u{fffd}\u{fffd}")])),
        case("duplicates", tar().file("a", "first").file("a", "last!"), Stored(&[('-', "a")])),
        case(
            "file, then directory",
            tar().file("a", "x").directory("a").file("a/b", "y"),
            Stored(&[('d', "a"), ('-', "a/b")]),
        ),
        case("directory, then file", tar().directory("a").file("a/b", "x").file("a", "y"), Stored(&[('-', "a")])),
        case("ambiguous prefix", tar().header(header("x", b'0').gnu().raw(345, b"pre")), Refused),
    ]
}

/// Where readers disagree about sizes and extended headers, and so about what is an entry at all.
fn disagreements() -> Vec<Case> {
    let hidden = RawTar::new().file("hidden", "h").without_end();
    let with_hidden = |header: RawHeader| tar().header(header).raw(&hidden);
    vec![
        case(
            "PAX size larger",
            tar().pax(&[("size", b"1024")]).raw(&with_hidden(header("a", b'0')).without_end()),
            Refused,
        ),
        case(
            "PAX size smaller",
            tar().pax(&[("size", b"0")]).raw(&with_hidden(header("a", b'0').size(1024)).without_end()),
            Refused,
        ),
        case(
            "PAX before a GNU long name",
            tar().pax(&[("size", b"1024")]).extension(b'L', b"name\0").file("a", "x"),
            Refused,
        ),
        case(
            "GNU long name before PAX",
            tar().extension(b'L', b"name\0").pax(&[("size", b"1")]).file("a", "x"),
            Refused,
        ),
        case("two PAX headers", tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", "x"), Refused),
        case("two long names", tar().extension(b'L', b"a\0").extension(b'L', b"b\0").file("c", "x"), Refused),
        case("global size", tar().extension(b'g', b"11 size=99\n").file("a", "x"), Refused),
        case("global comment", tar().extension(b'g', b"13 comment=x\n").file("a", "x"), Stored(&[('-', "a")])),
        case("directory with contents", with_hidden(header("a", b'5').size(1024)), Refused),
        case("link with contents", with_hidden(header("a", b'2').link("b").size(1024)), Refused),
        case("pipe with contents", with_hidden(header("a", b'6').size(1024)), Refused),
        case(
            "hard link with a size",
            tar().file("a", "x").header(header("b", b'1').link("a").size(1024)).file("c", "y"),
            Stored(&[('-', "a"), ('-', "b"), ('-', "c")]),
        ),
        case("lone block of zeros", tar().file("a", "x").raw(&[0; 512]).file("b", "y"), Refused),
        case("entries behind the end", tar().file("a", "x").raw(&[0; 1024]).file("b", "y"), Stored(&[('-', "a")])),
        Case { name: "no end mark", tar: tar().file("a", "x").without_end(), expected: Stored(&[('-', "a")]) },
        Case {
            name: "cut in the contents",
            tar: tar().file("a", "x").without_end()[..700].to_vec(),
            expected: Refused,
        },
        Case { name: "cut in the header", tar: tar().file("a", "x").without_end()[..100].to_vec(), expected: Refused },
        Case { name: "extension without entry", tar: tar().pax(&[("path", b"a")]).end(), expected: Refused },
        case("wrong checksum", tar().raw(&[b'x'; 512]), Refused),
        case("negative size", tar().header(header("a", b'0').raw(124, b"-0000000001")), Refused),
        case(
            "size of eight exbibytes",
            tar().header(header("a", b'0').raw(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
            Refused,
        ),
        case(
            "size beyond 64 bits",
            tar().header(header("a", b'0').raw(124, b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
            Refused,
        ),
        case("PAX size beyond 64 bits", tar().pax(&[("size", b"99999999999999999999")]).file("a", "x"), Refused),
        case("PAX size with a sign", tar().pax(&[("size", b"+1")]).file("a", "x"), Refused),
        case("PAX record too long", tar().extension(b'x', b"99 path=a\n").file("a", "x"), Refused),
        case("PAX record without length", tar().extension(b'x', b"path=a\n").file("a", "x"), Refused),
        case("owner beyond 32 bits", tar().pax(&[("uid", b"4294967296")]).file("a", "x"), Refused),
        case("owner -1", tar().pax(&[("uid", b"4294967295")]).file("a", "x"), Refused),
        case("volume label", tar().header(header("label", b'V').gnu()), Refused),
        case("multi-volume", tar().header(header("part", b'M').gnu()), Refused),
        case("Solaris PAX", tar().extension(b'X', b"10 path=b\n").file("a", "x"), Refused),
    ]
}

/// What asks for more than it brings.
fn bombs() -> Vec<Case> {
    let huge = (8_u64 << 60).to_string();
    let sparse = |records: &[(&str, &[u8])]| tar().pax(records).header(header("a", b'0'));
    vec![
        case(
            "sparse of 8 EiB",
            sparse(&[("GNU.sparse.size", huge.as_bytes()), ("GNU.sparse.numblocks", b"0"), ("GNU.sparse.map", b"")]),
            Refused,
        ),
        case("sparse without size", sparse(&[("GNU.sparse.map", b"0,0")]), Refused),
        case("sparse map beyond the file", sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"5,10")]), Refused),
        case(
            "sparse map that overlaps",
            sparse(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,10,5,10")]),
            Refused,
        ),
        case(
            "sparse map with odd numbers",
            sparse(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,10,5")]),
            Refused,
        ),
        case(
            "sparse map larger than the contents",
            sparse(&[("GNU.sparse.size", b"4096"), ("GNU.sparse.map", b"0,512")]),
            Refused,
        ),
        case(
            "sparse map that wraps",
            sparse(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"18446744073709551615,10")]),
            Refused,
        ),
        case(
            "sparse directory",
            tar().pax(&[("GNU.sparse.size", b"0"), ("GNU.sparse.map", b"")]).directory("a"),
            Refused,
        ),
        case(
            "sparse 1.0 without a map",
            tar()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"0")])
                .file("a", "x"),
            Refused,
        ),
        case("PAX header of 2 MiB", tar().extension(b'x', &vec![b'x'; 2 << 20]).file("a", "x"), Refused),
        case("long name of 2 MiB", tar().extension(b'L', &vec![b'x'; 2 << 20]).file("a", "x"), Refused),
        case("attribute too large", tar().pax(&[("SCHILY.xattr.user.x", &vec![b'v'; 70_000])]).file("a", "x"), Refused),
        case(
            "attribute with a long name",
            tar().pax(&[(format!("SCHILY.xattr.user.{}", "n".repeat(255)).as_str(), b"v")]).file("a", "x"),
            Refused,
        ),
    ]
}

/// Whiteouts, honest and not.
fn whiteouts() -> Vec<Case> {
    vec![
        case("whiteout", tar().file(".wh.a", ""), Stored(&[('c', "a")])),
        case("whiteout of dot", tar().file(".wh..", ""), Refused),
        case("whiteout of dot-dot", tar().file(".wh...", ""), Refused),
        case("whiteout of nothing", tar().file(".wh.", ""), Refused),
        case("whiteout outside", tar().file("../.wh.canary", ""), Refused),
        case("whiteout as a directory", tar().file(".wh.../x", ""), Refused),
        case("whiteout through a link outwards", tar().symlink("a", "../canary").file("a/.wh.file", ""), Refused),
        case(
            "opaque through a link",
            tar().directory("d").symlink("a", "d").file("a/.wh..wh..opq", ""),
            Stored(&[('l', "a"), ('d', "d")]),
        ),
        case("opaque through a link outwards", tar().symlink("a", "../canary").file("a/.wh..wh..opq", ""), Refused),
        case("whiteout and file", tar().file("a", "x").file(".wh.a", ""), Stored(&[('-', "a")])),
        case("whiteout, then directory", tar().file(".wh.a", "").file("a/b", "x"), Stored(&[('d', "a"), ('-', "a/b")])),
        case(
            "AUFS metadata",
            tar().directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file("a", "x"),
            Stored(&[('-', "a")]),
        ),
        case("overlayfs whiteout", tar().header(header("a", b'3').device(0, 0)), Stored(&[('c', "a")])),
        case("hard link to a whiteout", tar().file(".wh.a", "").hard_link("b", "a"), Refused),
        case("device number too large", tar().header(header("a", b'3').device(0o10000, 0)), Refused),
    ]
}

pub(crate) fn corpus() -> Vec<Case> {
    [escapes(), names(), disagreements(), bombs(), whiteouts()].into_iter().flatten().collect()
}
