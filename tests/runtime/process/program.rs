//! Which program is executed, with which environment, and where.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use libtest_mimic::Trial;
use serde_json::json;

use crate::caller::{from_shell, output, start, wait_for_end};
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        an_unknown_program_names_the_path_tried,
        a_program_is_looked_up_in_the_path_of_its_own_environment,
        without_a_path_the_usual_folders_are_searched,
        an_empty_part_of_the_path_is_the_working_directory,
        a_program_with_a_slash_starts_at_the_working_directory,
        a_script_runs_through_the_interpreter_that_it_names,
        a_program_that_can_not_be_executed_is_told_in_the_words_that_callers_look_for,
        a_file_of_no_known_format_is_told_by_start,
        a_working_directory_is_made_when_missing,
        a_working_directory_behind_a_link_stays_inside,
        a_working_directory_that_is_closed_to_the_user_can_be_given_all_the_same,
        a_working_directory_that_is_a_file_is_refused,
        the_environment_is_exactly_the_one_asked_for,
        home_comes_from_the_images_passwd_file_unless_it_is_given,
    ]
}

/// A bundle whose root can be written to, with an executable script `/opt/bin/tool`.
fn with_tool(script: &str) -> Bundle {
    let bundle = Bundle::new("");
    let folder = bundle.folder.join("rootfs/opt/bin");
    fs::create_dir_all(&folder).unwrap();
    let tool = folder.join("tool");
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    bundle.edit(|config| config["root"]["readonly"] = json!(false));
    bundle
}

fn an_unknown_program_names_the_path_tried() {
    let bundle = Bundle::new("");
    bundle.edit(|config| config["process"]["args"] = json!(["no-such-program"]));
    let error = bundle.create().failure();
    assert!(
        error.contains("executable file not found in $PATH (/"),
        "{error}"
    );
}

fn a_program_is_looked_up_in_the_path_of_its_own_environment() {
    let bundle = with_tool("#!/bin/sh\necho $0 $1\n");
    bundle.edit(|config| {
        config["process"]["env"] = json!(["PATH=/nowhere:/opt/bin:/bin"]);
        config["process"]["args"] = json!(["tool", "an argument"]);
    });
    assert_eq!(bundle.run().success(), "/opt/bin/tool an argument\n");
}

fn without_a_path_the_usual_folders_are_searched() {
    let bundle = Bundle::new("");
    bundle.edit(|config| {
        config["process"]["env"] = json!([]);
        config["process"]["args"] = json!(["echo", "found"]);
    });
    assert_eq!(bundle.run().success(), "found\n");
}

fn an_empty_part_of_the_path_is_the_working_directory() {
    for path in ["PATH=:/nowhere", "PATH=/nowhere:", "PATH=/nowhere::/no"] {
        let bundle = with_tool("#!/bin/sh\necho here\n");
        bundle.edit(|config| {
            config["process"]["env"] = json!([path]);
            config["process"]["cwd"] = json!("/opt/bin");
            config["process"]["args"] = json!(["tool"]);
        });
        assert_eq!(bundle.run().success(), "here\n", "{path}");
    }
}

fn a_program_with_a_slash_starts_at_the_working_directory() {
    for program in ["./tool", "../bin/tool", "/opt/bin/tool"] {
        let bundle = with_tool("#!/bin/sh\necho $0\n");
        bundle.edit(|config| {
            config["process"]["cwd"] = json!("/opt/bin");
            config["process"]["args"] = json!([program]);
        });
        assert_eq!(bundle.run().success(), format!("{program}\n"));
    }
}

fn a_script_runs_through_the_interpreter_that_it_names() {
    let bundle = with_tool("#!/bin/echo interpreted\n");
    bundle.edit(|config| config["process"]["args"] = json!(["/opt/bin/tool", "a"]));
    assert_eq!(bundle.run().success(), "interpreted /opt/bin/tool a\n");
}

/// containerd, Docker and Podman make exit codes 126 and 127 of these words.
fn a_program_that_can_not_be_executed_is_told_in_the_words_that_callers_look_for() {
    let bundle = Bundle::new("");
    fs::write(bundle.folder.join("rootfs/etc/plain"), "#!/bin/sh\n").unwrap();
    for (program, words) in [
        ("/no/such", "exec: \"/no/such\": no such file or directory"),
        (
            "./no-such",
            "exec: \"./no-such\": no such file or directory",
        ),
        ("/etc/plain", "exec: \"/etc/plain\": permission denied"),
        ("/etc/plain/x", "exec: \"/etc/plain/x\": not a directory"),
        ("/etc", "exec: \"/etc\": is a directory"),
        ("plain", "exec: \"/etc/plain\": permission denied"),
        (
            "absent",
            "exec: \"absent\": executable file not found in $PATH",
        ),
    ] {
        bundle.edit(|config| {
            config["process"]["args"] = json!([program]);
            config["process"]["env"] = json!(["PATH=/bin:/etc"]);
        });
        let ran = bundle.create();
        let error = ran.failure();
        assert!(error.contains(words), "{error}");
        assert_eq!((ran.code(), error.lines().count()), (Some(1), 1), "{error}");
    }
    assert!(bundle.verb("state").failure().contains("does not exist"));
}

