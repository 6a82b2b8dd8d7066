//! Users and groups in the files of an image: the first line is what was asked for, an empty line parts passwd from group.
#![no_main]

use std::os::fd::AsFd;
use std::sync::LazyLock;

static ROOT: LazyLock<(tempfile::TempDir, std::fs::File)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a scratch folder");
    std::fs::create_dir(folder.path().join("etc")).expect("a new folder");
    let root = std::fs::File::open(folder.path()).expect("it is there");
    (folder, root)
});

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (user, files) = text.split_once('\n').unwrap_or((text, ""));
    let (passwd, group) = files.split_once("\n\n").unwrap_or((files, ""));
    for (name, content) in [("passwd", passwd), ("group", group)] {
        std::fs::write(ROOT.0.path().join("etc").join(name), content).expect("it is ours");
    }
    runtime::fuzzing::user(ROOT.1.as_fd(), user, passwd);
});
