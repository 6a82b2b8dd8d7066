//! `conex image copy`: an image to another engine, an archive or an OCI layout, without a registry and without what is there already.
//!
//! ```text
//! this engine ─▶ inspect: the layers ─▶ the other: which are missing? ─▶ save without the others ─▶ load there, all or nothing
//! ```

mod destination;
mod layout;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api_client::{Body, Client, Upload};
use clap::ArgMatches;
use oci::DiffId;
use serde_json::json;

use self::destination::Destination;
use super::image::copy_out;
use super::{After, Entry, exactly, print};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::Switch;
use crate::flags::{Flag, on, short};
use crate::output::progress::{self, Mode};
use crate::output::units;

const FLAGS: &[Flag] = &[short('q', "quiet", Switch, "Show nothing")];

pub(super) const COPY: Entry = Entry {
    name: "copy",
    about: "Copy an image to another engine, an archive or an OCI layout; only layers that are missing there are sent",
    operands: "IMAGE ssh://[USER@]HOST|unix://PATH|tcp://HOST:PORT|CONTEXT|docker-archive:FILE|oci-archive:FILE|oci:DIR[:NAME]",
    after: After::Options,
    flags: &[FLAGS],
    run: copy,
};

/// What went over.
struct Copied {
    layers: usize,
    /// Those that were sent.
    sent: usize,
    bytes: u64,
}

fn copy(context: &Context, matches: &ArgMatches) -> Outcome {
    let [image, wanted] = exactly(matches)?;
    let destination = Destination::parse(&wanted)?;
    let client = context.client()?;
    let layers = layers_of(client, &image)?;
    let copied = match &destination {
        Destination::Engine(_) | Destination::Context(_) => {
            let other = destination.client(context)?;
            to_engine(client, &other, &image, &layers, on(matches, "quiet"))?
        }
        Destination::Archive(file) => {
            let (body, bytes) = Counted::new(client.image_save(std::slice::from_ref(&image), "")?);
            copy_out(body, Some(file))?;
            Copied { layers: layers.len(), sent: layers.len(), bytes: bytes.load(Ordering::Relaxed) }
        }
        Destination::Layout { folder, name } => to_layout(client, &image, &layers, folder, name.as_deref())?,
    };
    tell(matches, &image, &wanted, &copied)?;
    Ok(0)
}

fn tell(matches: &ArgMatches, image: &str, wanted: &str, copied: &Copied) -> io::Result<()> {
    let Copied { layers, sent, bytes } = copied;
    if on(matches, "json") {
        let told = json!({
            "Image": image, "Destination": wanted, "Layers": layers, "LayersSent": sent, "BytesSent": bytes,
        });
        return print(&format!("{told}\n"));
    }
    if on(matches, "quiet") {
        return Ok(());
    }
    print(&format!("Copied {image} to {wanted}: {sent} of {layers} layers, {} sent\n", units::size(*bytes)))
}

/// An image's layers, each once.
fn layers_of(client: &Client, image: &str) -> Result<Vec<DiffId>, Failure> {
    let mut layers = Vec::new();
    for text in client.image_inspect(image)?.root_fs.layers {
        let layer = DiffId::parse(&text).map_err(|error| Failure::usage(format!("the engine's answer: {error}")))?;
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    Ok(layers)
}

/// Times that the receiver is asked what it has: a layer may go between its answer and the image's arrival.
const ATTEMPTS: usize = 2;

fn to_engine(
    client: &Client,
    other: &Client,
    image: &str,
    layers: &[DiffId],
    is_quiet: bool,
) -> Result<Copied, Failure> {
    let mode = if is_quiet { Mode::Silent } else { Mode::Errors };
    for attempt in 1.. {
        let missing = match other.layers_missing(layers) {
            Ok(missing) => missing,
            // Another engine than ours can only get everything.
            Err(error) if error.is_not_found() => {
                let (body, bytes) = Counted::new(client.image_save(&[image.to_owned()], "")?);
                progress::show(other.image_load(upload(body), true, "")?, mode)?;
                let (layers, bytes) = (layers.len(), bytes.load(Ordering::Relaxed));
                return Ok(Copied { layers, sent: layers, bytes });
            }
            Err(error) => return Err(error.into()),
        };
        let without: Vec<DiffId> = layers.iter().filter(|layer| !missing.contains(layer)).copied().collect();
        let (body, bytes) = Counted::new(client.image_send(image, &without)?);
        match progress::show(other.image_receive(upload(body))?, mode) {
            Err(failure) if attempt < ATTEMPTS && failure.message.contains("missing from the archive") => {}
            result => {
                result?;
                let bytes = bytes.load(Ordering::Relaxed);
                return Ok(Copied { layers: layers.len(), sent: missing.len(), bytes });
            }
        }
    }
    unreachable!("the last attempt returns")
}

fn to_layout(
    client: &Client,
    image: &str,
    layers: &[DiffId],
    folder: &std::path::Path,
    name: Option<&str>,
) -> Result<Copied, Failure> {
    let failed = |error: layout::LayoutError| Failure::usage(format!("cannot write {}: {error}", folder.display()));
    let layout = layout::Layout::open(folder).map_err(failed)?;
    let present = layout.present(layers).map_err(failed)?;
    let body = match client.image_send(image, &present) {
        Ok(body) => body,
        Err(error) if error.is_not_found() => client.image_save(&[image.to_owned()], "")?,
        Err(error) => return Err(error.into()),
    };
    let (body, bytes) = Counted::new(body);
    layout.take(body, name).map_err(failed)?;
    let sent = layers.len() - present.len();
    Ok(Copied { layers: layers.len(), sent, bytes: bytes.load(Ordering::Relaxed) })
}

fn upload(source: Counted) -> Upload {
    Upload { source: Box::new(source), length: None }
}

/// A body whose bytes are counted as they pass.
struct Counted {
    body: Body,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    fn new(body: Body) -> (Counted, Arc<AtomicU64>) {
        let bytes = Arc::default();
        (Counted { body, bytes: Arc::clone(&bytes) }, bytes)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buffer)?;
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
