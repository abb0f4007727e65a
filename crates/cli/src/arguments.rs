//! The command line: global options and the tree of commands.

use crate::commands;
use crate::output::Output;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Turns one Linux system into a herd of virtual machines over all the machines you have.
///
/// Exit codes: 0 done, 1 failed, 2 impossible as asked, 3 refused (rights), 4 unreachable.
#[derive(Debug, Parser)]
#[command(
    name = "estive",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The manager: https://ADDRESS:PORT or unix:/PATH.
    #[arg(
        long,
        global = true,
        env = "ESTIVE_MANAGER",
        value_name = "URL",
        default_value = "unix:/run/estive/manager.sock"
    )]
    pub manager: String,
    /// Drive one agent alone, without a manager.
    #[arg(long, global = true, value_name = "URL")]
    pub agent: Option<String>,
    /// Directory of your certificate and key, for https.
    #[arg(long, global = true, env = "ESTIVE_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
    /// How answers are shown.
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub output: Output,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring a herd up: layers, hosts, clones; then a table of addresses
    Up(commands::up::Up),
    /// Take a deployment down: its clones are stopped and removed
    Down(commands::down::Down),
    /// List the domains
    Ls(commands::ls::Ls),
    /// Show one domain: where it is, what it does, what is under way
    Show(commands::show::Show),
    /// Draw a clone's boot: where its time went, from the request to the answer
    Boot(commands::boot::Boot),
    /// Move a running domain to another host without stopping it
    Migrate(commands::migrate::Migrate),
    /// Start a stopped or crashed domain on the host that owns it
    Start(commands::status::Start),
    /// Stop a domain: asked to power off, ended after the grace
    Stop(commands::status::Stop),
    /// Halt a domain's processors
    Pause(commands::status::Pause),
    /// Start a paused domain's processors again
    Resume(commands::status::Resume),
    /// Keep a running domain's memory on its host, and end it
    Save(commands::save::Save),
    /// Go on from what was saved, once
    Restore(commands::save::Restore),
    /// Attach to a domain's serial console (leave with Ctrl-])
    Console(commands::console::Console),
    /// Log in to a domain by SSH, through its host
    Ssh(commands::ssh::Ssh),
    /// Join standard input and output to a TCP port of a domain (for ssh's ProxyCommand)
    Proxy(commands::proxy::Proxy),
    /// Print everything a domain wrote on its console
    Logs(commands::logs::Logs),
    /// Print what was done, and why
    Events(commands::events::Events),
    /// Print a clone's SSH host key as a line of known_hosts
    HostKey(commands::host_key::Key),
    /// List the hosts
    Hosts,
    /// Write the herd as a planner sees it: hosts, domains, where each is
    Snapshot(commands::snapshot::Snapshot),
    /// Say what would move for an objective, why, and what it gains; nothing happens
    Plan(commands::plan::Plan),
    /// Carry a plan out, unless the world has moved on
    Apply(commands::apply::Apply),
    /// Say why a domain is where it is
    Why(commands::why::Why),
    /// Say what speaks against a domain on a host
    WhyNot(commands::why::WhyNot),
    /// Count how many more domains of a shape fit, and what stops the next
    Capacity(commands::capacity::Capacity),
    /// Say what would happen to a world over a day, under one policy or several; nothing happens
    Rehearse(commands::rehearse::Rehearse),
    /// Check worlds, and convert them from and to other forms
    World(commands::world::WorldCommand),
    /// Show every value of a clone: who wrote it, where, and what it overrode
    Vars(commands::vars::Vars),
    /// List the template sets, or show one
    Sets(commands::sets::Sets),
    /// List what a root may be made of (root=), show a loader, or check a line
    Root(commands::root::Root),
    /// Build the layers of a herd's clones, hold them against a root, write them as trees, push them
    Layers(commands::layers::Layers),
    /// Say where a file of a clone comes from: layer, set, template and line
    Which(commands::which::Which),
    /// List the clones for another program: hosts, OpenMPI, Ansible, SSH
    List(commands::list::List),
    /// Put the clones into /etc/hosts, in a block of their own
    UpdateHosts(commands::update_hosts::UpdateHosts),
    /// Put the clones' host keys into the known hosts of this machine, in a block of their own
    UpdateKnownHosts(commands::update_known_hosts::UpdateKnownHosts),
    /// Have a host hold a domain with disks of its own; with --agent, put any domain's archive there
    Define(commands::define::Define),
    /// Remove a stopped domain that was defined so; its images stay
    Delete(commands::define::Delete),
    /// Boot one clone of a herd here on the console, without agent or manager, to watch it start
    Try(commands::r#try::Try),
    /// Write kernel, initramfs and command line that a physical or diskless machine starts from
    Image(commands::image::Image),
    /// Seal a root into the image that clones share
    Seal(commands::seal::Seal),
    /// Make a named reference anew and say what changed; its new name goes into the manager's configuration
    Reseal(commands::reseal::Reseal),
    /// Show what changed from one sealed root, or directory, to another
    Diff(commands::diff::Diff),
    /// List or remove the sealed roots of this machine
    References(commands::references::References),
    /// Run the daemon of a host
    Agent(commands::agent::Agent),
    /// Run the manager
    Manager(commands::manager::Manager),
    /// Run the cache of a host: it reads roots for the host's clones, checks and keeps them
    Cache(commands::cache::Cache),
    /// Serve sealed roots to hosts
    Storage(commands::storage::Storage),
    /// The private certificate authority
    Authority(commands::authority::Authority),
    /// The volumes that stateful clones keep their state in
    Volume(commands::volume::Volume),
    /// Print the versions of this command and of the service it speaks to
    Version,
    /// Print a completion script for a shell
    Completion(commands::completion::Completion),
    /// Write the man pages
    Man(commands::man::Man),
}
