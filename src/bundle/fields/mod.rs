//! The table of every field of the OCI runtime specification 1.3.
//!
//! One row for each field says what a value must look like and what this release does with it.
//! The rows stand in the order of a walk through the document, parents before children, so that
//! the compiler can derive the tree (`LINKS`) and the walk needs neither search nor allocation.
//! The table decides shape and range; what depends on another field is in `checks`.

mod foreign;
mod general;
mod linux;

/// One field of config.json.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Where: `linux.resources.memory.limit`, `mounts[].options[]`, `annotations.*`.
    pub path: &'static str,
    /// What a value must look like.
    pub kind: Kind,
    /// Whether the object above must have it.
    pub required: bool,
    /// What this release does with it.
    pub support: Support,
}

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An object with the properties of the rows below; others are warned about and ignored
    /// (config.md, "Extensibility").
    Object,
    /// An object whose keys are words of the specification: others are errors.
    Closed,
    /// An object with any keys but the empty one; its values are the row `*` below.
    Map,
    /// An array; its elements are the row `[]` below.
    Array,
    /// True or false.
    Bool,
    /// A whole number in a range, both ends included.
    Int {
        /// The smallest value.
        min: i64,
        /// The largest value.
        max: u64,
    },
    /// A string that reaches the kernel, hence without a zero byte.
    Text,
    /// Any string.
    Free,
    /// A string that is an absolute path.
    Path,
    /// One of these words.
    Words(&'static [&'static str]),
}

/// What this release does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It has its effect.
    Honoured,
    /// For another platform: refused, unless the value asks for nothing (`""`, `[]`, `{}`).
    OtherPlatform(Platform),
}

/// A platform of the specification that this runtime is not for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// config-freebsd.md
    FreeBsd,
    /// config-solaris.md
    Solaris,
    /// config-vm.md
    VirtualMachines,
    /// config-windows.md
    Windows,
    /// config-zos.md
    Zos,
}

impl Platform {
    /// The name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Platform::FreeBsd => "FreeBSD",
            Platform::Solaris => "Solaris",
            Platform::VirtualMachines => "virtual machines",
            Platform::Windows => "Windows",
            Platform::Zos => "z/OS",
        }
    }
}

// Short names, so that each row is one line.
const MUST: bool = true;
const MAY: bool = false;
const YES: Support = Support::Honoured;
const SOLARIS: Support = Support::OtherPlatform(Platform::Solaris);
const WINDOWS: Support = Support::OtherPlatform(Platform::Windows);
const VM: Support = Support::OtherPlatform(Platform::VirtualMachines);
const ZOS: Support = Support::OtherPlatform(Platform::Zos);
const FREEBSD: Support = Support::OtherPlatform(Platform::FreeBsd);
const I32: Kind = int(i32::MIN as i64, i32::MAX as u64);
const I64: Kind = int(i64::MIN, i64::MAX as u64);
const U8: Kind = int(0, u8::MAX as u64);
const U16: Kind = int(0, u16::MAX as u64);
const U32: Kind = int(0, u32::MAX as u64);
const U64: Kind = int(0, u64::MAX);
/// A user or group: (uid_t)-1 means "none" to the kernel, so it names nobody.
const ID: Kind = int(0, u32::MAX as u64 - 1);
/// How many ids a mapping has.
const SIZE: Kind = int(1, u32::MAX as u64);
/// A hook's timeout; config.md: greater than zero.
const SECONDS: Kind = int(1, i64::MAX as u64);
const NANOS: Kind = int(0, 999_999_999);
/// Seconds that a clock is moved: the kernel takes no time beyond half of KTIME_SEC_MAX.
const CLOCK: Kind = int(-4_611_686_018, 4_611_686_018);

const fn int(min: i64, max: u64) -> Kind {
    Kind::Int { min, max }
}

const fn row(path: &'static str, kind: Kind, required: bool, support: Support) -> Field {
    Field {
        path,
        kind,
        required,
        support,
    }
}

/// Every field of the specification 1.3, parents before children.
pub static FIELDS: [Field; COUNT] = join();

const COUNT: usize = general::ROWS.len() + linux::ROWS.len() + foreign::ROWS.len();

const fn join() -> [Field; COUNT] {
    let mut all = [general::ROWS[0]; COUNT];
    let mut filled = 0;
    let parts: [&[Field]; 3] = [&general::ROWS, &linux::ROWS, &foreign::ROWS];
    let mut part = 0;
    while part < parts.len() {
        let mut i = 0;
        while i < parts[part].len() {
            all[filled] = parts[part][i];
            filled += 1;
            i += 1;
        }
        part += 1;
    }
    all
}

/// What the compiler derives from the paths. Indices and not references: each reference in a
/// static is patched at every start of the program, for every verb.
static LINKS: [Link; COUNT] = link(&join());

#[derive(Clone, Copy)]
struct Link {
    /// Where in the path the row's own name begins.
    name: u16,
    /// The first row that is not below this one.
    end: u16,
}

