//! One file a command.

pub mod agent;
pub mod apply;
pub mod authority;
pub mod boot;
pub mod cache;
pub mod capacity;
pub mod completion;
pub mod console;
pub mod define;
pub mod diff;
pub mod down;
pub mod events;
pub mod host_key;
pub mod hosts;
pub mod image;
pub mod layers;
pub mod list;
pub mod logs;
pub mod ls;
pub mod man;
pub mod manager;
pub mod migrate;
pub mod plan;
pub mod proxy;
pub mod references;
pub mod rehearse;
pub mod reseal;
pub mod root;
pub mod save;
pub mod seal;
pub mod sets;
pub mod show;
pub mod snapshot;
pub mod ssh;
pub mod status;
pub mod storage;
pub mod r#try;
pub mod up;
pub mod update_hosts;
pub mod update_known_hosts;
pub mod vars;
pub mod version;
pub mod volume;
pub mod which;
pub mod why;
pub mod world;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs a command; gives the exit code.
pub async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let global = arguments.global;
    match arguments.command {
        Command::Up(up) => up.run(&global).await,
        Command::Down(down) => down.run(&global).await,
        Command::Ls(ls) => ls.run(&global).await,
        Command::Show(show) => show.run(&global).await,
        Command::Boot(boot) => boot.run(&global).await,
        Command::Migrate(migrate) => migrate.run(&global).await,
        Command::Start(start) => start.run(&global).await,
        Command::Stop(stop) => stop.run(&global).await,
        Command::Pause(pause) => pause.run(&global).await,
        Command::Resume(resume) => resume.run(&global).await,
        Command::Save(save) => save.run(&global).await,
        Command::Restore(restore) => restore.run(&global).await,
        Command::Console(console) => console.run(&global).await,
        Command::Ssh(ssh) => ssh.run(&global),
        Command::Proxy(proxy) => proxy.run(&global).await,
        Command::Logs(logs) => logs.run(&global).await,
        Command::Events(events) => events.run(&global).await,
        Command::HostKey(key) => key.run(&global).await,
        Command::Hosts => hosts::run(&global).await,
        Command::Snapshot(snapshot) => snapshot.run(&global).await,
        Command::Plan(plan) => plan.run(&global).await,
        Command::Apply(apply) => apply.run(&global).await,
        Command::Why(why) => why.run(&global).await,
        Command::Capacity(capacity) => capacity.run(&global).await,
        Command::Rehearse(rehearse) => rehearse.run(&global).await,
        Command::WhyNot(why_not) => why_not.run(&global).await,
        Command::World(world) => world.run(&global),
        Command::Vars(vars) => vars.run(&global),
        Command::Sets(sets) => sets.run(&global),
        Command::Root(root) => root.run(&global),
        Command::Layers(layers) => layers.run(&global).await,
        Command::Which(which) => which.run(&global),
        Command::List(list) => list.run(&global).await,
        Command::UpdateHosts(update) => update.run(&global).await,
        Command::UpdateKnownHosts(update) => update.run(&global).await,
        Command::Define(define) => define.run(&global).await,
        Command::Delete(delete) => delete.run(&global).await,
        Command::Try(tried) => tried.run().await,
        Command::Image(image) => image.run(&global).await,
        Command::Seal(seal) => seal.run(&global).await,
        Command::Reseal(reseal) => reseal.run(&global).await,
        Command::Diff(diff) => diff.run(&global).await,
        Command::References(references) => references.run(&global).await,
        Command::Agent(agent) => agent.run().await,
        Command::Manager(manager) => manager.run().await,
        Command::Cache(cache) => cache.run().await,
        Command::Storage(storage) => storage.run().await,
        Command::Authority(authority) => authority.run(&global),
        Command::Volume(volume) => volume.run(&global).await,
        Command::Version => version::run(&global).await,
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
    }
}

/// Cancelled at the first SIGINT or SIGTERM.
fn shutdown() -> Result<CancellationToken, Failure> {
    shutdown_at(&[SignalKind::interrupt(), SignalKind::terminate()])
}

/// Cancelled at the first of these signals.
fn shutdown_at(kinds: &[SignalKind]) -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    for kind in kinds {
        let mut received = signal(*kind).map_err(crate::failure::failed)?;
        let token = token.clone();
        tokio::spawn(async move {
            received.recv().await;
            token.cancel();
        });
    }
    Ok(token)
}

/// As many open files as we may have: each connection is one, and what we start has as many.
fn many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// What daemons say goes to standard error; `RUST_LOG` chooses how much.
fn speak() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::draws())
        .try_init();
}
