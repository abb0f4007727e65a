//! A clone under load that is moved again and again: what `./x demo` shows and `./x bench lost|downtime` measure.
//!
//! The load: an open loop of new HTTP connections, one long download whose bytes are checked, a program inside the clone
//! that appends numbered lines with fsync, a TCP stream from another clone, and a ping every 10 ms.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use estive_model::DomainName;
use serde::Serialize;
use serde_json::Value;

use crate::bed::Bed;
use crate::download::{Download, DownloadConfig};
use crate::guest_clock::clock_offset;
use crate::load::{self, Load, LoadConfig, LoadSummary};
use crate::ping::Ping;
use crate::{Error, now_us};

/// The loads need the switch to be over before the next move: a request may be lost up to five seconds later.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long a guest under load, on an emulated processor, may take to do one command.
const COMMAND_ATTEMPTS: u32 = 3;

/// Appends numbered lines, each on disk before the next; minimal Debian roots have perl, and no python.
const WRITER: &str = "nohup perl -MIO::Handle -e 'open(F,q(>),q(/var/tmp/lines)) or die; $i=0; while(1){ \
    syswrite(F,$i.qq(\\n)) or die; F->sync or die; $i++; select(undef,undef,undef,0.02) }' \
    >/var/tmp/writer.err 2>&1 </dev/null &";
const WRITER_JUDGE: &str = "perl -e 'open(F,q(<),q(/var/tmp/lines)) or die; $n=0;$g=0; while(<F>){ last unless /\\n$/; \
    $g++ if $_!=$n; $n=$_+1 } print qq($n $g\\n)'; cat /var/tmp/writer.err";

/// The server takes one stream and ends with it: one that broke at any move has no connection now. And it still flows.
const STREAM_JUDGE: &str = "got() { ss -Htni state established 'sport = :5201' | grep -o 'bytes_received:[0-9]*' \
    | cut -d: -f2 | sort -n | tail -n 1; }; a=$(got); sleep 4; b=$(got); \
    [ -n \"$a\" ] && [ \"${b:-0}\" -gt \"$a\" ] && echo flowing || echo \"still at ${a:-none}\"";

/// What is moved, and what it carries meanwhile.
#[derive(Debug, Clone)]
pub struct TrialConfig {
    /// The clone.
    pub clone: DomainName,
    /// Its address.
    pub address: Ipv4Addr,
    /// Another clone, which sends it a TCP stream.
    pub peer: DomainName,
    /// Private key for SSH.
    pub ssh_key: PathBuf,
    /// New connections a second.
    pub rate_per_s: u32,
}

/// One move, in figures.
#[derive(Debug, Clone, Serialize)]
pub struct MoveRow {
    /// From which host.
    pub from: String,
    /// To which host.
    pub to: String,
    /// From the order to the last durable write, in ms.
    pub whole_ms: u64,
    /// QEMU's own duration, in ms.
    pub total_ms: u64,
    /// QEMU's own downtime, in ms.
    pub downtime_ms: Option<u64>,
    /// From the source's processors halted to the destination's confirmed running, in ms.
    pub switch_ms: Option<f64>,
    /// Longest time between two answers to a ping every 10 ms, in ms.
    pub ping_gap_ms: f64,
    /// Requests that were under way between the source's processors halted and the destination's running.
    pub in_flight: usize,
    /// Guest's clock less ours after the move, in ms.
    pub clock_offset_ms: i64,
    /// How sure that is: half of the round trip, in ms.
    pub clock_unsure_ms: u64,
    /// How it was done, in the agent's words.
    pub choice: String,
}

/// What became of the loads.
#[derive(Debug, Clone, Serialize)]
pub struct TrialReport {
    /// The moves.
    pub moves: Vec<MoveRow>,
    /// The HTTP requests.
    pub load: LoadSummary,
    /// Bytes downloaded and checked.
    pub downloaded_bytes: u64,
    /// Why the download broke, if it did.
    pub download_broken: Option<String>,
    /// Whether the TCP stream between the clones lived to the end.
    pub stream_alive: bool,
    /// Lines that the writer's file holds.
    pub lines: u64,
    /// Gaps among them.
    pub gaps: u64,
}

impl TrialReport {
    /// Requests in flight at the switches, all moves together.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.moves.iter().map(|row| row.in_flight).sum()
    }

    /// Streams that broke: the download and the one between the clones.
    #[must_use]
    pub fn broken(&self) -> u32 {
        u32::from(self.download_broken.is_some()) + u32::from(!self.stream_alive)
    }

    /// Nothing was lost, broken or missing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.load.lost == 0 && self.broken() == 0 && self.gaps == 0 && self.lines > 0
    }
}

/// A clone under load.
#[derive(Debug)]
pub struct Trial<'bed> {
    bed: &'bed Bed,
    config: TrialConfig,
    load: Load,
    download: Download,
    ping: Ping,
    moves: Vec<MoveRow>,
}

