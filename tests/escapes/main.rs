//! Every published escape from a container, tried against the program as root: a file for each attack.
//!
//! An attack is tried twice. Against the program it must fail, which is looked for on the host. Against a build that
//! does without the mitigation (src/sys/weakened.rs) the same attack must succeed: so the first test could fail. What is
//! attacked is made by the test: a copy of the program, files that stand for the host's. docs/security.md has the
//! table; `make test` runs all of it on the machine itself and in the virtual host.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "what is left out is said aloud")]
#![allow(missing_docs, reason = "the names of tests are sentences")]

#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/apparmor.rs"]
mod apparmor;
#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/caller.rs"]
mod caller;
#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/inside.rs"]
mod inside;
#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/seccomp/probe.rs"]
mod probe;
#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/support.rs"]
mod support;
#[allow(dead_code, reason = "shared with tests/runtime")]
#[path = "../runtime/faults/tracer.rs"]
mod tracer;

mod caller_environment;
mod cve_2016_9962_traced_joiner;
mod cve_2019_18837_links_out;
mod cve_2019_5736_overwritten_program;
mod cve_2020_15257_abstract_socket;
mod cve_2021_30465_swapped_target;
mod cve_2021_43784_many_id_maps;
mod cve_2022_0492_cgroups;
mod cve_2022_0811_injected_settings;
mod cve_2022_1227_planted_programs;
mod cve_2022_29162_inheritable;
mod cve_2022_2989_groups;
mod cve_2023_27561_linked_proc;
mod cve_2024_21626_working_directory;
mod cve_2024_25621_open_folders;
mod cve_2024_45310_swapped_folder;
mod cve_2025_23266_hook_environment;
mod cve_2025_31133_null_device;
mod cve_2025_4437_user_database;
mod cve_2025_52565_console;
mod cve_2025_52881_redirected_writes;
mod cve_2026_115521_planted_proc;
mod cve_2026_119101_restored_mounts;
mod cve_2026_30892_user_strings;
mod cve_2026_57231_host_variables;
mod cve_2026_88264_no_dev;
mod host_devices;
mod invariants;
mod kernel_files;
mod subject;
mod swapped_copy;
mod swapping;
mod typed_commands;

use libtest_mimic::Arguments;

fn main() {
    support::enter_private_namespace();
    let arguments = Arguments::from_args();
    let trials = [
        caller_environment::all(),
        cve_2016_9962_traced_joiner::all(),
        cve_2019_18837_links_out::all(),
        cve_2019_5736_overwritten_program::all(),
        cve_2020_15257_abstract_socket::all(),
        cve_2021_30465_swapped_target::all(),
        cve_2021_43784_many_id_maps::all(),
        cve_2022_0492_cgroups::all(),
        cve_2022_0811_injected_settings::all(),
        cve_2022_1227_planted_programs::all(),
        cve_2022_29162_inheritable::all(),
        cve_2022_2989_groups::all(),
        cve_2023_27561_linked_proc::all(),
        cve_2024_21626_working_directory::all(),
        cve_2024_25621_open_folders::all(),
        cve_2024_45310_swapped_folder::all(),
        cve_2025_23266_hook_environment::all(),
        cve_2025_31133_null_device::all(),
        cve_2025_4437_user_database::all(),
        cve_2025_52565_console::all(),
        cve_2025_52881_redirected_writes::all(),
        cve_2026_115521_planted_proc::all(),
        cve_2026_119101_restored_mounts::all(),
        cve_2026_30892_user_strings::all(),
        cve_2026_57231_host_variables::all(),
        cve_2026_88264_no_dev::all(),
        host_devices::all(),
        invariants::all(),
        kernel_files::all(),
        subject::all(),
        swapped_copy::all(),
        typed_commands::all(),
    ];
    let busybox = support::Busybox::prepare();
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    drop(busybox);
    conclusion.exit();
}
