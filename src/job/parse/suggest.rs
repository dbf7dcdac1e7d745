//! What serde says of a name that it does not know, in words for people, with the name that was perhaps meant.

/// The message; of an unknown field or variant with a suggestion.
pub(super) fn helped(message: &str) -> String {
    let kind = ["unknown field", "unknown variant"]
        .into_iter()
        .find(|kind| message.starts_with(kind));
    let Some(kind) = kind else {
        return message.to_owned();
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
