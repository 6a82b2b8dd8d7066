//! Many images: how long an engine whose process was killed takes to be there again.

use std::fs;

use anyhow::{Result, ensure};

use super::Options;
use super::measure::run_one;
use super::memory::resident;
use super::report::{Bound, Report};
use super::scale::in_parallel;
use super::world::World;

/// How many there are, by and by.
const COUNTS: [usize; 3] = [0, 500, 2000];

/// Runs the bench.
pub(crate) fn run(world: &mut World, options: &Options) -> Result<Report> {
    let mut report = Report::new();
    ensure!(world.has_conex(), "images is of Conex alone");
    let rounds = options.rounds.clamp(1, 5);
    let mut made = 0;
    let mut medians = Vec::new();
    for count in COUNTS {
        let first = made;
        in_parallel(count - first, |number| import(world, first + number))?;
        made = count;
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(world.restart_conex()?.as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        report.figure(format!("killed with {count} images, to the first answer, median"), median, "s");
        report.figure(format!("daemon's memory, {count} images"), resident(super::scale::pid(world)?)?, "MiB");
        medians.push(median);
    }
    report.promise("killed with 2,000 images, seconds to ready", Bound::AtMost, 1.0, medians.last().copied());
    Ok(report)
}

/// An image of one layer that no other has.
fn import(world: &World, number: usize) -> Result<()> {
    let folder = world.state().join(format!("image-{number}"));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("number"), format!("{number}\n"))?;
    let archive = folder.with_extension("tar");
    let mut tar = vec!["tar".to_owned(), "-cf".to_owned(), archive.display().to_string()];
    tar.extend(["-C".to_owned(), folder.display().to_string(), "number".to_owned()]);
    run_one(&tar)?;
    run_one(&world.conex_line(["import", &archive.display().to_string(), &format!("many:{number}")]))?;
    fs::remove_file(&archive)?;
    Ok(fs::remove_dir_all(&folder)?)
}
