//! v2's form of device rules: an eBPF program that the kernel runs at every access.
//!
//! ```text
//! w2 = type, w3 = the access that is still to be granted, r4 = major, r5 = minor
//! for each rule, the last one first:
//!     skip the rule unless type, major and minor match
//!     allow: take its bits out of w3; if none is left, return 1
//!     deny:  if w3 has one of its bits, return 0
//! return 0
//! ```
//!
//! Going backwards, the first rule that speaks of a bit decides about it, which is what "a later rule wins" means. Bits are granted
//! one by one, because reading and writing may be allowed by two rules.

use super::{Devices, Kind, Rule};

/// Offsets in `struct bpf_cgroup_dev_ctx`.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;

const R0: u8 = 0;
const R1: u8 = 1;
const TYPE: u8 = 2;
const WANTED: u8 = 3;
const MAJOR_REGISTER: u8 = 4;
const MINOR_REGISTER: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const MOV32: u8 = 0xb4;
const MOV32_REGISTER: u8 = 0xbc;
const AND32: u8 = 0x54;
const RSH32: u8 = 0x74;
const JEQ32: u8 = 0x16;
const JNE32: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Compiles rules into instructions of eight bytes.
pub(super) fn compile(rules: &[Rule]) -> Vec<u8> {
    let mut program = prologue();
    for rule in rules.iter().rev() {
        append_rule(&mut program, rule);
        if rule.devices == Devices::All && rule.access == super::Access::ALL {
            // Nothing gets past this rule, and the verifier refuses code that cannot be reached.
            return bytes(&program);
        }
    }
    append_return(&mut program, 0);
    bytes(&program)
}

/// One eBPF instruction.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u8,
    target: u8,
    source: u8,
    offset: i16,
    value: i32,
}

fn prologue() -> Vec<Instruction> {
    let load = |target, offset| Instruction { code: LOAD_WORD, target, source: R1, offset, value: 0 };
    vec![
        load(TYPE, ACCESS_TYPE),
        Instruction { code: MOV32_REGISTER, target: WANTED, source: TYPE, offset: 0, value: 0 },
        immediate(RSH32, WANTED, 16),
        immediate(AND32, TYPE, 0xffff),
        load(MAJOR_REGISTER, MAJOR),
        load(MINOR_REGISTER, MINOR),
    ]
}

fn append_rule(program: &mut Vec<Instruction>, rule: &Rule) {
    let decision = decision(rule);
    let conditions = conditions(rule.devices);
    let count = conditions.len();
    for (index, (register, value)) in conditions.into_iter().enumerate() {
        // To the first instruction after the decision.
        let offset = (count - index - 1 + decision.len()) as i16;
        program.push(Instruction { offset, ..immediate(JNE32, register, value) });
    }
    program.extend(decision);
}

/// What register must have what value.
fn conditions(devices: Devices) -> Vec<(u8, i32)> {
    let Devices::Some { kind, major, minor } = devices else { return Vec::new() };
    let kind = if kind == Kind::Block { DEV_BLOCK } else { DEV_CHAR };
    let numbers = [(MAJOR_REGISTER, major), (MINOR_REGISTER, minor)];
    let numbers = numbers.into_iter().filter_map(|(register, number)| Some((register, number?.cast_signed())));
    std::iter::once((TYPE, kind)).chain(numbers).collect()
}

fn decision(rule: &Rule) -> Vec<Instruction> {
    let bits = i32::from(rule.access.bits());
    let mut decision = Vec::with_capacity(5);
    if rule.access == super::Access::ALL {
        append_return(&mut decision, i32::from(rule.allow));
    } else if rule.allow {
        decision.push(immediate(AND32, WANTED, !bits));
        decision.push(Instruction { offset: 2, ..immediate(JNE32, WANTED, 0) });
        append_return(&mut decision, 1);
    } else {
        decision.push(Instruction { code: MOV32_REGISTER, target: R0, source: WANTED, offset: 0, value: 0 });
        decision.push(immediate(AND32, R0, bits));
        decision.push(Instruction { offset: 2, ..immediate(JEQ32, R0, 0) });
        append_return(&mut decision, 0);
    }
    decision
}

fn append_return(program: &mut Vec<Instruction>, value: i32) {
    program.push(immediate(MOV32, R0, value));
    program.push(immediate(EXIT, 0, 0));
}

fn immediate(code: u8, target: u8, value: i32) -> Instruction {
    Instruction { code, target, source: 0, offset: 0, value }
}

