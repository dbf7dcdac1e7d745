//! How much memory and swap a container may use: `linux.resources.memory`.
//!
//! What only cgroup v1 can do is refused where it asks for something, and passed over where it
//! does not (`disableOOMKiller: false`, `kernel: -1`, limits of 0, either `useHierarchy`: cgroup
//! v2 always counts hierarchically, and a container without children can not tell).

use std::collections::HashMap;

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::Controller;
use super::plan::Draft;

/// Row of `CONTROLLERS`.
pub(super) struct Memory;

impl Controller for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn plan(&self, resources: &LinuxResources, draft: &mut Draft<'_>) {
        let Some(memory) = resources.memory() else {
            return;
        };
        refuse_v1(memory, draft);
        let limit = bytes("memory.limit", memory.limit(), draft);
        // As runc: a limit that must not hit is compared with the present use.
        if let (Some(true), Some(Bytes::AtMost(limit))) = (memory.check_before_update(), limit) {
            draft.check_below("memory.checkBeforeUpdate", "memory.current", limit);
        }
        let swap = swap(limit, memory, resources, draft);
        // What rises comes first, so that no moment is tighter than before and after; at equal
        // memory swap does, so that pages which are pushed out have nowhere to go but where
        // they may.
        let rises = limit.is_some_and(|limit| limit.number() > present(draft, LIMIT).number());
        if rises {
            write("memory.limit", LIMIT, limit, draft);
        }
        match swap {
            // Without swap in the kernel there is none to forbid and no such file.
            Some(Bytes::AtMost(0)) => draft.limit_if_present("memory.swap", SWAP, 0),
            swap => write("memory.swap", SWAP, swap, draft),
        }
        if !rises {
            write("memory.limit", LIMIT, limit, draft);
        }
        let reservation = bytes("memory.reservation", memory.reservation(), draft);
        write("memory.reservation", "memory.low", reservation, draft);
    }
}

const LIMIT: &str = "memory.max";
const SWAP: &str = "memory.swap.max";

/// A limit as config.json gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// -1
    Unlimited,
    /// A number of bytes.
    AtMost(u64),
}

impl Bytes {
    /// For comparisons.
    fn number(self) -> u64 {
        match self {
            Bytes::Unlimited => u64::MAX,
            Bytes::AtMost(bytes) => bytes,
        }
    }
}

/// The limit in force in one of the cgroup's files; a new cgroup has none.
fn present(draft: &Draft<'_>, file: &str) -> Bytes {
    let text = draft.present(file);
    text.and_then(|text| text.parse().ok())
        .map_or(Bytes::Unlimited, Bytes::AtMost)
}

/// The limit in `value`. 0 means "not set", as Docker and runc have it.
fn bytes(field: &str, value: Option<i64>, draft: &mut Draft<'_>) -> Option<Bytes> {
    match value? {
        0 => None,
        -1 => Some(Bytes::Unlimited),
        value => u64::try_from(value).map(Bytes::AtMost).ok().or_else(|| {
            draft.refuse(
                field,
                format!("must be bytes, or -1 for no limit, is {value}"),
            );
            None
        }),
    }
}

fn write(field: &str, file: &str, value: Option<Bytes>, draft: &mut Draft<'_>) {
    match value {
        None => {}
        Some(Bytes::Unlimited) => draft.lift(field, file, "max"),
        Some(Bytes::AtMost(bytes)) => draft.limit(field, file, bytes),
    }
}

/// The limit of swap alone, as cgroup v2 has it: OCI limits memory and swap together. The cases are
/// those of `ConvertMemorySwapToCgroupV2Value` in opencontainers/cgroups.
fn swap(
    limit: Option<Bytes>,
    memory: &LinuxMemory,
    resources: &LinuxResources,
    draft: &mut Draft<'_>,
) -> Option<Bytes> {
    const FIELD: &str = "memory.swap";
    let named = bytes(FIELD, memory.swap(), draft);
    let beside = limit.unwrap_or_else(|| present(draft, LIMIT));
    match (limit, named, beside) {
        // cgroup v1 gave unlimited swap to those with unlimited memory.
        (_, Some(Bytes::Unlimited), _) | (Some(Bytes::Unlimited), None, _) => {
            Some(Bytes::Unlimited)
        }
        (None, None, _) => None,
        (Some(Bytes::AtMost(limit)), None, _) => keep_total(limit, resources, draft),
        (_, Some(Bytes::AtMost(_)), Bytes::Unlimited) => {
            let text = "needs memory.limit beside it: it is the total of memory and swap";
            draft.refuse(FIELD, text);
            None
        }
        (_, Some(Bytes::AtMost(total)), Bytes::AtMost(limit)) => {
            let swap = total.checked_sub(limit).map(Bytes::AtMost);
            if swap.is_none() {
                let text = format!(
                    "must be at least memory.limit ({limit}), as it is the total of memory and \
                     swap, is {total}"
                );
                draft.refuse(FIELD, text);
            }
            swap
        }
    }
}

