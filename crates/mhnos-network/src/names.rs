//! Addresses that stand for names.
//!
//! A program that asks for a name gets an address of ours and nothing is asked outside: so no question carries data
//! out, and no answer of a hostile server comes in. When the program connects to the address, the name it stands for
//! is looked up here. The pools are the networks for benchmarks, which nobody routes (RFC 2544, RFC 5180) and which
//! runtimes with address rules of their own, workerd for one, take for public.
//!
//! Programs remember addresses: beyond their time, and beyond a bridge's. So an address that has stood for one name
//! stands for no other before all the pool has been through, and each bridge begins elsewhere.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// 198.18.0.0/15.
const POOL_V4: u32 = 0xc612_0000;
/// 2001:2::/48.
const POOL_V6: u128 = 0x2001_0002 << 96;
/// The first addresses of the pools stand for nothing.
const FIRST: u32 = 16;

/// How many numbers there are: those of the smaller pool, from [`FIRST`] on.
const NUMBERS: u32 = (1 << 17) - FIRST;
/// Between where one bridge begins and where the next does: by the golden ratio, so that any number of bridges in a row
/// are as far from each other as can be.
const APART: u32 = 80_997;

/// The names one sandbox has asked for, the oldest first. Their numbers, the last part of their addresses, follow each
/// other. One that is asked for again before it goes has two places for a while.
#[derive(Debug)]
pub(crate) struct Names {
    places: VecDeque<String>,
    /// Of a name with two places the later.
    numbers: HashMap<String, u32>,
    /// How far the oldest's number is from [`FIRST`].
    oldest: u32,
    most: usize,
}

impl Names {
    /// Remembers `most` names at once, for this of a keeper's bridges.
    pub(crate) fn new(most: usize, bridge: u32) -> Self {
        let oldest = (u64::from(bridge) * u64::from(APART) % u64::from(NUMBERS)) as u32;
        Self { places: VecDeque::new(), numbers: HashMap::new(), oldest, most }
    }

    /// The number that stands for a name from now on, until half as many more have been given as there are places.
    pub(crate) fn number(&mut self, name: &str) -> u32 {
        let number = self.numbers.get(name).copied();
        if let Some(number) = number.filter(|number| !self.goes_soon(*number)) {
            return number;
        }
        if self.places.len() >= self.most {
            self.forget_the_oldest();
        }
        let number = FIRST + (self.oldest + self.places.len() as u32) % NUMBERS;
        self.places.push_back(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// What an address of ours stands for; `None` if it is one and stands for nothing any more.
    pub(crate) fn name(&self, number: u32) -> Option<&str> {
        self.places.get(self.place(number)?).map(String::as_str)
    }

    fn place(&self, number: u32) -> Option<usize> {
        let number = number.checked_sub(FIRST).filter(|number| *number < NUMBERS)?;
        Some(((number + NUMBERS - self.oldest) % NUMBERS) as usize)
    }

    fn goes_soon(&self, number: u32) -> bool {
        let free = self.most.saturating_sub(self.places.len());
        self.place(number).is_none_or(|place| free + place < self.most / 2)
    }

    fn forget_the_oldest(&mut self) {
        let Some(gone) = self.places.pop_front() else { return };
        // It may have a later place.
        if self.numbers.get(&gone) == Some(&(FIRST + self.oldest)) {
            self.numbers.remove(&gone);
        }
        self.oldest = (self.oldest + 1) % NUMBERS;
    }
}

pub(crate) fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(POOL_V4 + number)
}

pub(crate) fn v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(POOL_V6 + u128::from(number))
}

/// The number of an address of ours.
pub(crate) fn number(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            (bits & 0xfffe_0000 == POOL_V4).then(|| bits - POOL_V4)
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 80 == POOL_V6 >> 80).then(|| u32::try_from(bits - POOL_V6).unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_until_there_are_too_many() {
        let mut names = Names::new(3, 0);
        let first = names.number("a.example");
        assert_eq!(names.number("a.example"), first);
        let others: Vec<u32> = ["b.example", "c.example"].map(|name| names.number(name)).into();
        assert!(!others.contains(&first));
        assert_eq!(names.name(first), Some("a.example"));
        names.number("d.example");
        assert_eq!(names.name(first), None);
        assert_ne!(names.number("a.example"), first);
    }

    #[test]
    fn a_name_that_is_asked_for_again_does_not_go_first() {
        let mut names = Names::new(4, 0);
        let [first, ..] = ["a.example", "b.example", "c.example"].map(|name| names.number(name));
        let again = names.number("a.example");
        assert_ne!(again, first);
        assert_eq!((names.name(first), names.name(again)), (Some("a.example"), Some("a.example")));
        // The first place goes, and the name is not asked for once more.
        names.number("d.example");
        assert_eq!((names.name(first), names.name(again)), (None, Some("a.example")));
        assert_eq!(names.number("a.example"), again);
        names.number("e.example");
        assert_eq!(names.name(again), Some("a.example"));
    }

    /// As a program does that needs the same few all the time.
    #[test]
    fn names_that_are_asked_for_in_turn_keep_their_numbers() {
        let mut names = Names::new(8, 0);
        for number in 0..8 {
            names.number(&format!("{number}.example"));
        }
        let mut round = || ["a", "b", "c", "d"].map(|name| names.number(name));
        let first = round();
        assert!((0..10).all(|_| round() == first));
    }

    #[test]
    fn a_number_that_stood_for_one_name_stands_for_no_other_before_all_have_been_through() {
        let mut names = Names::new(3, 7);
        let first = names.number("0.example");
        for number in 1..NUMBERS {
            let name = format!("{number}.example");
            let now = names.number(&name);
            assert_eq!(names.name(now), Some(&*name));
            assert!(now >= FIRST && number < 3 || names.name(first).is_none());
        }
        assert_eq!(names.number("again.example"), first);
        assert_eq!(names.name(first), Some("again.example"));
    }

    /// Each with as many names as may be remembered.
    #[test]
    fn what_one_bridge_has_told_stands_for_nothing_at_the_next_ones() {
        let most = crate::limits::NAMES;
        let mut seen = std::collections::HashSet::new();
        for bridge in 1..=21 {
            let mut names = Names::new(most, bridge);
            for name in 0..most {
                assert!(seen.insert(names.number(&name.to_string())), "bridge {bridge}");
            }
        }
    }

    #[test]
    fn addresses_lead_back_to_their_number() {
        for number in [FIRST, 4096, 70_000] {
            assert_eq!(super::number(v4(number).into()), Some(number));
            assert_eq!(super::number(v6(number).into()), Some(number));
        }
        assert_eq!(super::number("198.17.255.255".parse().expect("an address")), None);
        assert_eq!(super::number("2001:3::1".parse().expect("an address")), None);
        let mut names = Names::new(3, 0);
        assert_eq!(names.number("a.example"), FIRST);
        for none in [0, FIRST - 1, FIRST + 1, FIRST + NUMBERS, u32::MAX] {
            assert_eq!(names.name(none), None);
        }
    }
}
