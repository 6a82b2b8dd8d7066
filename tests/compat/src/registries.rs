//! Images from and to a real registry, with a second client beside ours.

use std::io::Write as _;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use harness::{Engine, EngineOptions, Host, busybox_tar};

use crate::fake_server::{Reply, serve};
use crate::registry_server::{Certificates, RegistryServer, Settings, engine_and_registry};

/// What another client says about an image in a registry.
fn skopeo_digest(engine: &Engine, name: &str) -> String {
    let source = format!("docker://{name}");
    engine.host().program("skopeo").args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &source]).ok()
}

fn digest_in(text: &str) -> String {
    let after = text.split("sha256:").nth(1).unwrap_or_else(|| panic!("no digest in {text}"));
    format!("sha256:{}", &after[..64])
}

#[test]
fn push_pull_and_run() {
    let (engine, registry) = engine_and_registry();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    let name = registry.name("test/busybox:1");
    docker(&["tag", "busybox", &name]);
    let id = docker(&["image", "inspect", "-f", "{{.Id}}", "busybox"]);
    let pushed = docker(&["push", &name]);
    assert!(pushed.contains("The push refers to repository [127.0.0.1:5000/test/busybox]"), "{pushed}");
    assert!(pushed.contains(": Pushed") && pushed.contains("1: digest: sha256:"), "{pushed}");
    let digest = digest_in(&pushed);
    assert_eq!(skopeo_digest(&engine, &name), digest);
    let again = docker(&["push", &name]);
    assert!(again.contains(": Layer already exists") && digest_in(&again) == digest, "{again}");
    let second = registry.name("other/repository:2");
    docker(&["tag", "busybox", &second]);
    let mounted = docker(&["push", &second]);
    assert!(mounted.contains(": Mounted from test/busybox") && digest_in(&mounted) == digest, "{mounted}");

    docker(&["rmi", "-f", &id]);
    let pulled = docker(&["pull", &name]);
    let lines: Vec<&str> = pulled.lines().collect();
    assert_eq!(lines[0], "1: Pulling from test/busybox", "{pulled}");
    for step in ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"] {
        assert!(lines[1..].iter().any(|line| line.ends_with(&format!(": {step}"))), "{step}: {pulled}");
    }
    let status = format!("Status: Downloaded newer image for {name}");
    assert_eq!(lines[lines.len() - 3..], [&format!("Digest: {digest}"), &*status, &*name], "{pulled}");
    assert_eq!(docker(&["image", "inspect", "-f", "{{.Id}}", &name]), id);
    let repository = name.trim_end_matches(":1");
    let digests = docker(&["image", "inspect", "-f", "{{json .RepoDigests}}", &name]);
    assert_eq!(digests, format!("[\"{repository}@{digest}\"]"));
    let up_to_date = docker(&["pull", &name]);
    assert!(up_to_date.contains(&format!("Status: Image is up to date for {name}")), "{up_to_date}");

    // Another name of the same image is there at once; and by digest, and by `run`.
    let known = docker(&["pull", &second]);
    let status = format!("Status: Downloaded newer image for {second}");
    let expected = ["2: Pulling from other/repository", &format!("Digest: {digest}"), &status, &second].join("\n");
    assert_eq!(known, expected);
    docker(&["rmi", "-f", &id]);
    assert!(docker(&["pull", &format!("{repository}@{digest}")]).contains("Status: Downloaded newer image"));
    docker(&["rmi", "-f", &id]);
    assert_eq!(engine.docker(["run", "--rm", &name, "echo", "works"]).ok(), "works");
    // Clients send whole seconds: the last events lie before the next one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let until = (now + 1).to_string();
    let events =
        docker(&["events", "--since", "0", "--until", &until, "--filter", "event=pull", "--format", "{{.Actor.ID}}"]);
    assert!(events.lines().any(|line| line == name), "{events}");
    drop(registry);
    engine.finish();
}