/// The limit of swap when that of memory alone changes: the total of both stays, as in runc, and
/// where swap is forbidden, it stays forbidden.
fn keep_total(limit: u64, resources: &LinuxResources, draft: &mut Draft<'_>) -> Option<Bytes> {
    let by_name = |files: &HashMap<String, String>| files.contains_key(SWAP);
    if resources.unified().as_ref().is_some_and(by_name) {
        return None;
    }
    let (Bytes::AtMost(memory), Bytes::AtMost(swap)) =
        (present(draft, LIMIT), present(draft, SWAP))
    else {
        return None;
    };
    if swap == 0 {
        return None;
    }
    let total = memory.saturating_add(swap);
    let rest = total.checked_sub(limit).map(Bytes::AtMost);
    if rest.is_none() {
        let text = format!(
            "must be at most the total of memory and swap in force ({total}), is {limit}: set \
             memory.swap too"
        );
        draft.refuse("memory.limit", text);
    }
    rest
}

fn refuse_v1(memory: &LinuxMemory, draft: &mut Draft<'_>) {
    let is_limit = |value: Option<i64>| value.is_some_and(|value| value != 0 && value != -1);
    // A deprecated field must be read to be refused.
    #[allow(deprecated)]
    let kernel = memory.kernel();
    if is_limit(kernel) {
        draft.refuse_v1("memory.kernel");
    }
    if is_limit(memory.kernel_tcp()) {
        draft.refuse_v1("memory.kernelTCP");
    }
    // 0 is a wish as well: "do not swap".
    if memory.swappiness().is_some() {
        draft.refuse_v1("memory.swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        draft.refuse_v1("memory.disableOOMKiller");
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};

    #[test]
    fn limits_are_written_before_init_is_cloned() {
        let json = r#"{"memory": {"limit": 1048576, "swap": 3145728, "reservation": 524288}}"#;
        assert_eq!(
            lines(json),
            [
                "write    memory.swap.max 2097152",
                "write    memory.max 1048576",
                "write    memory.low 524288",
            ]
        );
    }

    #[test]
    fn equal_limits_forbid_swap_where_there_is_any() {
        let json = r#"{"memory": {"limit": 1048576, "swap": 1048576}}"#;
        assert_eq!(lines(json)[0], "write    memory.swap.max 0, if it exists");
    }

    #[test]
    fn minus_one_lifts_a_limit() {
        let max = [
            "write    memory.swap.max max, if it exists",
            "write    memory.max max, if it exists",
        ];
        assert_eq!(lines(r#"{"memory": {"limit": -1}}"#), max);
        assert_eq!(lines(r#"{"memory": {"limit": -1, "swap": -1}}"#), max);
    }

    #[test]
    fn what_docker_sends_without_a_limit_sets_nothing() {
        let docker = r#"{"memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0,
            "kernelTCP": -1, "disableOOMKiller": false, "useHierarchy": true}}"#;
        assert!(lines(docker).is_empty());
    }

    #[test]
    fn present_use_is_checked_before_the_limit() {
        let json = r#"{"memory": {"limit": 1048576, "checkBeforeUpdate": true}}"#;
        assert_eq!(
            lines(json),
            [
                "check    memory.current < 1048576",
                "write    memory.max 1048576"
            ]
        );
    }

    #[test]
    fn swap_is_checked_against_memory() {
        for no_limit in [
            r#"{"memory": {"swap": 4096}}"#,
            r#"{"memory": {"limit": -1, "swap": 4096}}"#,
        ] {
            assert_eq!(
                problems(no_limit),
                [
                    "linux.resources.memory.swap: needs memory.limit beside it: it is the total of \
                 memory and swap"
                ]
            );
        }
        assert_eq!(
            problems(r#"{"memory": {"limit": 8192, "swap": 4096}}"#),
            [
                "linux.resources.memory.swap: must be at least memory.limit (8192), as it is the total \
             of memory and swap, is 4096"
            ]
        );
    }

    #[test]
    fn what_only_cgroup_v1_can_do_is_refused() {
        let wrong = r#"{"memory": {"limit": -2, "kernel": 4096, "kernelTCP": 4096,
            "swappiness": 0, "disableOOMKiller": true}}"#;
        assert_eq!(
            problems(wrong),
            [
                "linux.resources.memory.kernel: exists only in cgroup v1",
                "linux.resources.memory.kernelTCP: exists only in cgroup v1",
                "linux.resources.memory.swappiness: exists only in cgroup v1",
                "linux.resources.memory.disableOOMKiller: exists only in cgroup v1",
                "linux.resources.memory.limit: must be bytes, or -1 for no limit, is -2",
            ]
        );
    }
}
