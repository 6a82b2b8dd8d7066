//! From decisions to instructions.
//!
//! The program is built from its end: every jump of classic BPF goes forward, so its target is there already and the distance is
//! known. What two branches share (a return, the conditions of one rule) is emitted once while it is near enough; a target farther
//! than a conditional jump reaches (255) gets a `ja` in between.
//!
//! Only loads of `nr` and `arch`, comparisons with constants and returns lie on the way to a call without conditions: the kernel
//! finds out beforehand that it always passes and does not run the program for it at all.

use oci::runtime::{LinuxSeccompArg, SeccompOperator};

use crate::rules::{Case, Decision, Range, Section, Verdict};

const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

const REACH: usize = 255;

/// One instruction: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

/// Builds the program for all sections.
pub(crate) fn assemble(sections: &[Section<'_>]) -> Vec<Instruction> {
    let mut builder = Builder::default();
    let mut next = builder.verdict(Verdict::KILL_THREAD);
    for section in sections.iter().rev() {
        let tree = builder.tree(&section.ranges, section.is_little_endian);
        let body = builder.load(OFFSET_NUMBER, tree);
        next = builder.compare(JUMP_EQUAL, section.audit, body, next);
    }
    builder.load(OFFSET_ARCH, next);
    builder.finish()
}

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

#[derive(Default)]
struct Builder {
    /// The program backwards.
    reversed: Vec<Instruction>,
    /// Where each return was emitted last; a filter has a handful of them.
    verdicts: Vec<(Verdict, Label)>,
}

impl Builder {
    fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, value: u32) -> Label {
        self.push_jump(code, value, 0, 0)
    }

    fn push_jump(&mut self, code: u16, value: u32, if_true: u8, if_false: u8) -> Label {
        self.reversed.push(Instruction { code, if_true, if_false, value });
        Label(self.reversed.len() - 1)
    }

    /// How many instructions an instruction emitted now would jump over.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0 - 1
    }

    /// A return, emitted anew where the last one like it is far.
    fn verdict(&mut self, verdict: Verdict) -> Label {
        let known = self.verdicts.iter().position(|(known, _)| *known == verdict);
        match known.map(|place| self.verdicts[place].1) {
            // Room is left for the jumps that will want to come here.
            Some(label) if self.distance(label) < REACH / 2 => label,
            _ => {
                let label = self.push(RETURN, verdict.0);
                self.verdicts.retain(|(known, _)| *known != verdict);
                self.verdicts.push((verdict, label));
                label
            }
        }
    }

    /// A load followed by whatever is at `next`, which is jumped to unless it was emitted just now.
    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(LOAD, offset)
    }

    fn fall_into(&mut self, next: Label) {
        let distance = self.distance(next);
        if distance > 0 {
            self.push(JUMP, distance as u32);
        }
    }

    /// A comparison of the accumulator with a constant.
    fn compare(&mut self, code: u16, value: u32, if_true: Label, if_false: Label) -> Label {
        if if_true == if_false {
            return if_true;
        }
        // One trampoline can push the other target out of reach, so the farther one comes first.
        let if_true = self.near(if_true, 1);
        let if_false = self.near(if_false, 0);
        let (true_distance, false_distance) = (self.distance(if_true), self.distance(if_false));
        self.push_jump(code, value, true_distance as u8, false_distance as u8)
    }

    /// The target, or a jump to it where it is out of reach even with `spare` more instructions in between.
    fn near(&mut self, target: Label, spare: usize) -> Label {
        let distance = self.distance(target);
        if distance + spare <= REACH { target } else { self.push(JUMP, distance as u32) }
    }

    /// A search tree over ranges; each comparison halves them.
    fn tree(&mut self, ranges: &[Range<'_>], is_little_endian: bool) -> Label {
        match ranges {
            [range] => self.decision(&range.decision, is_little_endian),
            ranges => {
                let (lower, upper) = ranges.split_at(ranges.len() / 2);
                let above = self.tree(upper, is_little_endian);
                let below = self.tree(lower, is_little_endian);
                self.compare(JUMP_GREATER_OR_EQUAL, upper[0].first, above, below)
            }
        }
    }

    fn decision(&mut self, decision: &Decision<'_>, is_little_endian: bool) -> Label {
        match decision {
            Decision::Always(verdict) => self.verdict(*verdict),
            Decision::Cases(cases, otherwise) => {
                let otherwise = self.verdict(*otherwise);
                cases.iter().rev().fold(otherwise, |next, case| self.case(case, next, is_little_endian))
            }
        }
    }

    /// Goes to the case's verdict if all its conditions hold, and to `otherwise` if one does not.
    fn case(&mut self, case: &Case<'_>, otherwise: Label, is_little_endian: bool) -> Label {
        let verdict = self.verdict(case.verdict);
        case.conditions.iter().rev().fold(verdict, |next, condition| {
            let words =
                Words { offset: OFFSET_ARGUMENTS + 8 * condition.index, is_little_endian, is_wide: case.is_wide };
            self.condition(&condition, words, next, otherwise)
        })
    }

    fn condition(&mut self, condition: &LinuxSeccompArg, words: Words, yes: Label, no: Label) -> Label {
        let value = condition.value;
        match condition.op {
            SeccompOperator::Equal => self.masked_equal(u64::MAX, value, words, yes, no),
            SeccompOperator::NotEqual => self.masked_equal(u64::MAX, value, words, no, yes),
            SeccompOperator::MaskedEqual => self.masked_equal(value, condition.value_two, words, yes, no),
            SeccompOperator::GreaterThan => self.greater(JUMP_GREATER, value, words, yes, no),
            SeccompOperator::GreaterOrEqual => self.greater(JUMP_GREATER_OR_EQUAL, value, words, yes, no),
            SeccompOperator::LessThan => self.greater(JUMP_GREATER_OR_EQUAL, value, words, no, yes),
            SeccompOperator::LessOrEqual => self.greater(JUMP_GREATER, value, words, no, yes),
        }
    }

    fn masked_equal(&mut self, mask: u64, value: u64, words: Words, yes: Label, no: Label) -> Label {
        let low = self.word_equal(words.low(), mask as u32, value as u32, yes, no);
        if words.is_wide {
            self.word_equal(words.high(), (mask >> 32) as u32, (value >> 32) as u32, low, no)
        } else {
            low
        }
    }

    /// Compares some bits of one word; what can be said without looking is not looked at.
    fn word_equal(&mut self, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
        match mask {
            // Bits outside the mask are not compared, as in libseccomp.
            0 => yes,
            u32::MAX => {
                let compare = self.compare(JUMP_EQUAL, value, yes, no);
                self.load(offset, compare)
            }
            mask => {
                let compare = self.compare(JUMP_EQUAL, value & mask, yes, no);
                self.fall_into(compare);
                let and = self.push(AND, mask);
                self.load(offset, and)
            }
        }
    }

    /// `code` decides between the low words when the high ones are equal.
    fn greater(&mut self, code: u16, value: u64, words: Words, yes: Label, no: Label) -> Label {
        let low = self.compare(code, value as u32, yes, no);
        let low = self.load(words.low(), low);
        if !words.is_wide {
            return low;
        }
        let high = (value >> 32) as u32;
        let equal = self.compare(JUMP_EQUAL, high, low, no);
        let compare = self.compare(JUMP_GREATER, high, yes, equal);
        self.load(words.high(), compare)
    }
}

/// Where the halves of an argument are.
#[derive(Debug, Clone, Copy)]
struct Words {
    offset: u32,
    is_little_endian: bool,
    is_wide: bool,
}

impl Words {
    fn low(self) -> u32 {
        if self.is_little_endian { self.offset } else { self.offset + 4 }
    }

    fn high(self) -> u32 {
        if self.is_little_endian { self.offset + 4 } else { self.offset }
    }
}

impl Instruction {
    /// The eight bytes that the kernel reads, in the machine's order.
    pub(crate) fn bytes(self) -> [u8; 8] {
        let mut bytes = [0, 0, self.if_true, self.if_false, 0, 0, 0, 0];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}
