use std::time::Duration;

use super::*;
use crate::environment::Environment;
use crate::instruction::{CommandLine, HealthcheckTest, Network, PairForm, Security, Seen};
use crate::lines::Escape;

fn steps(text: &str) -> Vec<Instruction> {
    let dockerfile = parse(&format!("FROM scratch\n{text}")).unwrap_or_else(|error| panic!("{text}: {error}"));
    dockerfile.stages[0].steps.iter().map(|step| step.instruction.clone()).collect()
}

fn step(text: &str) -> Instruction {
    let mut steps = steps(text);
    assert_eq!(steps.len(), 1, "{text}");
    steps.remove(0)
}

fn expanded(text: &str, variables: &[(&str, &str)]) -> Instruction {
    let mut environment = Environment::default();
    for (name, value) in variables {
        environment.set(name, value);
    }
    step(text).expand(Escape::Backslash, &environment, &mut Seen::default()).unwrap()
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn stages_and_arguments() {
    let text = "# syntax=docker/dockerfile:1 extra\n# comment\nARG V=1\nARG W\nFROM --platform=$BUILDPLATFORM a:$V AS Build\n\
                RUN make\nfrom scratch\ncopy --from=build /x /\n";
    let dockerfile = parse(text).unwrap();
    assert_eq!(dockerfile.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
    let names: Vec<_> = dockerfile.arguments.iter().map(|a| (a.name.as_str(), a.default.as_deref())).collect();
    assert_eq!(names, [("V", Some("1")), ("W", None)]);
    let [first, second] = dockerfile.stages.as_slice() else { panic!("two stages") };
    assert_eq!((first.base.as_str(), first.name.as_deref()), ("a:$V", Some("build")));
    assert_eq!(first.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!(first.lines, LineRange { first: 5, last: 5 });
    assert_eq!(second.steps[0].source, "copy --from=build /x /");
}

#[test]
fn lines_are_continued_across_comments_and_empty_lines() {
    let text = "RUN a \\\n  # comment\n\n  b \\  \n  c\\\\\nENV X=1";
    let all = steps(text);
    let Instruction::Run(run) = &all[0] else { panic!("{all:?}") };
    assert_eq!(run.command, CommandLine::Shell("a   b   c\\\\".into()));
    assert_eq!(parse(&format!("FROM x\n{text}")).unwrap().empty_continuations, [6]);
}

#[test]
fn a_backtick_may_continue_lines() {
    let dockerfile = parse("# escape=`\nFROM x\nENV A=b\\ `\n C=`\"d\n").unwrap();
    let Instruction::Env(pairs) = &dockerfile.stages[0].steps[0].instruction else { panic!() };
    assert_eq!(pairs.iter().map(|p| p.value.as_str()).collect::<Vec<_>>(), ["b\\", "`\"d"]);
}

#[test]
fn commands_have_two_forms() {
    let exec = |list: &[&str]| CommandLine::Exec(list.iter().map(|&s| s.to_owned()).collect());
    assert_eq!(step("CMD [\"a\", \"b\"]"), Instruction::Cmd(exec(&["a", "b"])));
    assert_eq!(step("CMD [\"a\", ]"), Instruction::Cmd(CommandLine::Shell("[\"a\", ]".into())));
    assert_eq!(step("CMD []"), Instruction::Cmd(exec(&[])));
    assert_eq!(step("ENTRYPOINT exec  top -b"), Instruction::Entrypoint(CommandLine::Shell("exec  top -b".into())));
    let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
    assert_eq!(CommandLine::Shell("a b".into()).arguments(&shell), ["/bin/sh", "-c", "a b"]);
}

#[test]
fn pairs_in_both_forms() {
    let values = |instruction| match instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            pairs.into_iter().map(|pair| (pair.name, pair.value, pair.form)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let pair = |name: &str, value: &str, form| (name.to_owned(), value.to_owned(), form);
    assert_eq!(
        values(expanded("ENV A=$B C='x y' D=\"$B z\" E=a\\ b", &[("B", "b")])),
        [
            pair("A", "b", PairForm::Assigned),
            pair("C", "x y", PairForm::Assigned),
            pair("D", "b z", PairForm::Assigned),
            pair("E", "a b", PairForm::Assigned)
        ]
    );
    assert_eq!(values(expanded("ENV A  b c = $B", &[("B", "b")])), [pair("A", "b c = b", PairForm::Spaced)]);
    assert_eq!(values(expanded("LABEL \"a b\"=c", &[])), [pair("a b", "c", PairForm::Assigned)]);
}

#[test]
fn copy_and_add() {
    let Instruction::Copy(copy) = expanded(
        "COPY --from=b --chown=$U:1 --chmod=u+x --link --parents --exclude=*.o --exclude=x a $U /d/",
        &[("U", "me")],
    ) else {
        panic!()
    };
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("b"), Some("me:1"), Some("u+x"))
    );
    assert!(copy.link && copy.parents);
    assert_eq!(copy.exclude, ["*.o", "x"]);
    assert_eq!(
        (copy.sources.paths, copy.sources.destination),
        (vec!["a".to_owned(), "me".to_owned()], "/d/".to_owned())
    );
    let Instruction::Copy(copy) = step("COPY [\"a b\", \"/c d\"]") else { panic!() };
    assert_eq!((copy.sources.paths, copy.sources.destination), (vec!["a b".to_owned()], "/c d".to_owned()));
    let Instruction::Add(add) = step("ADD --checksum=sha256:0 --keep-git-dir=true --unpack=false http://x/y /z") else {
        panic!()
    };
    assert_eq!((add.keep_git_dir, add.unpack, add.checksum.as_deref()), (Some(true), Some(false), Some("sha256:0")));
}

#[test]
fn heredocs() {
    let Instruction::Run(run) = step("RUN <<EOF\necho $A\nEOF") else { panic!() };
    assert_eq!(run.heredocs[0].content, "echo $A\n");
    let text = "COPY <<a <<-\"b\" /d/\n$X\na\n\t\t$X\n\tb\nUSER x";
    let all = parse(&format!("FROM x\n{text}")).unwrap();
    let mut environment = Environment::default();
    environment.set("X", "1");
    let step = &all.stages[0].steps[0];
    assert_eq!(step.lines, LineRange { first: 2, last: 6 });
    let Instruction::Copy(copy) =
        step.instruction.expand(Escape::Backslash, &environment, &mut Seen::default()).unwrap()
    else {
        panic!()
    };
    let files: Vec<_> = copy.sources.files.iter().map(|f| (f.name.as_str(), f.content.as_str())).collect();
    assert_eq!(files, [("a", "1\n"), ("b", "$X\n")]);
    assert_eq!(all.stages[0].steps[1].instruction, Instruction::User("x".into()));
    let Instruction::OnBuild(trigger) = steps("ONBUILD RUN <<E\nx\nE\n")[0].clone() else { panic!() };
    assert_eq!(trigger, "RUN <<E\nx\nE");
    let Instruction::Run(run) = crate::parse_trigger(&trigger).unwrap() else { panic!() };
    assert_eq!(run.heredocs[0].content, "x\n");
    // Not a heredoc: JSON form, other instructions, arithmetic shifts.
    assert!(matches!(step_of("CMD echo <<EOF"), Instruction::Cmd(_)));
    assert!(matches!(step_of("RUN [\"a\", \"<<EOF\"]"), Instruction::Run(_)));
}

fn step_of(text: &str) -> Instruction {
    step(text)
}

#[test]
fn run_flags() {
    let Instruction::Run(run) = step("RUN --mount=type=cache,target=/c --network=none --security=insecure -- --x")
    else {
        panic!()
    };
    assert_eq!((run.network, run.security), (Network::None, Security::Insecure));
    assert_eq!(run.command, CommandLine::Shell("--x".into()));
    assert_eq!(run.flags, ["mount", "network", "security"]);
    let Instruction::Run(run) = step("RUN \"--mount\" x") else { panic!() };
    assert_eq!(run.command, CommandLine::Shell("\"--mount\" x".into()));
}

#[test]
fn health_checks() {
    let Instruction::Healthcheck(check) = step("HEALTHCHECK --interval=1m30s --retries=2 CMD [\"a\"]") else {
        panic!()
    };
    assert_eq!((check.interval, check.retries), (Duration::from_secs(90), 2));
    assert_eq!(check.test, HealthcheckTest::Command(CommandLine::Exec(vec!["a".into()])));
    let Instruction::Healthcheck(check) = step("healthcheck none") else { panic!() };
    assert_eq!(check.test, HealthcheckTest::None);
}

#[test]
fn words_that_become_several() {
    assert_eq!(
        expanded("EXPOSE $P 1", &[("P", "80 81/udp")]),
        Instruction::Expose(["80", "81/udp", "1"].map(String::from).into())
    );
    assert_eq!(
        expanded("VOLUME [\"/a b\", \"$X\"]", &[("X", "/x y")]),
        Instruction::Volume(["/a b", "/x y"].map(String::from).into())
    );
    assert_eq!(expanded("WORKDIR /a b/$X", &[("X", "c")]), Instruction::Workdir("/a b/c".into()));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let line = |text: &str| message(&format!("FROM x\n\n{text}"));
    let cases = [
        ("FROMM y", "unknown instruction: FROMM (did you mean FROM?)"),
        ("frmo y", "unknown instruction: frmo (did you mean from?)"),
        ("BLA", "unknown instruction: BLA"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", "invalid name for build stage: \"1b\", name can't start with a number or contain symbols"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        ("LABEL =x", "LABEL names can not be blank"),
        (
            "COPY x",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("COPY --form=x a b", "unknown flag: --form (did you mean from?)"),
        ("COPY --from a b", "missing a value on flag: --from"),
        ("COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe"),
        ("COPY --from=a --from=b a b", "duplicate flag specified: --from"),
        ("COPY a <<EOF\nEOF", "COPY cannot accept a heredoc as a destination"),
        ("RUN <<EOF\nx", "unterminated heredoc"),
        ("RUN --network=x y", "invalid network mode \"x\""),
        ("RUN --security=x y", "security \"x\" is not valid"),
        ("CMD [\"a\", 1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK curl", "Unknown type \"CURL\" in HEALTHCHECK (try CMD)"),
        ("VOLUME [\" \"]", "VOLUME specified can not be an empty string"),
        ("ARG =x", "ARG names can not be blank"),
    ];
    for (text, expected) in cases {
        assert_eq!(line(text), format!("dockerfile parse error on line 3: {expected}"), "{text}");
    }
    assert_eq!(message(""), "the Dockerfile cannot be empty");
    assert_eq!(message("# x\n"), "file with no instructions");
    assert_eq!(message("ARG x"), "dockerfile contains no stages to build");
    assert_eq!(message("RUN x"), "dockerfile parse error on line 1: no build stage in current context");
    assert_eq!(
        message("# escape=x\nFROM x"),
        "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\"
    );
    assert_eq!(
        message("# check=a\n# check=b\nFROM x"),
        "dockerfile parse error on line 2: only one check parser directive can be used"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "((FROM|RUN|COPY|ENV|ONBUILD|HEALTHCHECK|ARG|# escape=`) ?[ -~\\n\\\\\"'<=]{0,30}\\n?){0,6}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_command_comes_through_as_it_is(command in "[a-z0-9 ;|&$(){}'\"=./_-]{1,60}") {
        let command = command.trim();
        proptest::prop_assume!(!command.is_empty() && !command.starts_with("--"));
        let Instruction::Run(run) = step(&format!("RUN {command}")) else { panic!() };
        proptest::prop_assert_eq!(run.command, CommandLine::Shell(command.to_owned()));
    }
}
