//! `estive world convert`: from and to other forms.

use crate::failure::Failure;
use crate::output;
use crate::traces;
use crate::world_file::{read, unreadable};
use clap::{Args, ValueEnum};
use estive_world::World;
use estive_world::ganeti::Ganeti;
use std::path::{Path, PathBuf};

/// Forms of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Text, as `estive snapshot` writes it.
    World,
    /// Ganeti's cluster data, as `htools -t` reads it.
    Ganeti,
    /// A directory of PlanetLab traces.
    Planetlab,
}

/// Without --from, a directory is a day of PlanetLab, a file that ends in .data a Ganeti cluster, any other a world.
#[derive(Debug, Args)]
pub struct Convert {
    /// What to read
    from_path: PathBuf,
    /// Its form
    #[arg(long, value_enum, value_name = "FORM")]
    from: Option<Form>,
    /// The form to write: world or ganeti
    #[arg(long, value_enum, default_value = "world", value_name = "FORM")]
    to: Form,
    /// Loads of a Ganeti cluster's instances, as `hbal -U` reads them
    #[arg(long, value_name = "FILE")]
    loads: Option<PathBuf>,
    /// Write the loads too, as `hbal -U` reads them
    #[arg(long, value_name = "FILE")]
    loads_out: Option<PathBuf>,
    /// Put the domains where this world has them; for a Ganeti cluster that was planned for
    #[arg(long, value_name = "WORLD")]
    placed_as: Option<PathBuf>,
    /// Hosts of a PlanetLab day's world
    #[arg(long, value_name = "N", default_value_t = 800)]
    hosts: u32,
    /// Write it to a file
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Convert {
    pub fn run(self) -> Result<u8, Failure> {
        let path = &self.from_path;
        let wrong = |fault| unreadable(path, &fault);
        let form = self.from.unwrap_or_else(|| form_of(path));
        let cluster = match form {
            Form::World => Err(World::from_text(&read(path)?).map_err(wrong)?),
            Form::Ganeti => {
                let loads = self.loads.as_deref().map(read).transpose()?;
                Ok(Ganeti::read(&read(path)?, loads.as_deref()).map_err(wrong)?)
            }
            Form::Planetlab => {
                let hosts = usize::try_from(self.hosts.min(200_000)).unwrap_or(0);
                Err(traces::read(path)?.planetlab_world(hosts))
            }
        };
        let mut world = match &cluster {
            Ok(cluster) => cluster.world.clone(),
            Err(world) => world.clone(),
        };
        if let Some(placed) = &self.placed_as {
            let other = World::from_text(&read(placed)?).map_err(|f| unreadable(placed, &f))?;
            place_as(&mut world, &other)?;
        }
        let text = match self.to {
            Form::World => world.to_text(),
            Form::Ganeti => {
                let cluster = match cluster {
                    Ok(cluster) => cluster,
                    Err(_) => Ganeti::of(&world).map_err(wrong)?,
                };
                cluster.data(&world).map_err(wrong)?
            }
            Form::Planetlab => {
                return Err(Failure::impossible("no world can be written as traces")
                    .advice("--to world or --to ganeti"));
            }
        };
        if let Some(loads) = &self.loads_out {
            output::file_or_print(Some(loads), &Ganeti::loads(&world))?;
        }
        output::file_or_print(self.out.as_deref(), &text)?;
        Ok(0)
    }
}

fn form_of(path: &Path) -> Form {
    if path.is_dir() {
        Form::Planetlab
    } else if path.extension().is_some_and(|ending| ending == "data") {
        Form::Ganeti
    } else {
        Form::World
    }
}

/// Domains, by name, go where another world has them.
fn place_as(world: &mut World, other: &World) -> Result<(), Failure> {
    use estive_world::{HostIx, Indexed};
    use std::collections::HashMap;
    let hosts: HashMap<&str, HostIx> = (world.hosts.iter().enumerate())
        .map(|(at, host)| (&*host.name, HostIx::of(at)))
        .collect();
    let theirs: HashMap<&str, _> = (other.domains.iter())
        .map(|domain| (&*domain.name, domain))
        .collect();
    let find = |host: HostIx| {
        let name = &*other.hosts[host].name;
        hosts.get(name).copied().ok_or_else(|| {
            Failure::impossible(format!("no host {name} in what is converted"))
                .advice("name the world that was planned for the same cluster")
        })
    };
    let mut places = Vec::with_capacity(world.domains.len());
    for domain in &world.domains {
        let Some(their) = theirs.get(&*domain.name) else {
            return Err(Failure::impossible(format!(
                "no domain {} in the world that says where they are",
                domain.name
            )));
        };
        places.push((
            their.host.map(find).transpose()?,
            their.replica.map(find).transpose()?,
        ));
    }
    for (domain, (host, replica)) in world.domains.iter_mut().zip(places) {
        (domain.host, domain.replica) = (host, replica);
    }
    Ok(())
}
