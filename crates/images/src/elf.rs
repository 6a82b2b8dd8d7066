//! The smallest static program that prints a text, put together by hand.
//!
//! The built-in image must run on a machine with nothing on it, so its only program is made here: an ELF header, two
//! program headers, a dozen instructions and the text. It writes the text to standard output and exits with 0, or with
//! 1 when the text could not be written.

/// The processors that Conex runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    Aarch64,
}

const BASE_ADDRESS: u64 = 0x40_0000;
const FILE_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const CODE_OFFSET: usize = FILE_HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;

/// A program for `machine` that prints `text`.
///
/// `text` is shorter than 64 KiB, which is what one `mov` of aarch64 holds.
pub(crate) fn printing_program(machine: Machine, text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("the built-in text is short");
    let code = match machine {
        Machine::X86_64 => x86_64_code(length),
        Machine::Aarch64 => aarch64_code(length),
    };
    let size = CODE_OFFSET + code.len() + text.len();
    let mut program = file_header(machine);
    program.extend(loaded_segment(size as u64));
    program.extend(stack_segment());
    program.extend(code);
    program.extend(text.as_bytes());
    program
}

fn file_header(machine: Machine) -> Vec<u8> {
    let machine_number: u16 = match machine {
        Machine::X86_64 => 62,
        Machine::Aarch64 => 183,
    };
    let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header.extend(2u16.to_le_bytes()); // an executable at a fixed address
    header.extend(machine_number.to_le_bytes());
    header.extend(1u32.to_le_bytes()); // ELF version
    header.extend((BASE_ADDRESS + CODE_OFFSET as u64).to_le_bytes()); // entry point
    header.extend((FILE_HEADER_BYTES as u64).to_le_bytes()); // program headers follow at once
    header.extend(0u64.to_le_bytes()); // no section headers
    header.extend(0u32.to_le_bytes()); // flags
    for field in [FILE_HEADER_BYTES, PROGRAM_HEADER_BYTES, 2, 64, 0, 0] {
        header.extend((field as u16).to_le_bytes());
    }
    header
}

/// PT_LOAD, readable and executable: the whole file.
fn loaded_segment(size: u64) -> Vec<u8> {
    program_header(1, 4 | 1, BASE_ADDRESS, size, 0x1_0000)
}

/// PT_GNU_STACK, readable and writable: without it some kernels make the stack executable.
fn stack_segment() -> Vec<u8> {
    program_header(0x6474_e551, 4 | 2, 0, 0, 16)
}

fn program_header(kind: u32, flags: u32, address: u64, size: u64, alignment: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(PROGRAM_HEADER_BYTES);
    header.extend(kind.to_le_bytes());
    header.extend(flags.to_le_bytes());
    for field in [0, address, address, size, size, alignment] {
        header.extend(field.to_le_bytes());
    }
    header
}

fn x86_64_code(length: u16) -> Vec<u8> {
    const AFTER_LEA: usize = 17;
    const END: usize = 40;
    let text_distance = (END - AFTER_LEA) as u32;
    let mut code = vec![0xb8, 1, 0, 0, 0]; // mov eax, 1 (write)
    code.extend([0xbf, 1, 0, 0, 0]); // mov edi, 1 (standard output)
    code.extend([0x48, 0x8d, 0x35]); // lea rsi, [rip + distance]
    code.extend(text_distance.to_le_bytes());
    code.push(0xba); // mov edx, length
    code.extend(u32::from(length).to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0x31, 0xff]); // xor edi, edi
    code.extend([0x48, 0x85, 0xc0]); // test rax, rax
    code.extend([0x40, 0x0f, 0x9e, 0xc7]); // setle dil
    code.extend([0xb8, 60, 0, 0, 0]); // mov eax, 60 (exit)
    code.extend([0x0f, 0x05]); // syscall
    debug_assert_eq!(code.len(), END, "the text must follow the code");
    code
}

fn aarch64_code(length: u16) -> Vec<u8> {
    const WORDS: u32 = 9;
    const ADR_AT: u32 = 2;
    let distance_words = WORDS - ADR_AT;
    let code: [u32; WORDS as usize] = [
        0xd280_0808,                            // mov x8, 64 (write)
        0xd280_0020,                            // mov x0, 1 (standard output)
        0x1000_0001 | (distance_words << 5),    // adr x1, text
        0xd280_0002 | (u32::from(length) << 5), // mov x2, length
        0xd400_0001,                            // svc 0
        0xf100_001f,                            // cmp x0, 0
        0x1a9f_c7e0,                            // cset w0, le
        0xd280_0ba8,                            // mov x8, 93 (exit)
        0xd400_0001,                            // svc 0
    ];
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn run(stdout: Stdio) -> std::process::Output {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let machine = if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 };
        // Written by another process: a descriptor of ours open for writing could leak into a child that another test
        // thread forks at this moment, and the kernel would refuse to execute the file (ETXTBSY).
        let mut writer = Command::new("tee").arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        writer.stdin.take().unwrap().write_all(&printing_program(machine, "hello, hold\n")).unwrap();
        writer.wait().unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Command::new(&path).stdout(stdout).output().unwrap()
    }

    #[test]
    fn the_program_prints_its_text_and_succeeds() {
        let output = run(Stdio::piped());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello, hold\n");
        assert_eq!(output.status.code(), Some(0));
    }

    #[test]
    fn the_program_fails_where_nothing_can_be_written() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(run(full.into()).status.code(), Some(1));
    }

    /// The text's address in the other processor's program, computed from its instruction as the processor would.
    #[test]
    fn aarch64_points_at_the_text() {
        let program = printing_program(Machine::Aarch64, "x");
        let adr_at = CODE_OFFSET + 2 * 4;
        let adr = u32::from_le_bytes(program[adr_at..adr_at + 4].try_into().unwrap());
        let distance = ((adr >> 5) & 0x7_ffff) << 2 | (adr >> 29) & 3;
        assert_eq!(program[adr_at + distance as usize..], *b"x");
    }
}
