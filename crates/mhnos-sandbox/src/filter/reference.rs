//! What rules and filters mean, said a second time and as plainly as possible: a filter is run as the kernel runs
//! it, rules are looked at one by one.

use super::{
    AND, ARCHITECTURE, ARGUMENTS, Comparison, Half, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER_EQUAL, LOAD,
    NUMBER, RETURN, RETURN_ALLOW, RETURN_ERRNO, Rule, Test,
};

fn half(argument: u64, low: bool) -> u32 {
    if low { argument as u32 } else { (argument >> 32) as u32 }
}

/// Runs a filter.
pub(crate) fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jump_true, jump_false, operand } = program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { jump_true } else { jump_false });
        match code {
            LOAD => {
                accumulator = match operand {
                    NUMBER => number,
                    ARCHITECTURE => architecture,
                    _ => half(arguments[((operand - ARGUMENTS) / 8) as usize], operand.is_multiple_of(8)),
                }
            }
            AND => accumulator &= operand,
            JUMP => at += operand as usize,
            JUMP_EQUAL => at += jump(accumulator == operand),
            JUMP_GREATER_EQUAL => at += jump(accumulator >= operand),
            RETURN => return operand,
            other => panic!("unknown opcode {other:#x}"),
        }
    }
}

/// What the filter must return for a call under this rule.
pub(crate) fn meaning(rule: &Rule, arguments: [u64; 6]) -> u32 {
    match rule {
        Rule::Allow => RETURN_ALLOW,
        Rule::Errno(errno) => RETURN_ERRNO | *errno as u32,
        Rule::When { alternatives, then, otherwise } => {
            let holds = |test: &Test| {
                let value = half(arguments[test.argument as usize], test.half == Half::Low) & test.mask;
                match test.comparison {
                    Comparison::Equal(expected) => value == expected,
                    Comparison::AnyBit => value != 0,
                }
            };
            let any = alternatives.iter().any(|tests| tests.iter().all(holds));
            meaning(if any { then } else { otherwise }, arguments)
        }
    }
}
