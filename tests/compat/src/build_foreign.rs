//! Commands for another processor, which the kernel runs by an emulator. Who registers one does so for the whole machine, so that these tests
//! run in virtual machines alone (`./x vm-test build_foreign::`).

use std::path::{Path, PathBuf};

use harness::{Engine, Output};

use crate::build::folder;

/// What the virtual machines have: `qemu-aarch64`, and a busybox for what it emulates.
const EMULATION: &str = "/emulation";
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
/// How a program for Linux on 64-bit ARM begins, and which of that is looked at, as the kernel reads them.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// An emulator that the kernel knows as long as this lives.
struct Registered(PathBuf);

impl Registered {
    fn with(flags: &str) -> Registered {
        let line = format!(":conex-arm64:M::{MAGIC}:{MASK}:{EMULATION}/qemu-aarch64:{flags}");
        std::fs::write(Path::new(BINFMT).join("register"), line).unwrap();
        Registered(Path::new(BINFMT).join("conex-arm64"))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        std::fs::write(&self.0, "-1").unwrap();
    }
}

#[test]
fn an_emulator_runs_commands_for_another_processor() {
    if std::env::var_os("CONEX_VM").is_none() {
        return;
    }
    let engine = Engine::with_busybox();
    let lines = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /bin/busybox\nCOPY $TARGETARCH /bin/sh\n\
                 RUN /bin/busybox uname -m > /machine\n";
    let context = folder(&engine, "foreign", &[("Dockerfile", lines)]);
    std::fs::copy(Path::new(EMULATION).join("busybox"), context.join("arm64")).unwrap();
    std::fs::copy("/bin/busybox", context.join("amd64")).unwrap();
    let files = engine.host().files();
    let build = |platforms: &str, out: &str| -> Output {
        let (out, context) = (files.join(out).display().to_string(), context.display().to_string());
        let words = ["build", "--progress=plain", "--no-cache", "--platform", platforms, "-o", &out, &context];
        engine.conex(words).run()
    };
    let refused = |out: &str| {
        let failed = build("linux/arm64", out).expect_code(1);
        let text = failed.text() + &failed.error_text();
        assert!(text.contains("cannot run a command for linux/arm64 on this machine (linux/amd64)"), "{text}");
        assert!(text.contains("no emulator") && text.contains("flag F"), "{text}");
    };
    let machine = |path: &str| std::fs::read_to_string(files.join(path).join("machine")).unwrap();
    refused("none");
    {
        let _emulator = Registered::with("F");
        build("linux/arm64", "one").expect_code(0);
        assert_eq!(machine("one"), "aarch64\n");
        build("linux/amd64,linux/arm64", "both").expect_code(0);
        assert_eq!(machine("both/linux_arm64"), "aarch64\n");
        assert_eq!(machine("both/linux_amd64"), "x86_64\n");
    }
    // An emulator that the kernel has not opened is in no root where the command runs.
    let _closed = Registered::with("");
    refused("closed");
    engine.finish();
}
