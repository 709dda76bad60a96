//! Rules for system calls, compiled to a seccomp filter.
//!
//! The kernel runs the filter for every call a program makes (and once for each number when it is installed,
//! to cache what never depends on arguments), so it is a binary tree over ranges of numbers instead of a list: eight comparisons
//! lead to any of some three hundred calls. The compiler is small enough to be checked whole: a test runs
//! the program it makes, call by call, against the rules it was made from.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(any(test, fuzzing))]
mod reference;

use crate::sys::Instruction;

/// What happens to a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It is made.
    Allow,
    /// It fails with this error number, or with 0 succeeds without effect.
    Errno(i32),
    /// The first of these alternatives, all of whose tests hold, decides for `then`; otherwise `otherwise`.
    /// Neither may be a `When` itself.
    When { alternatives: Vec<Vec<Test>>, then: Box<Rule>, otherwise: Box<Rule> },
}

impl Rule {
    /// Allowed if one of the alternatives holds.
    pub(crate) fn only_if(alternatives: Vec<Vec<Test>>, errno: i32) -> Self {
        Self::When { alternatives, then: Box::new(Self::Allow), otherwise: Box::new(Self::Errno(errno)) }
    }

    /// Allowed if none of the alternatives holds.
    pub(crate) fn unless(alternatives: Vec<Vec<Test>>, errno: i32) -> Self {
        Self::When { alternatives, then: Box::new(Self::Errno(errno)), otherwise: Box::new(Self::Allow) }
    }
}

/// A test of one half of an argument: the low one, because the kernel takes nearly all tested arguments as `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    argument: u32,
    half: Half,
    mask: u32,
    comparison: Comparison,
}

/// Which 32 bits of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Low,
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal(u32),
    AnyBit,
}

impl Test {
    /// The argument is `value`.
    pub(crate) fn equal(argument: u32, value: u32) -> Self {
        Self::masked(argument, u32::MAX, value)
    }

    /// The argument's bits of `mask` are `value`.
    pub(crate) fn masked(argument: u32, mask: u32, value: u32) -> Self {
        Self { argument, half: Half::Low, mask, comparison: Comparison::Equal(value) }
    }

    /// The argument, of 64 bits, is below 2 to the power of `bits`, which is at most 32: both tests are needed.
    pub(crate) fn below_power(argument: u32, bits: u32) -> [Self; 2] {
        let low = Self::masked(argument, u32::MAX.checked_shl(bits).unwrap_or(0), 0);
        [low, Self { half: Half::High, ..Self::equal(argument, 0) }]
    }

