//! A set of small numbers, processors or memory nodes, as the kernel's calls and config.json have it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// Numbers at and above this are refused: no kernel is built for so many processors (8192) or
/// nodes (1024), and a number decides how much memory the set takes.
pub const LIMIT: u32 = 8192;

const BITS: usize = usize::BITS as usize;

/// The set: bit `n` of an array of the kernel's `unsigned long`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bitmap(Vec<usize>);

impl Bitmap {
    /// The set that `text` lists: `0-3,7`. Blanks and elements without a number mean nothing, as
    /// for runc.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as the end of a sentence that begins with where it stands.
    pub fn parse(text: &str) -> Result<Bitmap, String> {
        let mut set = Bitmap::default();
        let parts = text.split(',').map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first, text)?, number(last, text)?);
            if first > last {
                return Err(format!("{part:?} ends before it begins"));
            }
            set.insert(first, last);
        }
        Ok(set)
    }

    /// Every number there can be.
    #[must_use]
    pub fn full() -> Bitmap {
        Bitmap(vec![usize::MAX; LIMIT as usize / BITS])
    }

    fn insert(&mut self, first: u32, last: u32) {
        let needed = last as usize / BITS + 1;
        if self.0.len() < needed {
            self.0.resize(needed, 0);
        }
        for bit in first as usize..=last as usize {
            self.0[bit / BITS] |= 1 << (bit % BITS);
        }
    }

    /// True when no number is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The array, to hand to the kernel.
    #[must_use]
    pub fn words(&self) -> &[usize] {
        &self.0
    }

    /// The list that [`Bitmap::parse`] reads, in its shortest form.
    #[must_use]
    pub fn to_list(&self) -> String {
        let has = |bit: usize| {
            let word = self.0.get(bit / BITS).copied().unwrap_or(0);
            word & 1 << (bit % BITS) != 0
        };
        let mut parts: Vec<String> = Vec::new();
        let mut bit = 0;
        while bit < self.0.len() * BITS {
            let first = bit;
            while has(bit) {
                bit += 1;
            }
            match bit - first {
                0 => {}
                1 => parts.push(first.to_string()),
                _ => parts.push(format!("{first}-{}", bit - 1)),
            }
            bit += 1;
        }
        parts.join(",")
    }
}

fn number(digits: &str, text: &str) -> Result<u32, String> {
    let digits = digits.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(format!(
            "must list numbers and ranges, as \"0-3,7\", is {text:?}"
        ));
    }
    match digits.parse() {
        Ok(number) if number < LIMIT => Ok(number),
        Ok(_) | Err(_) => Err(format!("{digits} is above {}, the largest", LIMIT - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read() {
        for (text, list) in [
            ("0-3,7", "0-3,7"),
            ("7, 0 - 2 ,,1-3", "0-3,7"),
            ("63-64,8191", "63-64,8191"),
            ("", ""),
            (" , ", ""),
        ] {
            let set = Bitmap::parse(text).unwrap();
            assert_eq!(set.to_list(), list, "{text}");
            assert_eq!(set.is_empty(), list.is_empty());
        }
        assert_eq!(Bitmap::parse("0,65").unwrap().words(), [1, 2]);
        assert_eq!(Bitmap::full().to_list(), "0-8191");
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_reason() {
        for (text, reason) in [
            ("a", "must list numbers and ranges, as \"0-3,7\", is \"a\""),
            (
                "1-",
                "must list numbers and ranges, as \"0-3,7\", is \"1-\"",
            ),
            (
                "-1",
                "must list numbers and ranges, as \"0-3,7\", is \"-1\"",
            ),
            (
                "+1",
                "must list numbers and ranges, as \"0-3,7\", is \"+1\"",
            ),
            ("3-1", "\"3-1\" ends before it begins"),
            ("8192", "8192 is above 8191, the largest"),
            ("99999999999", "99999999999 is above 8191, the largest"),
        ] {
            assert_eq!(Bitmap::parse(text).unwrap_err(), reason);
        }
    }
}
