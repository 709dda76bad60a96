//! Addresses that stand for names.
//!
//! A program that asks for a name gets an address of ours and nothing is asked outside: so no question carries data
//! out, and no answer of a hostile server comes in. When the program connects to the address, the name it stands for
//! is looked up here. The pools are the networks for benchmarks, which nobody routes (RFC 2544, RFC 5180) and which
//! runtimes with address rules of their own, workerd for one, take for public.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// 198.18.0.0/15.
const POOL_V4: u32 = 0xc612_0000;
/// 2001:2::/48.
const POOL_V6: u128 = 0x2001_0002 << 96;
/// The first addresses of the pools stand for nothing.
const FIRST: u32 = 16;

/// The names one sandbox has asked for. A place's number is the last part of its addresses.
#[derive(Debug)]
pub(crate) struct Names {
    places: Vec<String>,
    numbers: HashMap<String, u32>,
    next: usize,
    most: usize,
}

impl Names {
    /// Remembers `most` names at once.
    pub(crate) fn new(most: usize) -> Self {
        Self { places: Vec::new(), numbers: HashMap::new(), next: 0, most }
    }

    /// The number that stands for a name from now on.
    pub(crate) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = FIRST + self.next as u32;
        match self.places.get_mut(self.next) {
            Some(place) => {
                self.numbers.remove(place);
                name.clone_into(place);
            }
            None => self.places.push(name.to_owned()),
        }
        self.next = (self.next + 1) % self.most;
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// What an address of ours stands for; `None` if it is one and stands for nothing any more.
    pub(crate) fn name(&self, number: u32) -> Option<&str> {
        self.places.get(number.checked_sub(FIRST)? as usize).map(String::as_str)
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
        let mut names = Names::new(3);
        let first = names.number("a.example");
        assert_eq!(names.number("a.example"), first);
        let others: Vec<u32> = ["b.example", "c.example"].map(|name| names.number(name)).into();
        assert!(!others.contains(&first));
        assert_eq!(names.name(first), Some("a.example"));
        names.number("d.example");
        assert_eq!(names.name(first), Some("d.example"));
        assert_ne!(names.number("a.example"), first);
    }

    #[test]
    fn addresses_lead_back_to_their_number() {
        for number in [FIRST, 4096, 70_000] {
            assert_eq!(super::number(v4(number).into()), Some(number));
            assert_eq!(super::number(v6(number).into()), Some(number));
        }
        assert_eq!(super::number("198.17.255.255".parse().expect("an address")), None);
        assert_eq!(super::number("2001:3::1".parse().expect("an address")), None);
        assert_eq!(Names::new(3).name(0), None);
    }
}
