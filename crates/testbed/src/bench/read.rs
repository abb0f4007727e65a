//! `read`: a whole root read for the first time through a host's cache, beside `qemu-nbd` over TLS, which QEMU's own client
//! reads without a cache; and what the second clone of the host pays. No guests, one machine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Spread, compared, conclude};
use crate::Error;

const RUNS: u32 = 5;
const ROOT_MIB: u64 = 256;
const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// What the benchmark is told.
#[derive(Debug, Clone)]
pub struct ReadConfig {
    /// The `estive` program.
    pub estive: PathBuf,
    /// Where the result is appended.
    pub results: PathBuf,
    pub runs: Option<u32>,
}

/// Measures and appends the result.
pub fn run(config: &ReadConfig) -> Result<(), Error> {
    let home = tempfile::tempdir().map_err(Error::system("making a directory"))?;
    let place = Place::make(&config.estive, home.path())?;
    let runs = config.runs.unwrap_or(RUNS).max(1);
    let (mut cold_ms, mut peer_ms, mut warm_ms) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..runs {
        let cache = place.cache(&format!("cache{number}"))?;
        let cold = place.read(&cache.image)?;
        let warm = place.read(&cache.image)?;
        drop(cache);
        let peer = place.qemu_nbd()?;
        let direct = place.read(&peer.image)?;
        drop(peer);
        println!(
            "run {number:>2}: {ROOT_MIB} MiB cold through the cache {cold:.0} ms, again {warm:.0} ms; qemu-nbd {direct:.0} ms"
        );
        cold_ms.push(cold);
        warm_ms.push(warm);
        peer_ms.push(direct);
    }
    let more = json!({
        "root_mib": ROOT_MIB,
        "again_ms": Spread::of(&warm_ms),
        "peer_is": "qemu-nbd over TLS, page cache warm",
    });
    conclude(&compared("read", &cold_ms, &peer_ms, more), &config.results)
}

struct Place {
    estive: PathBuf,
    home: PathBuf,
    root: String,
    size_bytes: u64,
    port: u16,
    peer_port: u16,
    _origin: Daemon,
}

/// A process that ends with its owner.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Serving {
    /// What qemu-img opens.
    image: String,
    _daemon: Daemon,
}

impl Place {
    fn make(estive: &Path, home: &Path) -> Result<Self, Error> {
        let tree = home.join("tree");
        let doing = || Error::system("making the root of the benchmark");
        std::fs::create_dir(&tree).map_err(doing())?;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = vec![0; (ROOT_MIB << 20) as usize];
        for part in bytes.chunks_exact_mut(8) {
            // xorshift64, so that no chunk is like another.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            part.copy_from_slice(&state.to_le_bytes());
        }
        std::fs::write(tree.join("data"), bytes).map_err(doing())?;
        let (port, peer_port) = (free_port()?, free_port()?);
        let estive_in = |words: &[&str]| {
            let mut command = Command::new(estive);
            command.current_dir(home).args(words);
            command
        };
        for (role, name) in [("storage", "st"), ("agent", "h1")] {
            let issue = ["authority", "issue", "--authority", "ca", "--role", role];
            let holder = ["--name", name, "--address", "127.0.0.1", "--out", name];
            finish(&mut estive_in(&[&issue[..], &holder].concat()))?;
        }
        let sealed = [
            "--output",
            "json",
            "seal",
            "tree",
            "--out",
            "roots",
            "--authority",
            "ca",
        ];
        let said = finish(&mut estive_in(&sealed))?;
        let said: serde_json::Value =
            serde_json::from_slice(&said).map_err(|error| doing()(error.into()))?;
        let root = said["digest"].as_str().unwrap_or_default();
        let listen = format!("127.0.0.1:{port}");
        let storage = [
            "storage",
            "--directory",
            "roots",
            "--credentials",
            "st",
            "--listen",
            &listen,
        ];
        let origin = start(&mut estive_in(&storage))?;
        wait("the origin", || {
            std::net::TcpStream::connect(&listen).is_ok()
        })?;
        Ok(Self {
            estive: estive.to_owned(),
            home: home.to_owned(),
            size_bytes: said["size_bytes"].as_u64().unwrap_or_default(),
            root: root.trim_start_matches("sha256:").to_owned(),
            port,
            peer_port,
            _origin: origin,
        })
    }

