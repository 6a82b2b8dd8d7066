//! `docker import`: an image of one layer, from a tar of a root file system.

use std::io::{BufReader, Read};
use std::sync::Arc;

use jiff::Timestamp;
use oci::image::{ContainerConfig, History, ImageConfig, Platform, RootFs};
use oci::{DiffId, Reference};

use crate::change::{Change, ChangeError};
use crate::create::CreateError;
use crate::layer::{LayerError, PIECE_BYTES};
use crate::load::platform;
use crate::store::TagError;
use crate::{ErrorKind, Image, ImageStore, NewImage};

/// How to import.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportRequest {
    /// The image's name; without one it is dangling.
    pub reference: Option<Reference>,
    /// Instructions that make its configuration.
    pub changes: Vec<Change>,
    /// What its history says.
    pub message: String,
    /// What it is for, if not for this machine.
    pub platform: Option<Platform>,
}

/// Why a tar is not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A change cannot be applied.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The name cannot be given.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The image would be for another operating system.
    #[error("operating system is not supported: {0}")]
    OperatingSystem(String),
    /// The tar cannot be read or stored.
    #[error("cannot import the tar")]
    Layer(#[from] LayerError),
    /// The image cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl ImportError {
    /// What it means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ImportError::Change(_) | ImportError::OperatingSystem(_) => ErrorKind::InvalidParameter,
            ImportError::Layer(error) => error.kind(),
            ImportError::Tag(error) => error.kind(),
            ImportError::Create(error) => error.kind(),
        }
    }
}

impl ImageStore {
    /// Makes an image of the tar that `input` gives, compressed or not.
    pub fn import(&self, input: Box<dyn Read + Send>, request: ImportRequest) -> Result<Arc<Image>, ImportError> {
        let mut config = ContainerConfig::default();
        Change::apply_all(&request.changes, &mut config)?;
        if let Some(reference) = &request.reference {
            crate::store::check_tag(reference)?;
        }
        let platform = request.platform.unwrap_or_else(Platform::host);
        if platform.os != "linux" {
            return Err(ImportError::OperatingSystem(platform::display(&platform)));
        }
        let _lease = self.lease();
        let input = BufReader::with_capacity(PIECE_BYTES, input);
        let layer = self.add_layer(Box::new(input), None)?.diff_id;
        linux::allocator::give_back();
        let config = serde_json::to_vec(&image_config(config, &platform, layer, request.message));
        let config = config.map_err(CreateError::Config)?;
        Ok(self.create_imported(NewImage {
            config,
            references: request.reference.into_iter().collect(),
            parent: None,
        })?)
    }
}

fn image_config(config: ContainerConfig, platform: &Platform, layer: DiffId, comment: String) -> ImageConfig {
    let created = Some(Timestamp::now().to_string());
    ImageConfig {
        created: created.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os: platform.os.clone(),
        config,
        rootfs: RootFs { diff_ids: vec![layer], ..RootFs::default() },
        history: vec![History { created, comment: comment.clone(), ..History::default() }],
        comment,
        ..ImageConfig::default()
    }
}
