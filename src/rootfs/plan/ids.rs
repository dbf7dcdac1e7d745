//! How the ids of a bind mount are mapped: by the mount's own mappings, those that its option `idmap=` says,
//! or the container's.

use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use super::Context;
use super::words::Words;
use crate::error::Problems;
use crate::rootfs::{IdMap, Ids};

/// The mappings of user ids and of group ids, where they are given.
type Both<'a> = (
    Option<&'a Vec<LinuxIdMapping>>,
    Option<&'a Vec<LinuxIdMapping>>,
);

/// The map of the ids of `mount`; None where none is asked for, or what is wrong was noted in `problems`.
pub(super) fn id_map(
    json_path: &str,
    mount: &Mount,
    words: &Words,
    (spec, context): (&Spec, Context<'_>),
    problems: &mut Problems,
) -> Option<IdMap> {
    let linux = spec.linux().as_ref();
    let own = (mount.uid_mappings().as_ref(), mount.gid_mappings().as_ref());
    let container = (
        linux.and_then(|l| l.uid_mappings().as_ref()),
        linux.and_then(|l| l.gid_mappings().as_ref()),
    );
    let recursive = words.map_ids.unwrap_or(false);
    if let Some(text) = &words.own_ids {
        let ids = match own {
            (None, None) => told(text, container),
            (Some(_), _) | (_, Some(_)) => Err("two maps: here and in the mount's mappings".into()),
        };
        let ids = ids.map_err(|error| {
            let option = format!("{json_path}.options");
            problems.add(option, format!("\"idmap={text}\": {error}"));
        });
        return Some(IdMap {
            ids: ids.ok()?,
            recursive,
        });
    }
    let lines = |uids, gids| Ids::Lines {
        uid_map: map_lines(uids),
        gid_map: map_lines(gids),
    };
    let ids = match (own, words.map_ids, context.joined_user_namespace, container) {
        ((None, None), None, _, _) => return None,
        ((Some(uids), Some(gids)), _, _, _) => lines(uids, gids),
        ((None, None), Some(_), Some(namespace), _) => Ids::Of(namespace.to_path_buf()),
        ((None, None), Some(_), None, (Some(uids), Some(gids))) => lines(uids, gids),
        ((None, None), Some(_), None, _) => {
            let message = "idmap needs uidMappings and gidMappings of the mount or of linux";
            problems.add(format!("{json_path}.options"), message);
            return None;
        }
        ((uids, _), _, _, _) => {
            let missing = if uids.is_none() {
                "uidMappings"
            } else {
                "gidMappings"
            };
            problems.add(
                format!("{json_path}.{missing}"),
                "is needed beside the other mapping",
            );
            return None;
        }
    };
    Some(IdMap { ids, recursive })
}

/// Lines of a uid_map or gid_map file (user_namespaces(7)).
fn map_lines(mappings: &[LinuxIdMapping]) -> String {
    mappings
        .iter()
        .map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size()))
        .collect()
}

/// The map that the option's value tells, in crun's words: `uids=RANGES;gids=RANGES`.
fn told(text: &str, container: Both<'_>) -> Result<Ids, String> {
    let (mut uids, mut gids) = (None, None);
    for part in text.split(';') {
        let (map, ranges, mappings) = match part.split_once('=') {
            Some(("uids", ranges)) => (&mut uids, ranges, container.0),
            Some(("gids", ranges)) => (&mut gids, ranges, container.1),
            Some(_) | None => return Err(format!("{part:?} is neither uids= nor gids=")),
        };
        let lines = ranges.split('#').map(|range| line(range, mappings));
        let lines: String = lines.collect::<Result<_, _>>()?;
        if map.replace(lines).is_some() {
            return Err(format!("{part:?} is the second of its kind"));
        }
    }
    match (uids, gids) {
        (Some(uid_map), Some(gid_map)) => Ok(Ids::Lines { uid_map, gid_map }),
        (None, _) => Err("uids= is missing".into()),
        (_, None) => Err("gids= is missing".into()),
    }
}

/// One range, `FILE-HOST-SIZE`, as a line of a map; after `@` its second number is an id of the container.
fn line(range: &str, container: Option<&Vec<LinuxIdMapping>>) -> Result<String, String> {
    let (numbers, inside) = match range.strip_prefix('@') {
        Some(numbers) => (numbers, true),
        None => (range, false),
    };
    let wrong = || format!("{range:?} is not three numbers, as 0-1000-10");
    let parts: Vec<u32> = numbers
        .split('-')
        .map(|number| number.parse().map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    let [file, second, size] = parts[..] else {
        return Err(wrong());
    };
    let host = match inside {
        false => second,
        true => host_id(second, size, container.map_or(&[], Vec::as_slice)).ok_or_else(|| {
            format!("{range:?} does not lie within one of the container's mappings in linux")
        })?,
    };
    Ok(format!("{file} {host} {size}\n"))
}

/// Which id of the host `id` of the container is, if that holds for all `size` of them.
fn host_id(id: u32, size: u32, mappings: &[LinuxIdMapping]) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id())?;
        (offset.checked_add(size)? <= mapping.size()).then(|| mapping.host_id() + offset)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the value of the option comes to, in a container with two ranges of ids.
    fn read(text: &str) -> Result<(String, String), String> {
        let mappings: Vec<LinuxIdMapping> = serde_json::from_value(json!([
            { "containerID": 0, "hostID": 0, "size": 1 },
            { "containerID": 1, "hostID": 2, "size": 1000 },
        ]))
        .unwrap();
        match told(text, (Some(&mappings), Some(&mappings)))? {
            Ids::Lines { uid_map, gid_map } => Ok((uid_map, gid_map)),
            Ids::Of(path) => panic!("{path:?} is no map"),
        }
    }

    #[test]
    fn ranges_are_told_by_three_numbers_each() {
        let maps = read("uids=0-1-10#10-11-10;gids=0-100-10").unwrap();
        assert_eq!(maps, ("0 1 10\n10 11 10\n".into(), "0 100 10\n".into()));
        // The order is the caller's.
        assert_eq!(read("gids=0-100-10;uids=0-1-10#10-11-10").unwrap(), maps);
    }

    #[test]
    fn an_id_of_the_container_is_the_hosts_that_it_is_mapped_to() {
        // Of crun's manual: 3 of the container is 4 of the host.
        let (uids, gids) = read("uids=@1-3-10;gids=5-@0-1").unwrap_or_default();
        assert_eq!((uids.as_str(), gids.as_str()), ("", ""), "@ stands first");
        let (uids, gids) = read("uids=@1-3-10;gids=@5-0-1#6-6-1").unwrap();
        assert_eq!(uids, "1 4 10\n");
        assert_eq!(gids, "5 0 1\n6 6 1\n");
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_its_words() {
        for (text, told) in [
            ("uids=0-1-10", "gids= is missing"),
            ("gids=0-1-10", "uids= is missing"),
            ("", "\"\" is neither uids= nor gids="),
            ("uids=0-1;gids=0-1-1", "\"0-1\" is not three numbers"),
            ("uids=0-1-1-1;gids=0-1-1", "is not three numbers"),
            ("uids=0-1-x;gids=0-1-1", "is not three numbers"),
            ("uids=0-1-4294967296;gids=0-1-1", "is not three numbers"),
            ("uids=0-1-1;uids=0-1-1", "is the second of its kind"),
            ("uids=@0-0-2;gids=0-1-1", "does not lie within one of"),
            ("uids=@0-2000-1;gids=0-1-1", "does not lie within one of"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