    /// A cache that holds nothing yet.
    fn cache(&self, name: &str) -> Result<Serving, Error> {
        let roots = self.home.join(name).join("roots");
        let doing = || Error::system("telling the cache of the root");
        std::fs::create_dir_all(&roots).map_err(doing())?;
        let note = json!({"origins": [format!("https://127.0.0.1:{}", self.port)]});
        std::fs::write(roots.join(format!("{}.json", self.root)), note.to_string())
            .map_err(doing())?;
        let mut command = Command::new(&self.estive);
        command.current_dir(&self.home);
        command.args(["cache", "--credentials", "h1", "--directory", name]);
        let daemon = start(&mut command)?;
        let socket = self.home.join(name).join("cache.sock");
        wait("the cache", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })?;
        Ok(Serving {
            image: format!(
                "driver=nbd,server.type=unix,server.path={},export={}",
                socket.display(),
                self.root
            ),
            _daemon: daemon,
        })
    }

    fn qemu_nbd(&self) -> Result<Serving, Error> {
        let mut command = Command::new("qemu-nbd");
        command.current_dir(&self.home);
        command.args([
            "--object",
            "tls-creds-x509,id=t,dir=st,endpoint=server,verify-peer=yes",
        ]);
        command.args([
            "--tls-creds",
            "t",
            "--read-only",
            "--format",
            "raw",
            "--persistent",
        ]);
        command.args([
            "--shared",
            "8",
            "--bind",
            "127.0.0.1",
            "--export-name",
            "root",
        ]);
        command.arg(format!("--port={}", self.peer_port));
        command.arg(format!("roots/{}.erofs", self.root));
        let daemon = start(&mut command)?;
        let place = ("127.0.0.1", self.peer_port);
        wait("qemu-nbd", || std::net::TcpStream::connect(place).is_ok())?;
        Ok(Serving {
            image: format!(
                "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={},export=root,tls-creds=t",
                self.peer_port
            ),
            _daemon: daemon,
        })
    }

    /// Reads the root from its start to its end with QEMU's own client, many requests at once; gives milliseconds.
    fn read(&self, image: &str) -> Result<f64, Error> {
        let mut command = Command::new("qemu-img");
        command.current_dir(&self.home);
        command.arg("convert");
        command.args([
            "--object",
            "tls-creds-x509,id=t,dir=h1,endpoint=client,verify-peer=yes",
        ]);
        command.args(["-m", "8", "-W", "--image-opts", image]);
        command.args(["-n", "--target-image-opts"]);
        command.arg(format!("driver=null-co,size={}", self.size_bytes));
        let before = Instant::now();
        finish(&mut command)?;
        Ok(before.elapsed().as_secs_f64() * 1e3)
    }
}

fn free_port() -> Result<u16, Error> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|free| free.local_addr())
        .map(|address| address.port())
        .map_err(Error::system("finding a free port"))
}

fn start(command: &mut Command) -> Result<Daemon, Error> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let doing = format!("starting {:?}", command.get_program());
    command.spawn().map(Daemon).map_err(Error::system(doing))
}

fn finish(command: &mut Command) -> Result<Vec<u8>, Error> {
    let doing = format!("running {command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(Error::system(doing.clone()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::system(doing)(std::io::Error::other(said)))
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + STARTED_WITHIN;
    while !holds() {
        if Instant::now() > deadline {
            let doing = format!("waiting for {what}");
            return Err(Error::system(doing)(std::io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
