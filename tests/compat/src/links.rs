//! Links, further settings of an endpoint, and the hosts file of a running container.

use harness::Engine;

use crate::peers::reaches;

fn run(engine: &Engine, name: &str, options: &[&str]) {
    engine.docker(["run", "-d", "--name", name]).args(options).args(["busybox", "sleep", "1000"]).ok();
}

fn exec(engine: &Engine, container: &str, command: &[&str]) -> String {
    engine.docker(["exec", container]).args(command).ok()
}

#[test]
fn links_on_the_default_bridge_are_hosts_and_variables() {
    let engine = Engine::with_busybox();
    run(&engine, "db", &["--expose", "5432", "-e", "PASSWORD=x"]);
    let environment = engine.docker(["run", "--rm", "--name", "web", "--link", "db:store", "busybox", "env"]).ok();
    for line in ["STORE_PORT_5432_TCP_PORT=5432", "STORE_NAME=/web/store", "STORE_ENV_PASSWORD=x"] {
        assert!(environment.lines().any(|found| found == line), "{environment}");
    }
    run(&engine, "web", &["--link", "db:store"]);
    assert!(exec(&engine, "web", &["cat", "/etc/hosts"]).contains("\tstore "));
    assert!(exec(&engine, "web", &["env"]).contains("STORE_NAME=/web/store"));
    assert!(reaches(&engine, "web", "store"));
    engine.docker(["rm", "--link", "web/nothing"]).fails(1);
    engine.docker(["rm", "--link", "web/store"]).ok();
    assert!(!exec(&engine, "web", &["cat", "/etc/hosts"]).contains("\tstore "));
    assert_eq!(engine.docker(["inspect", "-f", "{{.HostConfig.Links}}", "web"]).ok(), "[]");
    engine.docker(["stop", "-t", "0", "db"]).ok();
    let error = engine.docker(["run", "--name", "late", "--link", "db:store", "busybox", "true"]).fails(125);
    assert!(error.contains("Cannot link to a non running container: /db AS /late/store"), "{error}");
    let error = engine.docker(["run", "--link", "nobody", "busybox", "true"]).fails(125);
    assert!(error.contains("No such container: nobody"), "{error}");
    let error = engine.docker(["run", "--network", "host", "--link", "db", "busybox", "true"]).fails(125);
    assert!(error.contains("host type networking can't be used with links"), "{error}");
    engine.finish();
}

#[test]
fn links_on_a_users_network_are_names_of_one_container() {
    let mut engine = Engine::with_busybox();
    engine.docker(["network", "create", "back"]).ok();
    run(&engine, "db", &["--network", "back"]);
    run(&engine, "web", &["--network", "back", "--link", "db:store"]);
    run(&engine, "other", &["--network", "back"]);
    assert!(reaches(&engine, "web", "store") && !reaches(&engine, "other", "store"));
    engine.docker(["network", "connect", "--link", "db:third", "back", "other"]).fails(1);
    engine.docker(["network", "disconnect", "back", "other"]).ok();
    let links = ["--link", "db:third", "--link", "later:fourth"];
    engine.docker(["network", "connect"]).args(links).args(["back", "other"]).ok();
    assert!(reaches(&engine, "other", "third"));
    run(&engine, "later", &["--network", "back"]);
    assert!(reaches(&engine, "other", "fourth"), "who is linked to may come later");
    engine.kill();
    engine.launch();
    assert!(reaches(&engine, "web", "store"));
    engine.finish();
}

