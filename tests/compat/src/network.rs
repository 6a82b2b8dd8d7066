//! The default networks.

use harness::Engine;

#[test]
fn bridge_none_host_and_container() {
    let engine = Engine::with_busybox();
    let run = |arguments: &[&str]| engine.docker(["run", "--rm"]).args(arguments).ok();
    let address = run(&["busybox", "sh", "-c", "ip -4 -o addr show eth0; ip route"]);
    assert!(address.contains("eth0") && address.contains("default via"), "{address}");
    let none = run(&["--network", "none", "busybox", "ls", "/sys/class/net"]);
    assert_eq!(none, "lo");
    let host = run(&["--network", "host", "busybox", "ls", "/sys/class/net"]);
    assert!(host.lines().any(|name| name == "lo") && host.lines().all(|name| name != "eth0"), "{host}");

    engine
        .docker(["run", "-d", "--name", "one", "busybox", "sh", "-c", "while :; do echo hello | nc -l -p 7000; done"])
        .ok();
    let inspect = engine
        .docker(["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}", "one"])
        .ok();
    let (ip, gateway) = inspect.split_once(' ').expect("an address and a gateway");
    assert_eq!(run(&["--network", "container:one", "busybox", "cat", "/sys/class/net/eth0/operstate"]), "up");
    assert!(run(&["busybox", "ping", "-c", "1", "-W", "2", gateway]).contains("1 packets received"));
    let talk = format!("for n in 1 2 3 4 5 6 7 8 9 10; do nc {ip} 7000 </dev/null && break; sleep 0.2; done");
    assert_eq!(run(&["busybox", "sh", "-c", &talk]), "hello");
    assert!(
        engine.host().program("busybox").args(["ping", "-c", "1", "-W", "2", ip]).ok().contains("1 packets received")
    );
    engine.finish();
}

#[test]
fn network_listing() {
    let engine = Engine::with_busybox();
    let names = engine.docker(["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).ok();
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["bridge bridge", "host host", "none null"]);
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let containers =
        engine.docker(["network", "inspect", "-f", "{{range .Containers}}{{.Name}}{{end}}", "bridge"]).ok();
    assert_eq!(containers, "one");
    engine.finish();
}
