//! parctl: what people ask control, one command each.
//!
//! Every answer is a table for people, or with `--json` what the daemon has said. Every error says what to do next.
//! It has no rights of its own: whoever may open the daemon's socket may do everything.

mod apply;
mod arguments;
mod connection;
mod deploy;
mod exec;
mod failure;
mod halt;
mod jobs;
mod look;
mod pick;
mod show;
mod terminal;
mod top;
mod wait;

use clap::{CommandFactory, Parser};

use arguments::{Arguments, Verb};
use connection::Client;
use failure::Failure;
pub use halt::halt;
use show::Output;

/// The definition of the command line, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command line of this process; the exit code is the program's for `exec`.
#[must_use]
pub fn main() -> i32 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            // Nobody is left to tell when the stream is closed.
            let _ = told.print();
            return told.exit_code();
        }
    };
    let output = Output::new(arguments.json);
    let runtime = tokio::runtime::Builder::new_current_thread();
    let done = { runtime }
        .enable_all()
        .build()
        .map_err(|e| Failure::new(e.to_string(), "free memory or descriptors"))
        .and_then(|runtime| {
            let done = runtime.block_on(run(arguments, &output));
            // A read of the terminal that waits for a key is not waited for.
            runtime.shutdown_background();
            done
        });
    match done {
        Ok(code) => code,
        // Who has read enough, as head does, has closed the pipe.
        Err(Failure::Closed) => 0,
        Err(failure) => {
            output.failure(&failure);
            1
        }
    }
}

async fn run(arguments: Arguments, output: &Output) -> Result<i32, Failure> {
    let client = Client::new(arguments.socket, arguments.token);
    match arguments.verb {
        Verb::Create(create) => jobs::create(&client, output, create).await?,
        Verb::Apply(apply) => apply::apply(&client, output, apply).await?,
        Verb::Deploy(deploy) => deploy::deploy(&client, output, deploy).await?,
        Verb::Undeploy(undeploy) => deploy::undeploy(&client, output, undeploy).await?,
        Verb::Start(goal) => deploy::start(&client, output, goal).await?,
        Verb::Stop(goal) => deploy::stop(&client, output, goal).await?,
        Verb::Restart(restart) => deploy::restart(&client, output, restart).await?,
        Verb::Status(status) => look::status(&client, output, status).await?,
        Verb::Jobs(list) => jobs::list(&client, output, list).await?,
        Verb::Hosts => look::hosts(&client, output).await?,
        Verb::History(history) => look::history(&client, output, history).await?,
        Verb::Logs(logs) => look::logs(&client, output, logs).await?,
        Verb::Exec(exec) => return exec::exec(&client, exec).await,
        Verb::Inspect(inspect) => look::inspect(&client, output, &inspect.what).await?,
        Verb::Watch(watch) => look::watch(&client, output, watch).await?,
        Verb::Top => top::top(&client, output).await?,
        Verb::Events(events) => look::events(&client, output, events).await?,
        Verb::Remove(remove) => jobs::remove(&client, output, remove).await?,
        Verb::Store(store) => look::store(&client, output, store.verb).await?,
        Verb::Services => look::services(&client, output).await?,
        Verb::Schema => jobs::schema(output)?,
        Verb::Version => look::version(&client, output).await?,
    }
    Ok(0)
}
