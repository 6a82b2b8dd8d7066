//! Pulls from registries whose every word is known.

use std::sync::{Arc, Mutex};

use harness::{Engine, busybox_tar};
use oci::Digest;

use crate::fake_server::{Reply, serve};
use crate::picture::{Dress, Picture, noise, tar_of};
use crate::waits::wait_until;

const ADDRESS: &str = "127.0.0.1:5000";

/// The names of the files that keep layers.
fn layer_files(engine: &Engine) -> Vec<String> {
    let folder = std::fs::read_dir(engine.root_folder().join("layers/sha256")).unwrap();
    folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_layer_in_another_dress_is_not_fetched_again() {
    let engine = Engine::start();
    let payload = tar_of(&[("payload", &noise(1, 700_000))]);
    let dresses = [Dress::Gzip, Dress::Zstd, Dress::ZstdChunked, Dress::Plain];
    let pictures: Vec<Picture> =
        dresses.iter().map(|dress| Picture::new(&[(busybox_tar(), *dress), (payload.clone(), *dress)])).collect();
    let blobs: Vec<String> =
        pictures.iter().flat_map(|picture| &picture.blobs).map(|blob| Digest::of(blob).to_string()).collect();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, known) = (Arc::clone(&asked), pictures.clone());
    serve(ADDRESS, move |request| {
        log.lock().unwrap().push(request.target.clone());
        // /v2/REPOSITORY/…: a repository for each dress.
        let number = request.target.split('/').nth(2).and_then(|name| name.strip_prefix('r')?.parse::<usize>().ok());
        known[number.unwrap_or(0)].answer(request)
    });
    let fetched = || {
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        asked.iter().filter(|target| blobs.iter().any(|blob| target.ends_with(blob.as_str()))).count()
    };
    let names: Vec<String> = (0..dresses.len()).map(|number| format!("{ADDRESS}/r{number}:1")).collect();
    let hash = Digest::of(&noise(1, 700_000)).hex();
    for (name, dress) in names.iter().zip(dresses) {
        // Alone each is fetched and read.
        engine.docker(["pull", name]).ok();
        assert_eq!(fetched(), 2, "{dress:?}");
        assert!(
            engine.docker(["run", "--rm", "--network", "none", name, "sha256sum", "/payload"]).ok().contains(&hash)
        );
        // Beside it no other is.
        for other in names.iter().filter(|other| *other != name) {
            let pulled = engine.docker(["pull", other]).ok();
            // It is the same image, so nothing is said of layers either.
            assert_eq!((pulled.lines().count(), fetched()), (4, 0), "{dress:?}: {pulled}");
            engine.docker(["rmi", other]).run();
        }
        engine.docker(["rmi", "-f", name]).ok();
        engine.docker(["image", "prune", "-af"]).ok();
        fetched();
    }
    engine.finish();
}

#[test]
fn a_pull_that_is_called_off_leaves_nothing() {
    let engine = Engine::start();
    let picture = Picture::new(&[
        (tar_of(&[("one", &noise(1, 100_000))]), Dress::Gzip),
        (tar_of(&[("two", &noise(2, 100_000))]), Dress::Plain),
    ]);
    let stalled = Digest::of(&picture.blobs[1]).to_string();
    let one = format!("{}.tar", Digest::of(&picture.layers[0]).hex());
    serve(ADDRESS, move |request| match request.target.ends_with(&stalled) {
        true => Reply::Stalled(picture.blobs[1][..50_000].to_vec(), picture.blobs[1].len()),
        false => picture.answer(request),
    });
    let before = layer_files(&engine);
    let mut client = engine.docker(["pull", &format!("{ADDRESS}/x:1")]).spawn();
    wait_until("the first layer comes", || layer_files(&engine).contains(&one));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_until("it goes again", || layer_files(&engine) == before);
    assert_eq!(engine.docker(["images", "-aq", ADDRESS]).ok(), "");
    engine.finish();
}

#[test]
fn our_own_pull_says_how_fast_it_went() {
    let engine = Engine::start();
    let picture = Picture::new(&[(tar_of(&[("one", &noise(1, 100_000))]), Dress::Gzip)]);
    serve(ADDRESS, move |request| picture.answer(request));
    let name = format!("{ADDRESS}/x:1");
    let pulled = engine.conex(["pull", &name]).ok();
    let rate = pulled.lines().find(|line| line.starts_with("Rate: ")).unwrap_or_else(|| panic!("{pulled}"));
    assert!(rate.contains("B/s (") && rate.contains(" unpacked), limited by "), "{rate}");
    assert!(!engine.conex(["pull", &name]).ok().contains("Rate: "), "nothing came");
    engine.docker(["rmi", &name]).ok();
    assert!(!engine.docker(["pull", &name]).ok().contains("Rate"), "it is not Docker's");
    engine.finish();
}
