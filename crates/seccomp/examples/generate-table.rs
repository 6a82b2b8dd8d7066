//! Writes `src/table.rs` from the tables of golang.org/x/sys (BSD licence), which follow the newest kernel, and from Linux's header
//! for x32, which they lack.
//!
//! ```text
//! cargo run -p seccomp --example generate-table -- <x/sys checkout>/unix /usr/include/x86_64-linux-gnu/asm/unistd_x32.h > crates/seccomp/src/table.rs
//! ```
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool that prints a file or fails")]

use std::collections::BTreeMap;
use std::path::Path;

/// The columns in their order: the name in x/sys's file names; x32 comes from the header.
const COLUMNS: [&str; 12] =
    ["amd64", "386", "x32", "arm64", "arm", "riscv64", "s390x", "ppc64le", "ppc", "mips64", "mips", "loong64"];

/// Numbers that no header lists beside the others: ARM's private calls at 0xf0000, and second names.
const ADDED: [(&str, &str, u32); 9] = [
    ("arm", "breakpoint", 0xf001),
    ("arm", "cacheflush", 0xf002),
    ("arm", "usr26", 0xf003),
    ("arm", "usr32", 0xf004),
    ("arm", "set_tls", 0xf005),
    ("arm", "get_tls", 0xf006),
    ("arm", "sync_file_range2", 341),
    ("arm64", "newfstatat", 79),
    ("riscv64", "riscv_flush_icache", 259),
];

/// Calls that x86-64 has and x32 has not, of those that are newer than the header.
const NOT_X32: [&str; 2] = ["uretprobe", "map_shadow_stack"];
const NEWEST_COMMON: std::ops::Range<u32> = 424..1000;

type Table = BTreeMap<String, [Option<u32>; COLUMNS.len()]>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (directory, header) = (arguments.next().unwrap(), arguments.next().unwrap());
    let mut table = Table::new();
    for (column, name) in COLUMNS.iter().enumerate() {
        let calls = if *name == "x32" {
            x32(Path::new(&header))
        } else {
            go(&Path::new(&directory).join(format!("zsysnum_linux_{name}.go")))
        };
        let added =
            ADDED.iter().filter(|(column, ..)| column == name).map(|(_, call, number)| ((*call).to_owned(), *number));
        for (call, number) in calls.into_iter().chain(added) {
            table.entry(call).or_default()[column] = Some(number);
        }
    }
    for (call, row) in &mut table {
        if row[2].is_none()
            && row[0].is_some_and(|number| NEWEST_COMMON.contains(&number))
            && !NOT_X32.contains(&call.as_str())
        {
            row[2] = row[0];
        }
    }
    print(&table);
}

/// `SYS_READ = 0`, indented by a tab
fn go(path: &Path) -> Vec<(String, u32)> {
    let parse = |line: &str| {
        let (name, number) = line.trim().strip_prefix("SYS_")?.split_once('=')?;
        Some((name.trim().to_lowercase(), number.trim().parse().ok()?))
    };
    std::fs::read_to_string(path).unwrap().lines().filter_map(parse).collect()
}

/// `#define __NR_read (__X32_SYSCALL_BIT + 0)`
fn x32(path: &Path) -> Vec<(String, u32)> {
    let parse = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(" (__X32_SYSCALL_BIT + ")?;
        Some((name.to_owned(), number.strip_suffix(')')?.parse().ok()?))
    };
    std::fs::read_to_string(path).unwrap().lines().filter_map(parse).collect()
}

fn print(table: &Table) {
    println!("//! System call numbers, written by `examples/generate-table.rs`: do not edit.");
    println!();
    println!("/// The mark of a call that an architecture does not have.");
    println!("pub(crate) const NONE: u16 = 0xffff;");
    println!();
    println!("/// How many architectures have a column.");
    println!("pub(crate) const COLUMNS: usize = {};", COLUMNS.len());
    println!();
    println!("/// Names in order, and the numbers: {}.", COLUMNS.join(", "));
    println!("#[rustfmt::skip]");
    println!("pub(crate) static TABLE: [(&str, [u16; COLUMNS]); {}] = [", table.len());
    for (name, row) in table {
        let numbers = row.map(|number| number.map_or("NONE".to_owned(), |number| number.to_string())).join(", ");
        println!("    (\"{name}\", [{numbers}]),");
    }
    println!("];");
}
