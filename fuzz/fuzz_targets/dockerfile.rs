//! A Dockerfile and a `.dockerignore` from strangers: read, expanded, checked; nothing panics or takes long.
#![no_main]

use dockerfile::ignore::Ignore;
use dockerfile::{Environment, Instruction, Seen};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(ignore) = Ignore::parse(text) {
        ignore.matches("a/b/c");
    }
    let Ok(dockerfile) = dockerfile::parse(text) else { return };
    let environment = Environment::of(&["A=1".to_owned(), "B=".to_owned()]);
    for step in dockerfile.stages.iter().flat_map(|stage| &stage.steps) {
        let _ = step.instruction.expand(dockerfile.directives.escape, &environment, &mut Seen::default());
        if let Instruction::Run(run) = &step.instruction {
            let _ = run.mounts(&mut |word| Ok(word.to_owned()));
        }
    }
});
