//! Forms of names.

/// A form that text can have.
pub(super) struct Form {
    /// The most bytes.
    length: usize,
    /// What it may begin with, besides letters and digits.
    first: &'static str,
    /// What it may have in it, besides letters and digits.
    others: &'static str,
}

/// The name of a job, and its version.
pub(super) const NAME: Form = form(63, "", "-_.");

/// The name of a task, which is the end of a container's id: without a dot, so that ids differ.
pub(super) const TASK_NAME: Form = form(63, "", "-_");

/// The name of a port, which is a part of a variable's, or of a service.
pub(super) const PORT_NAME: Form = form(63, "_", "-_.");

/// The name of a host (hostname(7)).
pub(super) const HOST_NAME: Form = form(64, "", "-.");

/// The name of a volume, which is that of a directory.
pub(super) const VOLUME_NAME: Form = form(63, "", "-_.");

/// What a request says its host is.
pub(super) const HOST_HEADER: Form = form(255, "[", "-.:[]");

/// One word that is passed on.
pub(super) const WORD: Form = form(255, "!#$%&'*+-./:;=?@_~", "!#$%&'*+-./:;=?@_~");

const fn form(length: usize, first: &'static str, others: &'static str) -> Form {
    Form {
        length,
        first,
        others,
    }
}

impl Form {
    /// What is wrong with a text; None if it has this form.
    pub(super) fn refuses(&self, text: &str) -> Option<String> {
        let fits = |c: char, others: &str| c.is_ascii_alphanumeric() || others.contains(c);
        let first = text.starts_with(|c| fits(c, self.first));
        let all = text.chars().all(|c| fits(c, self.others));
        let wrong = text.len() > self.length || !first || !all;
        wrong.then(|| {
            let others: Vec<String> = self.others.chars().map(|c| c.to_string()).collect();
            format!(
                "must be 1 to {} letters, digits and {}, beginning with a letter or digit, is {:?}",
                self.length,
                others.join(" "),
                text.chars().take(80).collect::<String>()
            )
        })
    }
}

/// What is wrong with an absolute path; None if it is one that can be written in one way only.
pub(super) fn absolute(path: &str) -> Option<String> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\n']);
    let fits = path == "/"
        || path
            .strip_prefix('/')
            .is_some_and(|p| p.split('/').all(plain));
    (!fits)
        .then(|| format!("must be an absolute path without //, /., /.. and a last /, is {path:?}"))
}