#[test]
fn all_tags_platforms_and_what_is_not_there() {
    let (engine, registry) = engine_and_registry();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    let repository = registry.name("test/tags");
    for tag in ["a", "b"] {
        docker(&["tag", "busybox", &format!("{repository}:{tag}")]);
    }
    docker(&["push", "--all-tags", &repository]);
    docker(&["rmi", &format!("{repository}:a"), &format!("{repository}:b")]);
    // What is said of all of them is said once.
    let pulled = docker(&["pull", "-a", &repository]);
    assert_eq!(pulled.matches("Status: ").count(), 1, "{pulled}");
    assert!(pulled.ends_with(&format!("Status: Downloaded newer image for {repository}\n{repository}")), "{pulled}");
    let listed = docker(&["images", "--format", "{{.Tag}}", &repository]);
    assert!(listed.contains('a') && listed.contains('b'), "{listed}");

    let missing = engine.docker(["pull", &format!("{repository}:nosuch")]).fails(1);
    let expected = format!("manifest for {repository}:nosuch not found: manifest unknown: manifest unknown");
    assert!(missing.contains(&expected), "{missing}");
    let refused = engine.docker(["pull", "127.0.0.1:1/nobody"]).fails(1);
    let expected = "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused";
    assert!(refused.contains(expected), "{refused}");
    let unknown = engine.docker(["pull", "--platform", "foo", &format!("{repository}:a")]).fails(1);
    assert!(unknown.contains("\"foo\": unknown operating system or architecture: invalid argument"), "{unknown}");
    let other = engine.docker(["pull", "--platform", "linux/s390x", &format!("{repository}:a")]).fails(1);
    let words = "was found but does not match the specified platform: wanted linux/s390x, actual: linux/amd64";
    assert!(other.contains(words), "{other}");
    let untagged = engine.docker(["push", &format!("{repository}:nosuch")]).fails(1);
    assert!(untagged.contains(&format!("tag does not exist: {repository}:nosuch")), "{untagged}");
    let absent = engine.docker(["push", &registry.name("never/seen")]).fails(1);
    assert!(absent.contains("An image does not exist locally with the tag: 127.0.0.1:5000/never/seen"), "{absent}");
    drop(registry);
    engine.finish();
}

#[test]
fn what_another_client_pushes_keeps_its_digest() {
    let (engine, registry) = engine_and_registry();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    let archive = engine.host().files().join("busybox.tar");
    let archive = archive.to_str().unwrap();
    for (format, compression) in [("oci", "zstd"), ("oci", "gzip"), ("v2s2", "gzip")] {
        // Different bytes each time: the other client remembers which compressed blob is which layer.
        let script = format!("echo {format} {compression} > /made");
        docker(&["run", "--name", "maker", "busybox", "sh", "-c", &script]);
        let tar = engine.docker(["export", "maker"]).run().expect_code(0).stdout;
        engine.docker(["import", "-", "made"]).input(tar).ok();
        docker(&["rm", "maker"]);
        docker(&["save", "-o", archive, "made"]);
        let name = registry.name(&format!("foreign/{format}:{compression}"));
        let copy = ["copy", "-q", "--dest-tls-verify=false", "--format", format, "--dest-compress-format", compression];
        let (source, target) = (format!("docker-archive:{archive}"), format!("docker://{name}"));
        engine.host().program("skopeo").args(copy).args([&source, &target]).ok();
        let digest = skopeo_digest(&engine, &name);
        docker(&["rmi", "-f", "made"]);
        assert!(docker(&["pull", &name]).contains(&format!("Digest: {digest}")));
        assert_eq!(engine.docker(["run", "--rm", &name, "echo", format]).ok(), format);
        // To another repository of the same registry: the same blobs, the same manifest.
        let moved = registry.name(&format!("moved/{format}:{compression}"));
        docker(&["tag", &name, &moved]);
        assert_eq!(digest_in(&docker(&["push", &moved])), digest, "{format} {compression}");
        assert_eq!(skopeo_digest(&engine, &moved), digest);
        docker(&["rmi", "-f", &name, &moved]);
    }
    drop(registry);
    engine.finish();
}

