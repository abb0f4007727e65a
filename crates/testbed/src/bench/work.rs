//! `work`: the jobs of the papers in clones: a C program compiled, pgbench, a search by whole numbers, TCP by message
//! size, and a ray tracer over four clones with MPI. The peer: four of the same guests, of the same size and on the same
//! bridges, each on a local raw ext4 virtio disk made from the same tree; for TCP the machine itself, from a host's
//! namespace to the client's.
//!
//! In each mode that is asked for, one after the other beside the one peer. What the peers write is lost with them but for the
//! first, whose disk is written to.

use std::time::Duration;

use estive_network::{MacAddress, bridge_mac};
use serde_json::{Map, Value, json};
use tokio::process::{Child, Command};

use super::BenchConfig;
use super::bare::problem;
use super::ganesha;
use super::guest_job::{
    Case, GuestFile, Measured, SCRIPT_PATH, of_modes, ratio, worst_of, write_files,
};
use super::mode::{Clones, Shape, each};
use super::peer::{Machine, Peer, PeerSize};
use super::round;
use crate::Error;
use crate::bed::Bed;
use crate::topology::{CLIENT_ADDRESS, HOST_BRIDGE};

const MEMORY_MIB: u64 = 640;
const LIMIT: Duration = Duration::from_secs(1200);
/// On which host each of the four is, from 0. The first does everything but three quarters of the ray tracer. Peers have
/// .111 to .114.
const PLACES: [usize; 4] = [0, 1, 2, 0];

const JOBS: [Case; 4] = [
    Case::time("compile"),
    Case::rate("pgbench", "transactions/s"),
    Case::time("search"),
    Case::time("ray_mpi"),
];
const TCP: [Case; 5] = [
    Case::rate("tcp_64", "Mbit/s"),
    Case::rate("tcp_1K", "Mbit/s"),
    Case::rate("tcp_16K", "Mbit/s"),
    Case::rate("tcp_128K", "Mbit/s"),
    Case::rate("tcp_1M", "Mbit/s"),
];

pub(super) async fn measure(bed: &Bed, config: &BenchConfig) -> Result<Value, Error> {
    let runs = config.runs.unwrap_or(3);
    let directory = &bed.config().directory;
    let files = files(config).await?;
    let size = PeerSize {
        disk_mib: 3072,
        memory_mib: MEMORY_MIB,
        has_network: true,
    };
    let peer = Peer::make(config, directory, &config.tree, &size)?;
    let peer_files = directory.join("peer-files");
    write_files(&peer_files, &files)?;
    for file in &files {
        peer.put(&peer_files.join(file.path), file.path, file.mode)?;
    }
    peer.set_init(&peer_files.join(SCRIPT_PATH))?;
    let peers = peers(bed, peer).await?;
    let all: Vec<Case> = JOBS.into_iter().chain(TCP).collect();

    let modes = each(&config.modes);
    let _ganesha = ganesha::serve(bed, config, &modes).await?;
    let shape = Shape {
        name: "work",
        memory_mib: MEMORY_MIB,
        places: &PLACES,
    };
    let mut ours = Vec::new();
    for mode in modes {
        let clones = Clones::up(bed, mode, &shape, &files).await?;
        ours.push((clones, Measured::default()));
    }
    let _server = tcp_server(bed)?;
    let mut theirs = Measured::default();
    let mut machine = Measured::default();
    for number in 0..runs {
        for (clones, measured) in &mut ours {
            clones.start().await?;
            measured.take(clones.console(), &all, LIMIT).await?;
            clones.stop().await?;
            let name = clones.mode.name();
            println!("run {number:>2}: {name:<10} {}", measured.last(&all));
        }
        for case in &TCP {
            machine.add(case, tcp_of_the_machine(bed, case).await?);
        }
        let mut running = Vec::new();
        // The first one last: it waits for the others.
        for peer in peers.iter().rev() {
            running.push(peer.start(bed, number)?);
        }
        if let Some((_, console)) = running.last() {
            theirs.take(console, &all, LIMIT).await?;
        }
        for (bare, _) in running {
            bare.end().await;
        }
        println!("        local disk {}", theirs.last(&all));
        println!("        machine    {}", machine.last(&TCP));
    }
    let lines = ours
        .iter()
        .map(|(clones, measured)| (clones.mode, of_mode(measured, &theirs, &machine)));
    let mut line = of_modes("work", lines.collect());
    line.insert(
        "peers".to_owned(),
        json!("four of the same guests on local ext4 disks; for tcp_* the machine itself between two namespaces"),
    );
    line.insert("goal".to_owned(), json!(0.8));
    line.insert("memory_mib".to_owned(), json!(MEMORY_MIB));
    line.insert("sizes".to_owned(), json!(theirs.sizes));
    line.insert("runs".to_owned(), json!(runs));
    Ok(Value::Object(line))
}

