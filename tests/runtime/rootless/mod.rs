//! Containers of an ordinary user, who has no privilege but what everybody has.
//!
//! The program is called as that user, with a state directory in XDG_RUNTIME_DIR. Where this host lacks
//! newuidmap(1) or Podman, their tests are left out, and that is said.

use std::fs::{self, File};
use std::os::unix::fs::{chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Bundle, Ran, only_where, program};

mod cgroups;
mod files;
mod ids;
mod keeper;
mod life;
mod nested;
mod podman;
mod systemd;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let subjects = [
        cgroups::all(),
        files::all(),
        ids::all(),
        keeper::all(),
        life::all(),
        nested::all(),
        podman::all(),
        systemd::all(),
    ];
    subjects.into_iter().flatten().collect()
}

/// Where the host has its cgroups, in these tests' mount namespace.
const HOST: &str = "/sys/fs/cgroup";

/// What a user finds programs by.
const PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// The user: the virtual host's, who has ranges of ids, or one whom nobody knows.
pub fn user() -> u32 {
    let Ok(name) = std::env::var("VHOST_USER") else {
        return 45_678;
    };
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")));
    line.unwrap().split(':').nth(2).unwrap().parse().unwrap()
}

/// `trials`, if the host has this program; said loudly where it has not.
fn needs_program(name: &str, trials: Vec<Trial>) -> Vec<Trial> {
    let places = ["/usr/bin", "/bin", "/usr/sbin"];
    let exists = |place: &&str| Path::new(place).join(name).exists();
    let has = places.iter().any(exists);
    only_where(has, &format!("there is no {name}"), trials)
}

/// A bundle that an ordinary user owns and runs.
struct Rootless {
    bundle: Bundle,
    /// Where its calls come from, if not from where these tests are.
    cgroup: Option<PathBuf>,
    /// What goes before the program on the command line.
    prefix: Vec<String>,
    /// Where XDG_RUNTIME_DIR is.
    runtime_folder: PathBuf,
    /// Further variables of its environment.
    environment: Vec<String>,
}

impl Rootless {
    /// What `spec --rootless` writes, with a shell that runs `script`.
    fn new(script: &str) -> Rootless {
        let bundle = Bundle::new(script);
        fs::remove_file(bundle.folder.join("config.json")).unwrap();
        fs::create_dir(bundle.folder.join("run")).unwrap();
        give(&bundle.folder);
        let rootless = Rootless {
            runtime_folder: bundle.folder.join("run"),
            bundle,
            cgroup: None,
            prefix: Vec::new(),
            environment: Vec::new(),
        };
        let spec = ["spec", "--rootless", "--bundle", rootless.bundle.path()];
        rootless.parhelion(&spec).success();
        rootless.bundle.edit(|config| {
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        });
        rootless
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        self.bundle.edit(change);
    }

    fn leave_out_user_namespace(&self) {
        self.edit(|config| {
            let linux = config["linux"].as_object_mut().unwrap();
            linux.remove("uidMappings");
            linux.remove("gidMappings");
            let namespaces = linux["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "user");
        });
    }

    fn id(&self) -> &str {
        &self.bundle.id
    }

    /// A command of the user's.
    fn command(&self, command: &[&str]) -> Command {
        let mut all: Vec<&str> = self.prefix.iter().map(String::as_str).collect();
        all.extend(command);
        let mut shell = Command::new("/bin/sh");
        let enter = self.cgroup.as_ref().map_or(":".to_owned(), |cgroup| {
            format!("echo $$ > {}", cgroup.join("cgroup.procs").display())
        });
        // Root goes into the cgroup; who is then executed is the user.
        let script = format!("{enter} && exec \"$@\"");
        let user = user().to_string();
        shell.args([
            "-c", &script, "sh", "setpriv", "--reuid", &user, "--regid", &user,
        ]);
        shell.args(["--clear-groups", "env", "-i", PATH]);
        shell.arg(format!("XDG_RUNTIME_DIR={}", self.runtime_folder.display()));
        shell.args(&self.environment);
        shell.args(all);
        shell.process_group(0).current_dir(&self.bundle.folder);
        shell
    }

    /// Where the state of its containers is.
    fn state_folder(&self) -> PathBuf {
        self.runtime_folder.join("parhelion")
    }

    /// Runs a command of the user's, with its output in files: a container keeps pipes open.
    fn run_command(&self, command: &[&str]) -> Ran {
        let [out, err] = ["user-out", "user-err"].map(|name| self.bundle.folder.join(name));
        let status = self
            .command(command)
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .status()
            .unwrap();
        let [stdout, stderr] = [out, err].map(|path| fs::read(path).unwrap());
        Ran(Output {
            status,
            stdout,
            stderr,
        })
    }

    fn parhelion(&self, arguments: &[&str]) -> Ran {
        let program = program();
        let mut command = vec![program.to_str().unwrap()];
        command.extend(arguments);
        self.run_command(&command)
    }

    /// `run` or `create` of the bundle.
    fn make(&self, verb: &str) -> Ran {
        self.parhelion(&[verb, "--bundle", self.bundle.path(), self.id()])
    }

    fn run(&self) -> Ran {
        self.make("run")
    }

    fn verb(&self, verb: &str) -> Ran {
        self.parhelion(&[verb, self.id()])
    }

    /// Creates the container and starts it.
    fn start(&self) {
        self.make("create").success();
        self.verb("start").success();
    }

    fn exec(&self, script: &str) -> Ran {
        self.parhelion(&["exec", self.id(), "/bin/sh", "-c", script])
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.verb("state").success()).unwrap()
    }

    fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().unwrap().try_into().unwrap()
    }

    fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// That nothing of the container is there any more.
    fn nothing_is_left(&self) {
        let states = fs::read_dir(self.state_folder()).map_or(0, Iterator::count);
        assert_eq!(states, 0, "state is left");
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        self.verb_quietly("delete");
    }
}

impl Rootless {
    fn verb_quietly(&self, verb: &str) {
        // What a test that has failed leaves; a second failure would only hide the first.
        let program = program();
        let command = [program.to_str().unwrap(), verb, "--force", self.id()];
        let _ = self.command(&command).stderr(Stdio::null()).status();
    }
}

/// Gives a folder and all in it to the user, but not programs that other bundles have too.
pub fn give(folder: &Path) {
    let user = user();
    chown(folder, Some(user), Some(user)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            lchown(&path, Some(user), Some(user)).unwrap();
        } else if path.is_dir() {
            give(&path);
        } else if path.file_name().unwrap() != "busybox" {
            chown(&path, Some(user), Some(user)).unwrap();
        }
    }
}

/// One id of the host, as the container's root.
pub fn one(host: u32) -> Value {
    json!([{"containerID": 0, "hostID": host, "size": 1}])
}