#[test]
fn a_private_authority_and_a_password() {
    let host = Host::new();
    host.program("ip").args(["address", "add", "10.99.0.1/32", "dev", "lo"]).ok();
    let certificates = Certificates::make(&host, "10.99.0.1");
    let registry = RegistryServer::start(
        &host,
        Settings {
            address: Some("10.99.0.1:5000".to_owned()),
            tls: Some((certificates.certificate.clone(), certificates.key.clone())),
            ..Settings::with_password(&host)
        },
    );
    let folder = host.files().join("certs.d");
    let arguments = vec!["--registry-certs".to_owned(), folder.to_str().unwrap().to_owned()];
    let engine = Engine::start_in(host, EngineOptions { arguments });
    engine.import_busybox();
    let name = registry.name("private/busybox:1");
    engine.docker(["tag", "busybox", &name]).ok();
    let login = |password: &str| {
        engine.docker(["login", "-u", "user", "--password-stdin", &registry.address]).input(password).run()
    };
    let unknown = login("secret").expect_code(1).error_text();
    assert!(unknown.contains("x509: certificate signed by unknown authority"), "{unknown}");

    std::fs::create_dir_all(folder.join(&registry.address)).unwrap();
    std::fs::copy(&certificates.authority, folder.join(&registry.address).join("ca.crt")).unwrap();
    let anonymous = engine.docker(["push", &name]).fails(1);
    assert!(anonymous.contains("no basic auth credentials"), "{anonymous}");
    let wrong = login("wrong").expect_code(1).error_text();
    assert!(wrong.contains("failed with status: 401 Unauthorized"), "{wrong}");
    assert!(login("secret").expect_code(0).text().contains("Login Succeeded"));
    let digest = digest_in(&engine.docker(["push", &name]).ok());
    let authorities = folder.join(&registry.address);
    let credentials = ["inspect", "--creds", "user:secret", "--cert-dir", authorities.to_str().unwrap()];
    let source = format!("docker://{name}");
    let seen = engine.host().program("skopeo").args(credentials).args(["--format", "{{.Digest}}", &source]).ok();
    assert_eq!(seen, digest);
    engine.docker(["rmi", "-f", "busybox", &name]).ok();
    assert!(engine.docker(["pull", &name]).ok().contains(&digest));
    engine.docker(["logout", &registry.address]).ok();
    let denied = engine.docker(["pull", &name]).fails(1);
    assert!(denied.contains("no basic auth credentials"), "{denied}");
    drop(registry);
    engine.finish();
}

#[test]
fn a_pull_heals_what_the_disk_has_spoilt() {
    let (engine, registry) = engine_and_registry();
    let name = registry.name("test/busybox:1");
    engine.docker(["tag", "busybox", &name]).ok();
    let digest = digest_in(&engine.docker(["push", &name]).ok());
    let layer = engine.docker(["image", "inspect", "-f", "{{index .RootFS.Layers 0}}", &name]).ok();
    let tar =
        engine.root_folder().join("layers/sha256").join(layer.trim_start_matches("sha256:")).with_extension("tar");
    let mut bytes = std::fs::read(&tar).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&tar, &bytes).unwrap();
    assert_ne!(engine.conex(["image", "verify"]).run().code, 0);
    let pulled = engine.docker(["pull", &name]).ok();
    assert!(pulled.contains(": Pull complete") && pulled.contains(&digest), "{pulled}");
    assert_eq!(engine.conex(["image", "verify"]).run().code, 0);
    assert_eq!(engine.docker(["run", "--rm", &name, "echo", "whole"]).ok(), "whole");
    drop(registry);
    engine.finish();
}

/// Changes a byte in the middle of a file.
fn spoil(file: &std::path::Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, &bytes).unwrap();
}

