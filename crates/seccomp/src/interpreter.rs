//! Classic BPF as the kernel runs it for seccomp, for the tests.

/// What the kernel shows to a filter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) audit: u32,
    pub(crate) arguments: [u64; 6],
}

/// The verdict, and how many instructions it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: u32,
    pub(crate) steps: usize,
}

/// A program of eight-byte instructions, decoded and checked.
#[derive(Debug)]
pub(crate) struct Program(Vec<(u16, u8, u8, u32)>);

impl Program {
    /// Decodes a program and checks what the kernel checks: known instructions, jumps inside, a return at the end.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let decode = |bytes: &[u8]| {
            let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
            (code, bytes[2], bytes[3], u32::from_ne_bytes(bytes[4..8].try_into().unwrap()))
        };
        let program: Vec<_> = bytes.chunks_exact(8).map(decode).collect();
        assert!(!program.is_empty() && program.len() <= 4096 && bytes.len().is_multiple_of(8));
        for (place, (code, if_true, if_false, value)) in program.iter().enumerate() {
            let farthest = match code {
                0x05 => *value as usize,
                0x15 | 0x25 | 0x35 | 0x45 => usize::from(*if_true.max(if_false)),
                0x06 | 0x20 | 0x54 | 0x00 | 0x02 | 0x07 | 0x60 | 0x61 | 0x87 => 0,
                other => panic!("instruction {other:#x} at {place}"),
            };
            assert!(place + farthest + 1 < program.len() || *code == 0x06, "a jump out of the program at {place}");
        }
        assert_eq!(program.last().unwrap().0, 0x06, "the program runs off its end");
        Self(program)
    }

    /// Runs the program for a call, with the arguments' halves as a little-endian or a big-endian machine has them.
    pub(crate) fn run(&self, call: Call, is_little_endian: bool) -> Outcome {
        let word = |offset: u32| match offset {
            0 => call.number,
            4 => call.audit,
            8 | 12 => 0,
            offset => {
                assert!(offset % 4 == 0 && offset < 64, "a load from {offset}");
                let argument = call.arguments[(offset as usize - 16) / 8];
                if (offset % 8 == 0) == is_little_endian { argument as u32 } else { (argument >> 32) as u32 }
            }
        };
        let (mut accumulator, mut next, mut steps) = (0_u32, 0, 0);
        let mut memory = [0_u32; 16];
        let mut index = 0_u32;
        loop {
            let (code, if_true, if_false, value) = self.0[next];
            next += 1;
            steps += 1;
            let mut branch = |holds: bool| next += usize::from(if holds { if_true } else { if_false });
            match code {
                0x20 => accumulator = word(value),
                0x00 => accumulator = value,
                0x02 => memory[value as usize] = accumulator,
                0x60 => accumulator = memory[value as usize],
                0x61 => index = memory[value as usize],
                0x07 => index = accumulator,
                0x87 => accumulator = index,
                0x54 => accumulator &= value,
                0x05 => next += value as usize,
                0x15 => branch(accumulator == value),
                0x25 => branch(accumulator > value),
                0x35 => branch(accumulator >= value),
                0x45 => branch(accumulator & value != 0),
                0x06 => return Outcome { verdict: value, steps },
                _ => unreachable!("checked when it was decoded"),
            }
        }
    }
}
