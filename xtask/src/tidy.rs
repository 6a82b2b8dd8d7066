//! Rules about the code that no compiler knows.
//!
//! 1. Arrows go down: a crate depends only on crates of the rows below it (the table [`LAYERS`]).
//! 2. `unsafe` stands in crate `linux` alone.
//! 3. The runtime program links no async runtime, no HTTP and no TLS.
//! 4. No TODO without an issue number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::process::{cargo, say, workspace};

/// The rows of the architecture, bottom first. A crate may depend on rows below its own only.
const LAYERS: &[&[&str]] = &[
    &["linux", "durable", "oci"],
    &[
        "cgroups",
        "seccomp",
        "archive",
        "erofs",
        "dockerfile",
        "netlink",
        "tls",
        "trust",
        "monitor-protocol",
        "docker-api",
        "dns",
    ],
    &["nftables", "snapshots", "runtime", "registry"],
    &["network", "images", "monitor"],
    &["builder"],
    &["engine", "api-client"],
    &["buildkit"],
    &["api-server", "cli"],
    &["conex", "conex-runtime"],
];

/// What one row may still see of its own row, and why.
const ALLOWED: &[(&str, &str)] = &[];

/// Crates that the program started once per container must not contain.
const NOT_IN_RUNTIME: &[&str] = &["tokio", "hyper", "rustls", "rusqlite", "tracing"];

/// `cargo xtask tidy [--sizes]`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => check(),
        [flag] if flag == "--sizes" => sizes(),
        other => bail!("tidy takes --sizes or nothing, not {other:?}"),
    }
}

/// Fails with every broken rule listed.
pub(crate) fn check() -> Result<()> {
    let graph = dependencies()?;
    let mut broken = directions(&graph);
    broken.extend(runtime_contents()?);
    for file in rust_files(&workspace())? {
        let text = std::fs::read_to_string(&file)?;
        let name = file.strip_prefix(workspace()).unwrap_or(&file).to_path_buf();
        broken.extend(loose_ends(&name, &text));
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("{} rules are broken:\n{}", broken.len(), broken.join("\n"));
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Which of our crates depends on which, development dependencies left out.
fn dependencies() -> Result<Graph> {
    let output = cargo().args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let arrows = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|d| d["kind"].is_null()).map(name).filter(|n| ours.contains(n)).collect()
    };
    Ok(packages.iter().map(|package| (name(package), arrows(package))).collect())
}

fn directions(graph: &Graph) -> Vec<String> {
    let row = |krate: &str| LAYERS.iter().position(|row| row.contains(&krate));
    let mut broken = Vec::new();
    for (krate, needs) in graph {
        let Some(own) = row(krate) else { continue };
        for need in needs {
            let allowed = ALLOWED.contains(&(krate.as_str(), need.as_str()));
            match row(need) {
                Some(below) if below < own || allowed => {}
                _ => broken.push(format!("{krate} depends on {need}, which is not below it")),
            }
        }
    }
    broken
}

fn runtime_contents() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let output = cargo()
        .args(["tree", "--package", "conex-runtime", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let linked: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    for name in NOT_IN_RUNTIME.iter().filter(|name| linked.contains(**name)) {
        broken.push(format!("conex-runtime links {name}"));
    }
    Ok(broken)
}

/// Broken rules that a look at the text finds.
fn loose_ends(file: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let in_linux = file.starts_with("crates/linux");
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{}:{}", file.display(), index + 1);
        let code = line.split("//").next().unwrap_or_default();
        if !in_linux && !file.starts_with("xtask") && code.contains("unsafe {") {
            broken.push(format!("{}: unsafe outside of crate linux", place()));
        }
        let todo = ["TO", "DO"].concat();
        if line.contains(&format!("// {todo}")) && !line.contains('#') {
            broken.push(format!("{}: {todo} without an issue number", place()));
        }
    }
    broken
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|line| root.join(line)).filter(|path| path.is_file()).collect())
}

/// Prints the longest files and functions: a look before a commit, not a limit.
fn sizes() -> Result<()> {
    let mut files = Vec::new();
    let mut functions = Vec::new();
    for file in rust_files(&workspace())? {
        let text = std::fs::read_to_string(&file)?;
        let name = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
        files.push((text.lines().count(), name.clone()));
        functions.extend(function_lengths(&text).into_iter().map(|(lines, title)| (lines, format!("{name}: {title}"))));
    }
    for (title, mut list) in [("files", files), ("functions", functions)] {
        list.sort();
        say(&format!("longest {title}:"));
        list.iter().rev().take(15).for_each(|(lines, name)| say(&format!("{lines:6}  {name}")));
    }
    Ok(())
}

/// Length and first line of each function, by the indentation that rustfmt gives.
fn function_lengths(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn ", "const fn "];
        if !words.iter().any(|word| code.starts_with(word)) {
            continue;
        }
        let closing = format!("{}}}", &line[..line.len() - code.len()]);
        if let Some(length) = lines[start..].iter().position(|l| *l == closing) {
            found.push((length + 1, code.trim_end_matches(" {").to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_upwards_is_found() {
        let graph = Graph::from([("linux".into(), BTreeSet::from(["engine".into()]))]);
        assert_eq!(directions(&graph), ["linux depends on engine, which is not below it"]);
    }

    #[test]
    fn unsafe_code_is_found_outside_of_linux_only() {
        let text = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(loose_ends(Path::new("crates/engine/src/lib.rs"), text).len(), 1);
        assert_eq!(loose_ends(Path::new("crates/linux/src/lib.rs"), text).len(), 0);
    }

    #[test]
    fn functions_are_measured_by_their_closing_brace() {
        let text = "impl A {\n    fn f() {\n        1\n    }\n}\n";
        assert_eq!(function_lengths(text), [(3, "fn f()".to_owned())]);
    }
}