#[test]
fn a_repair_fetches_what_is_wrong_from_where_it_came() {
    let (mut engine, registry) = engine_and_registry();
    let name = registry.name("test/busybox:1");
    engine.docker(["tag", "busybox", &name]).ok();
    let digest = digest_in(&engine.docker(["push", &name]).ok());
    let inspect = |what: &str| engine.docker(["image", "inspect", "-f", what, &name]).ok();
    let (layer, id) = (inspect("{{index .RootFS.Layers 0}}"), inspect("{{.Id}}"));
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let tar = engine.root_folder().join("layers/sha256").join(hex(&layer)).with_extension("tar");
    let config = engine.root_folder().join("blobs/sha256").join(hex(&id));
    let repaired = |engine: &Engine| engine.conex(["image", "verify", "--repair"]).run();

    spoil(&tar);
    let told = repaired(&engine).expect_code(0).text();
    assert!(
        told.contains("repaired layer") && told.contains("fetched again from 127.0.0.1:5000/test/busybox"),
        "{told}"
    );
    assert_eq!(engine.docker(["run", "--rm", &name, "echo", "whole"]).ok(), "whole");
    spoil(&config);
    let told = repaired(&engine).expect_code(0).text();
    assert!(told.contains("repaired image") && !told.contains("fetched"), "it is still known: {told}");

    // A daemon that has never seen it whole, with another name that must not be touched.
    engine.stop();
    spoil(&config);
    engine.launch();
    assert!(engine.docker(["run", "--rm", &name, "true"]).fails(125).contains("damaged"));
    let told = repaired(&engine).expect_code(0).text();
    assert!(told.contains(&format!("fetched again from 127.0.0.1:5000/test/busybox@{digest}")), "{told}");
    assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "whole"]).ok(), "whole");
    assert_eq!(engine.docker(["image", "inspect", "-f", "{{.Id}}", &name]).ok(), id);

    // What nobody has is said.
    drop(registry);
    spoil(&tar);
    let told = repaired(&engine).expect_code(1).text();
    assert!(told.contains("damaged layer") && told.contains("connection refused"), "{told}");
    engine.docker(["rmi", "-f", &id]).ok();
    engine.import_busybox();
    spoil(&tar);
    let told = repaired(&engine).expect_code(1).text();
    assert!(told.contains("no registry is known to have it"), "{told}");
    engine.finish();
}

#[test]
fn questions_to_a_registry() {
    let (engine, registry) = engine_and_registry();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0);
    let name = registry.name("test/busybox:1");
    docker(&["tag", "busybox", &name]);
    let digest = digest_in(&docker(&["push", &name]).text());
    let api = |path: &str| engine.get(path).run().expect_code(0).json();
    let described = api(&format!("/distribution/{name}/json"));
    assert_eq!(described["Descriptor"]["digest"], digest, "{described}");
    assert_eq!(described["Platforms"][0]["os"], "linux", "{described}");
    let inspected = docker(&["manifest", "inspect", "--insecure", &name]).json();
    assert_eq!(inspected["schemaVersion"], 2, "{inspected}");
    let search = engine.docker(["search", &registry.name("busybox")]).fails(1);
    assert!(search.contains("Unexpected status code 404"), "{search}");
    let outside = api("/images/search?term=x&limit=200");
    assert_eq!(outside["message"], "limit 200 is outside the range of [1, 100]");
    drop(registry);
    engine.finish();
}

#[test]
fn a_mirror_is_asked_first() {
    let host = Host::new();
    let registry = RegistryServer::start(&host, Settings::default());
    let arguments = [
        "--registry-mirror",
        "http://127.0.0.1:1",
        "--registry-mirror",
        "http://127.0.0.1:5000",
        "--registry-mirror",
        "example.invalid=http://127.0.0.1:5000",
    ];
    let engine = Engine::start_in(host, EngineOptions { arguments: arguments.map(str::to_owned).to_vec() });
    let layer = engine.host().files().join("layer.tar");
    std::fs::write(&layer, busybox_tar()).unwrap();
    engine.docker(["import", layer.to_str().unwrap(), &registry.name("library/tiny:1")]).ok();
    engine.docker(["push", &registry.name("library/tiny:1")]).ok();
    engine.docker(["rmi", &registry.name("library/tiny:1")]).ok();
    let pulled = engine.docker(["pull", "tiny:1"]).ok();
    assert!(pulled.contains("1: Pulling from library/tiny") && pulled.contains("image for tiny:1"), "{pulled}");
    let pulled = engine.docker(["pull", "example.invalid/library/tiny:1"]).ok();
    assert!(pulled.contains("image for example.invalid/library/tiny:1"), "{pulled}");
    drop(registry);
    engine.finish();
}

