//! `seal`: `estive seal` of a root, walked until it stood still, its manifest included, beside `mkfs.erofs` of the same
//! root. No guests.
//!
//! The root is first laid down as `estive seal` would take it (what the rules keep out is gone), so that both have the
//! same files. Both write to the same file system, with the root in the page cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Spread, compared, conclude};
use crate::Error;

const RUNS: u32 = 5;

/// What the benchmark is told.
#[derive(Debug, Clone)]
pub struct SealConfig {
    /// The `estive` program.
    pub estive: PathBuf,
    /// The root to seal.
    pub root: PathBuf,
    /// Where the result is appended.
    pub results: PathBuf,
    pub runs: Option<u32>,
}

/// Measures and appends the result.
pub fn run(config: &SealConfig) -> Result<(), Error> {
    let home = tempfile::tempdir().map_err(Error::system("making a directory"))?;
    let root = home.path().join("root");
    let out = home.path().join("out");
    let peer_image = home.path().join("peer.erofs");
    let seal = |root: &Path, more: &[&str]| {
        let mut command = Command::new(&config.estive);
        command.args(["--output", "json", "seal"]).arg(root);
        command.arg("--out").arg(&out).args(more);
        finish(&mut command)
    };
    // Once for the tree that both read.
    let first: Value = parsed(&seal(&config.root, &["--no-scan"])?.0)?;
    let image = first["path"].as_str().unwrap_or_default();
    let extract = format!("--extract={}", root.display());
    finish(Command::new("fsck.erofs").args([&extract, "--preserve", image]))?;

    let (mut ours_ms, mut peer_ms) = (Vec::new(), Vec::new());
    let (mut unscanned_ms, mut digest_ms) = (Vec::new(), Vec::new());
    let (mut sealed, mut peer_bytes) = (Value::Null, 0);
    for number in 0..config.runs.unwrap_or(RUNS).max(1) {
        for file in [&out, &peer_image] {
            let _ = std::fs::remove_dir_all(file).or_else(|_| std::fs::remove_file(file));
        }
        let (said, ours) = seal(&root, &[])?;
        sealed = parsed(&said)?;
        let _ = std::fs::remove_dir_all(&out);
        let (_, unscanned) = seal(&root, &["--no-scan"])?;
        let options = ["-T0", "-x2147483647", "-Enoinline_data", "--quiet"];
        let mut command = Command::new("mkfs.erofs");
        let (_, peer) = finish(command.args(options).arg(&peer_image).arg(&root))?;
        let (_, digest) = finish(Command::new("sha256sum").arg(&peer_image))?;
        peer_bytes = std::fs::metadata(&peer_image).map_or(0, |image| image.len());
        println!(
            "run {number:>2}: estive seal {ours:.0} ms (without looking for secrets {unscanned:.0}), mkfs.erofs \
             {peer:.0} ms, sha256sum of its image {digest:.0} ms"
        );
        ours_ms.push(ours);
        unscanned_ms.push(unscanned);
        peer_ms.push(peer);
        digest_ms.push(digest);
    }
    let more = json!({
        "no_scan_ms": Spread::of(&unscanned_ms),
        "sha256sum_ms": Spread::of(&digest_ms),
        "image_bytes": sealed["size_bytes"],
        "peer_image_bytes": peer_bytes,
        "walks": sealed["consistency"]["rounds"],
        "peer_is": "mkfs.erofs -T0 -x2147483647 -Enoinline_data, which reads each file once and digests nothing",
    });
    conclude(&compared("seal", &ours_ms, &peer_ms, more), &config.results)
}

fn parsed(said: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(said).map_err(|source| Error::Json {
        what: "estive seal".to_owned(),
        source,
    })
}

/// What it said, and how long it took, in ms.
fn finish(command: &mut Command) -> Result<(Vec<u8>, f64), Error> {
    let before = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(Error::system(format!("running {command:?}")))?;
    let took_ms = before.elapsed().as_secs_f64() * 1e3;
    if output.status.success() {
        return Ok((output.stdout, took_ms));
    }
    Err(Error::Command {
        command: format!("{command:?}"),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
