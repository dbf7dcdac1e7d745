//! What is left after a failure: nothing that `delete --force` does not remove.

mod damage;
mod every_step;
mod exec_steps;
mod failed_create;
mod interrupted;
mod memory;
mod old_kernel;
mod races;
mod remains;
mod subject;
mod tracer;

use libtest_mimic::Trial;

/// The tests of this folder.
pub fn all() -> Vec<Trial> {
    let files = [
        damage::all(),
        every_step::all(),
        exec_steps::all(),
        failed_create::all(),
        interrupted::all(),
        memory::all(),
        old_kernel::all(),
        races::all(),
        remains::all(),
    ];
    files.into_iter().flatten().collect()
}

/// In a thread of its own, whose namespaces, system calls and traced processes are not those of other tests.
fn in_a_thread<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let done = std::thread::spawn(test).join();
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
