//! The layer of a command with a fixed clock: no file in it is younger than the clock, so that it is the same whenever it is made.

use std::io;

use archive::tar::{EntryKind, Header, Reader, Writer};
use oci::DiffId;
use snapshots::Snapshotter;

use crate::error::BuildError;
use crate::time::Clock;

/// The same layer with times that are not after the clock's.
pub(crate) fn clamp(snapshotter: &dyn Snapshotter, layer: &DiffId, clock: Clock) -> Result<DiffId, BuildError> {
    let mut reader = Reader::new(snapshotter.open_tar(layer)?);
    let mut writer = Writer::new(snapshotter.stage()?);
    rewrite(&mut reader, &mut writer, clock).map_err(BuildError::io("cannot set the times of a layer"))?;
    let written = writer.finish().map_err(BuildError::io("cannot write a layer"))?;
    Ok(written.finish(None)?.diff_id)
}

fn rewrite<W: io::Write>(
    reader: &mut Reader<Box<dyn io::Read + Send>>,
    writer: &mut Writer<W>,
    clock: Clock,
) -> io::Result<()> {
    while let Some(mut entry) = reader.next_entry()? {
        entry.metadata.mtime = clock.at_most(entry.metadata.mtime);
        writer.start(&Header { path: &entry.path, metadata: &entry.metadata, kind: &entry.kind })?;
        if matches!(entry.kind, EntryKind::File { .. }) {
            io::copy(reader, writer)?;
        }
    }
    Ok(())
}
