//! CVE-2019-18837 and CVE-2026-47766 (crun), CVE-2026-41579 (runc): links of the image on the way to devices, mounts and
//! the working directory lead out of it, and the runtime makes files there on the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::json;

use crate::subject::Subject;
use crate::support::tests;

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        nothing_is_made_where_a_link_of_the_image_leads_on_the_host,
        something_would_be_made_where_a_link_leads_on_the_host,
    ]
}

/// How the links are written.
#[derive(Clone, Copy)]
enum Way {
    FromTheTop,
    Upwards,
}

/// What is made on the host where links in the place of /dev, a mount's target and the working directory lead.
fn made_outside(subject: Subject, way: Way) -> [usize; 3] {
    let bundle = subject.bundle("true");
    let (outside, rootfs) = (bundle.folder.join("outside"), bundle.folder.join("rootfs"));
    let folders = ["dev", "mnt", "srv"].map(|name| outside.join(name));
    let up = Path::new("../../../../../../../..");
    fs::remove_dir(rootfs.join("dev")).unwrap();
    for (folder, name) in folders.iter().zip(["dev", "mnt", "srv"]) {
        fs::create_dir_all(folder).unwrap();
        let target = match way {
            Way::FromTheTop => folder.clone(),
            Way::Upwards => up.join(folder.strip_prefix("/").unwrap()),
        };
        symlink(target, rootfs.join(name)).unwrap();
    }
    bundle.edit(|config| {
        config["process"]["cwd"] = json!("/srv/made");
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let source = json!({"destination": "/mnt/made", "type": "tmpfs", "source": "tmpfs"});
        mounts.push(source);
    });
    let ran = bundle.run();
    if let Subject::Real = subject {
        ran.success();
    }
    folders.map(|folder| fs::read_dir(folder).unwrap().count())
}

fn nothing_is_made_where_a_link_of_the_image_leads_on_the_host() {
    for way in [Way::FromTheTop, Way::Upwards] {
        assert_eq!(made_outside(Subject::Real, way), [0, 0, 0]);
    }
}

fn something_would_be_made_where_a_link_leads_on_the_host() {
    let made = made_outside(Subject::Without("in-root"), Way::FromTheTop);
    assert!(made.iter().all(|count| *count > 0), "{made:?}");
    // The root lies over that of the host while mounts are made: no `..` leads above it, whatever else is amiss.
    let made = made_outside(Subject::Without("in-root"), Way::Upwards);
    assert_eq!(made, [0, 0, 0]);
}