const fn link(rows: &[Field; COUNT]) -> [Link; COUNT] {
    let mut links = [Link { name: 0, end: 0 }; COUNT];
    let mut i = 0;
    while i < COUNT {
        let path = rows[i].path.as_bytes();
        let mut end = i + 1;
        while end < COUNT && is_below(path, rows[end].path.as_bytes()) {
            end += 1;
        }
        links[i] = Link {
            name: name_start(path) as u16,
            end: end as u16,
        };
        i += 1;
    }
    links
}

const fn is_below(above: &[u8], path: &[u8]) -> bool {
    if path.len() <= above.len() || (path[above.len()] != b'.' && path[above.len()] != b'[') {
        return false;
    }
    let mut i = 0;
    while i < above.len() {
        if path[i] != above[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The name is what follows the last dot; an element row has none, and is not asked for it.
const fn name_start(path: &[u8]) -> usize {
    let mut start = path.len();
    while start > 0 && path[start - 1] != b'.' {
        start -= 1;
    }
    start
}

/// A row of [`FIELDS`] with its place in the tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row(usize);

impl Row {
    /// The field itself.
    pub(super) fn field(self) -> &'static Field {
        &FIELDS[self.0]
    }

    /// The property's name in the object above.
    pub(super) fn name(self) -> &'static str {
        &FIELDS[self.0].path[usize::from(LINKS[self.0].name)..]
    }

    /// The rows directly below.
    pub(super) fn children(self) -> Rows {
        Rows {
            next: self.0 + 1,
            end: usize::from(LINKS[self.0].end),
        }
    }

    /// The row of the elements of an array or the values of a map.
    pub(super) fn element(self) -> Row {
        Row(self.0 + 1)
    }
}

/// The row at `path`, as `linux.resources`.
pub(super) fn row_of(path: &str) -> Option<Row> {
    FIELDS.iter().position(|field| field.path == path).map(Row)
}

/// The properties of config.json itself.
pub(super) fn top() -> Rows {
    Rows {
        next: 0,
        end: COUNT,
    }
}

/// Sibling rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    next: usize,
    end: usize,
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let row = Row(self.next);
        if self.next >= self.end {
            return None;
        }
        self.next = usize::from(LINKS[self.next].end);
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_field_is_listed_twice() {
        let mut seen = HashSet::new();
        assert_eq!(
            FIELDS
                .iter()
                .map(|field| field.path)
                .find(|path| !seen.insert(*path)),
            None
        );
    }

    #[test]
    fn the_tree_reaches_every_row_by_its_path() {
        fn collect(rows: Rows, above: &str, found: &mut Vec<String>) {
            for row in rows {
                let path = match (above.is_empty(), row.field().path.ends_with("[]")) {
                    (true, _) => row.name().to_owned(),
                    (false, true) => format!("{above}[]"),
                    (false, false) => format!("{above}.{}", row.name()),
                };
                found.push(path.clone());
                collect(row.children(), &path, found);
            }
        }
        let mut found = Vec::new();
        collect(top(), "", &mut found);
        let listed: Vec<_> = FIELDS.iter().map(|field| field.path).collect();
        assert_eq!(found, listed);
    }

    #[test]
    fn arrays_and_maps_have_exactly_one_row_for_their_elements_and_scalars_none() {
        for index in 0..COUNT {
            let row = Row(index);
            let path = row.field().path;
            let below: Vec<_> = row.children().map(|row| row.field().path).collect();
            match row.field().kind {
                Kind::Array => assert_eq!(below, [format!("{path}[]")]),
                Kind::Map => assert_eq!(below, [format!("{path}.*")]),
                // An object without rows is one that is refused as a whole.
                Kind::Object => assert!(!below.is_empty() || path == "windows.credentialSpec"),
                Kind::Closed => assert!(!below.is_empty()),
                Kind::Bool
                | Kind::Int { .. }
                | Kind::Text
                | Kind::Free
                | Kind::Path
                | Kind::Words(_) => assert!(below.is_empty(), "{path}"),
            }
        }
    }

    #[test]
    fn every_flag_of_a_personality_has_its_bit() {
        let known = crate::sys::attributes::PERSONALITY_FLAGS.map(|(name, _)| name);
        assert_eq!(linux::PERSONALITY_FLAGS, known);
    }

    #[test]
    fn what_lies_below_a_refused_field_is_not_called_honoured() {
        fn check(row: Row) {
            for below in row.children() {
                if row.field().support != Support::Honoured {
                    assert_ne!(below.field().support, Support::Honoured);
                }
                check(below);
            }
        }
        top().for_each(check);
    }

    #[test]
    fn the_fields_of_this_release_that_are_refused_are_these() {
        let mut refused = Vec::new();
        fn collect(rows: Rows, refused: &mut Vec<&str>) {
            for row in rows {
                match row.field().support {
                    Support::Honoured => collect(row.children(), refused),
                    Support::OtherPlatform(_) => {
                        refused.push(row.field().path);
                    }
                }
            }
        }
        collect(top(), &mut refused);
        assert_eq!(
            refused.join(" "),
            "process.commandLine process.user.username solaris windows vm zos freebsd"
        );
    }
}
