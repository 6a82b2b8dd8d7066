//! Prints how fast layers are stored and mounted: `import_speed BACKEND DIRECTORY TAR…` (erofs, erofs-loop, directories).

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use snapshots::{Backend, Choice, Snapshotter};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let backend = match arguments.next().as_deref() {
        Some("erofs") => Backend::ErofsFile,
        Some("erofs-loop") => Backend::ErofsLoop,
        Some("directories") => Backend::Directories,
        other => return Err(format!("unknown back end {other:?}").into()),
    };
    let directory = arguments.next().ok_or("no directory given")?;
    let directory = Path::new(&directory);
    let store = snapshots::open(&directory.join("root"), &directory.join("run"), Choice::Only(backend))?;
    arguments.try_for_each(|tar| measure(&*store, Path::new(&tar)))
}

fn measure(store: &dyn Snapshotter, tar: &Path) -> Result<(), Failure> {
    let mut output = io::stdout();
    let begin = Instant::now();
    let mut writer = store.stage()?;
    let mut source = archive::compression::decompress(Box::new(File::open(tar)?))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match io::Read::read(&mut source, &mut buffer)? {
            0 => break,
            length => writer.write_all(&buffer[..length])?,
        }
    }
    let streamed = begin.elapsed();
    let layer = writer.finish(None)?;
    let stored = begin.elapsed();
    let megabytes = layer.tar_bytes as f64 / 1e6;
    let begin = Instant::now();
    let lower = store.lower_dirs(&[layer.diff_id])?.remove(0);
    let mounted = begin.elapsed();
    let usage =
        store.list()?.into_iter().find(|usage| usage.diff_id == layer.diff_id).ok_or("the layer is not listed")?;
    writeln!(output, "{}", tar.display())?;
    writeln!(
        output,
        "  {megabytes:.0} MB, streamed in {streamed:.2?}, stored in {stored:.2?}: {:.0} MB/s",
        megabytes / stored.as_secs_f64()
    )?;
    writeln!(
        output,
        "  besides the tar {} kB, mounted in {mounted:.2?} at {}",
        (usage.disk_bytes.saturating_sub(layer.tar_bytes)) / 1000,
        lower.display()
    )?;
    writeln!(output, "  root directory: mode {:o}", std::fs::metadata(&lower)?.mode())?;
    Ok(())
}