/// Gives tokens to `user` with the password `secret`, and to whoever has the refresh token `kept`.
fn token_server(host: &Host, certificates: &Certificates) {
    let der =
        host.program("openssl").args(["x509", "-in", certificates.authority.to_str().unwrap(), "-outform", "der"]);
    let chain = STANDARD.encode(der.run().expect_code(0).stdout);
    let key = certificates.key.clone();
    serve("127.0.0.1:5001", move |request| {
        let asked = format!("{}&{}", request.target.replace("%2C", ","), request.body.replace("%2C", ","));
        let is_known = request.authorization == "Basic dXNlcjpzZWNyZXQ=" || asked.contains("refresh_token=kept");
        if !is_known {
            return Reply::json(401, r#"{"details":"incorrect username or password"}"#);
        }
        let token = signed_token(&asked, &chain, &key);
        Reply::json(
            200,
            serde_json::json!({ "token": token, "access_token": token, "refresh_token": "kept" }).to_string(),
        )
    });
}

/// A JSON web token for the scopes in a query.
fn signed_token(query: &str, chain: &str, key: &std::path::Path) -> String {
    let scopes = query.split(['&', '?']).filter_map(|pair| pair.strip_prefix("scope=repository:"));
    let access: Vec<_> = scopes
        .flat_map(|scopes| scopes.split("%20repository:"))
        .filter_map(|scope| scope.rsplit_once(':'))
        .map(|(name, actions)| {
            let actions: Vec<&str> = actions.split(',').collect();
            serde_json::json!({ "type": "repository", "name": name, "actions": actions })
        })
        .collect();
    let header = serde_json::json!({ "typ": "JWT", "alg": "RS256", "x5c": [chain] });
    let claims = serde_json::json!({
        "iss": "tests", "sub": "user", "aud": "registry", "exp": 4_000_000_000_u64, "nbf": 1, "iat": 1, "jti": "1", "access": access,
    });
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-sign"]).arg(key).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut openssl = openssl.spawn().unwrap();
    openssl.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
    let signature = openssl.wait_with_output().unwrap().stdout;
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn tokens_for_names_and_tokens_for_tokens() {
    let host = Host::new();
    let certificates = Certificates::self_signed_rsa(&host);
    token_server(&host, &certificates);
    let auth = format!(
        "  token: {{realm: \"http://127.0.0.1:5001/token\", service: registry, issuer: tests, rootcertbundle: {}}}\n",
        certificates.authority.display()
    );
    let registry = RegistryServer::start(&host, Settings { auth: Some(auth), ..Settings::default() });
    let engine = Engine::start_in(host, EngineOptions::default());
    engine.import_busybox();
    let (name, second) = (registry.name("test/busybox:1"), registry.name("test/second:1"));
    engine.docker(["tag", "busybox", &name]).ok();
    engine.docker(["tag", "busybox", &second]).ok();
    let anonymous = engine.docker(["push", &name]).fails(1);
    assert!(anonymous.contains("incorrect username or password"), "{anonymous}");
    let login = |password: &str| {
        engine.docker(["login", "-u", "user", "--password-stdin", &registry.address]).input(password).run()
    };
    assert!(login("wrong").expect_code(1).error_text().contains("incorrect username or password"));
    assert!(login("secret").expect_code(0).text().contains("Login Succeeded"));
    let file = engine.host().scratch().join("home/.docker/config.json");
    let kept = std::fs::read_to_string(file).unwrap();
    assert!(kept.contains("\"identitytoken\": \"kept\""), "{kept}");
    let digest = digest_in(&engine.docker(["push", &name]).ok());
    let mounted = engine.docker(["push", &second]).ok();
    assert!(mounted.contains("Mounted from test/busybox") && digest_in(&mounted) == digest, "{mounted}");
    engine.docker(["rmi", "-f", &name, &second]).ok();
    assert!(engine.docker(["pull", &second]).ok().contains(&digest));
    drop(registry);
    engine.finish();
}

/// A credential helper that keeps everything in one file: `server username secret` a line.
const HELPER: &str = r#"#!/bin/sh
file="$HOME/kept"
touch "$file"
case "$1" in
    store) tr -d '{}"' | tr ',' '\n' | sed 's/^[A-Za-z]*://' | tr '\n' ' ' >> "$file"; echo >> "$file" ;;
    get) read -r server; line=$(grep "^$server " "$file") || { echo "credentials not found in native keychain"; exit 1; }
         set -- $line; printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}\n' "$1" "$2" "$3" ;;
    erase) read -r server; grep -v "^$server " "$file" > "$file.new"; mv "$file.new" "$file" ;;
    list) awk 'BEGIN { printf "{" } { printf "%s\"%s\":\"%s\"", (NR > 1 ? "," : ""), $1, $2 } END { print "}" }' "$file" ;;
esac
"#;

