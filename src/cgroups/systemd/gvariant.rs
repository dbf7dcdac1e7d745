//! The text form of values that annotations are written in: GVariant's (GLib, "GVariant Text
//! Format"), of which properties of a unit need truth values, numbers, texts and lists.
//!
//! Reads the form; which type a property has is decided by its table in annotations.rs.

/// A value as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Written {
    Bool(bool),
    /// The digits, and the type if one is given: `uint64 5` is ("5", 't').
    Number(String, Option<char>),
    Text(String),
    List(Vec<Written>),
}

/// Reads one value; the whole text must be it.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Written, String> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value()?;
    match parser.skip_blanks() {
        "" => Ok(value),
        rest => Err(format!("has {rest:?} after its value")),
    }
}

/// Names of types, with the letter that D-Bus has for them.
const KEYWORDS: &[(&str, char)] = &[
    ("boolean", 'b'),
    ("byte", 'y'),
    ("int16", 'n'),
    ("uint16", 'q'),
    ("int32", 'i'),
    ("uint32", 'u'),
    ("int64", 'x'),
    ("uint64", 't'),
    ("double", 'd'),
    ("string", 's'),
];

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_blanks(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn value(&mut self) -> Result<Written, String> {
        match self.skip_blanks().chars().next() {
            None => Err("has no value".to_owned()),
            Some('[') => self.list(),
            Some(quote @ ('\'' | '"')) => self.text(quote),
            Some('@') => {
                self.rest = &self.rest[1..];
                let kind = self.word(|c| c.is_ascii_alphabetic());
                self.typed(&kind)
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(None),
            Some(c) if c.is_ascii_alphabetic() => {
                let word = self.word(|c| c.is_ascii_alphanumeric());
                match KEYWORDS.iter().find(|(name, _)| *name == word) {
                    Some((_, kind)) => self.typed(&kind.to_string()),
                    None => literal(&word),
                }
            }
            Some(c) => Err(format!(
                "has {c:?} where a value begins: true, a number, 'text' and ['lists'] are known"
            )),
        }
    }

    fn word(&mut self, part: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    /// The value after its type. The type of a number is kept; another must be the value's own.
    fn typed(&mut self, kind: &str) -> Result<Written, String> {
        self.skip_blanks();
        match kind {
            "y" | "n" | "q" | "i" | "u" | "x" | "t" | "d" => self.number(kind.chars().next()),
            _ => {
                let value = self.value()?;
                let fits = match &value {
                    Written::Bool(_) => kind == "b",
                    Written::Text(_) => kind == "s",
                    Written::List(_) => kind.starts_with('a'),
                    Written::Number(..) => false,
                };
                match fits {
                    true => Ok(value),
                    false => Err(format!("has a value that is not of its type {kind:?}")),
                }
            }
        }
    }

    fn number(&mut self, kind: Option<char>) -> Result<Written, String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        match self.word(is_part) {
            empty if empty.is_empty() => Err("has no number after its type".to_owned()),
            digits => Ok(Written::Number(digits, kind)),
        }
    }

    fn list(&mut self) -> Result<Written, String> {
        self.rest = &self.rest[1..];
        let mut list = Vec::new();
        loop {
            if let Some(rest) = self.skip_blanks().strip_prefix(']') {
                self.rest = rest;
                return Ok(Written::List(list));
            }
            if !list.is_empty() {
                let rest = self.rest.strip_prefix(',');
                self.rest = rest.ok_or("has a list without a comma between values or its end")?;
            }
            if self.skip_blanks().starts_with('[') {
                return Err("has a list in a list".to_owned());
            }
            list.push(self.value()?);
        }
    }

    fn text(&mut self, quote: char) -> Result<Written, String> {
        let mut text = String::new();
        let mut chars = self.rest[1..].chars();
        loop {
            match chars.next() {
                None => return Err("has text without its closing quote".to_owned()),
                Some(c) if c == quote => break,
                Some('\\') => text.push(escaped(&mut chars)?),
                Some(c) => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Ok(Written::Text(text))
    }
}

fn literal(word: &str) -> Result<Written, String> {
    match word {
        "true" => Ok(Written::Bool(true)),
        "false" => Ok(Written::Bool(false)),
        "inf" | "nan" => Err(format!("has {word:?} as a number")),
        _ => Err(format!(
            "has {word:?} without quotes: text is written '{word}'"
        )),
    }
}

/// The character that a backslash and what follows it stand for.
fn escaped(chars: &mut std::str::Chars<'_>) -> Result<char, String> {
    let wrong = || "has a \\u without its hexadecimal digits".to_owned();
    Ok(match chars.next().ok_or("ends in a backslash")? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        'u' => code_point(chars, 4).ok_or_else(wrong)?,
        'U' => code_point(chars, 8).ok_or_else(wrong)?,
        other => other,
    })
}

fn code_point(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let (digits, rest) = chars.as_str().split_at_checked(digits)?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    *chars = rest.chars();
    char::from_u32(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(digits: &str, kind: Option<char>) -> Result<Written, String> {
        Ok(Written::Number(digits.into(), kind))
    }

    fn text(text: &str) -> Written {
        Written::Text(text.into())
    }

    #[test]
    fn values_are_read_as_glib_writes_them() {
        assert_eq!(parse("true"), Ok(Written::Bool(true)));
        assert_eq!(parse(" 15 "), number("15", None));
        assert_eq!(parse("-1"), number("-1", None));
        assert_eq!(parse("1.5e3"), number("1.5e3", None));
        assert_eq!(parse("uint64 30000000"), number("30000000", Some('t')));
        assert_eq!(parse("@t 30000000"), number("30000000", Some('t')));
        assert_eq!(
            parse("'inactive-or-failed'"),
            Ok(text("inactive-or-failed"))
        );
        assert_eq!(parse("\"it's\""), Ok(text("it's")));
        assert_eq!(parse("@s 'x'"), Ok(text("x")));
        let list = Written::List(vec![text("a.target"), text("b.target")]);
        assert_eq!(parse("['a.target', 'b.target']"), Ok(list.clone()));
        assert_eq!(parse("@as [ 'a.target','b.target' ]"), Ok(list));
        assert_eq!(parse("[]"), Ok(Written::List(vec![])));
    }

    #[test]
    fn escapes_stand_for_characters() {
        assert_eq!(
            parse(r"'a\'b\\c\n\u00e4\U0001f600'"),
            Ok(text("a'b\\c\nä😀"))
        );
    }

    #[test]
    fn what_is_no_value_is_told() {
        for (wrong, problem) in [
            ("", "no value"),
            ("inactive", "text is written 'inactive'"),
            ("'open", "closing quote"),
            ("'x\\", "ends in a backslash"),
            (r"'\u12'", "hexadecimal digits"),
            ("['a' 'b']", "comma"),
            ("['a'", "comma"),
            ("[['a']]", "list in a list"),
            ("5 6", "after its value"),
            ("uint64", "no number"),
            ("uint64 'x'", "no number"),
            ("@s 5", "not of its type"),
            ("{'a': 1}", "where a value begins"),
            ("<5>", "where a value begins"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(problem), "{wrong}: {error}");
        }
    }
}
