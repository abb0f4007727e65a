//! How the clones of benchmarks read their root and keep what they write, several ways in one run beside one peer.

use std::collections::BTreeSet;
use std::path::Path;

use estive_api::{Client, Endpoint};
use estive_model::DomainState;

use super::bare::problem;
use super::boot::order;
use super::ganesha::{MOUNT_PORT, NFS_PORT};
use super::guest_job::{GuestFile, write_herd};
use crate::Error;
use crate::bed::{Bed, host_name};
use crate::topology::STORAGE_ADDRESS;

/// One way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A sealed root; what is written, in memory.
    Stateless,
    /// A sealed root; what is written, on a volume at the storage place.
    Stateful,
    /// The reference's own root by our NFS server, through the host's forwarder; what is written, in memory.
    Live,
    /// As live, by NFS-Ganesha, which the clone reads from straight and in the clear.
    Ganesha,
}

impl Mode {
    /// What the bed calls the live reference.
    pub const LIVE_REFERENCE: &str = "live";

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::Stateful => "stateful",
            Self::Live => "live",
            Self::Ganesha => "ganesha",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Stateless => "stateless, sealed",
            Self::Stateful => "stateful, sealed",
            Self::Live => "stateless, live",
            Self::Ganesha => "stateless, NFS-Ganesha",
        }
    }

    /// Is it Estive's?
    pub(super) fn is_ours(self) -> bool {
        self != Self::Ganesha
    }

    /// Its first clone has .121, .131, .141 or .151; the others follow.
    pub(super) fn address(self, clone: usize) -> String {
        format!("10.77.0.{}", 121 + 10 * self as usize + clone)
    }

    /// What the herd file says of it.
    fn herd_lines(self) -> String {
        match self {
            Self::Stateless => String::new(),
            Self::Stateful => "mode: stateful\nvolume: {size: 4G}\n".to_owned(),
            Self::Live => format!("reference: {}\n", Self::LIVE_REFERENCE),
            // As the manager writes it for a live one.
            Self::Ganesha => format!(
                "root: 'nfs:{STORAGE_ADDRESS}:/:vers=3:port={NFS_PORT}:mountport={MOUNT_PORT}:actimeo=1:ro:follow;\
                 estive;tmpfs'\n"
            ),
        }
    }
}

/// What the clones of a benchmark are, in each mode alike.
pub(super) struct Shape<'a> {
    /// The benchmark.
    pub name: &'a str,
    pub memory_mib: u64,
    /// On which host each is, from 0.
    pub places: &'a [usize],
}

/// The clones of one mode; the first is the one that measures.
pub(super) struct Clones {
    pub mode: Mode,
    /// The manager: a stateful clone starts only by its word, which the storage host asks for.
    manager: Client,
    names: Vec<String>,
    console: std::path::PathBuf,
}

impl Clones {
    /// Brings them up once, and stops them.
    pub(super) async fn up(
        bed: &Bed,
        mode: Mode,
        shape: &Shape<'_>,
        files: &[GuestFile],
    ) -> Result<Self, Error> {
        let name = format!("{}-{}", shape.name, mode.name());
        let herd = bed.config().directory.join(format!("{name}-herd"));
        let mut text = format!(
            "name: {name}\nnetwork: 10.77.0.0/24\naddresses: {}-{}\nmemory_mib: {}\nsets: [measured]\nup: [ping]\n\
             init: /usr/local/sbin/measured\n{}hosts:\n",
            mode.address(0),
            mode.address(9),
            shape.memory_mib,
            mode.herd_lines(),
        );
        for (number, place) in shape.places.iter().enumerate() {
            text += &format!(
                "  {}: {{host: host{}, address: {}}}\n",
                clone_name(mode, number),
                place + 1,
                mode.address(number)
            );
        }
        write_herd(&herd, &text, files)?;
        bed.estive_json(&["up", &herd.display().to_string(), "--name", &name])
            .await?;
        let manager = Client::new(Endpoint::Unix(bed.manager_socket()), None)
            .map_err(|error| problem(&error.to_string()))?;
        let names = 0..shape.places.len();
        let first = shape.places.first().map_or(1, |place| place + 1);
        let first = host_name(u8::try_from(first).unwrap_or(1));
        let clones = Self {
            mode,
            manager,
            names: names.map(|number| clone_name(mode, number)).collect(),
            console: bed
                .config()
                .directory
                .join(first)
                .join("q")
                .join(clone_name(mode, 0))
                .join("console.log"),
        };
        clones.all_are(DomainState::Stopped).await?;
        Ok(clones)
    }

    /// The console of the one that measures.
    pub(super) fn console(&self) -> &Path {
        &self.console
    }

    /// Starts all; what the last run said is forgotten.
    pub(super) async fn start(&self) -> Result<(), Error> {
        let _ = std::fs::remove_file(&self.console);
        self.all_are(DomainState::Running).await
    }

    pub(super) async fn stop(&self) -> Result<(), Error> {
        self.all_are(DomainState::Stopped).await
    }

    /// The first one last: it waits for the others.
    async fn all_are(&self, state: DomainState) -> Result<(), Error> {
        for name in self.names.iter().rev() {
            order(&self.manager, name, state).await?;
        }
        Ok(())
    }
}

fn clone_name(mode: Mode, number: usize) -> String {
    format!("{}{:02}", mode.name(), number + 1)
}

/// Each once, in the order they were asked for.
pub(super) fn each(modes: &[Mode]) -> Vec<Mode> {
    let mut seen = BTreeSet::new();
    let is_new = |mode: &&Mode| seen.insert(**mode as u8);
    modes.iter().filter(is_new).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_addresses_of_their_own_beside_the_peers() {
        let all = [Mode::Stateless, Mode::Stateful, Mode::Live, Mode::Ganesha];
        let addresses: Vec<String> = all
            .iter()
            .flat_map(|mode| (0..4).map(|clone| mode.address(clone)))
            .collect();
        assert_eq!(addresses[0], "10.77.0.121");
        assert_eq!(addresses[15], "10.77.0.154");
        let different: BTreeSet<&String> = addresses.iter().collect();
        assert_eq!(different.len(), addresses.len());
        assert_eq!(
            each(&[Mode::Live, Mode::Stateless, Mode::Live]),
            [Mode::Live, Mode::Stateless]
        );
    }
}
