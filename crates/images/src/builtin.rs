//! The image that is there without a network and without a file: `hello`.

use std::io::Write;
use std::sync::Arc;

use archive::tar::{Metadata, Timestamp, Writer};
use oci::image::{ContainerConfig, History, ImageConfig, Platform, RootFs};
use oci::{DiffId, Reference};

use crate::create::CreateError;
use crate::elf::{Machine, printing_program};
use crate::{Image, ImageStore, NewImage};

/// The name of the built-in image. Whoever looks for it and finds nothing calls [`ImageStore::ensure_builtin`].
pub const HELLO: &str = "docker.io/library/hello:latest";

const PROGRAM: &str = "hello";
const CREATED: &str = "2026-11-21T00:00:00Z";
const CREATED_SECONDS: i64 = 1_795_219_200;
const ENVIRONMENT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TEXT: &str = "
Hello from a container.

This program saw only its own processes and files, and it has ended already.
Its image is built into Conex. Yours come in files:

  conex load -i IMAGE.tar         take in what docker save or conex save wrote
  conex run -it --rm IMAGE sh     look around inside
  conex ps -a                     see what runs, and what has ended

conex --help lists the rest, and every command explains itself with --help.

";

impl ImageStore {
    /// The built-in image, made now unless its name is taken.
    pub fn ensure_builtin(&self) -> Result<Arc<Image>, CreateError> {
        if let Ok(image) = self.resolve(HELLO) {
            return Ok(image);
        }
        let _lease = self.lease();
        let mut writer = self.snapshotter.stage()?;
        writer.write_all(&layer()).map_err(CreateError::LayerWrite)?;
        let layer = writer.finish(None)?;
        let config = serde_json::to_vec(&config(layer.diff_id)).map_err(CreateError::Config)?;
        let reference = Reference::parse(HELLO).expect("the name is right");
        self.create_with_its_names(NewImage { config, references: vec![reference], parent: None })
    }
}

fn layer() -> Vec<u8> {
    let machine = if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 };
    let mtime = Timestamp { seconds: CREATED_SECONDS, nanoseconds: 0 };
    let metadata = Metadata { mode: 0o755, mtime, ..Metadata::default() };
    let mut tar = Writer::new(Vec::new());
    let written = tar.file(PROGRAM.as_bytes(), &metadata, &printing_program(machine, TEXT));
    written.and_then(|()| tar.finish()).expect("memory takes every byte")
}

fn config(layer: DiffId) -> ImageConfig {
    let platform = Platform::host();
    ImageConfig {
        created: Some(CREATED.to_owned()),
        architecture: platform.architecture,
        os: platform.os,
        config: ContainerConfig {
            env: Some(vec![ENVIRONMENT.to_owned()]),
            cmd: Some(vec![format!("/{PROGRAM}")]),
            ..ContainerConfig::default()
        },
        rootfs: RootFs { diff_ids: vec![layer], ..RootFs::default() },
        history: vec![History {
            created: Some(CREATED.to_owned()),
            created_by: "conex".to_owned(),
            comment: "built into Conex".to_owned(),
            ..History::default()
        }],
        ..ImageConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_fits_a_terminal() {
        for line in TEXT.lines() {
            assert!(line.len() < 80, "{} columns: {line}", line.len());
        }
    }

    #[test]
    fn its_time_is_written_twice_alike() {
        assert_eq!(CREATED.parse::<jiff::Timestamp>().unwrap().as_second(), CREATED_SECONDS);
    }
}