impl<'bed> Trial<'bed> {
    /// Puts the load on.
    pub async fn start(bed: &'bed Bed, config: TrialConfig) -> Result<Self, Error> {
        let (tool, client) = (&bed.config().tool, &bed.topology().client);
        let web = SocketAddr::from((config.address, 80));
        let inside = |domain: &DomainName, script: &str| {
            let (domain, script) = (domain.clone(), script.to_owned());
            let key = config.ssh_key.clone();
            async move { ssh(bed, &domain, &key, &script).await }
        };
        inside(&config.clone, "seq 1 2000000 > /var/www/html/numbers.txt").await?;
        inside(&config.clone, WRITER).await?;
        inside(
            &config.clone,
            "nohup iperf3 -s -1 >/var/tmp/stream.log 2>&1 </dev/null &",
        )
        .await?;
        let send = format!(
            "nohup iperf3 -c {} -b 2M -t 36000 --connect-timeout 20000 >/var/tmp/stream.log 2>&1 </dev/null &",
            config.address
        );
        inside(&config.peer, &send).await?;
        let load = Load::start(
            tool,
            client,
            &LoadConfig {
                address: web,
                path: "/".to_owned(),
                expect: config.clone.to_string(),
                rate_per_s: config.rate_per_s,
            },
        )
        .await?;
        let download = Download::start(
            tool,
            client,
            &DownloadConfig {
                address: web,
                path: "/numbers.txt".to_owned(),
                rate_bytes_per_s: 64 << 10,
            },
        )
        .await?;
        let ping = Ping::start(tool, client, config.address).await?;
        let trial = Self {
            bed,
            config,
            load,
            download,
            ping,
            moves: Vec::new(),
        };
        tokio::time::sleep(SETTLE).await;
        Ok(trial)
    }

    /// Moves the clone and measures it.
    pub async fn migrate(&mut self, to: &str) -> Result<MoveRow, Error> {
        let clone = self.config.clone.as_str();
        let shown = self.bed.estive_json(&["show", clone]).await?;
        let from = text(&shown, "/host");
        let before_us = now_us();
        let done = self
            .bed
            .estive_json(&["migrate", clone, "--to", to])
            .await?;
        tokio::time::sleep(SETTLE).await;
        let after_us = now_us();
        let (tool, client) = (&self.bed.config().tool, &self.bed.topology().client);
        let clock = clock_offset(tool, client, (self.config.address, 80).into()).await?;
        let halted_us = number(&done, "/report/halted_us");
        let resumed_us = number(&done, "/report/resumed_us");
        let row = MoveRow {
            from,
            to: to.to_owned(),
            whole_ms: number(&done, "/whole_ms").unwrap_or(0),
            total_ms: number(&done, "/report/total_ms").unwrap_or(0),
            downtime_ms: number(&done, "/report/downtime_ms"),
            switch_ms: halted_us
                .zip(resumed_us)
                .map(|(halted, resumed)| ms(resumed.saturating_sub(halted))),
            ping_gap_ms: ms(self.ping.longest_gap_us(before_us, after_us)),
            in_flight: halted_us
                .zip(resumed_us)
                .map_or(0, |(halted, resumed)| self.load.in_flight(halted, resumed)),
            clock_offset_ms: clock.offset_ms,
            clock_unsure_ms: clock.round_trip_ms / 2,
            choice: text(&done, "/report/choice"),
        };
        self.moves.push(row.clone());
        Ok(row)
    }

    /// Takes the load off and judges everything.
    pub async fn finish(self) -> Result<TrialReport, Error> {
        let Self {
            bed,
            config,
            load,
            download,
            ping,
            moves,
        } = self;
        let requests = load.finish().await?;
        let download = download.finish().await?;
        ping.finish().await?;
        let key = &config.ssh_key;
        let judged = ssh(bed, &config.clone, key, WRITER_JUDGE).await?;
        let mut words = judged.split_whitespace();
        let mut next = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (lines, gaps) = (next().unwrap_or(0), next().unwrap_or(u64::MAX));
        let flowing = ssh(bed, &config.clone, key, STREAM_JUDGE).await;
        let stream_alive = flowing.is_ok_and(|answer| answer.trim() == "flowing");
        Ok(TrialReport {
            moves,
            load: load::summary(&requests),
            downloaded_bytes: download.bytes,
            download_broken: download.broken,
            stream_alive,
            lines,
            gaps,
        })
    }
}

/// Runs a command in a clone through `estive ssh`; gives its standard output.
pub async fn ssh(
    bed: &Bed,
    domain: &DomainName,
    key: &std::path::Path,
    command: &str,
) -> Result<String, Error> {
    let key = key.display().to_string();
    let arguments = ["ssh", domain.as_str(), "-i", &key, "--", command];
    let mut last = String::new();
    for _ in 0..COMMAND_ATTEMPTS {
        let output = bed.estive(&arguments).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // 255 is ssh's own failure (a login that took too long); anything else is the command's.
        if output.status.code() != Some(255) {
            break;
        }
    }
    Err(Error::Gauge {
        what: format!("estive ssh {domain} -- {command}"),
        problem: last,
    })
}

fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn ms(us: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "microseconds of one move")]
    let us = us as f64;
    us / 1000.0
}