#[test]
fn an_endpoint_may_have_a_name_settings_and_further_addresses() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--subnet", "10.77.0.0/24", "back"]).ok();
    let network = "name=back,driver-opt=com.docker.network.endpoint.ifname=lan0,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,link-local-ip=169.254.8.8";
    run(&engine, "one", &["--network", network]);
    let addresses = exec(&engine, "one", &["ip", "address", "show", "lan0"]);
    assert!(addresses.contains("10.77.0.2/24") && addresses.contains("169.254.8.8/16"), "{addresses}");
    assert_eq!(exec(&engine, "one", &["cat", "/proc/sys/net/ipv4/conf/lan0/log_martians"]), "1");
    let error = engine
        .docker(["run", "--network", "name=back,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1"])
        .args(["busybox", "true"])
        .fails(125);
    assert!(error.contains("invalid endpoint sysctl net.ipv4.ip_forward=1"), "{error}");
    let unheard = "name=back,driver-opt=com.docker.network.un=heard,driver-opt=note=kept";
    let error = engine.docker(["run", "--network", unheard, "busybox", "true"]).fails(125);
    assert!(error.contains("the option com.docker.network.un=heard of the endpoint on back is not built"), "{error}");
    run(&engine, "noted", &["--network", "name=back,driver-opt=note=kept"]);
    let shown = engine.docker(["inspect", "-f", "{{.NetworkSettings.Networks.back.DriverOpts}}", "noted"]).ok();
    assert_eq!(shown, "map[note:kept]");
    engine.docker(["network", "create", "-o", "com.docker.network.container_iface_prefix=wire", "more"]).ok();
    engine.docker(["network", "connect", "more", "one"]).ok();
    assert!(exec(&engine, "one", &["ls", "/sys/class/net"]).contains("wire0"));
    engine.finish();
}

#[test]
fn the_hosts_file_follows_the_networks() {
    let engine = Engine::with_busybox();
    engine.docker(["network", "create", "--subnet", "10.77.0.0/24", "back"]).ok();
    run(&engine, "one", &["--hostname", "one", "--add-host", "db:192.0.2.9"]);
    engine.docker(["exec", "one", "sh", "-c", "echo 192.0.2.8 mine >> /etc/hosts"]).ok();
    engine.docker(["network", "connect", "back", "one"]).ok();
    let hosts = exec(&engine, "one", &["cat", "/etc/hosts"]);
    assert!(hosts.contains("10.77.0.2\tone") && hosts.contains("172.17.0.2\tone"), "{hosts}");
    engine.docker(["network", "disconnect", "bridge", "one"]).ok();
    let hosts = exec(&engine, "one", &["cat", "/etc/hosts"]);
    assert!(hosts.contains("10.77.0.2\tone") && !hosts.contains("172.17.0.2"), "{hosts}");
    assert!(hosts.contains("192.0.2.9\tdb") && hosts.contains("192.0.2.8 mine"), "{hosts}");
    engine.finish();
}

#[test]
fn configurations_are_networks_to_be_made() {
    let mut engine = Engine::with_busybox();
    let create = ["network", "create", "--config-only", "--subnet", "10.77.0.0/24", "--label", "a=b"];
    engine.docker(create).args(["-o", "com.docker.network.driver.mtu=1400", "plan"]).ok();
    engine.kill();
    engine.launch();
    assert_eq!(engine.docker(["network", "inspect", "-f", "{{.ConfigOnly}}", "plan"]).ok(), "true");
    engine.docker(["network", "create", "--config-from", "plan", "made"]).ok();
    let shown = "{{.ConfigFrom.Network}} {{(index .IPAM.Config 0).Subnet}} {{.ConfigOnly}}";
    assert_eq!(engine.docker(["network", "inspect", "-f", shown, "made"]).ok(), "plan 10.77.0.0/24 false");
    run(&engine, "one", &["--network", "made"]);
    assert_eq!(exec(&engine, "one", &["cat", "/sys/class/net/eth0/mtu"]), "1400");
    for (arguments, expected) in [
        (vec!["run", "--network", "plan", "busybox", "true"], "plan is a configuration network"),
        (vec!["network", "create", "--config-from", "nosuch", "x"], "configuration network \"nosuch\" does not exist"),
        (vec!["network", "create", "--config-from", "made", "x"], "configuration network \"made\" does not exist"),
        (
            vec!["network", "create", "--config-from", "plan", "--subnet", "10.78.0.0/24", "x"],
            "user specified configurations",
        ),
        (vec!["network", "rm", "plan"], "configuration network \"plan\" is in use"),
    ] {
        let output = engine.docker(&arguments).run();
        assert!(output.code != 0 && output.error_text().contains(expected), "{}", output.error_text());
    }
    engine.docker(["rm", "-f", "one"]).ok();
    engine.docker(["network", "rm", "made"]).ok();
    engine.docker(["network", "rm", "plan"]).ok();
    engine.finish();
}