/// The ratio is the worst of all. Beside it what the clones cost where the guest itself is what limits: against the same
/// guest, TCP as well.
fn of_mode(ours: &Measured, theirs: &Measured, machine: &Measured) -> Map<String, Value> {
    let all: Vec<Case> = JOBS.into_iter().chain(TCP).collect();
    let mut peer = machine.clone();
    for case in &JOBS {
        let figures = theirs.figures.get(case.name).cloned();
        peer.figures
            .insert(case.name.to_owned(), figures.unwrap_or_default());
    }
    let mut line = worst_of(&all, ours, &peer);
    let same_guest: Map<String, Value> = all
        .iter()
        .map(|case| {
            (
                case.name.to_owned(),
                json!(round(ratio(case, ours, theirs))),
            )
        })
        .collect();
    let least = all.iter().map(|case| ratio(case, ours, theirs));
    let least = least.fold(f64::INFINITY, f64::min);
    line.insert("same_guest_ratio".to_owned(), json!(round(least)));
    line.insert("same_guest".to_owned(), Value::Object(same_guest));
    line
}

/// The script, the search, and a key with which the guests of this run, and nobody else, let each other in.
async fn files(config: &BenchConfig) -> Result<Vec<GuestFile>, Error> {
    let key = bed_key(config).await?;
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(Error::system(format!("reading {}", path.display())))
    };
    Ok(vec![
        GuestFile {
            path: SCRIPT_PATH,
            mode: 0o755,
            content: include_bytes!("work.sh").to_vec(),
        },
        GuestFile {
            path: "usr/local/sbin/estive-search",
            mode: 0o755,
            content: read(&config.programs.join("estive-search"))?,
        },
        GuestFile {
            path: "usr/local/sbin/measured-key",
            mode: 0o600,
            content: read(&key)?,
        },
        GuestFile {
            path: "usr/local/sbin/measured-key.pub",
            mode: 0o644,
            content: read(&key.with_extension("pub"))?,
        },
    ])
}

async fn bed_key(config: &BenchConfig) -> Result<std::path::PathBuf, Error> {
    let key = config.bed.directory.join("work-key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "measured", "-f"])
        .arg(&key)
        .output()
        .await
        .map_err(Error::system("running ssh-keygen (package openssh-client)"))?;
    match made.status.success() {
        true => Ok(key),
        false => Err(problem(&String::from_utf8_lossy(&made.stderr))),
    }
}

/// The first on a disk that it writes to; the others on a copy whose writes are thrown away.
async fn peers(bed: &Bed, mut first: Peer) -> Result<Vec<Peer>, Error> {
    let mut made: Vec<Peer> = Vec::new();
    let mut rest: Option<Peer> = None;
    for (number, place) in PLACES.into_iter().enumerate() {
        let tap = format!("peer{}", number + 1);
        let host = bed
            .topology()
            .hosts
            .get(place)
            .ok_or_else(|| problem("there are fewer than three hosts"))?;
        host.tap(&tap, HOST_BRIDGE)
            .await
            .map_err(Error::network(format!("making {tap}")))?;
        let mac: MacAddress = bridge_mac("peer", &tap);
        let machine = Machine {
            host: place,
            tap: Some((tap.clone(), mac)),
            words: format!("measured_address=10.77.0.{}/24", 111 + number),
            forgets: number > 0,
        };
        match &rest {
            _ if number == 0 => {
                first.writable = true;
                rest = Some(first.beside("others", false, Machine::default())?);
                made.push(first.beside(&tap, true, machine)?);
            }
            Some(rest) => made.push(rest.beside(&tap, true, machine)?),
            None => {}
        }
    }
    Ok(made)
}

fn tcp_server(bed: &Bed) -> Result<Child, Error> {
    bed.topology()
        .client
        .command("iperf3")
        .args(["--server", "--bind", &CLIENT_ADDRESS.to_string()])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::system("starting iperf3"))
}

/// What the machine itself sends from the first host's namespace to the client's, in Mbit/s.
async fn tcp_of_the_machine(bed: &Bed, case: &Case) -> Result<f64, Error> {
    let bytes = case.name.trim_start_matches("tcp_");
    let host = bed.topology().hosts.first();
    let said = host
        .ok_or_else(|| problem("there is no host"))?
        .command("iperf3")
        .args(["--client", &CLIENT_ADDRESS.to_string(), "--length", bytes])
        .args(["--time", "2", "--json"])
        .output()
        .await
        .map_err(Error::system("running iperf3"))?;
    let said: Value = serde_json::from_slice(&said.stdout).map_err(|source| Error::Json {
        what: "iperf3".to_owned(),
        source,
    })?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.map(|bits| bits / 1e6)
        .ok_or_else(|| problem(&format!("iperf3: {}", said["error"])))
}
