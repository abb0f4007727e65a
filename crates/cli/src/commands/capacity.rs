//! `estive capacity`: how many more domains of a shape fit, host by host, and what stops the next.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{self, Output, table};
use crate::question::amount;
use crate::world_file::{WorldFile, domain};
use clap::{Args, ValueEnum};
use estive_planner::{Capacity as Counted, capacity};
use estive_world::text::{CORES, MIB};
use estive_world::{Domain, ReservedKind, Scope, UserIx, World};
use serde::Serialize;

/// Nothing is moved to make room. Exit code 2 when not one fits.
#[derive(Debug, Args)]
pub struct Capacity {
    #[command(flatten)]
    from: WorldFile,
    /// Take the shape of this domain: size, class, needs, use
    #[arg(long, value_name = "DOMAIN")]
    like: Option<String>,
    /// Virtual processors: 2
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Memory: 512M, 4G
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Room on the host's own disks: 20G
    #[arg(long, value_name = "SIZE")]
    disk: Option<String>,
    /// Class, for overbooking
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Words that a host must have among its features
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    needs: Vec<String>,
    /// Whose they are, for quotas
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// No two of them in one host, or site
    #[arg(long, value_enum, value_name = "WHERE")]
    apart: Option<Apart>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Apart {
    /// No two on one host.
    Host,
    /// No two in one site.
    Site,
}

/// The answer, for programs.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    more: u64,
    more_when_on: u64,
    exact: bool,
    stopped_by_quota: bool,
    hosts: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    host: &'a str,
    more: u64,
    because: &'a str,
}

impl Capacity {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let text = self.from.text(global).await?;
        let document = self.from.document(&text)?;
        let world = &document.world;
        let shape = self.shape(world)?;
        let apart = self.apart.map(|apart| match apart {
            Apart::Host => Scope::Host,
            Apart::Site => Scope::Site,
        });
        let counted = capacity(world, &shape, apart);
        match global.output {
            Output::Json => output::json(&answer(world, &counted))?,
            Output::Table => output::print(&render(&answer(world, &counted)))?,
        }
        Ok(if counted.more == 0 { 2 } else { 0 })
    }

    fn shape(&self, world: &World) -> Result<Domain, Failure> {
        let mut shape = match &self.like {
            Some(name) => world.domains[domain(world, name)?].clone(),
            None => estive_world::Domain::named("shape"),
        };
        for (kind, option, measure, given) in [
            (ReservedKind::Vcpus, "--cpus", &CORES, &self.cpus),
            (ReservedKind::MemoryMib, "--memory", &MIB, &self.memory),
            (ReservedKind::DiskMib, "--disk", &MIB, &self.disk),
        ] {
            if let Some(given) = given {
                shape.reserved[kind] = amount(option, measure, given)?;
            }
        }
        if let Some(class) = &self.class {
            shape.class.clone_from(class);
        }
        shape.needs.extend(self.needs.iter().cloned());
        if let Some(user) = &self.user {
            let found = world.users.iter().position(|other| other.name == *user);
            let place = found
                .and_then(|place| u32::try_from(place).ok())
                .ok_or_else(|| {
                    Failure::impossible(format!("no user {user} in this world"))
                        .advice("the lines `user` of the file")
                })?;
            shape.user = Some(UserIx(place));
        }
        Ok(shape)
    }
}

fn answer<'a>(world: &'a World, counted: &'a Counted) -> Answer<'a> {
    Answer {
        more: counted.more,
        more_when_on: counted.more_when_on,
        exact: counted.exact,
        stopped_by_quota: counted.stopped_by_quota,
        hosts: (counted.hosts.iter())
            .map(|of| Row {
                host: &world.hosts[of.host].name,
                more: of.more,
                because: &of.because,
            })
            .collect(),
    }
}

fn render(answer: &Answer<'_>) -> String {
    let rows: Vec<Vec<String>> = (answer.hosts.iter())
        .map(|row| {
            vec![
                row.host.to_owned(),
                row.more.to_string(),
                row.because.to_owned(),
            ]
        })
        .collect();
    let at_least = if answer.exact { "" } else { "at least " };
    let mut text = table(&["host", "more", "then"], &rows);
    text.push_str(&format!("\n{at_least}{} more fit", answer.more));
    if answer.stopped_by_quota {
        text.push_str(", by the user's quota");
    }
    if answer.more_when_on > 0 {
        text.push_str(&format!(
            "; {} more on hosts that are off",
            answer.more_when_on
        ));
    }
    text.push('\n');
    text
}
