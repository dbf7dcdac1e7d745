//! Extended regular expressions of POSIX, by libc: what crun's `--regex` means.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// A compiled expression. Boxed, as libc does not say that it may be moved.
pub struct Regex(Box<libc::regex_t>);

impl Regex {
    /// Compiles an expression, which may match anywhere in a text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in libc's words.
    pub fn new(pattern: &str) -> Result<Regex, String> {
        let pattern = CString::new(pattern).map_err(|_| "it has a zero byte in it".to_owned())?;
        let mut regex = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: `regex` has room for one expression, `pattern` ends with a zero byte; both live
        // until the call returns.
        let code = unsafe { libc::regcomp(regex.as_mut_ptr(), pattern.as_ptr(), flags) };
        if code != 0 {
            return Err(reason(code));
        }
        // SAFETY: initialised by regcomp, which has answered 0.
        Ok(Regex(unsafe { regex.assume_init() }))
    }

    /// Whether some part of `text` matches; none of a text with a zero byte does.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else {
            return false;
        };
        // SAFETY: the expression was compiled and is freed only on drop; `text` ends with a zero
        // byte; no places of parts are asked for (REG_NOSUB), so none are written.
        unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp, freed nowhere else, and not used after this.
        unsafe { libc::regfree(&raw mut *self.0) }
    }
}

/// libc's words for an answer of regcomp.
fn reason(code: i32) -> String {
    let mut text = [0_u8; 128];
    // SAFETY: at most the length that is passed is written, with a zero byte at the end; without an
    // expression, the words are those for the code alone.
    let _length =
        unsafe { libc::regerror(code, std::ptr::null(), text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..end]).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_text_is_enough_and_anchors_hold() {
        let matches = |pattern, text| Regex::new(pattern).unwrap().matches(text);
        assert!(matches("b+", "abbc") && matches("", "x"));
        assert!(matches("^web-[0-9]{2}$", "web-07") && !matches("^web-[0-9]{2}$", "web-7"));
        assert!(matches("(a|b)c", "xbc") && !matches("(a|b)c", "cc"));
    }

    #[test]
    fn what_is_no_expression_is_refused_in_words() {
        for (pattern, words) in [
            ("(", "unmatched ("),
            ("[a", "unmatched ["),
            ("a\0", "zero byte"),
        ] {
            let told = Regex::new(pattern).err().unwrap();
            assert!(told.contains(words), "{told}");
        }
    }
}
