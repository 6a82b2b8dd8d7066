//! Contexts: one store for both command lines.

use harness::Engine;

#[test]
fn both_command_lines_use_one_store() {
    let engine = Engine::with_busybox();
    let home = engine.host().scratch().join("home");
    let plain = |program: &str, arguments: &[&str]| {
        let program = if program == "docker" { engine.host().program("docker") } else { engine.host().conex() };
        program.args(arguments).run()
    };
    let host = format!("host={}", engine.address());
    for (maker, other, name) in [("conex", "docker", "ours"), ("docker", "conex", "theirs")] {
        plain(maker, &["context", "create", name, "--description", "for a test", "--docker", &host]).expect_code(0);
        let listed =
            plain(other, &["context", "ls", "--format", "{{.Name}}|{{.Description}}|{{.DockerEndpoint}}"]).text();
        assert!(listed.lines().any(|line| line == format!("{name}|for a test|{}", engine.address())), "{listed}");
        for program in [maker, other] {
            let images = plain(program, &["--context", name, "images", "--format", "{{.Repository}}"]).expect_code(0);
            assert_eq!(images.text(), "busybox", "{program}");
        }
        plain(maker, &["context", "use", name]).expect_code(0);
        assert_eq!(plain(other, &["context", "show"]).text(), name);
        assert_eq!(plain("conex", &["images", "--format", "{{.Repository}}"]).expect_code(0).text(), "busybox");
    }
    // Out of one store and back by the other command line.
    let file = home.join("x.dockercontext").display().to_string();
    plain("conex", &["context", "export", "ours", &file]).expect_code(0);
    plain("docker", &["context", "import", "again", &file]).expect_code(0);
    let exported = home.join("y.dockercontext").display().to_string();
    plain("docker", &["context", "export", "again", &exported]).expect_code(0);
    plain("conex", &["context", "import", "back", &exported]).expect_code(0);
    let inspected = plain("conex", &["context", "inspect", "back", "--format", "{{.Endpoints.docker.Host}}"]).text();
    assert_eq!(inspected, engine.address());
    let by_variable = engine.host().conex().env("DOCKER_CONTEXT", "back").args(["images", "-q"]).run();
    assert!(!by_variable.expect_code(0).text().is_empty());
    for (arguments, message) in [
        (&["context", "use", "nosuch"][..], "context not found"),
        (&["context", "create", "default", "--docker", "host=unix:///x"], "reserved context name"),
        (&["context", "create", "ours", "--docker", "host=unix:///x"], "already exists"),
        (&["context", "create", "a/b", "--docker", "host=unix:///x"], "is invalid, names should match"),
        (&["context", "rm", "theirs"], "is in use"),
        (&["context", "rm", "default"], "cannot be removed"),
        (&["--context", "ours", "-H", "unix:///x", "ps"], "cannot specify both --host and --context"),
    ] {
        let refused = plain("conex", arguments);
        assert!(refused.code != 0 && refused.error_text().contains(message), "{refused:?}");
    }
    plain("conex", &["context", "rm", "-f", "theirs", "ours", "again", "back"]).expect_code(0);
    assert_eq!(plain("docker", &["context", "ls", "-q"]).text(), "default");
    assert_eq!(plain("docker", &["context", "show"]).text(), "default");
    engine.finish();
}
