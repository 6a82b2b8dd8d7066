//! Limits bind.

use harness::Engine;

#[test]
fn memory() {
    let engine = Engine::with_busybox();
    let eater = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    engine.docker(["run", "--name", "one", "-m", "32m", "busybox", "sh", "-c", eater]).run();
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.OOMKilled}}", "one"]).ok(), "true");
    let first = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo survived";
    let killed = engine.docker(["run", "--name", "two", "-m", "32m", "busybox", "sh", "-c", first]).run();
    assert_eq!(killed.code, 137, "{killed:?}");
    assert_eq!(
        engine.docker(["inspect", "-f", "{{.State.OOMKilled}} {{.HostConfig.MemorySwap}}", "two"]).ok(),
        "true 67108864"
    );
    engine.finish();
}

#[test]
fn processes() {
    let engine = Engine::with_busybox();
    let bomb = "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 5 & done; echo all";
    let output = engine.docker(["run", "--rm", "--pids-limit", "10", "busybox", "sh", "-c", bomb]).run();
    assert!(output.error_text().contains("can't fork"), "{output:?}");
    engine.finish();
}

#[test]
fn cpu_quota_throttles() {
    let engine = Engine::with_busybox();
    let burn = "timeout 2 sh -c 'while :; do :; done'; cat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu.stat";
    let stat = engine.docker(["run", "--rm", "--cpus", "0.03", "busybox", "sh", "-c", burn]).run().text();
    let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).expect("the file has it");
    assert!(throttled.trim().parse::<u32>().unwrap() >= 3, "{stat}");
    engine.finish();
}

#[test]
fn devices_are_denied_unless_given() {
    let engine = Engine::with_busybox();
    let make = "mknod /tmp/d c 1 11 && cat /tmp/d | head -c 1";
    let denied = engine.docker(["run", "--rm", "busybox", "sh", "-c", make]).run();
    assert!(denied.error_text().contains("Operation not permitted"), "{denied:?}");
    let full = engine
        .docker([
            "run",
            "--rm",
            "--device",
            "/dev/null:/dev/mine:rw",
            "busybox",
            "sh",
            "-c",
            "echo x > /dev/mine && ls -l /dev/mine",
        ])
        .ok();
    assert!(full.contains("1,   3"), "{full}");
    let nosuch = engine.docker(["run", "--rm", "--device", "/dev/nosuchdevice", "busybox", "true"]).fails(125);
    assert!(nosuch.contains("/dev/nosuchdevice"), "{nosuch}");
    engine.finish();
}

#[test]
fn block_io_settings_reach_the_files() {
    let engine = Engine::with_busybox();
    // A device by number is enough: what is tested is the file, not the disk.
    let device = ["/dev/vda", "/dev/sda", "/dev/nvme0n1"].into_iter().find(|path| std::path::Path::new(path).exists());
    let device = device.expect("this machine has a disk");
    let show = "cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device 2>/dev/null || cat /sys/fs/cgroup/io.max";
    let shown =
        engine.docker(["run", "--rm", "--device-read-bps", &format!("{device}:1mb"), "busybox", "sh", "-c", show]).ok();
    assert!(shown.contains("1048576"), "{shown}");
    engine.finish();
}

#[test]
fn updates_of_a_running_container() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "-d", "--name", "one", "-m", "64m", "busybox", "sleep", "1000"]).ok();
    engine.docker(["update", "-m", "128m", "--memory-swap", "256m", "one"]).ok();
    let file = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(engine.docker(["exec", "one", "sh", "-c", file]).ok(), "134217728");
    engine.finish();
}