#[test]
fn our_own_command_line() {
    let host = Host::new();
    let registry = RegistryServer::start(&host, Settings::with_password(&host));
    let engine = Engine::start_in(host, EngineOptions::default());
    engine.import_busybox();
    let (name, list) = (registry.name("test/busybox:1"), registry.name("other/list:1"));
    engine.conex(["tag", "busybox", &name]).ok();
    assert!(engine.conex(["push", &name]).fails(1).contains("no basic auth credentials"));
    let login = |password: &str| {
        engine.conex(["login", "-u", "user", "--password-stdin", &registry.address]).input(password).run()
    };
    assert!(login("wrong").expect_code(1).error_text().contains("failed with status: 401 Unauthorized"));
    let logged_in = login("secret").expect_code(0);
    assert_eq!(logged_in.text(), "Login Succeeded");
    assert!(logged_in.error_text().contains("stored unencrypted"), "{logged_in:?}");
    let pushed = engine.conex(["push", &name]).ok();
    let digest = digest_in(&pushed);
    assert!(pushed.contains(&format!("1: digest: {digest} size: ")), "{pushed}");
    engine.conex(["rmi", "-f", "busybox", &name]).ok();
    let ran = engine.conex(["run", "--rm", &name, "echo", "pulled"]).run().expect_code(0);
    assert_eq!(ran.text(), "pulled");
    assert!(ran.error_text().contains("1: Pulling from test/busybox"), "{ran:?}");
    assert_eq!(engine.conex(["pull", "-q", &name]).ok(), name);
    let layer = engine.docker(["image", "inspect", "-f", "{{index .RootFS.Layers 0}}", &name]).ok();
    let layer = layer.trim_start_matches("sha256:");
    spoil(&engine.root_folder().join("layers/sha256").join(layer).with_extension("tar"));
    let repair = ["image", "verify", "--repair"];
    let nobody = engine.conex(repair).env("DOCKER_CONFIG", "/does/not/exist").run().expect_code(1);
    assert!(nobody.text().contains("no basic auth credentials"), "{}", nobody.text());
    assert!(engine.conex(repair).ok().contains("fetched again from"), "with what is known for the registry");

    // A list of manifests in another repository, of which docker and we see the same.
    engine.conex(["manifest", "create", "--insecure", &list, &name]).ok();
    engine.conex(["manifest", "annotate", "--os", "linux", "--arch", "amd64", "--variant", "v1", &list, &name]).ok();
    engine.conex(["manifest", "push", "--insecure", "--purge", &list]).ok();
    let ours = engine.conex(["manifest", "inspect", "--insecure", &list]).run().expect_code(0).json();
    let theirs = engine.docker(["manifest", "inspect", "--insecure", &list]).run().expect_code(0).json();
    assert_eq!(ours["manifests"][0]["digest"], digest, "{ours}");
    assert_eq!(theirs["manifests"][0]["platform"]["variant"], "v1", "{theirs}");
    engine.conex(["rmi", &name]).ok();
    assert!(engine.conex(["pull", &list]).ok().contains("Downloaded newer image"));
    assert_eq!(
        engine.conex(["logout", &registry.address]).ok(),
        format!("Removing login credentials for {}", registry.address)
    );

    // The same with a helper.
    let home = engine.host().scratch().join("home");
    let helper = home.join("docker-credential-test");
    std::fs::write(&helper, HELPER).unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(home.join(".docker/config.json"), r#"{"credsStore":"test","mine":1}"#).unwrap();
    let path = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
    let conex = |words: &[&str]| engine.conex(words).env("PATH", &path);
    let login = ["login", "-u", "user", "--password-stdin", &registry.address];
    let logged_in = conex(&login).input("secret").run().expect_code(0);
    assert!(!logged_in.error_text().contains("unencrypted"), "{logged_in:?}");
    assert!(conex(&["pull", &name]).ok().contains(&digest));
    conex(&["logout", &registry.address]).ok();
    assert!(conex(&["logout", &registry.address]).ok().starts_with("Not logged in"));
    assert!(conex(&["push", &name]).fails(1).contains("no basic auth credentials"));
    assert!(std::fs::read_to_string(home.join(".docker/config.json")).unwrap().contains("mine"));
    drop(registry);
    engine.finish();
}