fn bytes(program: &[Instruction]) -> Vec<u8> {
    program.iter().flat_map(|instruction| instruction.bytes()).collect()
}

impl Instruction {
    /// The kernel's `struct bpf_insn`; its two register fields are nibbles, whose order follows the machine's byte order.
    fn bytes(&self) -> [u8; 8] {
        let registers = if cfg!(target_endian = "little") {
            self.source << 4 | self.target
        } else {
            self.target << 4 | self.source
        };
        let mut bytes = [self.code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::lists::Access;
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel would, for the few instructions that [`compile`] uses.
    fn run(program: &[u8], kind: u16, access: u16, major: u32, minor: u32) -> u32 {
        let mut registers = [0_u32; 10];
        let context = [u32::from(access) << 16 | u32::from(kind), major, minor];
        let mut next = 0;
        loop {
            let instruction: [u8; 8] = program[next * 8..next * 8 + 8].try_into().unwrap();
            let (target, source) = (usize::from(instruction[1] & 15), usize::from(instruction[1] >> 4));
            let offset = i16::from_ne_bytes([instruction[2], instruction[3]]);
            let value = i32::from_ne_bytes(instruction[4..].try_into().unwrap()).cast_unsigned();
            next += 1;
            let mut jump = |condition: bool| {
                assert!(offset >= 0, "a jump backwards");
                next += if condition { usize::try_from(offset).unwrap() } else { 0 };
            };
            match instruction[0] {
                LOAD_WORD => registers[target] = context[usize::try_from(offset / 4).unwrap()],
                MOV32 => registers[target] = value,
                MOV32_REGISTER => registers[target] = registers[source],
                AND32 => registers[target] &= value,
                RSH32 => registers[target] >>= value,
                JEQ32 => jump(registers[target] == value),
                JNE32 => jump(registers[target] != value),
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    /// What the rules mean: per bit, the last rule that matches decides; all bits must be granted.
    fn expected(rules: &[Rule], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        [1, 2, 4].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let matching = |rule: &&Rule| {
                rule.access.bits() & bit != 0
                    && match rule.devices {
                        Devices::All => true,
                        Devices::Some { kind: its, major: wanted, minor: sub } => {
                            its == kind
                                && wanted.is_none_or(|wanted| wanted == major)
                                && sub.is_none_or(|sub| sub == minor)
                        }
                    }
            };
            rules.iter().rev().find(matching).is_some_and(|rule| rule.allow)
        })
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let number = proptest::option::of(0_u32..3);
        let devices = (0..5_u8, number.clone(), number).prop_map(|(kind, major, minor)| match kind {
            0 => Devices::All,
            1 | 2 => Devices::Some { kind: Kind::Block, major, minor },
            _ => Devices::Some { kind: Kind::Character, major, minor },
        });
        let access = proptest::sample::select(vec!["r", "w", "m", "rw", "rm", "wm", "rwm"]);
        (any::<bool>(), devices, access).prop_map(|(allow, devices, access)| Rule {
            allow,
            devices,
            access: Access::parse(access).unwrap(),
        })
    }

    proptest! {
        #[test]
        fn the_program_means_what_the_rules_mean(rules in proptest::collection::vec(any_rule(), 0..12)) {
            let program = compile(&rules);
            for (kind, number) in [(Kind::Block, 1), (Kind::Character, 2)] {
                for (access, major, minor) in (1..8).flat_map(|access| (0..3).flat_map(move |major| (0..3).map(move |minor| (access, major, minor)))) {
                    let allowed = run(&program, number, access.into(), major, minor) == 1;
                    prop_assert_eq!(allowed, expected(&rules, kind, access, major, minor));
                }
            }
        }

        #[test]
        fn the_kernel_takes_every_program(rules in proptest::collection::vec(any_rule(), 0..12)) {
            match linux::bpf::load_device_program(&compile(&rules)) {
                // Without CAP_BPF, as an ordinary user, there is nothing to see.
                Ok(_) | Err(rustix::io::Errno::PERM) => {}
                Err(errno) => prop_assert!(false, "{}: {:?}", errno, rules),
            }
        }
    }

    #[test]
    fn defaults_are_short() {
        let rules: Vec<_> = super::super::default_rules().iter().map(|rule| Rule::parse(rule).unwrap()).collect();
        assert!(compile(&rules).len() / 8 < 64);
    }
}
