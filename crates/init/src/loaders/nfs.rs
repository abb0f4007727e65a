//! `nfs`: a directory of an NFS server, by the kernel's own client and no mount.nfs.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_boot::SharedDirectory;
use estive_boot::loaders::nfs::{Options, Version};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::{Context, Given};
use crate::console::uptime_ms;
use crate::failure::{Result, fail};
use crate::network::Network;
use crate::root::read_further_ahead;
use crate::upper_image;

const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(200);
const RPCBIND_PORT: u16 = 111;
/// Servers tell clients apart by this and the host name; two machines of one name would take each other's locks.
const UNIQUE_ID: &str = "/sys/module/nfs/parameters/nfs4_unique_id";

/// Mounts a directory to be written to at `place`. `patience_ms`: how long its server is waited for.
pub fn mount_shared(
    shared: &SharedDirectory,
    place: &Path,
    network: &Network,
    patience_ms: u64,
) -> Result<()> {
    let mut server = Server::reach(&shared.from, network, patience_ms)?;
    // Others write there.
    server.flags = MountFlags::NOSUID | MountFlags::NODEV;
    server.mount(place, !shared.is_read_only).map(drop)
}

pub fn open(options: &Options, _: Option<Given>, context: &mut Context) -> Result<Given> {
    let network = context.network()?.clone();
    let patience_ms = u64::from(context.line.wait_s) * 1000;
    let server = Server::reach(options, &network, patience_ms)?;
    let place = context.place()?;
    let (mounted, version) = server.mount(&place, context.wants_writing())?;
    read_further_ahead(&place.to_string_lossy());
    let is_only_stage = context.device.stages.len() == 1;
    if mounted == Mounted::Writable && context.is_top && !context.is_alone && is_only_stage {
        let lock = match version {
            Version::V3 => upper_image::Lock::ByName,
            Version::V4(_) => upper_image::Lock::OfServer,
        };
        context.upper = upper_image::open(&place, options.upper_bytes, lock, &network, context)?;
    }
    Ok(Given::Directory(place))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mounted {
    ReadOnly,
    Writable,
}

/// The address at which the server answers: it may be starting as we are.
fn reach(options: &Options, addresses: &[IpAddr], patience_ms: u64) -> Result<IpAddr> {
    if options.is_udp {
        return Ok(addresses[0]);
    }
    let deadline_ms = uptime_ms() + patience_ms;
    loop {
        let mut last = String::new();
        for address in addresses {
            match connect(*address, options.port) {
                Ok(()) => return Ok(*address),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        if uptime_ms() > deadline_ms {
            return fail(format!(
                "the NFS server {} does not answer on port {} ({last}): does it run, and do address, netmask and gateway lead there?",
                options.server, options.port
            ));
        }
        std::thread::sleep(RETRY);
    }
}

fn connect(address: IpAddr, port: u16) -> std::io::Result<()> {
    TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_PATIENCE).map(drop)
}

/// Before the first mount. A kernel without this word has another way, and one machine needs none.
fn name_client(network: &Network) {
    if fs::read_to_string(UNIQUE_ID).is_ok_and(|present| present.trim().is_empty())
        && let Some(name) = network.machine_name()
    {
        let _ = fs::write(UNIQUE_ID, name);
    }
}

struct Server<'a> {
    options: &'a Options,
    address: IpAddr,
    network: &'a Network,
    flags: MountFlags,
}

impl<'a> Server<'a> {
    /// Once it answers.
    fn reach(options: &'a Options, network: &'a Network, patience_ms: u64) -> Result<Server<'a>> {
        let addresses = network.resolve(&options.server)?;
        let address = reach(options, &addresses, patience_ms)?;
        name_client(network);
        Ok(Server {
            options,
            address,
            network,
            flags: MountFlags::empty(),
        })
    }

    /// By the first version that the server has.
    fn mount(&self, place: &Path, wants_writing: bool) -> Result<(Mounted, Version)> {
        let mut refused = Vec::new();
        for version in &self.options.versions {
            let (mounted, flags) = match wants_writing {
                true => (Mounted::Writable, self.flags),
                false => (Mounted::ReadOnly, self.flags | MountFlags::RDONLY),
            };
            if let Some(reason) = self.lacks(*version) {
                refused.push((*version, reason));
                continue;
            }
            match self.mount_as(*version, place, flags) {
                Ok(()) => return Ok((mounted, *version)),
                Err(errno) => {
                    refused.push((*version, self.reason(errno)));
                    // Only what another version may not suffer from is worth another try.
                    if !matches!(
                        errno,
                        Errno::PROTONOSUPPORT
                            | Errno::INVAL
                            | Errno::NOENT
                            | Errno::NODEV
                            | Errno::OPNOTSUPP
                    ) {
                        break;
                    }
                }
            }
        }
        let reasons: Vec<String> = refused
            .into_iter()
            .map(|(version, reason)| format!("version {}: {reason}", version.name()))
            .collect();
        fail(format!(
            "mounting {} of the NFS server {}: {}",
            self.options.export,
            self.options.server,
            reasons.join("; ")
        ))
    }

    /// Version 3 finds its mountd by rpcbind, and waits for minutes if that is not there.
    fn lacks(&self, version: Version) -> Option<String> {
        let asks_rpcbind =
            version == Version::V3 && self.options.mount_port.is_none() && !self.options.is_udp;
        let error = asks_rpcbind
            .then(|| connect(self.address, RPCBIND_PORT).err())
            .flatten()?;
        Some(format!(
            "its rpcbind does not answer on port {RPCBIND_PORT} ({error}): start it, or name the port of mountd by mountport="
        ))
    }

    fn mount_as(
        &self,
        version: Version,
        place: &Path,
        flags: MountFlags,
    ) -> rustix::io::Result<()> {
        let mut flags = flags;
        flags.set(MountFlags::NOATIME, self.options.no_atime);
        let options = std::ffi::CString::new(self.words(version)).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount(self.source(), place, "nfs", flags, options.as_c_str())
    }

    /// As /proc/mounts shows it.
    fn source(&self) -> PathBuf {
        let Options { server, export, .. } = self.options;
        match server.contains(':') {
            true => format!("[{server}]:{export}"),
            false => format!("{server}:{export}"),
        }
        .into()
    }

    /// What the kernel is told (nfs(5)).
    fn words(&self, version: Version) -> String {
        let family = if self.address.is_ipv6() { "6" } else { "" };
        let transport = if self.options.is_udp { "udp" } else { "tcp" };
        let mut words = vec![
            format!("vers={}", version.name()),
            format!("proto={transport}{family}"),
            format!("addr={}", self.address),
            format!("port={}", self.options.port),
            // Two exports of one file system share a tree in the kernel otherwise, one below the other: overlayfs
            // refuses to join a directory with one inside it.
            "nosharecache".into(),
        ];
        match version {
            Version::V3 => {
                words.push(format!("mountproto={transport}{family}"));
                if !self.options.locks {
                    words.push("nolock".into());
                }
            }
            Version::V4(_) => words.push(format!("clientaddr={}", self.network.address)),
        }
        words.extend(self.options.others.iter().cloned());
        words.join(",")
    }

    fn reason(&self, errno: Errno) -> String {
        let export = &self.options.export;
        let ours = self.network.address;
        match errno {
            Errno::ACCESS | Errno::PERM => format!(
                "the server refuses {export} to this machine, {ours}: is it exported, and to this address?"
            ),
            Errno::NOENT => format!("the server has no export {export}"),
            Errno::NOTDIR => format!("{export} is no directory there: name the one it is in"),
            Errno::PROTONOSUPPORT | Errno::OPNOTSUPP => {
                "the server does not speak it: choose another by vers=".into()
            }
            Errno::NODEV => {
                "this kernel does not have it: build the initramfs for this root= with a kernel that has nfs".into()
            }
            Errno::INVAL => format!(
                "the kernel does not take the options {:?}",
                self.options.others.join(",")
            ),
            Errno::CONNREFUSED | Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::IO => format!(
                "the server, or its mountd, does not answer ({errno}): see its log"
            ),
            other => other.to_string(),
        }
    }
}
