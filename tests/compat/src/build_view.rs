//! A build as a person sees it on a terminal.

use harness::{Engine, Terminal};

use crate::build::folder;

/// What stands on a terminal of this size once all of this has come.
fn screen(bytes: &str, (rows, columns): (u16, u16)) -> Vec<String> {
    let mut parser = vt100::Parser::new(rows, columns, 0);
    parser.process(bytes.as_bytes());
    parser.screen().rows(0, columns).map(|row| row.trim_end().to_owned()).filter(|row| !row.is_empty()).collect()
}

fn begin(engine: &Engine, context: &std::path::Path, variables: &[(&str, &str)]) -> Terminal {
    let program = engine.conex(["build", "-t", "seen"]).arg(context).env("LC_ALL", "C.UTF-8");
    Terminal::start(variables.iter().fold(program, |program, (name, value)| program.env(name, value)))
}

const DOCKERFILE: &str = "FROM busybox AS one\nCOPY word /word\nRUN echo a line of one; sleep 1\n\
    FROM busybox AS two\nRUN printf 'over\\rwritten \\033[31mred\\n'; sleep 1; echo the end of two\n\
    FROM busybox\nCOPY --from=one /word /\nCOPY --from=two /etc/group /\n";

#[test]
fn steps_move_side_by_side_and_stay_when_they_are_done() {
    let engine = Engine::with_busybox();
    let context = folder(&engine, "view", &[("Dockerfile", DOCKERFILE), ("word", "x")]);
    let mut terminal = begin(&engine, &context, &[]);
    let mut seen = terminal.wait_for("written red");
    seen += &terminal.wait_for("running");
    let moving = screen(&seen, (24, 80));
    let find = |lines: &[String], text: &str| lines.iter().position(|line| line.contains(text));
    // The step, below it what its command has written last, and at the end the whole.
    let step = find(&moving, "[two 2/2] RUN printf").unwrap_or_else(|| panic!("{moving:#?}"));
    assert!(moving[step].ends_with('s') && moving[step + 1] == "  │ written red", "{moving:#?}");
    assert!(
        moving.last().is_some_and(|line| line.starts_with("building: ") && line.contains("running")),
        "{moving:#?}"
    );
    seen += &terminal.wait_for("Successfully tagged");
    seen += &terminal.wait_for("from the cache\r\n");
    assert_eq!(terminal.exit_code(), 0);
    let done = screen(&seen, (24, 80));
    for title in
        ["✓ [one 2/3] COPY word /word", "✓ [one 3/3] RUN echo a line of one", "✓ [stage-2 3/3] COPY --from=two"]
    {
        assert!(find(&done, title).is_some(), "{title}: {done:#?}");
    }
    for left in ["building: ", "│", "⠋", "[internal]"] {
        assert_eq!(find(&done, left), None, "{left}: {done:#?}");
    }
    // Times stand below one another, behind the longest title.
    let ends: Vec<usize> = done.iter().filter(|line| line.starts_with('✓')).map(|line| line.chars().count()).collect();
    assert!(ends.iter().all(|end| *end <= 80), "{done:#?}");
    // The second time all of it was there, and nothing moves for long.
    let mut again = begin(&engine, &context, &[]);
    let text = again.wait_for("from the cache\r\n");
    assert_eq!(again.exit_code(), 0);
    let again = screen(&text, (24, 80));
    let cached = find(&again, "• [one 3/3] RUN echo a line of one").unwrap_or_else(|| panic!("{again:#?}"));
    assert!(again[cached].contains(" cached "), "{again:#?}");
    engine.finish();
}

#[test]
fn a_failure_shows_the_end_of_its_output_and_ends_the_view() {
    let engine = Engine::with_busybox();
    let lines = "FROM busybox\nRUN for i in $(seq 40); do echo line $i; done; exit 7\n";
    let context = folder(&engine, "failed", &[("Dockerfile", lines)]);
    let mut terminal = begin(&engine, &context, &[("NO_COLOR", "1")]);
    terminal.resize(24, 50);
    let text = terminal.wait_for("returned a non-zero code: 7");
    assert_eq!(terminal.exit_code(), 7);
    // Without colours, whatever else moves the cursor.
    assert!(!text.contains("\u{1b}[3") && !text.contains("\u{1b}[2m"), "{text:?}");
    let shown = screen(&text, (40, 80));
    let failed =
        shown.iter().position(|line| line.starts_with("✗ [2/2] RUN for i in")).unwrap_or_else(|| panic!("{shown:#?}"));
    assert_eq!((shown[failed + 1].as_str(), shown[failed + 20].as_str()), ("  │ line 21", "  │ line 40"), "{shown:#?}");
    assert!(!shown.iter().any(|line| line.starts_with("building: ")), "{shown:#?}");
    engine.finish();
}
