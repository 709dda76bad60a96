//! What must hold for any rules: the filter made of them decides every call as they do. The target of `fuzz/` calls
//! this, and so does a test with the corpus and simple changes of it.

use std::collections::BTreeMap;

use super::{
    RETURN_KILL_PROCESS, Rule, THIS_ARCHITECTURE, Test, X32, compile,
    reference::{meaning, run},
};

/// Numbers out of bytes; zeros when they are used up.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Small, or at one of the edges.
    fn word(&mut self) -> u32 {
        match self.byte() {
            255 => u32::MAX,
            254 => X32 - 1,
            253 => X32,
            252 => 1 << (self.byte() % 32),
            251 => u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
            250 => 256 + u32::from(self.byte()),
            small => u32::from(small),
        }
    }

    fn plain(&mut self) -> Rule {
        if self.byte().is_multiple_of(2) { Rule::Allow } else { Rule::Errno(i32::from(self.byte())) }
    }

    fn test(&mut self) -> Test {
        let argument = u32::from(self.byte() % 6);
        match self.byte() % 4 {
            0 => Test::equal(argument, self.word()),
            1 => Test::masked(argument, self.word(), self.word()),
            2 => Test::any(argument, self.word()),
            _ => Test::below_power(argument, 32)[1],
        }
    }

    fn rule(&mut self) -> Rule {
        if !self.byte().is_multiple_of(3) {
            return self.plain();
        }
        let alternatives =
            (0..self.byte() % 5).map(|_| (0..self.byte() % 5).map(|_| self.test()).collect()).collect();
        Rule::When { alternatives, then: Box::new(self.plain()), otherwise: Box::new(self.plain()) }
    }
}

/// Rules, then arguments to try them with.
pub fn filter(bytes: &[u8]) {
    let mut numbers = Numbers(bytes);
    let count = usize::from(numbers.byte());
    let rules: Vec<(u32, Rule)> = (0..count).map(|_| (numbers.word(), numbers.rule())).collect();
    let program = compile(&rules);
    let by_number: BTreeMap<u32, &Rule> =
        rules.iter().filter(|(number, _)| *number < X32).map(|(number, rule)| (*number, rule)).collect();
    let unknown = Rule::Errno(libc::ENOSYS);
    let arguments: [u64; 6] =
        std::array::from_fn(|_| u64::from(numbers.word()) << 32 | u64::from(numbers.word()));
    let around =
        rules.iter().flat_map(|(number, _)| [number.wrapping_sub(1), *number, number.wrapping_add(1)]);
    for number in around.chain([0, X32 - 1, X32, u32::MAX, numbers.word()]) {
        let rule = by_number.get(&number).copied().unwrap_or(&unknown);
        for arguments in [arguments, [0; 6], [u64::MAX; 6]] {
            let got = run(&program, THIS_ARCHITECTURE, number, arguments);
            assert_eq!(got, meaning(rule, arguments), "{number} {arguments:x?} {rules:?}");
        }
    }
    assert_eq!(run(&program, 0x4000_0003, 0, arguments), RETURN_KILL_PROCESS);
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_rules_surprise() {
        mhnos_testing::replay("filter", super::filter);
    }
}