    /// The argument has at least one bit of `mask`.
    pub(crate) fn any(argument: u32, mask: u32) -> Self {
        Self { argument, half: Half::Low, mask, comparison: Comparison::AnyBit }
    }
}

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_*`.
#[cfg(any(test, target_arch = "x86_64"))]
const X86_64: u32 = 0xC000_003E;
#[cfg(any(test, target_arch = "aarch64"))]
const AARCH64: u32 = 0xC000_00B7;

/// That of this build.
#[cfg(target_arch = "x86_64")]
const THIS_ARCHITECTURE: u32 = X86_64;
#[cfg(target_arch = "aarch64")]
const THIS_ARCHITECTURE: u32 = AARCH64;

/// The first number of the x32 calls, which reach 64-bit code under other numbers.
const X32: u32 = 0x4000_0000;

// Opcodes of classic BPF (bpf_common.h).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const RETURN_ALLOW: u32 = 0x7FFF_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;
const RETURN_USER_NOTIF: u32 = 0x7FC0_0000;

/// Compiles rules by number; other numbers fail with ENOSYS. Of two rules for a number the last holds.
pub(crate) fn compile(rules: &[(u32, Rule)]) -> Vec<Instruction> {
    compile_for(THIS_ARCHITECTURE, rules)
}

fn compile_for(architecture: u32, rules: &[(u32, Rule)]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        // A process that changes to another architecture's calls (int 0x80) is ended: its numbers mean others.
        instruction(JUMP_EQUAL, 1, 0, architecture),
        instruction(RETURN, 0, 0, RETURN_KILL_PROCESS),
        instruction(LOAD, 0, 0, NUMBER),
    ];
    program.extend(tree(&ranges(rules)));
    program
}

/// A filter that has one call wait until it was seen, and allows all else. What another architecture calls so is
/// not seen: it is for information only.
pub(crate) fn noticing(number: u32) -> Vec<Instruction> {
    vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(JUMP_EQUAL, 0, 3, THIS_ARCHITECTURE),
        instruction(LOAD, 0, 0, NUMBER),
        instruction(JUMP_EQUAL, 0, 1, number),
        instruction(RETURN, 0, 0, RETURN_USER_NOTIF),
        instruction(RETURN, 0, 0, RETURN_ALLOW),
    ]
}

/// Numbers from `first` up to the next range's, under one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    rule: Rule,
}

fn ranges(rules: &[(u32, Rule)]) -> Vec<Range> {
    let by_number: std::collections::BTreeMap<u32, &Rule> =
        rules.iter().filter(|(number, _)| *number < X32).map(|(number, rule)| (*number, rule)).collect();
    let unknown = Rule::Errno(libc::ENOSYS);
    let mut ranges = vec![Range { first: 0, rule: unknown.clone() }];
    let mut push = |first: u32, rule: &Rule| match ranges.last_mut() {
        Some(last) if last.rule == *rule => {}
        Some(last) if last.first == first => last.rule = rule.clone(),
        _ => ranges.push(Range { first, rule: rule.clone() }),
    };
    for (&number, &rule) in &by_number {
        push(number, rule);
        if !by_number.contains_key(&(number + 1)) {
            push(number + 1, &unknown);
        }
    }
    ranges
}

/// The tree for some ranges: with the number in the accumulator, it always returns.
fn tree(ranges: &[Range]) -> Vec<Instruction> {
    let [only] = ranges else {
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let middle = right[0].first;
        let (left, right) = (tree(left), tree(right));
        let mut program = match u8::try_from(left.len()) {
            Ok(distance) => vec![instruction(JUMP_GREATER_EQUAL, distance, 0, middle)],
            // Conditional jumps reach 255 instructions; plain ones any distance.
            Err(_) => vec![
                instruction(JUMP_GREATER_EQUAL, 0, 1, middle),
                instruction(JUMP, 0, 0, left.len() as u32),
            ],
        };
        program.extend(left);
        program.extend(right);
        return program;
    };
    leaf(&only.rule)
}

fn leaf(rule: &Rule) -> Vec<Instruction> {
    match rule {
        Rule::Allow => vec![instruction(RETURN, 0, 0, RETURN_ALLOW)],
        Rule::Errno(errno) => vec![instruction(RETURN, 0, 0, RETURN_ERRNO | *errno as u32)],
        Rule::When { alternatives, then, otherwise } => {
            let then = leaf(then);
            let mut program = Vec::new();
            for tests in alternatives {
                program.extend(alternative(tests, &then));
            }
            program.extend(leaf(otherwise));
            program
        }
    }
}

/// Runs into `then` if all tests hold, else past it.
fn alternative(tests: &[Test], then: &[Instruction]) -> Vec<Instruction> {
    let mut program: Vec<Instruction> = then.to_vec();
    for test in tests.iter().rev() {
        let past = program.len() as u8;
        // Both architectures put the low half first.
        let half = if test.half == Half::High { 4 } else { 0 };
        let mut with = vec![instruction(LOAD, 0, 0, ARGUMENTS + 8 * test.argument + half)];
        if test.mask != u32::MAX {
            with.push(instruction(AND, 0, 0, test.mask));
        }
        with.push(match test.comparison {
            Comparison::Equal(value) => instruction(JUMP_EQUAL, 0, past, value),
            Comparison::AnyBit => instruction(JUMP_EQUAL, past, 0, 0),
        });
        with.extend(program);
        program = with;
    }
    program
}

fn instruction(code: u16, jump_true: u8, jump_false: u8, operand: u32) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

#[cfg(test)]
mod tests {
    use super::{
        reference::{meaning, run},
        *,
    };
    use crate::{
        Mode,
        syscalls::{self, Profile},
    };

    /// Every profile there is.
    fn profiles() -> Vec<Profile> {
        let mut all = Vec::new();
        for mode in [Mode::Strict, Mode::Relaxed] {
            for bits in 0..16 {
                let bit = |n: u32| bits >> n & 1 == 1;
                let (shares_host, grouped, unix_sockets, datagrams) = (bit(0), bit(1), bit(2), bit(3));
                all.push(Profile { mode, shares_host, datagrams, grouped, unix_sockets });
            }
        }
        all
    }

    const STRICT: Profile = Profile {
        mode: Mode::Strict,
        shares_host: false,
        grouped: true,
        unix_sockets: true,
        datagrams: true,
    };

    #[test]
    fn the_filter_means_what_the_rules_say() {
        let interesting =
            [0, 1, 2, 3, 6, 10, 16, 17, 0x5412, 0x541C, 0x2000_0000, 0x1000_0000, 262, 0xFFFF_FFFF, 1 << 32];
        for profile in profiles() {
            let rules = syscalls::rules(profile);
            let program = compile(&rules);
            assert!(program.len() < 4096, "the kernel's bound");
            let by_number: std::collections::BTreeMap<_, _> = rules.into_iter().collect();
            let unknown = Rule::Errno(libc::ENOSYS);
            for number in (0..600).chain([X32 - 1, X32, X32 + 1, u32::MAX]) {
                let rule = by_number.get(&number).unwrap_or(&unknown);
                // Only what is tested can make a difference.
                let tried =
                    if matches!(rule, Rule::When { .. }) { &interesting[..] } else { &[0, 0xFFFF_FFFF] };
                for &a in tried {
                    for &b in tried {
                        for &c in tried {
                            let arguments = [a, b, c, a ^ b, 0, 0];
                            let got = run(&program, THIS_ARCHITECTURE, number, arguments);
                            assert_eq!(got, meaning(rule, arguments), "{number} {arguments:?} {profile:?}");
                        }
                    }
                }
            }
        }
    }

    /// The numbers of aarch64, by the kernel's own table of them.
    fn aarch64_numbers() -> std::collections::BTreeMap<String, u32> {
        let header = std::fs::read_to_string("/usr/include/asm-generic/unistd.h")
            .expect("the kernel's headers: apt-get install linux-libc-dev");
        let number = |line: &str| {
            let mut words = line.strip_prefix("#define __NR")?.split_whitespace();
            let name = words.next()?.trim_start_matches("3264").strip_prefix('_')?.to_owned();
            // The 64-bit form of what 32-bit architectures have under another name.
            let name = if name == "fstatat" { "newfstatat".to_owned() } else { name };
            Some((name, words.next()?.parse().ok()?))
        };
        header.lines().filter_map(number).collect()
    }

    /// From here on a call has the same number on every architecture.
    const UNIFIED: u32 = 424;

    #[test]
    fn the_filter_for_aarch64_means_what_its_rules_say() {
        let numbers = aarch64_numbers();
        assert_eq!((numbers["openat"], numbers["clone"], numbers["newfstatat"]), (56, 220, 79));
        for profile in profiles() {
            let translated = |(number, rule): (u32, Rule)| {
                let name = syscalls::common_name(number)?;
                let there = if number >= UNIFIED { number } else { *numbers.get(name).expect(name) };
                Some((there, rule))
            };
            let rules: Vec<_> = syscalls::rules(profile).into_iter().filter_map(translated).collect();
            let program = compile_for(AARCH64, &rules);
            let by_number: std::collections::BTreeMap<_, _> = rules.into_iter().collect();
            let unknown = Rule::Errno(libc::ENOSYS);
            for number in 0..600 {
                let rule = by_number.get(&number).unwrap_or(&unknown);
                for argument in [0, 1, 2, 0x5412, 0x1000_0000, 0x2000_0000, 0xFFFF_FFFF, 1 << 32] {
                    let arguments = [argument, argument ^ 1, 0, argument, 0, 0];
                    let got = run(&program, AARCH64, number, arguments);
                    assert_eq!(got, meaning(rule, arguments), "{number} {arguments:?} {profile:?}");
                }
            }
            assert_eq!(run(&program, X86_64, 0, [0; 6]), RETURN_KILL_PROCESS);
            // unshare, mount and ptrace by their numbers there (unistd.h), not by those of here.
            for (number, mode) in [(97, None), (40, None), (117, Some(Mode::Strict))] {
                if mode.is_none_or(|mode| mode == profile.mode) {
                    let got = run(&program, AARCH64, number, [0; 6]);
                    assert_eq!(got, RETURN_ERRNO | libc::EPERM as u32, "{number}");
                }
            }
        }
    }

    #[test]
    fn one_call_is_noticed_and_all_else_allowed() {
        let program = noticing(50);
        for (architecture, number, expected) in [
            (THIS_ARCHITECTURE, 50, RETURN_USER_NOTIF),
            (THIS_ARCHITECTURE, 49, RETURN_ALLOW),
            (THIS_ARCHITECTURE, 51, RETURN_ALLOW),
            (THIS_ARCHITECTURE, X32 + 50, RETURN_ALLOW),
            (0x4000_0003, 50, RETURN_ALLOW),
        ] {
            assert_eq!(run(&program, architecture, number, [0; 6]), expected, "{architecture:#x} {number}");
        }
    }

    #[test]
    fn another_architecture_is_killed() {
        let program = compile(&syscalls::rules(STRICT));
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), RETURN_KILL_PROCESS);
    }

    #[test]
    fn no_call_has_two_rules_in_the_common_part() {
        let mut numbers: Vec<u32> = syscalls::rules(STRICT).iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn without_a_namespace_a_program_reaches_only_itself_by_number() {
        let program = compile(&syscalls::rules(Profile { shares_host: true, ..STRICT }));
        let call = |number: i64, a, b| run(&program, THIS_ARCHITECTURE, number as u32, [a, b, 0, 0, 0, 0]);
        assert_eq!(call(libc::SYS_prlimit64, 0, 7), RETURN_ALLOW);
        assert_eq!(call(libc::SYS_prlimit64, 4711, 7), RETURN_ERRNO | libc::EPERM as u32);
        assert_eq!(call(libc::SYS_setpriority, 0, 0), RETURN_ALLOW);
        assert_eq!(call(libc::SYS_setpriority, 2, 4711), RETURN_ERRNO | libc::EPERM as u32);
        assert_eq!(call(libc::SYS_shmget, 0, 0), RETURN_ERRNO | libc::ENOSYS as u32);
    }

    #[test]
    fn a_size_is_tested_in_full() {
        let small = Rule::only_if(vec![Test::below_power(1, 16).to_vec()], libc::EINVAL);
        let program = compile(&[(7, small.clone())]);
        for size in [0, 1, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 1 << 32, 1 << 63, u64::MAX] {
            let arguments = [0, size, 0, 0, 0, 0];
            let expected = if size <= 0xFFFF { RETURN_ALLOW } else { RETURN_ERRNO | libc::EINVAL as u32 };
            assert_eq!(run(&program, THIS_ARCHITECTURE, 7, arguments), expected, "{size:#x}");
            assert_eq!(meaning(&small, arguments), expected, "{size:#x}");
        }
    }
}
