//! What serde says of a name that it does not know, in words for people, with the name that was perhaps meant; and of a
//! value of the wrong type, with what was perhaps meant by it.

/// The message; of an unknown field or variant, or a value of the wrong type, with a suggestion.
pub(super) fn helped(message: &str) -> String {
    let kind = ["unknown field", "unknown variant"]
        .into_iter()
        .find(|kind| message.starts_with(kind));
    let Some(kind) = kind else {
        return match of_type(message) {
            Some(meant) => format!("{message}: write {meant}"),
            None => message.to_owned(),
        };
    };
    let mut names = message.split('`').skip(1).step_by(2);
    let given = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    match nearest(given, &known) {
        Some(meant) => format!("{kind} `{given}`: did you mean `{meant}`?"),
        None if known.is_empty() => format!("{kind} `{given}`"),
        None => format!("{kind} `{given}`: known are {}", known.join(", ")),
    }
}

/// The name that a message suggests.
pub(super) fn suggested(helped: &str) -> Option<String> {
    let (_, name) = helped.strip_suffix("`?")?.rsplit_once("did you mean `")?;
    Some(name.to_owned())
}

/// What a value of the wrong type would be in the right one, where that is plain.
fn of_type(message: &str) -> Option<String> {
    let (given, expected) = message
        .strip_prefix("invalid type: ")?
        .split_once(", expected ")?;
    let text = given.strip_prefix("string ");
    let text = text.filter(|text| text.len() < 80 && !text.contains('\\'));
    let word = given.split('`').nth(1);
    match (expected, text, word) {
        ("a string" | "path string", None, Some(word)) => Some(format!("{word:?}")),
        ("a sequence", Some(one), _) | ("a sequence", None, Some(one)) => Some(format!("[{one}]")),
        ("a boolean", Some(text), _) => {
            let text = text.trim_matches('"');
            ["true", "false"].contains(&text).then(|| text.to_owned())
        }
        ("u8" | "u16" | "u32" | "f64", Some(text), _) => {
            let text = text.trim_matches('"');
            text.parse::<f64>().is_ok().then(|| text.to_owned())
        }
        _ => None,
    }
}

/// The name that needs the fewest changes, if these are few for its length.
fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let far = |name: &str| distance(&given.to_ascii_lowercase(), &name.to_ascii_lowercase());
    let best = known.iter().min_by_key(|name| far(name))?;
    let length = best.chars().count().max(given.chars().count());
    (far(best) <= (length / 3).max(1)).then_some(best)
}

/// How many letters have to be put in, taken away, replaced or swapped with the next one.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) =
        (from.chars().take(64).collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in to.iter().enumerate() {
            let replaced = above[j] + usize::from(letter != other);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == to[j - 1] && from[i - 1] == *other {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_if_it_is_near() {
        let known = ["bundle", "command", "env", "workingDirectory"];
        assert_eq!(nearest("comand", &known), Some("command"));
        assert_eq!(nearest("bnudle", &known), Some("bundle"));
        assert_eq!(
            nearest("working_directory", &known),
            Some("workingDirectory")
        );
        assert_eq!(nearest("Env", &known), Some("env"));
        assert_eq!(nearest("image", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(distance("ab", "ba"), 1);
    }
}