fn a_file_of_no_known_format_is_told_by_start() {
    let bundle = with_tool("no interpreter is named here\n");
    bundle.edit(|config| config["process"]["args"] = json!(["/opt/bin/tool"]));
    let error = bundle.run().failure();
    assert!(error.contains("/opt/bin/tool"), "{error}");
    assert!(error.contains("exec format error"), "{error}");
    assert!(bundle.verb("state").failure().contains("does not exist"));
    bundle.create().success();
    let error = bundle.verb("start").failure();
    assert!(error.contains("exec format error"), "{error}");
    wait_for_end(&bundle);
    assert_eq!(bundle.status(), "stopped");
    bundle.verb("delete").success();
}

fn a_working_directory_is_made_when_missing() {
    let bundle = Bundle::new("pwd; stat -c '%u:%g %a' /srv /srv/a/b");
    bundle.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["process"]["cwd"] = json!("/srv/a/b");
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let arguments = ["run", "--bundle", bundle.path(), &bundle.id];
    // Whatever the caller's umask is.
    let ran = from_shell(&bundle, "umask 077; exec \"$@\"", &arguments).output();
    let seen = crate::support::Ran(ran.unwrap()).success();
    assert_eq!(seen, "/srv/a/b\n0:0 755\n0:0 755\n");
}

fn a_working_directory_behind_a_link_stays_inside() {
    let bundle = Bundle::new("pwd; touch made");
    let outside = bundle.folder.join("outside");
    let rootfs = bundle.folder.join("rootfs");
    // The same path inside, as the link is read there.
    symlink(&outside, rootfs.join("link")).unwrap();
    symlink("../../../../../../../../tmp", rootfs.join("up")).unwrap();
    for (cwd, place) in [
        ("/link/new".to_owned(), format!("{}/new", outside.display())),
        ("/up/new".to_owned(), "/tmp/new".to_owned()),
        ("/../../up/other".to_owned(), "/tmp/other".to_owned()),
    ] {
        bundle.edit(|config| {
            config["root"]["readonly"] = json!(false);
            config["process"]["cwd"] = json!(cwd);
        });
        assert_eq!(bundle.run().success(), format!("{place}\n"));
        assert!(rootfs.join(&place[1..]).join("made").exists(), "{place}");
    }
    assert!(!outside.exists());
}

fn a_working_directory_that_is_closed_to_the_user_can_be_given_all_the_same() {
    let bundle = Bundle::new("pwd; ls . 2>/dev/null || echo closed");
    let home = bundle.folder.join("rootfs/private");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    bundle.edit(|config| {
        config["process"]["cwd"] = json!("/private");
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    assert_eq!(bundle.run().success(), "/private\nclosed\n");
    assert_eq!(fs::metadata(home).unwrap().uid(), 0);
}

fn a_working_directory_that_is_a_file_is_refused() {
    let bundle = Bundle::new("");
    fs::write(bundle.folder.join("rootfs/etc/plain"), "").unwrap();
    bundle.edit(|config| config["process"]["cwd"] = json!("/etc/plain"));
    let error = bundle.create().failure();
    assert!(error.contains("process.cwd \"/etc/plain\""), "{error}");
    assert!(error.contains("not a directory"), "{error}");
    bundle.edit(|config| config["process"]["cwd"] = json!("relative"));
    let error = bundle.create().failure();
    let words = "process.cwd: must be an absolute path, is \"relative\"";
    assert!(error.contains(words), "{error}");
}

fn the_environment_is_exactly_the_one_asked_for() {
    let bundle = Bundle::new("");
    let env = ["B=1", "A=", "B=2", "ODD=a=b c\td", "lower case=x", "HOME="];
    bundle.edit(|config| {
        config["process"]["args"] = json!(["/bin/env"]);
        config["process"]["env"] = json!(env);
    });
    let arguments = ["run", "--bundle", bundle.path(), &bundle.id];
    let script = "export LEAK=host; exec \"$@\"";
    let ran = from_shell(&bundle, script, &arguments).output().unwrap();
    let seen = crate::support::Ran(ran).success();
    // The last value of a variable counts, whatever the program makes of two.
    let expected = ["B=2", "A=", "ODD=a=b c\td", "lower case=x", "HOME="];
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
}

fn home_comes_from_the_images_passwd_file_unless_it_is_given() {
    let bundle = Bundle::new("echo $HOME");
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv/web:/bin/sh\n";
    fs::write(bundle.folder.join("rootfs/etc/passwd"), passwd).unwrap();
    for (uid, env, home) in [
        (0, json!([]), "/root"),
        (1000, json!([]), "/srv/web"),
        (1001, json!([]), "/"),
        (1000, json!(["HOME=/mine"]), "/mine"),
    ] {
        bundle.edit(|config| {
            config["process"]["user"] = json!({"uid": uid, "gid": 0});
            config["process"]["env"] = env;
        });
        start(&bundle);
        wait_for_end(&bundle);
        assert_eq!(output(&bundle), format!("{home}\n"), "user {uid}");
        bundle.verb("delete").success();
    }
}
